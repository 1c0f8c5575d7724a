"""Texts that every model asks for, embedded once per machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma.embeddings import Floats
from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.prompts import make_prompts
from skxma.store._kept import kept_arrays


def kept_class_weights(encoder: Any, names: Sequence[str], templates: str, make: Callable[[], Floats]) -> Floats:
    """Return class weights from the user's cache folder, or make them and keep them there.

    Only those of an encoder whose `memory` is left at None are kept: another value says where embeddings go.

    Parameters
    ----------
    encoder : object
        Any encoder; those of an encoder of the caller's own are made each time.
    names : sequence of str of length n
    templates : str
        As in `CLIPEncoder.zero_shot_weights`.
    make : callable
        Returns the weights (n, D), of length 1.

    Returns
    -------
    weights : ndarray of shape (n, D)
    """
    if not isinstance(encoder, CLIPEncoder) or encoder.memory is not None:
        return make()
    loaded = encoder._load()
    shape = (len(names), loaded.n_features)

    def fits(arrays: Mapping[str, NDArray[Any]]) -> bool:
        rows = arrays["weights"]
        return rows.shape == shape and rows.dtype == np.float32 and bool(np.isfinite(rows).all())

    prompts = [prompt for name in names for prompt in ("", *make_prompts(name, templates))]
    about = ("class weights", loaded.namespace("class"), *prompts)
    rows: Floats = kept_arrays(about, lambda: {"weights": make()}, fits)["weights"]
    return rows
