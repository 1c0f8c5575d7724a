"""Encode images and texts with a frozen model."""

from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.encoder._library_encoders import SentenceTransformerEncoder, TimmEncoder, TransformersEncoder
from skxma.encoder._model_cache import clear_models

__all__ = ["CLIPEncoder", "SentenceTransformerEncoder", "TimmEncoder", "TransformersEncoder", "clear_models"]
