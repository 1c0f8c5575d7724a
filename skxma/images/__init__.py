"""Validate and read images."""

from skxma.images._content_key import content_key, file_version
from skxma.images._reading import load_image
from skxma.images._sources import ImageLike
from skxma.images._validation import as_items, check_images, find_problem

__all__ = ["ImageLike", "as_items", "check_images", "content_key", "file_version", "find_problem", "load_image"]
