"""Coverage of prediction sets, and their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skxma._labels.arrays import with_spelling_of
from skxma.inspection._draw import LINES, pyplot
from skxma.inspection._evaluation import wilson

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

LEVELS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


class CoverageDisplay:
    """Coverage of prediction sets on labeled images against their level, with its 90 % interval, and their size.

    Make it with :meth:`from_estimator`, or from sets that are at hand with :meth:`from_sets`.

    Parameters
    ----------
    levels : ndarray of shape (n_levels,)
        Confidence levels of the sets.
    coverage : ndarray of shape (n_levels,)
        Shares of the images whose class is in their set.
    low, high : ndarray of shape (n_levels,)
        Ends of the 90 % intervals of the coverage.
    mean_size : ndarray of shape (n_levels,)
        Mean number of classes in a set.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (2,)
        Of the coverage, and of the size.
    figure_ : Figure
    """

    def __init__(
        self,
        *,
        levels: NDArray[np.float64],
        coverage: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        mean_size: NDArray[np.float64],
    ) -> None:
        self.levels = levels
        self.coverage = coverage
        self.low = low
        self.high = high
        self.mean_size = mean_size

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseFewShotClassifier,
        X: Any,
        y: Any,
        *,
        levels: Sequence[float] | None = None,
        allow_empty: bool = False,
        axes: Any = None,
    ) -> Self:
        """Ask a fitted classifier for the sets of labeled images that it has not seen, and plot.

        Parameters
        ----------
        estimator : classifier of skxma
            Fitted.
        X : sequence of images, or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels, all among the classes.
        levels : sequence of float, optional
            By default ten from 0.5 to 0.95, of which those are left out that the labeled images are too few for.
        allow_empty : bool, default=False
            As in `predict_set`.
        axes : sequence of two Axes, optional

        Returns
        -------
        display : CoverageDisplay

        Raises
        ------
        ValueError
            A label that is none of the classes, or a level that so few labeled images cannot give.
        """
        check_is_fitted(estimator)
        y = np.asarray(with_spelling_of(y, estimator.classes_))
        strangers = np.setdiff1d(y, estimator.classes_)
        if len(strangers):
            raise ValueError(f"y holds {strangers[0]!r}, which is none of the classes; leave such images out.")
        if levels is None:
            n = round(estimator.image_cache_.independent_shots.sum())
            # of a level in reach, one minus it is at least the least p-value
            levels = [level for level in LEVELS if (1 - level) * (n + 1) > 1 - 1e-9]
        if axes is None:
            pyplot()  # asked for before images are encoded
        sets = estimator.predict_set(X, list(levels), allow_empty=allow_empty)
        own = np.searchsorted(estimator.classes_, y)
        return cls.from_sets(sets, own, levels=levels, axes=axes)

    @classmethod
    def from_sets(cls, sets: ArrayLike, labels: ArrayLike, *, levels: Sequence[float], axes: Any = None) -> Self:
        """Count in sets that are at hand, and plot.

        Parameters
        ----------
        sets : array-like of shape (n_samples, n_classes, n_levels), bool
        labels : array-like of shape (n_samples,)
            Class indices.
        levels : sequence of float
        axes : sequence of two Axes, optional

        Returns
        -------
        display : CoverageDisplay
        """
        sets, labels = np.asarray(sets), np.asarray(labels)
        hits = sets[np.arange(len(labels)), labels]
        shares = [wilson(int(n_right), len(labels)) for n_right in hits.sum(axis=0)]
        display = cls(
            levels=np.asarray(levels, dtype=np.float64),
            coverage=np.array([share.value for share in shares]),
            low=np.array([share.low for share in shares]),
            high=np.array([share.high for share in shares]),
            mean_size=sets.sum(axis=1).mean(axis=0),
        )
        return display.plot(axes=axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the coverage and, beside it, the mean size.

        Parameters
        ----------
        axes : sequence of two Axes, optional
            New ones by default.

        Returns
        -------
        display : CoverageDisplay
        """
        if axes is None:
            _, axes = pyplot().subplots(1, 2, figsize=(8, 3.6), layout="constrained")
        self.axes_ = np.asarray(axes)
        left, right = self.axes_
        self.figure_ = left.figure
        ends = [min(self.levels.min(), self.low.min()), 1.0]
        left.plot(ends, ends, color="black", linestyle=":", linewidth=1, label="the level")
        distances = np.maximum([self.coverage - self.low, self.high - self.coverage], 0)
        left.errorbar(self.levels, self.coverage, distances, color=LINES[0], marker="o", capsize=3, label="coverage")
        left.set(xlabel="confidence level", ylabel="share of sets that hold the class")
        left.legend(frameon=False, loc="lower right")
        right.plot(self.levels, self.mean_size, color=LINES[0], marker="o")
        right.set(xlabel="confidence level", ylabel="mean number of classes in a set")
        for ax in self.axes_:
            ax.grid(alpha=0.3)
        return self
