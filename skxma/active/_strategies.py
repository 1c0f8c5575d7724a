"""The rules by which images are chosen, as functions of points, probabilities and labels.

Points are L2-normalized rows, so that distances and cosines order alike. Every rule returns positions, the most useful
first, and may return fewer than `n`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from skxma.caches import Floats, Integers

# k-means++ takes longer than all else from here on, and random starts end no higher
SMALL_POOL = 5_000
LARGE_POOL = 20_000
MOST_TYPICLUST_CLUSTERS = 500
TYPICAL_NEIGHBORS = 20


def cluster(points: Floats, n: int, seed: int, weights: NDArray[np.float64] | None = None) -> tuple[Integers, Floats]:
    """Cluster points by k-means.

    Parameters
    ----------
    points : ndarray of shape (N, R)
    n : int
        Number of clusters, at most N.
    seed : int
    weights : ndarray of shape (N,), optional

    Returns
    -------
    labels : ndarray of shape (N,)
        Cluster of each point.
    distances : ndarray of shape (N,)
        Distance to the center of the own cluster, squared.
    """
    start = "k-means++" if len(points) <= SMALL_POOL else "random"
    means = KMeans(n, init=start, n_init=4, random_state=seed)
    n_some = max(LARGE_POOL, 2 * n)
    with warnings.catch_warnings():
        # fewer different points than clusters: some clusters stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(points) <= n_some:
            labels = means.fit(points, sample_weight=weights).labels_
        else:
            # the centers of some are those of all
            some = np.random.default_rng(seed).choice(len(points), n_some, replace=False)
            means.fit(points[some], sample_weight=None if weights is None else weights[some])
            labels = means.predict(points)
    centers = means.cluster_centers_.astype(points.dtype, copy=False)
    # |x|² is 1
    distances = 1 + (centers**2).sum(1)[labels] - 2 * np.einsum("nr,nr->n", points, centers[labels])
    return labels.astype(np.intp), distances


def central(points: Floats, n: int, seed: int, weights: NDArray[np.float64] | None = None) -> Integers:
    """The point nearest to the center of each of `n` k-means clusters, that of the heaviest cluster first.

    Parameters
    ----------
    points : ndarray of shape (N, R)
    n : int
    seed : int
    weights : ndarray of shape (N,), optional
        Ones by default, so that the heaviest cluster is the largest. With entropies it is CLUE [1]_.

    References
    ----------
    .. [1] Prabhu et al., "Active Domain Adaptation via Clustering Uncertainty-weighted Embeddings", ICCV 2021.
    """
    n = min(n, len(points))
    labels, distances = cluster(points, n, seed, weights)
    mass = np.bincount(labels, weights, minlength=n)
    order = np.lexsort((distances, labels))
    found, first = np.unique(labels[order], return_index=True)
    return order[first][np.argsort(-mass[found], kind="stable")]


def farthest_first(points: Floats, n: int, known: Floats) -> Integers:
    """The point farthest from all known and chosen ones, again and again (k-center greedy, coreset [1]_).

    Parameters
    ----------
    points : ndarray of shape (N, R)
    n : int
    known : ndarray of shape (M, R)
        Where it is empty, the first choice is the point nearest to the mean of all.

    References
    ----------
    .. [1] Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.
    """
    chosen: list[int] = []
    n = min(n, len(points))
    if not n:
        return np.empty(0, dtype=np.intp)
    nearest = np.full(len(points), -np.inf, dtype=points.dtype)
    for one in known:
        np.maximum(nearest, points @ one, out=nearest)
    for _ in range(n):
        row = int(nearest.argmin() if chosen or len(known) else (points @ points.mean(0)).argmax())
        chosen.append(row)
        np.maximum(nearest, points @ points[row], out=nearest)
        nearest[row] = np.inf
    return np.array(chosen, dtype=np.intp)


def typical(points: Floats, n: int, known: Floats, seed: int) -> Integers:
    """The most typical point of each of the largest clusters without a known one (TypiClust [1]_).

    Typicality is the inverse of the mean distance to the 20 nearest points of the cluster.

    Parameters
    ----------
    points : ndarray of shape (N, R)
    n : int
    known : ndarray of shape (M, R)
    seed : int

    References
    ----------
    .. [1] Hacohen, Dekel & Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
       ICML 2022.
    """
    everything = np.concatenate([points, known])
    n_clusters = min(len(known) + n, max(MOST_TYPICLUST_CLUSTERS, n), len(everything))
    labels, _ = cluster(everything, n_clusters, seed)
    inside = labels[: len(points)]
    sizes = np.bincount(inside, minlength=n_clusters)
    n_known = np.bincount(labels[len(points) :], minlength=n_clusters)
    chosen = []
    for c in np.lexsort((-sizes, n_known))[:n]:
        rows = np.flatnonzero(inside == c)
        if len(rows):
            cosines = points[rows] @ points[rows].T
            n_near = min(TYPICAL_NEIGHBORS, len(rows) - 1)
            near = -np.partition(-cosines, n_near, axis=1)[:, : n_near + 1]
            chosen.append(int(rows[np.sqrt(np.maximum(2 - 2 * near, 0)).sum(1).argmin()]))
    return np.array(chosen, dtype=np.intp)


def fewest_labels_first(
    predicted: Integers, margins: NDArray[np.float64], n_labels: Integers, n: int, is_free: Callable[[int], bool]
) -> Integers:
    """From the class with the fewest labels, again and again, the image with the smallest margin that it was given.

    A choice counts as a label of the class that the model gives it. Among equals the class with the smaller margin is
    next.

    Parameters
    ----------
    predicted : ndarray of shape (N,)
        Class index that the model gives each image.
    margins : ndarray of shape (N,)
        Probability of the first class less that of the second.
    n_labels : ndarray of shape (C,)
        Labels of each class.
    n : int
    is_free : callable
        Whether an image, by its position, may be chosen after the ones before; it is asked once about each.
    """
    order = np.lexsort((margins, predicted))
    starts = np.searchsorted(predicted[order], np.arange(len(n_labels) + 1))
    queues = {c: list(order[starts[c] : starts[c + 1]][::-1]) for c in np.unique(predicted).tolist()}
    counts = n_labels.copy()
    chosen: list[int] = []
    while queues and len(chosen) < n:
        c = min(queues, key=lambda c: (counts[c], margins[queues[c][-1]]))
        row = int(queues[c].pop())
        if is_free(row):
            chosen.append(row)
            counts[c] += 1
        if not queues[c]:
            del queues[c]
    return np.array(chosen, dtype=np.intp)
