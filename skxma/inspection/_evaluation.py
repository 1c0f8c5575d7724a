"""Evaluation on labeled images: accuracy with an interval, figures per class, calibration. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from skxma._evidence.fitted import CONFIDENCE_LEVEL
from skxma._statistics import calibration_error
from skxma.embeddings import host_array

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier


@dataclass(frozen=True)
class Share:
    """A share of successes among independent trials, with Wilson's interval.

    Attributes
    ----------
    n_right, n : int
    value, low, high : float
        NaN where there are no trials.
    level : float
        Confidence level of the interval.
    """

    n_right: int
    n: int
    value: float
    low: float
    high: float
    level: float


def wilson(n_right: int, n: int, level: float = CONFIDENCE_LEVEL) -> Share:
    """Wilson's score interval, which holds its level for few trials and for shares near 0 and 1.

    Parameters
    ----------
    n_right, n : int
        Successes, and trials.
    level : float, default=0.9
        Confidence level, two-sided.

    Returns
    -------
    share : Share

    Examples
    --------
    >>> found = wilson(10, 10)
    >>> round(found.low, 3), found.high
    (0.787, 1.0)
    """
    if n == 0:
        return Share(0, 0, math.nan, math.nan, math.nan, level)
    z = float(ndtri((1 + level) / 2))
    share = n_right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # rounding must not push an end past the share itself
    return Share(n_right, n, share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), level)


@dataclass(frozen=True)
class ClassifierEvaluation:
    """Figures of a classifier on test images whose labels are among its classes.

    Attributes
    ----------
    accuracy : Share
    calibration_error : float
        Expected calibration error of the most probable class.
    log_loss : float
        Mean of minus the log probability of the right class.
    labels : ndarray of shape (m,)
        The classes, and what else was answered, such as the label for unknown images.
    n_images : ndarray of shape (m,)
        Test images of each label.
    recall, precision : ndarray of shape (m,)
        NaN where a label has no test images, or was never answered.
    confusion : ndarray of shape (m, m)
        Images by their label (row) and the answer (column).
    """

    accuracy: Share
    calibration_error: float
    log_loss: float
    labels: NDArray[Any]
    n_images: NDArray[np.int64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    confusion: NDArray[np.int64]

    @property
    def met(self) -> NDArray[np.bool_]:
        """The labels (m,) that have test images or were answered."""
        found: NDArray[np.bool_] = (self.n_images > 0) | (self.confusion.sum(axis=0) > 0)
        return found


def evaluation(y: ArrayLike, answers: ArrayLike, probabilities: ArrayLike, classes: ArrayLike) -> ClassifierEvaluation:
    """Compare answers with labels.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels, all among the classes; at least one.
    answers : array-like of shape (n,)
        What the classifier predicts; it may refuse by a label that is no class.
    probabilities : array-like of shape (n, n_classes)
    classes : array-like of shape (n_classes,)
        Sorted.

    Returns
    -------
    found : ClassifierEvaluation
    """
    y, answers, classes = (np.asarray(host_array(given)) for given in (y, answers, classes))
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.concatenate([classes, np.setdiff1d(answers, classes)])
    confusion = confusion_matrix(y, answers, labels=labels)
    precision, recall, _, n_images = precision_recall_fscore_support(y, answers, labels=labels, zero_division=np.nan)
    best = classes[probabilities.argmax(1)]
    return ClassifierEvaluation(
        accuracy=wilson(int((answers == y).sum()), len(y)),
        calibration_error=calibration_error(probabilities.max(1), best == y),
        log_loss=float(log_loss(y, probabilities, labels=classes)),
        labels=labels,
        n_images=n_images,
        recall=recall,
        precision=precision,
        confusion=confusion,
    )


def labeled_samples(clf: BaseFewShotClassifier) -> NDArray[np.bool_]:
    """Tell the samples given to `fit` that had a label and a weight (n_samples,)."""
    labeled: NDArray[np.bool_] = np.asarray(clf.sample_position_) >= 0
    return labeled
