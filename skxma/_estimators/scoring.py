"""Scores of queries, chunk by chunk, and what follows from logits: probabilities and decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma._evidence.fitted import FittedEvidence
from skxma._runtime.device import explain_out_of_memory
from skxma._runtime.threads import SMALL_WORK, limit_torch_threads, start_in_thread, torch_threads
from skxma.caches import Floats, ImageCache, reading_fitted_arrays

TIE = 1e-12
"""Difference of two logits that no probability shows, which rounding alone makes: ten digits below what the logits of
single precision tell apart. Not tuned."""
CHUNK_ENTRIES = 2**22
"""Entries of the longest array that scoring makes of a chunk: a bound on memory, 32 MiB in double precision."""
ROWS_PER_THREAD = 512
"""Queries of an exact index that one thread scores at once: their arrays stay in the processor's cache from one step to
the next."""
LARGE_KEYS = 2**22
"""Entries of the keys, 16 MiB, from which on several threads score even one query. It waits for memory, from which they
read more than one thread does; where less is read, they would wait longer for one another on a busy machine."""
Scoring = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chunking:
    """Rule by which queries are cut into chunks.

    Attributes
    ----------
    width : int
        Length of the longest row that scoring holds for a query.
    rows_per_thread : int or None
        Queries that one thread scores best, or None where all threads of torch work on as many queries as memory
        allows.
    """

    width: int
    rows_per_thread: int | None = None

    @classmethod
    def of(cls, model: FittedEvidence, like: Tensor) -> Chunking:
        """Those of fitted evidence, on the device and in the precision of `like`."""
        n_clusters = model.scorer(like).index.n_clusters
        if n_clusters or like.device.type != "cpu":
            # the more queries at once, the more of them share a cluster
            return cls(n_clusters // 4)
        return cls(0, ROWS_PER_THREAD)

    def n_rows(self, least_width: int, n_queries: int, n_threads: int) -> int:
        """Queries of a chunk, where a row has at least so many entries."""
        most = _n_rows(max(self.width, least_width))
        if self.rows_per_thread is None:
            return most
        # no thread goes without, and the arrays of all of them fit in memory together
        return max(1, min(self.rows_per_thread, most // n_threads, math.ceil(n_queries / n_threads)))


def chunks(embeddings: Floats, like: Tensor, width: int) -> Iterator[Tensor]:
    """Yield embeddings (n, D) as tensors in chunks that fit in memory together with an array (n, width)."""
    for chunk in torch.as_tensor(embeddings).split(_n_rows(max(width, embeddings.shape[1]))):
        yield _converted(chunk, like)


def _n_rows(width: int) -> int:
    return max(1, CHUNK_ENTRIES // width)


def _converted(chunk: Tensor, like: Tensor) -> Tensor:
    # converted on the device, for single precision is half the bytes
    return chunk.to(like.device).to(like.dtype)


def score(
    embeddings: Floats,
    make_scorer: Callable[[Tensor], Scoring],
    like: Tensor,
    cache: ImageCache,
    chunking_of: Callable[[Tensor], Chunking],
) -> NDArray[np.float64]:
    """Score queries.

    Parameters
    ----------
    embeddings : ndarray of shape (n, D)
        L2-normalized.
    make_scorer : callable
        Takes `like` and returns the function from a chunk (n', D) to its scores (n', k); called once.
    like : Tensor
        Gives the device and the precision of the computation.
    cache : ImageCache
        The keys that are read.
    chunking_of : callable
        Takes `like` and returns how the queries are cut, once the scorer is made.

    Returns
    -------
    scores : ndarray of shape (n, k)
    """
    n_keys, dim = cache.keys.shape
    work = float(len(embeddings)) * dim * (n_keys + dim)
    n_threads = torch_threads() if work > SMALL_WORK else 1
    memory_guard = explain_out_of_memory(f"Predicting with {n_keys} keys of {cache.n_classes} classes", like.device)

    def scores_of(chunk: Tensor) -> NDArray[np.float64]:
        with torch.inference_mode(), reading_fitted_arrays():
            scores: NDArray[np.float64] = scorer(_converted(chunk, like)).cpu().double().numpy()
            return scores

    with limit_torch_threads(math.inf if n_keys * dim >= LARGE_KEYS else work), memory_guard:
        with torch.inference_mode(), reading_fitted_arrays():
            scorer, chunking = make_scorer(like), chunking_of(like)
        n_rows = chunking.n_rows(max(cache.n_classes, dim), len(embeddings), n_threads)
        parts = torch.as_tensor(embeddings).split(n_rows)
        if len(parts) == 1:
            return scores_of(parts[0])
        if chunking.rows_per_thread is None or n_threads == 1:
            return np.concatenate([scores_of(chunk) for chunk in parts])
        # threads that share an operation wait for one another at the end of each; with a chunk of its own none waits
        with limit_torch_threads(0.0), ThreadPoolExecutor(n_threads) as pool:
            started = [start_in_thread(pool, scores_of, chunk) for chunk in parts]
            return np.concatenate([one.result() for one in started])


def settle_ties(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise logits (n, C) within 1e-12 of the maximum of their row to it.

    Probabilities do not show so small a difference; without this, the most probable class could be another one for
    the logits than for the probabilities.
    """
    best = logits.max(axis=1, keepdims=True)
    return np.where(logits > best - TIE, best, logits)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (n, C) of logits (n, C)."""
    probabilities: NDArray[np.float64] = scipy.special.softmax(logits, axis=1)
    return probabilities
