"""Accuracy as the shots grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import clone

from skxma.inspection._draw import LINES, pyplot

CURVE_MARKERS = "os^DvPX"
LEGEND_LETTERS = 76


class FewShotCurveDisplay:
    """Accuracy against the number of shots, with its standard error over random support sets.

    Make it with :meth:`from_estimator`, or with scores of one's own by :meth:`from_scores`.

    Parameters
    ----------
    scores : mapping from name to mapping from shots to sequence of float
        Accuracies of several support sets, of each method at each number of shots.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure
    lines_ : list of ErrorbarContainer
    """

    def __init__(self, scores: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
        self.scores = scores

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        shots: Sequence[int] = (1, 2, 4, 8),
        n_splits: int = 5,
        random_state: Any = 0,
        ax: Any = None,
    ) -> Self:
        """Fit at each number of shots on random support sets, test on the other images, and plot.

        Parameters
        ----------
        estimator : classifier, or mapping from name to classifier
            Any of scikit-learn, a pipeline or a search too.
        X : sequence of images, or array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        shots : sequence of int, default=(1, 2, 4, 8)
            Each class must have more images than that.
        n_splits : int, default=5
            Support sets at each number of shots; the same for all methods.
        random_state : int, default=0
            Draws them.
        ax : Axes, optional

        Returns
        -------
        display : FewShotCurveDisplay
        """
        # most programs that import this package draw no curve
        from sklearn.model_selection import cross_val_score

        from skxma.model_selection import FewShotSplit

        if ax is None:
            pyplot()  # asked for before hundreds of fits
        methods = estimator if isinstance(estimator, Mapping) else {type(estimator).__name__: estimator}
        scores = {
            name: {
                k: cross_val_score(clone(one), X, y, cv=FewShotSplit(k, n_splits, random_state=random_state))
                for k in shots
            }
            for name, one in methods.items()
        }
        return cls(scores).plot(ax=ax)

    @classmethod
    def from_scores(cls, scores: Mapping[str, Mapping[int, Sequence[float]]], *, ax: Any = None) -> Self:
        """Plot scores that are at hand.

        Parameters
        ----------
        scores : mapping from name to mapping from shots to sequence of float
        ax : Axes, optional

        Returns
        -------
        display : FewShotCurveDisplay
        """
        return cls(scores).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a line a method.

        Parameters
        ----------
        ax : Axes, optional
            A new figure's by default.

        Returns
        -------
        display : FewShotCurveDisplay
        """
        own_figure = ax is None
        if own_figure:
            _, ax = pyplot().subplots(figsize=(6, 4.5), layout="constrained")
        self.ax_, self.figure_, self.lines_ = ax, ax.figure, []
        for i, (name, by_shots) in enumerate(self.scores.items()):
            shots = sorted(by_shots)
            means = [100 * np.mean(by_shots[k]) for k in shots]
            errors = [100 * np.std(by_shots[k]) / max(1, len(by_shots[k]) - 1) ** 0.5 for k in shots]
            look = {"color": LINES[i % len(LINES)], "marker": CURVE_MARKERS[i % len(CURVE_MARKERS)]}
            self.lines_.append(ax.errorbar(shots, means, errors, label=name, capsize=3, **look))
        every = sorted({k for by_shots in self.scores.values() for k in by_shots})
        ax.set_xscale("log", base=2)
        ax.set_xticks(every, [str(k) for k in every])
        ax.minorticks_off()
        ax.set(xlabel="shots (labeled images per class)", ylabel="accuracy (%)")
        ax.grid(alpha=0.3)
        if own_figure:
            # below the axes, where no line is
            n_columns = max(1, LEGEND_LETTERS // (max(map(len, map(str, self.scores)), default=0) + 6))
            self.figure_.legend(loc="outside lower center", ncols=n_columns, frameon=False)
        else:
            ax.legend(frameon=False)
        return self
