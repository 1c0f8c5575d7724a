"""Process-wide cache of loaded models."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch

from skxma._runtime.forks import register_after_fork
from skxma.encoder._loaded_model import LoadedModel
from skxma.encoder._loading import prepare
from skxma.encoder._model_names import find_source

# Bounded, for each may take gigabytes: two hold a model and the one it is compared with.
MAX_LOADED = 2

_loaded: OrderedDict[tuple[Any, ...], LoadedModel] = OrderedDict()
_loading = threading.RLock()


def load_once(
    model: str, device: torch.device, precision: str, *, cache_dir: str | None = None, local_files_only: bool = False
) -> LoadedModel:
    """Return a model, loaded once a process for each device and precision.

    Parameters
    ----------
    model : str
        "name/tag" of open_clip's registry, "hf-hub:org/name", "local-dir:/path", "photo", "tiny", or a library's name
        and a model of it, as `CLIPEncoder` takes them.
    device : torch.device
        Where it is to run.
    precision : {"fp32", "bf16", "fp16"}
        The number format of its weights and activations.
    cache_dir : str, optional
        The hub's cache folder.
    local_files_only : bool, default=False
        Whether to refuse to download.

    Returns
    -------
    loaded : LoadedModel
        In evaluation mode, without gradients; shared, so not to be changed.

    Raises
    ------
    EncoderNotFoundError
        If the name is unknown.
    WeightsError
        If the weights can't be had or don't fit.
    """
    source = find_source(model)
    key = (source.library, source.identity or source.name, str(device), precision, cache_dir)
    with _loading:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
        made = prepare(source, device, precision, cache_dir, local_files_only)
        _loaded[key] = made
        while len(_loaded) > MAX_LOADED:
            _loaded.popitem(last=False)
        return made


def clear_models() -> None:
    """Let go of every loaded model."""
    with _loading:
        _loaded.clear()


def _renew_loading_lock() -> None:
    global _loading
    _loading = threading.RLock()


register_after_fork(_renew_loading_lock)
