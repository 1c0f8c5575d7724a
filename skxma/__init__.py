"""Accurate image classifiers from a handful of labeled images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from skxma._estimators.search import XMAdapterSearchCV
    from skxma._estimators.xmadapter import XMAdapterClassifier
    from skxma.encoder._clip_encoder import CLIPEncoder
    from skxma.encoder._library_encoders import SentenceTransformerEncoder, TimmEncoder, TransformersEncoder
    from skxma.persistence import load
    from skxma.store._sqlite import EmbeddingStore

# Imported on first use: torch and open_clip take seconds, `import skxma` should not.
_HOMES = {
    "CLIPEncoder": "encoder",
    "EmbeddingStore": "store",
    "SentenceTransformerEncoder": "encoder",
    "TimmEncoder": "encoder",
    "TransformersEncoder": "encoder",
    "XMAdapterClassifier": "_estimators.xmadapter",
    "XMAdapterSearchCV": "_estimators.search",
    "load": "persistence",
}

__all__ = [
    "CLIPEncoder",
    "EmbeddingStore",
    "SentenceTransformerEncoder",
    "TimmEncoder",
    "TransformersEncoder",
    "XMAdapterClassifier",
    "XMAdapterSearchCV",
    "__version__",
    "load",
]

if not TYPE_CHECKING:  # to a type checker a name that is not above is an error

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(f"skxma.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'skxma' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
