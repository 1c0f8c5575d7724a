"""The samples of a fit: embeddings, labels, weights, and which of them have no label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skxma._labels.arrays import join_labels, members
from skxma._labels.groups import numbers_of
from skxma._runtime.warning import warn
from skxma._sklearn_compat import check_sample_weight, num_samples
from skxma._statistics import near_duplicate_groups
from skxma.caches import Floats, Integers
from skxma.embeddings import host_array

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

MOST_FOR_DUPLICATES = 2**14
"""Labeled samples above which no near-duplicates are sought: the distances of so many in one class take 1 GiB."""


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
    groups : ndarray of shape (n,) of str, or None
        Names of the samples' groups, "" for a sample that stands for itself; None where all do.
    blocks : tuple of int or None
        Widths of the encoders' parts of an embedding; None for one encoder.
    """

    embeddings: Floats
    labels: NDArray[Any]
    weights: NDArray[np.float64]
    unlabeled: NDArray[np.bool_] | None = None
    groups: NDArray[np.str_] | None = None
    blocks: tuple[int, ...] | None = None

    @classmethod
    def from_fitted(cls, clf: BaseFewShotClassifier) -> SupportSet:
        """The samples that a fitted classifier keeps: the labeled ones in the order of the fit."""
        cache, held = clf.image_cache_, clf.sample_position_[clf.sample_position_ >= 0]
        labels = clf.classes_[cache.labels[held]]
        groups = getattr(clf, "groups_", None)
        return cls(cache.embeddings[held], labels, clf.sample_weight_, groups=groups, blocks=cache.blocks)

    @classmethod
    def pool_of_fitted(cls, clf: BaseFewShotClassifier) -> SupportSet | None:
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

    @property
    def group_numbers(self) -> Integers | None:
        """Number of the group of each sample (n,), or None where each stands for itself."""
        if self.groups is None:
            return None
        return numbers_of(self.groups)

    def with_near_duplicates(self, names: Any = None) -> SupportSet:
        """Return these samples with near-duplicates as groups, with a warning; unchanged where groups were given.

        Parameters
        ----------
        names : sequence of str or None, optional
            Paths of the samples, for the warning.
        """
        labeled = np.flatnonzero(self.labeled_weights > 0)
        if self.groups is not None or not 2 <= len(labeled) <= MOST_FOR_DUPLICATES:
            return self
        numbers = np.unique(self.labels[labeled], return_inverse=True)[1]
        found = near_duplicate_groups(self.embeddings[labeled], numbers)
        sizes = np.bincount(found)
        if sizes.max() < 2:
            return self
        several = np.flatnonzero(sizes > 1)
        first = labeled[np.flatnonzero(found == several[0])][:2]
        shown = " and ".join(str(i) if names is None or names[i] is None else str(names[i]) for i in first)
        warn(
            f"{int(sizes[several].sum())} of {len(labeled)} images are near-duplicates of another of their class, such "
            f"as {shown}. They are left out together when the model is judged.",
            advice="Pass groups= to name the images that belong together; groups=range(n_samples) for none.",
        )
        groups = np.full(len(self.labels), "", dtype=f"<U{len(str(len(labeled))) + 10}")
        together = np.isin(found, several)
        groups[labeled[together]] = [f"duplicate {group}" for group in found[together]]
        return replace(self, groups=groups)

    def with_found_groups(self, clf: BaseFewShotClassifier) -> SupportSet:
        """Return the samples of a fitted classifier with the near-duplicates that its fit found and warned of."""
        groups = clf.image_cache_.groups
        if self.groups is not None or groups is None:
            return self
        held = clf.sample_position_[clf.sample_position_ >= 0]
        return replace(self, groups=groups[held].astype(str))

    def append(self, other: SupportSet | None) -> SupportSet:
        """Return these samples followed by the others."""
        if other is None:
            return self
        marks = None
        if self.unlabeled is not None or other.unlabeled is not None:
            both = [np.zeros(len(s.labels), bool) if s.unlabeled is None else s.unlabeled for s in (self, other)]
            marks = np.concatenate(both)
        groups = None
        if self.groups is not None or other.groups is not None:
            names = [np.full(len(s.labels), "") if s.groups is None else s.groups for s in (self, other)]
            groups = np.concatenate(names)
        return SupportSet(
            np.concatenate([self.embeddings, other.embeddings]),
            join_labels(self.labels, other.labels),
            np.concatenate([self.weights, other.weights]),
            marks,
            groups,
            self.blocks,
        )

    def is_of(self, classes: NDArray[Any]) -> NDArray[np.bool_]:
        """Mask (n,) of the samples whose label is one of these classes."""
        return members(self.labels, classes.tolist())

    def without(self, dropped: NDArray[Any]) -> SupportSet:
        """Return the samples of other classes than `dropped`, and all samples without a label."""
        rows, labels = ~self.is_of(dropped), self.labels
        if self.unlabeled is not None:
            # samples without a label must not hold one that is dropped
            remaining = labels[rows & (self.labeled_weights > 0)]
            labels = np.where(self.unlabeled, remaining[0], labels) if len(remaining) else labels
            rows = rows | self.unlabeled
        marks = None if self.unlabeled is None else self.unlabeled[rows]
        groups = None if self.groups is None else self.groups[rows]
        return SupportSet(self.embeddings[rows], labels[rows], self.weights[rows], marks, groups, self.blocks)


def first_samples(position: Integers, n_keys: int) -> Integers:
    """For each key, the first sample that became it (N,), from the key of each sample (n_samples,)."""
    first = np.zeros(n_keys, dtype=np.intp)
    samples = np.arange(len(position))[::-1]
    known = position[samples] >= 0
    first[position[samples[known]]] = samples[known]
    return first


def check_one_label_each(X: Any, y: Any) -> None:
    """Refuse another number of labels than of samples, and labels that have no order."""
    if isinstance(y, (Mapping, Set)):
        remedy = "list(y.values())" if isinstance(y, Mapping) else "a list"
        raise ValueError(
            f"y is a {type(y).__name__}, which gives its labels no order of images; pass {remedy}, one label per "
            "image in the order of X."
        )
    given, labels = _length(X, "X"), _length(y, "y")
    if given != labels:
        raise ValueError(
            f"X has {given} samples and y has {labels} labels: inconsistent numbers of samples. Give each one label."
        )


def _length(given: Any, name: str) -> int:
    if isinstance(given, Iterator):
        raise TypeError(
            f"{name} is a {type(given).__name__}, which can be read only once; expected a sequence: pass list({name})."
        )
    return int(num_samples(given))


def sample_weights(given: Any, n_samples: int) -> NDArray[np.float64]:
    """Validated weights (n_samples,); ones where none were given."""
    if given is None:
        return np.ones(n_samples)
    weights: NDArray[np.float64] = check_sample_weight(
        host_array(given), np.empty((n_samples, 0)), dtype=np.float64, ensure_non_negative=True
    )
    return weights
