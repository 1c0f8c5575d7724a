"""Folds and stratified subsamples of a support set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skxma.caches import Integers

MAX_SCORES = 2**22
MAX_PAIRS = 2**26


def rows_to_learn_from(labels: Integers, n_classes: int) -> Integers:
    """Samples (n,) on which fusion weights are learned: so many of each class that their scores are few enough.

    Their affinities to all samples are too.
    """
    n_parts = max(-(-len(labels) * n_classes // MAX_SCORES), -(-(len(labels) ** 2) // MAX_PAIRS))
    return np.flatnonzero(stratified_folds(labels, n_parts) == 0)


MAX_SUPPORT, SHARE, MIN_OF_CLASS = 2**15, 2**14, 8


def share_of_each(labels: Integers, n_classes: int) -> NDArray[np.bool_]:
    """Which samples (N,) are the share: as large a part of each class, and `MIN_OF_CLASS` of it where there are."""
    shots = np.bincount(labels, minlength=n_classes)
    wanted = np.minimum(shots, np.maximum(MIN_OF_CLASS, -(-shots * SHARE // len(labels))))
    order = np.argsort(labels, kind="stable")
    sizes, part = shots[labels[order]], wanted[labels[order]]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(shots) - shots, shots)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order] = (place + 1) * part // sizes > place * part // sizes
    return chosen


N_FOLDS = 4


def stratified_folds(labels: NDArray[np.intp], n_folds: int = N_FOLDS) -> NDArray[np.intp]:
    """Fold of each sample (N,): the samples of a class are dealt out in their order.

    The first of each class goes to the next fold than that of the class which came before, so that what the classes
    are called plays no part.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    turn = np.argsort(np.argsort(first))[inverse]
    order = np.argsort(turn, kind="stable")
    place = np.arange(len(labels)) - np.searchsorted(turn[order], turn[order])
    folds = np.empty(len(labels), dtype=np.intp)
    folds[order] = (place + turn[order]) % n_folds
    return folds
