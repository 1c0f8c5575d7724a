"""A model as its library builds it, before it is moved to its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Geometry = Callable[[Image.Image], NDArray[np.uint8]]


@dataclass(frozen=True)
class BuiltModel:
    """A model in fp32 on the CPU, with what feeds it.

    Attributes
    ----------
    model : nn.Module
        With `visual`, its image tower, `encode_image` and, where there is a tokenizer, `encode_text`.
    tokenizer : callable or None
        From a list of prompts to tokens with a method `to`; None for a model of images alone.
    preprocessing : dict
        What decides the pixels, as JSON; part of the fingerprint.
    image_size : tuple of int
        Height and width of the pixels.
    mean, std : sequence of float of length 3
        What pixels from 0 to 1 are shifted and divided by.
    make_geometry : callable
        From whether pixels must be exact to the last digit, to the function that makes them from an image.
    logit_scale : float
        The factor of cosines of images and texts.
    logit_bias : float
        What is added to the scaled cosines.
    recipe : sequence of str
        What decides the embeddings and stands neither in the weights nor in the preprocessing.
    """

    model: Any
    tokenizer: Callable[[list[str]], Any] | None
    preprocessing: dict[str, Any]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    make_geometry: Callable[[bool], Geometry]
    logit_scale: float
    logit_bias: float = 0.0
    recipe: tuple[str, ...] = ()


def scale_of(model: Any, default: float) -> float:
    """Return the factor of cosines with which a contrastive model was trained, or the default of one without."""
    scale = getattr(model, "logit_scale", None)
    return default if scale is None else float(scale.detach().float().exp().reshape(-1)[0])


def bias_of(model: Any) -> float:
    """Return what a sigmoid model adds to its scaled cosines; 0 for others."""
    bias = getattr(model, "logit_bias", None)
    return 0.0 if bias is None else float(bias.detach().float().reshape(-1)[0])
