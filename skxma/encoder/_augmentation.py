"""Parts of an image: random views seeded by its content, and the middle of a strip."""

import math
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SCALE = (0.5, 1.0)
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
_N_TRIALS = 10
MAX_ASPECT = 50


def views_seed(random_state: Any) -> int | None:
    """Return the integer that a `random_state` stands for.

    Parameters
    ----------
    random_state : int, RandomState, Generator or None
        A generator is advanced.

    Returns
    -------
    seed : int or None
        None for None: views that differ from call to call.

    Raises
    ------
    TypeError
        If `random_state` is none of these.
    """
    if random_state is None:
        return None
    if isinstance(random_state, Integral):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    raise TypeError(f"random_state must be an int, RandomState, Generator or None, got {type(random_state).__name__}.")


def random_views(
    image: Image.Image, n_views: int, size: tuple[int, int], seed: np.random.SeedSequence
) -> NDArray[np.uint8]:
    """Cut random crops of half to the whole of an image's area, every other one mirrored.

    Parameters
    ----------
    image : PIL.Image.Image of mode RGB
        The image.
    n_views : int
        How many views.
    size : tuple of int
        Height and width of a view.
    seed : numpy.random.SeedSequence
        Decides the views.

    Returns
    -------
    views : ndarray of shape (n_views, height, width, 3) of uint8
    """
    rng = np.random.default_rng(seed)
    views = np.empty((n_views, *size, 3), dtype=np.uint8)
    for view in views:
        crop = image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=_draw_box(rng, image.width, image.height))
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        view[...] = np.asarray(crop)
    return views


def _draw_box(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """Draw a box as torchvision's RandomResizedCrop does, but for its fallback: here the whole image."""
    for _ in range(_N_TRIALS):
        area = width * height * rng.uniform(*_SCALE)
        ratio = math.exp(rng.uniform(*_LOG_RATIO))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def crop_long_strip(image: Image.Image) -> Image.Image:
    """Cut from a strip that is more than 50 times as long as wide the middle 50 squares; else the image as it is.

    Resized until its short side is right, an image of 1 x 10000 pixels would take gigabytes, of which a crop keeps the
    middle square; resized until its long side is right, nothing would be left of its short one.

    Parameters
    ----------
    image : PIL.Image.Image

    Returns
    -------
    image : PIL.Image.Image
    """
    width, height = image.size
    across, down = (max(0, side - MAX_ASPECT * min(width, height)) // 2 for side in (width, height))
    return image.crop((across, down, width - across, height - down)) if across or down else image
