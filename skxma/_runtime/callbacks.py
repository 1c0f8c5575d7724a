"""Report the tasks of a fit to scikit-learn's callbacks, in versions that have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sklearn import get_config

from skxma._sklearn_compat import callback_context, callback_management_context


class CallbackTask:
    """A task of a fit that is reported to scikit-learn's callbacks; without callbacks it does nothing.

    Parameters
    ----------
    estimator : object
    context : sklearn.callback.CallbackContext or None
    data : dict
        ``X``, ``y`` and ``metadata`` of the fit.
    """

    def __init__(self, estimator: Any = None, context: Any = None, data: dict[str, Any] | None = None) -> None:
        self._estimator = estimator
        self._context = context
        self._data = data or {}

    @classmethod
    @contextmanager
    def fit(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any,
        n_subtasks: int,
        fitted: Callable[[], dict[str, Any]],
    ) -> Iterator[CallbackTask]:
        """Validate the parameters, and yield the task of the whole fit; its callbacks end with it.

        Parameters
        ----------
        estimator : object
        X, y, sample_weight
            As given to the fit.
        n_subtasks : int
        fitted : callable
            Returns the attributes that the estimator will have.
        """
        if not get_config()["skip_parameter_validation"]:
            estimator._validate_params()
        with callback_management_context(estimator):
            context = callback_context(estimator, n_subtasks)
            metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
            task = cls(estimator, context, {"X": X, "y": y, "metadata": metadata})
            task._begin()
            yield task
            task._end(fitted)

    @contextmanager
    def subtask(self, name: str, n_subtasks: int = 0) -> Iterator[CallbackTask]:
        """Yield the next part of this task."""
        task = self._next(name, n_subtasks)
        task._begin()
        yield task
        task._end(None)

    def steps(self, name: str, n_steps: int, fitted: Callable[[], dict[str, Any]]) -> Iterator[int]:
        """Yield the index of each step of this task until a callback asks to stop.

        Parameters
        ----------
        name : str
        n_steps : int
        fitted : callable
            Returns the attributes that the estimator would have if the fit ended with the step just done.
        """
        for step in range(n_steps):
            task = self._next(name, 0)
            task._begin()
            yield step
            if task._end(fitted):
                return

    def _next(self, name: str, n_subtasks: int) -> CallbackTask:
        context = self._context
        if context is not None:
            context = context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return CallbackTask(self._estimator, context, self._data)

    def _begin(self) -> None:
        if self._context is not None:
            self._context.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def _end(self, fitted: Callable[[], dict[str, Any]] | None) -> bool:
        if self._context is None:
            return False
        return bool(
            self._context.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=fitted, **self._data
            )
        )
