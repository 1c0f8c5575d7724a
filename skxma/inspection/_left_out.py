"""Answers of a fitted classifier to left-out samples, and the accuracy to expect by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skxma._evidence.fitted import ExpectedScore
from skxma.inspection._evaluation import labeled_samples
from skxma.inspection._labels import support_labels

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier


@dataclass(frozen=True)
class LeftOutAnswers:
    """Answers to labeled samples, each by a model that has not seen the sample's label.

    Attributes
    ----------
    labels : ndarray of shape (n,)
        The labels of the samples.
    answers : ndarray of shape (n,)
        The most probable class of each.
    probability : ndarray of shape (n,)
        Probability of that class.
    """

    labels: NDArray[Any]
    answers: NDArray[Any]
    probability: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Mask (n,) of the answers that are right."""
        right: NDArray[np.bool_] = self.answers == self.labels
        return right


def is_calibrated(clf: Any) -> bool:
    """Tell whether a classifier was fitted with the calibrated evidence, whatever its parameter says by now.

    Parameters
    ----------
    clf : classifier
        Fitted; one of scikit-learn, a pipeline or a search was not.
    """
    return getattr(getattr(clf, "model_", None), "evidence", None) == "calibrated"


def left_out_answers(clf: Any) -> LeftOutAnswers | None:
    """Answers to the samples that could be left out of a fit; None where there are none.

    Samples without a label or without weight have none, nor have singletons (`ImageCache.singleton`), whose own class
    is simulated, nor samples of another evidence than the calibrated one, whose models have seen all samples.

    Parameters
    ----------
    clf : classifier
        Fitted; one of scikit-learn, a pipeline or a search has no such answers.
    """
    if not is_calibrated(clf):
        return None
    rows = labeled_samples(clf)
    rows[rows] = ~clf.image_cache_.singleton[clf.sample_position_[rows]]
    if not rows.any():
        return None
    probability = np.asarray(clf.left_out_probability_, dtype=np.float64)
    return LeftOutAnswers(support_labels(clf)[rows], clf.left_out_label_[rows], probability[rows])


def expected_accuracy(clf: BaseFewShotClassifier) -> ExpectedScore | None:
    """Accuracy to expect on new images of the same kind; None where no sample could tell.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted, or of a file of a release that did not estimate it yet.
    """
    value = getattr(clf, "left_out_score_", math.nan)
    return None if math.isnan(value) else ExpectedScore(value, *clf.left_out_interval_)
