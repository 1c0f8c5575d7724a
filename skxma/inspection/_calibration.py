"""Reliability of probabilities."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skxma._labels.arrays import with_spelling_of
from skxma._statistics import calibration_error
from skxma.inspection._draw import LINES, pyplot
from skxma.inspection._evaluation import wilson
from skxma.inspection._left_out import is_calibrated, left_out_answers

N_BINS = 10


class CalibrationDisplay:
    """Share of right answers against the probability of the answer, with its 90 % interval: a reliability diagram.

    :class:`sklearn.calibration.CalibrationDisplay` draws one class against the rest; here it is the most probable class
    of each image. Make it with :meth:`from_estimator`, or from probabilities that are at hand with
    :meth:`from_predictions`.

    Parameters
    ----------
    confidence : ndarray of shape (n_bins,)
        Mean probability of the answers of each bin that has some.
    accuracy : ndarray of shape (n_bins,)
        Share of them that is right.
    low, high : ndarray of shape (n_bins,)
        Ends of the 90 % intervals of the accuracy.
    calibration_error : float
        Mean distance of confidence and accuracy over 15 bins of equal width, weighted by their answers (ECE).
    name : str or None, default=None
        For the legend.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure
    """

    def __init__(
        self,
        *,
        confidence: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        calibration_error: float,
        name: str | None = None,
    ) -> None:
        self.confidence = confidence
        self.accuracy = accuracy
        self.low = low
        self.high = high
        self.calibration_error = calibration_error
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        n_bins: int = N_BINS,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Ask a fitted classifier for its probabilities, and plot.

        Parameters
        ----------
        estimator : classifier
            Fitted; any with `predict_proba`, a pipeline or a search too.
        X : sequence of images, or array-like of shape (n_samples, n_features), optional
            Images that the classifier has not seen. Without them, the left-out answers of an
            :class:`~skxma.XMAdapterClassifier` are drawn: for each of its labeled images, by the model without that
            image, where its class has others.
        y : array-like of shape (n_samples,), optional
            Labels of X.
        n_bins : int, default=10
            Number of bins of equal width.
        name : str, optional
            For the legend.
        ax : Axes, optional

        Returns
        -------
        display : CalibrationDisplay

        Raises
        ------
        ValueError
            X without y or the reverse, or neither where there are no left-out answers.
        """
        check_is_fitted(estimator)
        if (X is None) != (y is None):
            raise ValueError("Give both X and y, or neither for the answers that were left out in the fit.")
        if ax is None:
            pyplot()  # asked for before images are encoded
        if X is None:
            found = left_out_answers(estimator)
            if found is None:
                why = (
                    "has no left-out answers, because no class has two images of two groups"
                    if is_calibrated(estimator)
                    else "keeps no left-out answers, as an XMAdapterClassifier with evidence='calibrated' does"
                )
                raise ValueError(f"This {type(estimator).__name__} {why}. Give X and y that it has not seen.")
            confidence, correct = found.probability, found.right
        else:
            probabilities = np.asarray(estimator.predict_proba(X))
            answers = estimator.classes_[probabilities.argmax(1)]
            confidence = probabilities.max(1)
            correct = answers == np.asarray(with_spelling_of(y, estimator.classes_))
        return cls._of(confidence, correct, n_bins, name, ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        n_bins: int = N_BINS,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Count in probabilities that are at hand, and plot.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Class indices.
        y_prob : array-like of shape (n_samples, n_classes)
            Probabilities.
        n_bins : int, default=10
            Number of bins of equal width.
        name : str, optional
            For the legend.
        ax : Axes, optional

        Returns
        -------
        display : CalibrationDisplay
        """
        labels, probabilities = np.asarray(y_true), np.asarray(y_prob, dtype=np.float64)
        if probabilities.ndim != 2 or labels.shape != (len(probabilities),):
            raise ValueError(
                f"y_true has shape {labels.shape} and y_prob {probabilities.shape}; pass class indices (n_samples,) "
                "and probabilities (n_samples, n_classes)."
            )
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"y_true holds {labels[:1].tolist()}; pass class indices, the columns of y_prob, as integers."
            )
        return cls._of(probabilities.max(1), probabilities.argmax(1) == labels, n_bins, name, ax)

    @classmethod
    def _of(cls, confidence: Any, correct: Any, n_bins: int, name: str | None, ax: Any) -> Self:
        if n_bins < 1:
            raise ValueError(f"n_bins={n_bins}, but at least one bin is counted in.")
        bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
        held = [bins == b for b in np.unique(bins)]
        shares = [wilson(int(correct[rows].sum()), int(rows.sum())) for rows in held]
        display = cls(
            confidence=np.array([confidence[rows].mean() for rows in held]),
            accuracy=np.array([share.value for share in shares]),
            low=np.array([share.low for share in shares]),
            high=np.array([share.high for share in shares]),
            calibration_error=calibration_error(confidence, correct),
            name=name,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the bins beside the line on which probabilities are right.

        Parameters
        ----------
        ax : Axes, optional
            New ones by default; one that holds such a display gets a further color.

        Returns
        -------
        display : CalibrationDisplay
        """
        if ax is None:
            _, ax = pyplot().subplots(figsize=(4.4, 4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        n_before = len(ax.containers)
        if not n_before:
            ax.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1, label="calibrated")
        error = f"calibration error {100 * self.calibration_error:.1f} %"
        distances = np.maximum([self.accuracy - self.low, self.high - self.accuracy], 0)
        ax.errorbar(
            self.confidence,
            self.accuracy,
            distances,
            color=LINES[n_before % len(LINES)],
            marker="o",
            capsize=3,
            label=error if self.name is None else f"{self.name}: {error}",
        )
        ax.set(xlabel="probability of the answer", ylabel="share of right answers")
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, loc="lower right", fontsize=8)
        return self
