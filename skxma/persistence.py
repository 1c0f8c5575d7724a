"""Loading of model files."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from skxma._persistence import model_file
from skxma._persistence.estimator_state import find_estimator, unpack_estimator
from skxma.errors import ModelFileError

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Any:
    """Load a classifier that its `save` wrote.

    Nothing in the file is run, and only classes of a fixed list are made; neither the network nor any other file is
    touched. An encoder that the file names is loaded when images are to be predicted. `memory` and the `cache_dir` of
    a `CLIPEncoder` are not in the file where they name a place on disk: give them with ``set_params``.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    clf : BaseFewShotClassifier
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
        record = find_estimator(state)
        module, _, name = record.path.partition(":")
        return unpack_estimator(getattr(import_module(module), name), record, state, arrays)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = str(error) if isinstance(error, ModelFileError) else f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{os.fspath(path)} cannot be loaded: {reason}") from error
