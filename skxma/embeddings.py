"""Embeddings: an array that remembers which encoder made it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Embeddings"]

# What only chooses, repeats or joins rows; the rest of numpy's functions make something else of them.
_OF_ROWS = {np.concatenate, np.vstack, np.take, np.compress, np.delete, np.repeat, np.copy, np.append, np.insert}


class Embeddings(NDArray[np.float32]):
    """L2-normalized features with the fingerprint of their encoder.

    Slices, copies and pickles keep the fingerprint. Results of arithmetic are plain arrays, for a product or a mean of
    embeddings is no embedding; rows of two encoders joined have the fingerprint None. `np.asarray` gives the plain
    array.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_features)
        The features.
    fingerprint : str or None
        The encoder's fingerprint.
    blocks : tuple of int or None
        Widths of the parts of a row that several encoders made.

    Attributes
    ----------
    fingerprint : str or None
        Equal for equal encoders, whatever their device and precision.
    blocks : tuple of int or None
        None for embeddings of one encoder.
    """

    fingerprint: str | None
    blocks: tuple[int, ...] | None
    # with the default of 0 joining two of these would give a plain array
    __array_priority__ = 1.0

    def __new__(
        cls, values: ArrayLike, fingerprint: str | None = None, blocks: tuple[int, ...] | None = None
    ) -> "Embeddings":
        """View the values as embeddings; nothing is copied."""
        made = np.asarray(values).view(cls)
        made.fingerprint, made.blocks = fingerprint, blocks
        return made

    def __array_finalize__(self, source: object) -> None:
        self.fingerprint = getattr(source, "fingerprint", None)
        blocks = getattr(source, "blocks", None)
        # some columns are no longer the blocks
        self.blocks = blocks if blocks is not None and self.shape[-1:] == (sum(blocks),) else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(func, types, args, kwargs)
        if not isinstance(result, Embeddings):
            return result
        if func not in _OF_ROWS:
            return np.asarray(result)
        found = set(_fingerprints(args))
        result.fingerprint = found.pop() if len(found) == 1 else None
        blocks = {getattr(rows, "blocks", None) for rows in _arrays(args) if rows.ndim == result.ndim}
        result.blocks = blocks.pop() if len(blocks) == 1 else None
        return result

    def __reduce__(self) -> Any:
        return _rebuild, (np.asarray(self), self.fingerprint, self.blocks)

    def __deepcopy__(self, memo: Any) -> "Embeddings":
        return Embeddings(np.array(self, copy=True, subok=False), self.fingerprint, self.blocks)


def _rebuild(values: ArrayLike, fingerprint: str | None, blocks: tuple[int, ...] | None = None) -> Embeddings:
    return Embeddings(values, fingerprint, blocks)


def _fingerprints(args: Iterable[Any]) -> Iterator[str | None]:
    """Yield the fingerprint of every array among the arguments; None for one that has none."""
    for array in _arrays(args):
        yield getattr(array, "fingerprint", None)


def _arrays(args: Iterable[Any]) -> Iterator[NDArray[Any]]:
    """Yield every array among the arguments."""
    for arg in args:
        if isinstance(arg, np.ndarray):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from _arrays(arg)


SAME_IMAGE = 1 - 1e-6
"""Cosine from which on two embeddings are of one image: single precision moves it by less, another image by more."""

BLOCK_ROWS = 2**9
Floats = NDArray[np.float32]


def is_embeddings(X: Any, kinds: str = "f") -> bool:
    """Tell embeddings from images: floats of two dimensions are never an image here, in an array or in a frame.

    Parameters
    ----------
    X : object
    kinds : str
        Kinds of numpy's types that an embedding may have. Where there are no images, integers may be embeddings, too.
    """
    if not isinstance(X, np.ndarray):
        if not is_frame(X):
            return False
        X = X.to_numpy()
    return bool(X.ndim == 2 and X.dtype.kind in kinds)


def embedding_array(X: Any) -> Any:
    """Return the array of a pandas or polars frame, as ``set_output`` has encoders make; anything else as it is."""
    return X.to_numpy() if is_frame(X) else X


def host_array(values: Any) -> Any:
    """Return a tensor of torch, on any device and of any precision, as an array; anything else as it is."""
    if not (hasattr(values, "detach") and hasattr(values, "cpu")):
        return values
    tensor = values.detach().cpu()
    # numpy has no bfloat16
    return (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()


def is_frame(X: Any) -> bool:
    """Return True for a table of pandas, polars or the like; skxma depends on none of them."""
    return hasattr(X, "columns") and hasattr(X, "to_numpy") and len(getattr(X, "shape", ())) == 2


def unit_rows(X: NDArray[Any]) -> Floats:
    """Scale rows (n, D) or (n, P, D) to unit length in float32, whatever their magnitude; zero rows stay zero."""
    unit = np.empty(X.shape, dtype=np.float32)
    for start in range(0, len(X), BLOCK_ROWS):
        some = X[start : start + BLOCK_ROWS]
        largest = np.abs(some).max(axis=-1, keepdims=True)
        scaled = np.asarray(some / np.where(largest > 0, largest, 1), dtype=np.float64)
        length = np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
        unit[start : start + BLOCK_ROWS] = scaled / np.where(length > 0, length, 1)
    return unit


def unit_blocks(X: NDArray[Any], blocks: Sequence[int] | None) -> Floats:
    """Scale rows (n, D) to unit length, of several encoders so that all parts of a row have one length.

    Parameters
    ----------
    X : ndarray of shape (n, D)
    blocks : sequence of int or None
        Widths of the encoders' parts; None for one encoder.
    """
    if blocks is None:
        return unit_rows(X)
    parts = np.split(X, np.cumsum(blocks)[:-1], axis=1)
    joined: Floats = np.concatenate([unit_rows(part) for part in parts], axis=1)
    joined *= np.float32(len(blocks) ** -0.5)
    return joined
