"""Store of embeddings in the memory of one process."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float16]

DTYPES = ("float32", "float16")
_stores: weakref.WeakSet["MemoryStore"] = weakref.WeakSet()


def _renew_locks() -> None:
    """Replace, in a forked process, locks that a thread of the parent may hold."""
    for store in list(_stores):
        store._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def check_batch(keys: Sequence[bytes], array: NDArray[Any]) -> Floats:
    """Validate the embeddings that are to be stored under some keys.

    Parameters
    ----------
    keys : sequence of bytes of length n
        Digests of contents.
    array : ndarray of shape (n, n_features)
        Of float32 or float16.

    Returns
    -------
    array : ndarray of shape (n, n_features)
        The same.

    Raises
    ------
    TypeError, ValueError
        If the array is of another dtype or has another number of rows.
    """
    array = np.asarray(array)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"Embeddings must be float32 or float16, got {array.dtype}.")
    if array.ndim != 2 or len(array) != len(keys):
        raise ValueError(f"Expected one row of embeddings per key: {len(keys)} keys, an array of shape {array.shape}.")
    return array


class MemoryStore:
    """Store of embeddings in this process; drops the least recently used first.

    A copy of the store is the store itself, so that clones of an estimator share it; a pickle of it is empty.

    Parameters
    ----------
    max_bytes : int, default=256 MiB
        The most that the arrays may take.
    """

    def __init__(self, max_bytes: int = 2**28) -> None:
        self.max_bytes = max_bytes
        self._rows: OrderedDict[tuple[str, bytes], Floats] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()
        _stores.add(self)

    def get_many(self, keys: Sequence[bytes], namespace: str) -> dict[bytes, Floats]:
        """Return the stored embeddings of some keys.

        Parameters
        ----------
        keys : sequence of bytes
            Digests of contents.
        namespace : str
            Everything besides the content that the values depend on.

        Returns
        -------
        found : dict of bytes to ndarray of shape (n_features,)
            The stored ones; the arrays are read-only.
        """
        found = {}
        with self._lock:
            for key in keys:
                row = self._rows.get((namespace, key))
                if row is not None:
                    self._rows.move_to_end((namespace, key))
                    found[key] = row
        return found

    def put_many(self, keys: Sequence[bytes], namespace: str, array: NDArray[Any]) -> None:
        """Store one row per key.

        Parameters
        ----------
        keys : sequence of bytes of length n
            Digests of contents.
        namespace : str
            Everything besides the content that the values depend on.
        array : ndarray of shape (n, n_features) of float32 or float16
            Copied.

        Raises
        ------
        TypeError, ValueError
            If the array is of another dtype or has another number of rows.
        """
        array = check_batch(keys, array)
        with self._lock:
            for key, values in zip(keys, array, strict=True):
                row = np.array(values)
                row.flags.writeable = False
                known = self._rows.pop((namespace, key), None)
                self._n_bytes += row.nbytes - (0 if known is None else known.nbytes)
                self._rows[namespace, key] = row
            while self._n_bytes > self.max_bytes:
                self._n_bytes -= self._rows.popitem(last=False)[1].nbytes

    def info(self) -> dict[str, Any]:
        """Return the number of embeddings and bytes held, and the bound.

        Returns
        -------
        info : dict
            With the keys n_embeddings, n_bytes and max_bytes.
        """
        with self._lock:
            return {"n_embeddings": len(self._rows), "n_bytes": self._n_bytes, "max_bytes": self.max_bytes}

    def clear(self) -> None:
        """Remove all embeddings."""
        with self._lock:
            self._rows.clear()
            self._n_bytes = 0

    def __deepcopy__(self, memo: Any) -> "MemoryStore":
        return self

    def __reduce__(self) -> Any:
        return MemoryStore, (self.max_bytes,)


_DEFAULT = MemoryStore()


def default_memory_store() -> MemoryStore:
    """Return the store that all estimators of this process share by default.

    Returns
    -------
    store : MemoryStore
        Always the same one.
    """
    return _DEFAULT
