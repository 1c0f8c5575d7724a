"""Stores of embeddings by content: on disk, or in the memory of the process."""

from skxma.store._memory import MemoryStore
from skxma.store._resolve import default_folder
from skxma.store._sqlite import EmbeddingStore

__all__ = ["EmbeddingStore", "MemoryStore", "default_folder"]
