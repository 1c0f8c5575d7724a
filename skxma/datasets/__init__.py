"""Data sets: the bundled emoji, folders and tables of images, feature files, CoOp's splits."""

from skxma.datasets._coop import load_coop
from skxma.datasets._emoji import load_emoji
from skxma.datasets._features import load_features, save_features
from skxma.datasets._folders import load_image_folder
from skxma.datasets._labeled import load_labeled_images

__all__ = ["load_coop", "load_emoji", "load_features", "load_image_folder", "load_labeled_images", "save_features"]
