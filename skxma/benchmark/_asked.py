"""Active learning: labels are asked for in rounds, with a fit in between."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skxma.benchmark._cell import Measured, PeakMemory, scores_of
from skxma.benchmark._names import ACTIVE, ASKED, RANDOM, SUGGESTED
from skxma.benchmark._problem import Problem

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier
    from skxma.model_selection import Draw

STRATEGY = {SUGGESTED: "auto"}
"""Strategies of `suggest` that the results call by another name."""


def asked(problem: Problem) -> Iterator[Problem]:
    """A part for each way to choose labels, without and with the rest of the pool as images without labels."""
    if problem.class_names is None and problem.text_features is None and problem.y.dtype.kind in "UO":
        # a class that was not found yet is known by its name
        problem = replace(problem, class_names=np.unique(problem.y).tolist())
    for part in ASKED:
        yield replace(problem, name=f"{problem.name}/{part}", asked=part)


@dataclass(frozen=True)
class Fitted:
    """A classifier after a round, its labels as positions in the pool, and what the fit took."""

    classifier: BaseFewShotClassifier
    labeled: NDArray[np.intp]
    seconds: float
    peak_mb: float


@dataclass
class Rounds:
    """The rounds of a method on a part of a data set with a seed: one label per class, then twice as many as before.

    Attributes
    ----------
    problem : Problem
        A part that `asked` made; `Problem.asked` may name any strategy of `suggest`.
    estimator : BaseFewShotClassifier
        Not fitted.
    seed : int
    """

    problem: Problem
    estimator: BaseFewShotClassifier
    seed: int
    _fits: dict[int, Fitted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._way, _, rest = str(self.problem.asked).partition("+")
        self._learns_rest = bool(rest)

    @cached_property
    def _draw(self) -> Draw:
        """Pool and test set, drawn by the first cell that needs them, which reports what fails."""
        return self.problem.draw(1, ACTIVE, self.seed)

    @cached_property
    def _pool(self) -> Any:
        return self.problem.features(self._draw.train)

    @property
    def _y(self) -> NDArray[Any]:
        return self.problem.y[self._draw.train]

    def measure(self, budget: int) -> Measured:
        """Test the classifier after the round that ends with `budget` labels per class."""
        fit = self._fit(budget)
        start = time.perf_counter()
        probabilities = fit.classifier.predict_proba(self.problem.features(self._draw.test))
        seconds = time.perf_counter() - start
        accuracy, ece, nll = scores_of(self.problem, fit.classifier, probabilities, self._draw.test)
        seen = len(np.unique(self._y[fit.labeled])) / self.problem.n_classes
        n_trained = getattr(fit.classifier, "n_trained_", None)
        return Measured(accuracy, ece, nll, fit.seconds, seconds, n_trained, fit.peak_mb, seen)

    def _fit(self, budget: int) -> Fitted:
        if budget not in self._fits:
            labeled = self._ask(budget)
            fresh, X, y = self._fresh(), self._pool[labeled], self._y[labeled]
            if self._learns_rest and "unlabeled_label" in fresh.get_params(deep=False):
                fresh.set_params(unlabeled_label=math.nan)
                X, y = self._pool, np.full(len(self._y), None, dtype=object)
                y[labeled] = self._y[labeled]
            with PeakMemory() as memory:
                start = time.perf_counter()
                classifier = fresh.fit(X, y)
                seconds = time.perf_counter() - start
            self._fits[budget] = Fitted(classifier, labeled, seconds, memory.peak_mb)
        return self._fits[budget]

    def _ask(self, budget: int) -> NDArray[np.intp]:
        """Positions of so many labels per class, those of the rounds before included."""
        # the rounds to a budget are the same whichever budgets are measured
        before = 2 ** math.ceil(math.log2(budget) - 1) if budget > 1 else 0
        labeled = self._fit(before).labeled if before else np.empty(0, dtype=np.intp)
        asks_model = before and self._way != RANDOM
        clf = self._fit(before).classifier if asks_model else self._fresh()
        rest = np.setdiff1d(np.arange(len(self._y)), labeled)
        n = budget * self.problem.n_classes - len(labeled)
        return np.concatenate([labeled, self._choose(clf, rest, labeled, n)])

    def _choose(
        self, clf: BaseFewShotClassifier, rest: NDArray[np.intp], labeled: NDArray[np.intp], n: int
    ) -> NDArray[np.intp]:
        """Positions (n,) among the `rest` of the pool whose labels are asked for; `clf` knows those `labeled`."""
        suggest = import_module("skxma.active").suggest
        strategy = STRATEGY.get(self._way, self._way)
        return rest[suggest(clf, self._pool[rest], n, strategy=strategy, random_state=self.seed)]

    def _fresh(self) -> BaseFewShotClassifier:
        return self.problem.settle(self.estimator, self.seed)
