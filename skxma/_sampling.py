"""Folds and stratified subsamples of a support set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from skxma.caches import Integers


def stratified_folds(
    labels: NDArray[np.intp], n_folds: int = 4, groups: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Deal the samples of each class out to folds in their order; returns the fold of each sample (N,).

    Each class starts at the fold after that at which the class before it started, by the order in which the classes
    first appear. So class names play no part, and single samples do not all fall into one fold.

    Parameters
    ----------
    labels : ndarray of shape (N,)
    n_folds : int
    groups : ndarray of shape (N,), optional
        Samples of one group share a fold: the first of each is dealt out.
    """
    if groups is not None:
        _, first_of_group, group = np.unique(groups, return_index=True, return_inverse=True)
        order = np.argsort(first_of_group)
        folds_of_group = np.empty(len(order), dtype=np.intp)
        folds_of_group[order] = stratified_folds(labels[first_of_group[order]], n_folds)
        return folds_of_group[group]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    class_rank = (rankdata(first, method="ordinal") - 1)[inverse]
    order = np.argsort(class_rank, kind="stable")
    place = np.arange(len(labels)) - np.searchsorted(class_rank[order], class_rank[order])
    folds = np.empty(len(labels), dtype=np.intp)
    folds[order] = (place + class_rank[order]) % n_folds
    return folds


def group_members(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Samples of the group of each sample (N, g), ascending, filled up with −1 to the size g of the largest group."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members = np.full((len(sizes), sizes.max()), -1, dtype=np.intp)
    members[group[order], place] = order
    return members[group]


def fusion_training_rows(labels: Integers, n_classes: int, max_scores: int, max_pairs: int) -> Integers:
    """Rows (n,) of the samples from which a few scalars are learned: all, or an equal part of each class.

    Parameters
    ----------
    labels : ndarray of shape (N,)
    n_classes : int
    max_scores : int
        Most scores ``n · C`` per expert.
    max_pairs : int
        Most affinities ``n · N``, up to the rounding of the parts.
    """
    n_parts = max(-(-len(labels) * n_classes // max_scores), -(-(len(labels) ** 2) // max_pairs))
    return np.flatnonzero(stratified_folds(labels, n_parts) == 0)


def stratified_subsample(labels: Integers, n_classes: int, size: int, min_per_class: int) -> NDArray[np.bool_]:
    """Choose the same part of each class; returns a mask (N,).

    Parameters
    ----------
    labels : ndarray of shape (N,)
    n_classes : int
    size : int
        Samples of the subsample, about.
    min_per_class : int
        So many of each class are chosen, where there are as many.
    """
    shots = np.bincount(labels, minlength=n_classes)
    wanted = np.minimum(shots, np.maximum(min_per_class, -(-shots * size // len(labels))))
    order = np.argsort(labels, kind="stable")
    class_size, class_wanted = shots[labels[order]], wanted[labels[order]]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(shots) - shots, shots)
    chosen = np.zeros(len(labels), dtype=bool)
    # evenly spaced: the sample at which the rounded running quota rises is chosen
    chosen[order] = (place + 1) * class_wanted // class_size > place * class_wanted // class_size
    return chosen
