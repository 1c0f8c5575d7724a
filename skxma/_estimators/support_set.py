"""Samples on their way into a fit: embeddings, labels, weights, and which of them have no label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._labels import join_labels
from skxma._sklearn_compat import check_sample_weight, num_samples
from skxma.caches import Floats


@dataclass(frozen=True)
class Samples:
    """Embedded samples, labelled or not.

    Attributes
    ----------
    features : ndarray of shape (n, D)
    labels : ndarray of shape (n,)
        Some label of the others for a sample without one.
    weights : ndarray of shape (n,)
    unlabelled : bool ndarray of shape (n,) or None
    """

    features: Floats
    labels: NDArray[Any]
    weights: NDArray[np.float64]
    unlabelled: NDArray[np.bool_] | None

    @classmethod
    def of(
        cls,
        features: Floats,
        labels: Any,
        weights: NDArray[np.float64] | None = None,
        unlabelled: NDArray[np.bool_] | None = None,
    ) -> Samples:
        """Samples whose weights may be left out."""
        labels = np.asarray(labels)
        return cls(features, labels, np.ones(len(labels)) if weights is None else weights, unlabelled)

    @property
    def labelled_weights(self) -> NDArray[np.float64]:
        """Weights (n,), 0 for samples without a label."""
        return np.asarray(labelled_weights(self.weights, self.unlabelled))

    def joined(self, other: Samples) -> Samples:
        """These, then the others."""
        marks = None
        if self.unlabelled is not None or other.unlabelled is not None:
            both = [np.zeros(len(s.labels), bool) if s.unlabelled is None else s.unlabelled for s in (self, other)]
            marks = np.concatenate(both)
        return Samples(
            np.concatenate([self.features, other.features]),
            join_labels(self.labels, other.labels),
            np.concatenate([self.weights, other.weights]),
            marks,
        )

    def of_classes(self, kept: NDArray[np.bool_], stand_in: Any) -> Samples:
        """Those whose label is `kept` (n,), and all without one, which get the label `stand_in`."""
        if self.unlabelled is None:
            return Samples(self.features[kept], self.labels[kept], self.weights[kept], None)
        labels = np.where(self.unlabelled, stand_in, self.labels)
        rows = kept | self.unlabelled
        return Samples(self.features[rows], labels[rows], self.weights[rows], self.unlabelled[rows])


def labelled_weights(
    weights: NDArray[np.float64] | None, unlabelled: NDArray[np.bool_] | None
) -> NDArray[np.float64] | None:
    """Weights (n_samples,) that are 0 for samples without a label; None where all weigh the same."""
    if unlabelled is None:
        return weights
    return np.where(unlabelled, 0.0, 1.0 if weights is None else weights)


def check_one_label_each(X: Any, y: Any) -> None:
    """Refuse another number of labels than of samples."""
    given, labels = num_samples(X), num_samples(y)
    if given != labels:
        raise ValueError(
            f"X has {given} samples and y has {labels} labels: inconsistent numbers of samples. Give each one label."
        )


def sample_weights(given: Any, n_samples: int) -> NDArray[np.float64] | None:
    """Validated weights (n_samples,), or None where none were given."""
    if given is None:
        return None
    weights: NDArray[np.float64] = check_sample_weight(
        given, np.empty((n_samples, 0)), dtype=np.float64, ensure_non_negative=True
    )
    return weights
