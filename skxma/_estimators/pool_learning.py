"""An estimator's part in pictures without labels: which they are, what came of them, what is kept."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skxma._estimators.rejection import OpenSetClassifier
from skxma._estimators.scoring import softmax
from skxma._estimators.task import Task
from skxma._fitted import FitReport, FittedEvidence
from skxma._semi_supervised.fit import PoolReport, Refit, fit_with_pool
from skxma.caches import Floats

SAVED_SOFT_LABELS = 2**20


class SemiSupervisedClassifier(OpenSetClassifier):
    """A few-shot classifier that may learn from pictures without labels.

    A subclass calls `_learn_from_pool` in a fit that has use for a pool, and leaves `left_out_label_` and
    `left_out_probability_` of the labelled samples.
    """

    left_out_label_: NDArray[Any]
    left_out_probability_: NDArray[Any]

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **OpenSetClassifier._parameter_constraints,
        "unlabeled_label": [str, Integral, Real, None],
    }

    def _learn_from_pool(
        self, report: FitReport, task: Task, vocabulary: Tensor | None, refit: Refit
    ) -> FittedEvidence:
        """The model of a fit, with what the pool of the task says where labels that it has not seen gain by it."""
        if task.pool is None:
            return report.model
        found = fit_with_pool(report, task.pool, task.text, vocabulary, task.logit_scale, refit, task.like)
        self._pool_report = found
        return found.model

    def _answer_unlabelled(self, features: Floats, unlabelled: NDArray[np.bool_]) -> None:
        found: PoolReport | None = self.__dict__.pop("_pool_report", None)
        position = self.unlabeled_position_
        inside = position >= 0 if found is not None else np.zeros(len(features), dtype=bool)
        self.soft_labels_ = np.empty((len(features), len(self.classes_)), dtype=np.float32)
        self.n_unlabeled_used_ = 0
        if found is not None:
            self.soft_labels_[inside] = found.soft_labels[position[inside]]
            self.n_unlabeled_used_ = int(found.used and (found.known[position[inside]] > 0.5).sum())
        # what the pool left out, of weight 0 or given with a label too
        self.soft_labels_[~inside] = softmax(self._score_features(features[~inside], self._scorer))
        self.left_out_label_[unlabelled] = self.classes_[self.soft_labels_.argmax(1)]
        self.left_out_probability_[unlabelled] = self.soft_labels_.max(1)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of a saved model the soft labels of a large pool."""
        state = super().__getstate__()
        if np.size(state.get("soft_labels_", 0)) > SAVED_SOFT_LABELS:
            del state["soft_labels_"]
        return state
