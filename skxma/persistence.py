"""Loading a model file: which classes may come out of one."""

from __future__ import annotations

import os
from typing import Any

from skxma import __version__, baselines
from skxma._estimators.base import FewShotClassifier
from skxma._estimators.xmadapter import XMAdapterClassifier
from skxma._persistence import model_file
from skxma._persistence.estimator_state import unpack_estimator
from skxma.errors import ModelFileError

LOADABLE: dict[str, type[FewShotClassifier]] = {
    "XMAdapterClassifier": XMAdapterClassifier,
    **{name: getattr(baselines, name) for name in baselines.__all__},
}


def load(path: str | os.PathLike[str]) -> Any:
    """Load a classifier that its `save` wrote.

    Nothing in the file is run and nothing is looked up by a name in it; neither the network nor any other file is
    touched. An encoder that it names is loaded when pictures are to be predicted. `memory` and, of a `CLIPEncoder`,
    `cache_dir` are not in the file where they name a place: give them with ``set_params``.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    clf : FewShotClassifier
        An `XMAdapterClassifier` or a rival of `skxma.baselines`, fitted.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    skxma.errors.ModelFileError
        If it is no model file, is damaged, or needs a later release; a ValueError.
    """
    state, arrays = model_file.read(path)
    try:
        name = state["class"]
        if name not in LOADABLE:
            raise ModelFileError(f"it holds a {name!r}, which skxma {__version__} does not know. Update skxma.")
        return unpack_estimator(LOADABLE[name], state, arrays)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = str(error) if isinstance(error, ModelFileError) else f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{os.fspath(path)} cannot be loaded: {reason}") from error
