"""Encode images and texts with a frozen CLIP."""

from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.encoder._model_cache import clear_models

__all__ = ["CLIPEncoder", "clear_models"]
