"""The samples of a fit: embeddings, labels, weights, and which of them have no label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._labels import join_labels, members
from skxma._sklearn_compat import check_sample_weight, num_samples
from skxma.caches import Floats, Integers
from skxma.embeddings import host_array


@dataclass(frozen=True)
class SupportSet:
    """Embedded samples, labeled or not.

    Attributes
    ----------
    embeddings : ndarray of shape (n, D)
    labels : ndarray of shape (n,)
        Any label of the others for a sample without one.
    weights : ndarray of shape (n,)
    unlabeled : bool ndarray of shape (n,) or None
        None where nothing marks samples without a label.
    """

    embeddings: Floats
    labels: NDArray[Any]
    weights: NDArray[np.float64]
    unlabeled: NDArray[np.bool_] | None = None

    @classmethod
    def from_fitted(cls, clf: Any) -> SupportSet:
        """The samples that a fitted classifier keeps: the labeled ones in the order of the fit."""
        cache, held = clf.image_cache_, clf.sample_position_[clf.sample_position_ >= 0]
        return cls(cache.embeddings[held], clf.classes_[cache.labels[held]], clf.sample_weight_)

    @classmethod
    def pool_of_fitted(cls, clf: Any) -> SupportSet | None:
        """The images without labels that a fitted classifier keeps, or None."""
        pool = getattr(clf, "unlabeled_cache_", None)
        if pool is None:
            return None
        n = len(pool.keys)
        return cls(pool.keys, np.repeat(clf.classes_[:1], n), pool.weights, np.ones(n, dtype=bool))

    @property
    def labeled_weights(self) -> NDArray[np.float64]:
        """Weights (n,), 0 for samples without a label."""
        return self.weights if self.unlabeled is None else np.where(self.unlabeled, 0.0, self.weights)

    def append(self, other: SupportSet | None) -> SupportSet:
        """Return these samples followed by the others."""
        if other is None:
            return self
        marks = None
        if self.unlabeled is not None or other.unlabeled is not None:
            both = [np.zeros(len(s.labels), bool) if s.unlabeled is None else s.unlabeled for s in (self, other)]
            marks = np.concatenate(both)
        return SupportSet(
            np.concatenate([self.embeddings, other.embeddings]),
            join_labels(self.labels, other.labels),
            np.concatenate([self.weights, other.weights]),
            marks,
        )

    def is_of(self, classes: NDArray[Any]) -> NDArray[np.bool_]:
        """Mask (n,) of the samples whose label is one of these classes."""
        return members(self.labels, classes.tolist())

    def without(self, dropped: NDArray[Any]) -> SupportSet:
        """Return the samples of other classes than `dropped`, and all samples without a label."""
        kept = ~self.is_of(dropped)
        if self.unlabeled is None:
            return SupportSet(self.embeddings[kept], self.labels[kept], self.weights[kept])
        rows = kept | self.unlabeled
        # samples without a label must not hold one that is dropped
        remaining = self.labels[kept & (self.labeled_weights > 0)]
        labels = np.where(self.unlabeled, remaining[0], self.labels) if len(remaining) else self.labels
        return SupportSet(self.embeddings[rows], labels[rows], self.weights[rows], self.unlabeled[rows])


def first_samples(position: Integers, n_keys: int) -> Integers:
    """For each key, the first sample that became it (N,), from the key of each sample (n_samples,)."""
    first = np.zeros(n_keys, dtype=np.intp)
    samples = np.arange(len(position))[::-1]
    known = position[samples] >= 0
    first[position[samples[known]]] = samples[known]
    return first


def check_one_label_each(X: Any, y: Any) -> None:
    """Refuse another number of labels than of samples."""
    given, labels = num_samples(X), num_samples(y)
    if given != labels:
        raise ValueError(
            f"X has {given} samples and y has {labels} labels: inconsistent numbers of samples. Give each one label."
        )


def sample_weights(given: Any, n_samples: int) -> NDArray[np.float64]:
    """Validated weights (n_samples,); ones where none were given."""
    if given is None:
        return np.ones(n_samples)
    weights: NDArray[np.float64] = check_sample_weight(
        host_array(given), np.empty((n_samples, 0)), dtype=np.float64, ensure_non_negative=True
    )
    return weights
