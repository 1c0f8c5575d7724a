"""Private names of scikit-learn that skxma uses: the only module that imports them, for scikit-learn 1.6 to 1.9.

They validate as scikit-learn's own estimators do, with its messages, and have no public counterpart. A release of
scikit-learn that moves one of them is met here.

Private members that an estimator inherits are not names to import and cannot move to another module, so that its code
calls them where it stands: `_validate_params`, which `CLIPEncoder` overrides, in every estimator; `_format_results` and
`_select_best_index` of `GridSearchCV` in `XMAdapterSearchCV`, which returns what that returns. Whether an estimator has
callbacks is asked here, for the attribute that says so is set by a mixin of one release.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _num_samples as num_samples

if TYPE_CHECKING:
    from typing import Self

    class CallbackSupportMixin:
        """scikit-learn's own, typed."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Set callbacks for the fits to come."""

    def callback_management_context(estimator: Any) -> AbstractContextManager[None]:
        """End the callbacks of an estimator, however its fit ends."""
else:
    try:
        from sklearn.callback import CallbackSupportMixin
        from sklearn.callback._callback_support import callback_management_context
    except ImportError:  # before scikit-learn 1.9
        callback_management_context = nullcontext

        class CallbackSupportMixin:
            """An empty class: there are no callbacks."""


__all__ = [
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "StrOptions",
    "callback_context",
    "callback_management_context",
    "check_sample_weight",
    "has_callbacks",
    "num_samples",
    "safe_indexing",
]


def callback_context(estimator: Any, n_subtasks: int) -> Any:
    """Return the context by which a fit reports to scikit-learn's callbacks; None before scikit-learn 1.9.

    Parameters
    ----------
    estimator : estimator
    n_subtasks : int
        Number of tasks that the fit consists of.
    """
    if not hasattr(estimator, "_init_callback_context"):
        return None
    return estimator._init_callback_context(max_subtasks=n_subtasks)


def has_callbacks(estimator: Any) -> bool:
    """Return True if `set_callbacks` was called on an estimator; before scikit-learn 1.9 it cannot be."""
    return hasattr(estimator, "_skl_callbacks")
