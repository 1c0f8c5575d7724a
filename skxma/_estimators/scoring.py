"""Scores of queries, chunk by chunk, and what follows from logits: probabilities and decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma._runtime.device import explain_out_of_memory
from skxma._runtime.threads import limit_torch_threads
from skxma.caches import Floats, ImageCache, reading_fitted_arrays

TIE = 1e-12
CHUNK_ENTRIES = 2**22
Scoring = Callable[[Tensor], Tensor]


def chunks(embeddings: Floats, like: Tensor, width: int) -> Iterator[Tensor]:
    """Yield embeddings (n, D) as tensors in pieces that fit in memory together with an array (n, width)."""
    for piece in torch.as_tensor(embeddings).split(max(1, CHUNK_ENTRIES // max(width, embeddings.shape[1]))):
        # converted there, for single precision is half the bytes
        yield piece.to(like.device).to(like.dtype)


def score(
    embeddings: Floats,
    make_scorer: Callable[[Tensor], Scoring],
    like: Tensor,
    cache: ImageCache,
    width: Callable[[Tensor], int],
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
    width : callable
        Takes `like` and returns the length of the longest row of an intermediate array, once the scorer is made.

    Returns
    -------
    scores : ndarray of shape (n, k)
    """
    n_keys, dim = cache.keys.shape
    threads = limit_torch_threads(float(len(embeddings)) * dim * (n_keys + dim))
    told = explain_out_of_memory(f"Predicting with {n_keys} keys of {cache.n_classes} classes", like.device)
    with torch.inference_mode(), reading_fitted_arrays(), threads, told:
        scorer = make_scorer(like)
        pieces = chunks(embeddings, like, max(width(like), cache.n_classes))
        scores = [scorer(piece).cpu().double().numpy() for piece in pieces]
        return scores[0] if len(scores) == 1 else np.concatenate(scores)


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
