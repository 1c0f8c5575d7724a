"""Corruptions of images, as cameras and networks make them: for the protocol of domain generalization."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Images = NDArray[np.uint8]
NOISE_STD = 20.0
BLUR_SIZE = 0.03
JPEG_QUALITY = 15
CONTRAST = 0.4
PIXELATE = 0.5


def noise(images: Images) -> Images:
    """Add Gaussian noise of 20 gray levels to images (n, H, W, 3); the same noise in every call."""
    added = np.random.default_rng(0).normal(0, NOISE_STD, images.shape)
    return np.clip(images + added, 0, 255).round().astype(np.uint8)


def blur(images: Images) -> Images:
    """Blur images (n, H, W, 3) by a Gaussian whose deviation is 3 % of their width."""
    radius = BLUR_SIZE * images.shape[2]
    return _each(images, lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def jpeg(images: Images) -> Images:
    """Compress images (n, H, W, 3) as JPEG of quality 15."""

    def compress(image: Image.Image) -> Image.Image:
        held = io.BytesIO()
        image.save(held, "JPEG", quality=JPEG_QUALITY)
        return Image.open(held)

    return _each(images, compress)


def contrast(images: Images) -> Images:
    """Reduce the contrast of images (n, H, W, 3) to 40 %, around the mean of each."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return (mean + CONTRAST * (images - mean)).round().astype(np.uint8)


def pixelate(images: Images) -> Images:
    """Reduce images (n, H, W, 3) to half of their size, and enlarge them again by repeating pixels."""

    def coarsen(image: Image.Image) -> Image.Image:
        small = image.resize([max(1, round(PIXELATE * side)) for side in image.size], Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.NEAREST)

    return _each(images, coarsen)


CORRUPTIONS: dict[str, Callable[[Images], Images]] = {
    kind.__name__: kind for kind in (noise, blur, jpeg, contrast, pixelate)
}


def _each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    def changed() -> Iterator[NDArray[np.uint8]]:
        for image in images:
            yield np.asarray(change(Image.fromarray(image)).convert("RGB"))

    return np.stack(list(changed()))
