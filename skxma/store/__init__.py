"""Keep embeddings by content: on disk, or in the memory of the process."""

from skxma.store._memory import MemoryStore, default_memory_store
from skxma.store._resolve import default_folder, resolve_store
from skxma.store._sqlite import EmbeddingStore

__all__ = ["EmbeddingStore", "MemoryStore", "default_folder", "default_memory_store", "resolve_store"]
