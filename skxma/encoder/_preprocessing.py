"""A model's own resizing and cropping, as open_clip states it, to pixels of the model's size."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from skxma.encoder._augmentation import crop_long_strip

# the images are RGB already; the last three are done a batch at a time on the device
_LEFT_OUT = {"MaybeConvertMode", "_convert_to_rgb", "MaybeToTensor", "ToTensor", "Normalize"}
_SMOOTH = {"bilinear", "bicubic"}


def make_geometry(transform: Any, exact: bool) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """Keep of open_clip's transform the resizing and cropping.

    Parameters
    ----------
    transform : torchvision.transforms.Compose
        As open_clip makes it for evaluation.
    exact : bool
        Whether pixels are Pillow's to the last digit. torch resizes four times as fast, to values that are a level off
        here and there: less by far than what a model in half precision rounds away.

    Returns
    -------
    geometry : callable from PIL.Image.Image of mode RGB to ndarray of shape (height, width, 3) of uint8
    """
    steps = [step for step in transform.transforms if _name(step) not in _LEFT_OUT]
    keeps_shape = any(
        _name(step) == "ResizeKeepRatio" or isinstance(getattr(step, "size", None), int) for step in steps
    )
    if not exact and _torch_can(steps):
        steps[0] = partial(_resize, step=steps[0])

    def apply(image: Image.Image) -> NDArray[np.uint8]:
        pixels: Any = crop_long_strip(image) if keeps_shape else image
        for step in steps:
            pixels = step(pixels)
        return pixels.permute(1, 2, 0).numpy() if isinstance(pixels, torch.Tensor) else np.asarray(pixels)

    return apply


def _name(step: Any) -> str:
    """Name of a function, or of an object's class."""
    return str(getattr(step, "__name__", type(step).__name__))


def _torch_can(steps: list[Any]) -> bool:
    """Tell whether the steps are one smooth resizing, with or without a crop after it."""
    names = [_name(step) for step in steps]
    if names not in (["Resize"], ["Resize", "CenterCrop"]):
        return False
    return steps[0].interpolation.value in _SMOOTH and steps[0].max_size is None


def _resize(image: Image.Image, step: Any) -> torch.Tensor:
    """Resize as torchvision's Resize does, to (3, height, width) of uint8."""
    size = [step.size] if isinstance(step.size, int) else list(step.size)
    if len(size) == 1:
        short, long = sorted(image.size)
        other = int(size[0] * long / short)
        size = [other, size[0]] if image.width < image.height else [size[0], other]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(
        pixels, size=size, mode=step.interpolation.value, antialias=True, align_corners=False
    )[0]
