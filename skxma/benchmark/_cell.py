"""One cell of the benchmark: a method on a data set at a number of shots with a seed, measured."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skxma._labels.arrays import with_spelling_of
from skxma._statistics import calibration_error
from skxma.benchmark._names import POOL
from skxma.benchmark._problem import Problem

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

MEBI = 2**20


@dataclass(frozen=True)
class Measured:
    """Measurements of a cell; accuracy, calibration error and likelihood are those of the test images.

    `seen` is the share of the classes that have a labeled image, where labels are asked for.
    """

    accuracy: float
    ece: float
    nll: float
    fit_s: float
    predict_s: float
    n_trained: int | None
    peak_mb: float
    seen: float | None = None


def run_cell(problem: Problem, estimator: BaseFewShotClassifier, n_shots: int, seed: int, protocol: str) -> Measured:
    """Fit a method on a support set, tuned on validation images where the protocol has some, and test it.

    Encoding is not measured. Predictions are compared among the classes that the test holds where the data set has a
    test of its own (novel classes, shifts with fewer classes).

    Parameters
    ----------
    problem : Problem
    estimator : BaseFewShotClassifier
        Not fitted.
    n_shots, seed : int
    protocol : str
    """
    draw = problem.draw(n_shots, protocol, seed)
    fresh, y_train = problem.settle(estimator, seed), problem.y[draw.train]
    if protocol == POOL:
        pool, rest = problem.split_pool(draw.test, seed)
        draw = draw._replace(test=rest)
        if "unlabeled_label" in fresh.get_params(deep=False):
            fresh.set_params(unlabeled_label=math.nan)
            y_train = np.concatenate([y_train.astype(object), np.full(len(pool), None)])
            draw = draw._replace(train=np.concatenate([draw.train, pool]))
    train, validation, test = (problem.features(rows) if len(rows) else None for rows in draw)
    with PeakMemory() as memory:
        start = time.perf_counter()
        if validation is None:
            fitted = fresh.fit(train, y_train)
        else:
            from skxma.model_selection import tune

            fitted = tune(fresh, train, y_train, validation, problem.y[draw.validation]).estimator
        fitted_at = time.perf_counter()
        probabilities = fitted.predict_proba(test)
        done = time.perf_counter()
    return Measured(
        *scores_of(problem, fitted, probabilities, draw.test),
        fitted_at - start,
        done - fitted_at,
        getattr(fitted, "n_trained_", None),
        memory.peak_mb,
    )


def scores_of(
    problem: Problem, fitted: Any, probabilities: NDArray[np.float64], test: NDArray[np.intp]
) -> tuple[float, float, float]:
    """Accuracy, calibration error and negative log-likelihood of probabilities (n, C) of test positions (n,)."""
    classes, y_test = fitted.classes_, with_spelling_of(problem.y[test], fitted.classes_)
    if problem.has_own_test:
        among = np.isin(classes, np.unique(y_test))
        classes, probabilities = classes[among], probabilities[:, among]
        probabilities = probabilities / probabilities.sum(1, keepdims=True)
    correct = classes[probabilities.argmax(1)] == y_test
    # a class that the model has not met has no probability
    position = np.minimum(np.searchsorted(classes, y_test), len(classes) - 1)
    own = np.where(classes[position] == y_test, probabilities[np.arange(len(y_test)), position], 0)
    return (
        float(correct.mean()),
        calibration_error(probabilities.max(1), correct),
        float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean()),
    )


class PeakMemory:
    """Rise of the memory in use inside a ``with``, in MiB: of the GPU where CUDA was used, else of the process.

    Where the system does not let the peak be reset, only a rise above all earlier peaks is seen.

    Attributes
    ----------
    peak_mb : float
        Set at the end.
    """

    peak_mb: float = float("nan")

    def __enter__(self) -> PeakMemory:
        torch = sys.modules.get("torch")
        self._cuda = torch.cuda if torch is not None and torch.cuda.is_available() else None
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
            self._before_cuda = self._cuda.memory_allocated()
        with contextlib.suppress(OSError):
            # Linux: 5 sets the peak back to what is in use now
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _peak_bytes()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = (_peak_bytes() - self._before) / MEBI
        if self._cuda is not None:
            on_device = (self._cuda.max_memory_allocated() - self._before_cuda) / MEBI
            peak = on_device if on_device > 0 else peak
        self.peak_mb = peak


def _peak_bytes() -> float:
    """Highest memory of this process so far, in bytes; NaN where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024.0 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return float("nan")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used if sys.platform == "darwin" else 1024 * used)
