"""Knowing when not to answer: the open-set score, and predictions that refuse what is like none of the classes."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma._estimators.base import FewShotClassifier
from skxma._estimators.scoring import settle_ties
from skxma._fitted import FittedEvidence, LeftOutPredictions
from skxma._labels import check_unknown, with_unknown
from skxma._sklearn_compat import Interval


class OpenSetClassifier(FewShotClassifier):
    """A few-shot classifier that may answer that a picture is of none of its classes.

    A subclass leaves its fitted model in `model_`, and calls `_check_unknown` before its fit and
    `_calibrate_rejection` after it.
    """

    false_rejection_rate: float | None
    unknown_label: Any
    model_: FittedEvidence

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FewShotClassifier._parameter_constraints,
        "false_rejection_rate": [Interval(Real, 0, 1, closed="neither"), None],
        "unknown_label": [str, Integral, Real, None],
    }

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable class of each image, or `unknown_label` where that is asked for.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Members of `classes_`, or `unknown_label`.
        """
        if self.false_rejection_rate is None:
            return super().predict(X)
        logits, scores = self._judge(X)
        refused = scores > self.reject_threshold_
        return with_unknown(self.classes_[logits.argmax(1)], refused, self._unknown(), self.classes_)

    def open_set_score(self, X: Any) -> NDArray[np.float64]:
        """How unlike all known classes each image is: minus the log of the sum of the exponentials of its logits.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            To be compared with each other and with `reject_threshold_`.
        """
        return self._judge(X)[1]

    def _judge(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits (n, C) and open-set scores (n,) of new images, in one pass."""

        def both(like: Tensor) -> Callable[[Tensor], Tensor]:
            judge = self.model_.scorer(like).logits_and_open_set

            def rows(features: Tensor) -> Tensor:
                logits, scores = judge(features)
                return torch.cat([logits, scores[:, None]], dim=1)

            return rows

        found = self._score(X, both)
        return settle_ties(found[:, :-1]), found[:, -1]

    def _calibrate_rejection(self, left_out: LeftOutPredictions) -> None:
        """Set `reject_threshold_` to what the wanted share of the support images exceeds, each left out."""
        rate = self.false_rejection_rate
        self.reject_threshold_ = np.inf if rate is None else left_out.rejection_threshold(rate)

    def _unknown(self) -> Any:
        """The label of what is none of the classes."""
        if self.unknown_label is not None:
            return self.unknown_label
        return "unknown" if isinstance(self.classes_.tolist()[0], str) else -1

    def _check_unknown(self) -> None:
        """Refuse a label for the unknown that is a class, or of another kind than the classes."""
        if self.false_rejection_rate is not None:
            check_unknown(self._unknown(), self.classes_)
