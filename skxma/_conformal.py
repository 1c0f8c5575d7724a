"""Conformal prediction: p-values and sets from the scores of samples that the model has not seen. Pure functions.

The score of a class is its nonconformity ``s(x, c) = −log p(c | x)``, the order of ``1 − p`` (LAC, "least ambiguous
classifier"): of all sets of one level those by the probability of the class alone are the smallest on average (Sadinle,
Lei & Wasserman, JASA 2019), and unlike the adaptive sets (APS) they need no random number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from skxma.caches import Integers

Doubles = NDArray[np.float64]
Masks = NDArray[np.bool_]
ROUNDING = 1e-9


@dataclass(frozen=True)
class Calibration:
    """Left-out scores of the labeled samples, with which the scores of new images are compared.

    Attributes
    ----------
    scores : ndarray of shape (N,)
        Nonconformity of each sample's label by a model that has not seen the sample.
    labels : ndarray of shape (N,)
        Class index of each sample.
    weights : ndarray of shape (N,)
    models : ndarray of shape (N,)
        Index of the model that has not seen the sample; 0 everywhere where there is one model.
    """

    scores: Doubles
    labels: Integers
    weights: Doubles
    models: Integers

    def p_values(self, scores: Sequence[Doubles], by_class: bool = False) -> Doubles:
        """Conformal p-values (n, C) of new images.

        ``p(c) = (w + Σ_i w_i 1[s_i ≥ s_k(i)(x, c)]) / (w + Σ_i w_i)`` with the mean weight w for the new image and the
        model k(i) that has not seen sample i: cross-conformal prediction (Vovk 2015), whose sets are those of CV+
        (Romano, Sesia & Candès 2020). With one model it is split conformal prediction.

        Parameters
        ----------
        scores : sequence of ndarray of shape (n, C)
            Nonconformity of each class by each model.
        by_class : bool, default=False
            Whether a class is compared with its own samples alone (Mondrian: coverage in each class).
        """
        unit = self.weights.mean() if len(self.weights) else 1.0
        weights = self.weights / unit
        n, n_classes = scores[0].shape
        at_least = np.zeros((n, n_classes))
        for model, found in enumerate(scores):
            own = self.models == model
            if by_class:
                for c in range(n_classes):
                    rows = own & (self.labels == c)
                    at_least[:, c] += weight_at_least(self.scores[rows], weights[rows], found[:, c])
            else:
                at_least += weight_at_least(self.scores[own], weights[own], found)
        total = np.bincount(self.labels, weights, minlength=n_classes) if by_class else weights.sum()
        return (1 + at_least) / (1 + total)


def weight_at_least(calibration: Doubles, weights: Doubles, scores: Doubles) -> Doubles:
    """Weight of the calibration scores (N,) that are at least as large as each score (any shape)."""
    order = np.argsort(calibration, kind="stable")
    # the weight from each place in the order to the end
    from_here = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    found: Doubles = from_here[np.searchsorted(calibration[order], scores, side="left")]
    return found


def nonconformity(logits: NDArray[np.floating[Any]]) -> Doubles:
    """``−log softmax`` (n, C) of logits (n, C); infinite for a class whose logit is minus infinity."""
    scores: Doubles = -log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return scores


def own_nonconformity(logits: NDArray[np.floating[Any]], labels: Integers) -> Doubles:
    """Nonconformity (n,) of the labels (n,) by logits (n, C)."""
    return nonconformity(logits)[np.arange(len(labels)), labels]


def full_p_value(scores: ArrayLike, weights: ArrayLike, new: int) -> float:
    """P-value of one of N + 1 samples, each of which has been scored by the others.

    ``p = Σ_i w_i 1[s_i ≥ s_new] / Σ_i w_i``. The samples are exchangeable and the scores symmetric in them, so that
    ``P(p ≤ α) ≤ α`` whatever is learned from the samples (Vovk, Gammerman & Shafer 2005).

    Parameters
    ----------
    scores, weights : array-like of shape (N + 1,)
    new : int
        Position of the sample in question.
    """
    scores, weights = np.asarray(scores), np.asarray(weights)
    return float(weights[scores >= scores[new]].sum() / weights.sum())


def prediction_sets(p_values: Doubles, levels: Sequence[float], allow_empty: bool) -> Masks:
    """Sets (n, C, n_levels): the classes whose p-value exceeds one minus the level.

    Parameters
    ----------
    p_values : ndarray of shape (n, C)
    levels : sequence of float
    allow_empty : bool
        With False, an empty set gets the classes of the largest p-value.
    """
    alphas = 1 - np.asarray(levels, dtype=np.float64)
    sets: Masks = p_values[:, :, None] > alphas + ROUNDING
    if not allow_empty:
        best = p_values == p_values.max(axis=1, keepdims=True)
        sets |= best[:, :, None] & ~sets.any(axis=1, keepdims=True)
    return sets


def samples_needed(level: float) -> int:
    """Least number of calibration samples for sets that leave a class out: ``⌈1/(1 − level)⌉ − 1``.

    Examples
    --------
    >>> samples_needed(0.9), samples_needed(0.95)
    (9, 19)
    """
    return math.ceil(1 / (1 - level) - ROUNDING) - 1


def proved_coverage(level: float, n_samples: int, n_folds: int) -> float:
    """Coverage of cross-conformal sets that is proved for exchangeable images (Barber et al. 2021, theorem 4).

    ``1 − 2α − min(2 (1 − 1/K) / (N/K + 1), (1 − K/N) / (K + 1))``, at least 0.

    Parameters
    ----------
    level : float
    n_samples, n_folds : int
        N and K.
    """
    n, k = n_samples, n_folds
    return max(0.0, 1 - 2 * (1 - level) - min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1)))
