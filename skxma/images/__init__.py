"""Validate and read images."""

from skxma.images._reading import load_image
from skxma.images._validation import check_images

__all__ = ["check_images", "load_image"]
