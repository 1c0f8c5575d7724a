"""Loading of model files."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from skxma._persistence import hub, model_file
from skxma._persistence.estimator_state import find_estimator, unpack_estimator
from skxma.errors import ModelFileError

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Any:
    """Load a classifier that its `save` or `push_to_hub` wrote.

    Nothing in the file is run, and only classes of a fixed list are made; neither the network nor any other file is
    touched, but for a model of the hub. An encoder that the file names is loaded when images are to be predicted.
    `memory` and the `cache_dir` of a `CLIPEncoder` are not in the file where they name a place on disk: give them with
    ``set_params``.

    Parameters
    ----------
    path : str or path-like
        A file, or "hf-hub:organization/name" for a model of the Hugging Face hub, which is fetched where the hub's
        cache lacks it or has an older one; "@revision" behind it names a revision.

    Returns
    -------
    clf : BaseFewShotClassifier
        An `XMAdapterClassifier` or a rival of `skxma.baselines`, fitted.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no model in such a repository.
    OSError
        If a model of the hub is not in the cache, and the hub can't be reached.
    skxma.errors.ModelFileError
        If it is no model file, is damaged, or needs a later release; a ValueError.
    """
    if isinstance(path, str) and path.startswith(hub.HUB_PREFIX):
        path = hub.fetch(path)
    state, arrays = model_file.read(path)
    try:
        record = find_estimator(state)
        module, _, name = record.path.partition(":")
        return unpack_estimator(getattr(import_module(module), name), record, state, arrays)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = str(error) if isinstance(error, ModelFileError) else f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{os.fspath(path)} cannot be loaded: {reason}") from error
