"""Logistic regression on the embeddings."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma.caches import to_tensors


class LogisticRegressionProbe(BaseFewShotClassifier):
    """Multinomial logistic regression on the embeddings, scikit-learn's: the plain reference, which sees no text.

    CLIP's authors [1]_ take ``C=0.316`` on raw features in their example, found on validation data; on features of unit
    length instead of a length near 10 that is the default here. A class without images gets the lowest score.

    Parameters
    ----------
    C : float, default=31.6
        Inverse strength of the penalty.

    max_iter : int, default=1000
        Of the solver.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features)
        Weights; 0 for classes without images.
    intercept_ : ndarray of shape (n_classes,)
        Biases.
    n_iter_ : int
        Iterations of the solver, 0 where only one class has images.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
       arXiv:2103.00020; https://github.com/openai/CLIP
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"C": (0.1, 1.0, 3.16, 10.0, 31.6, 100.0, 1000.0)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="right")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        C: float = 31.6,
        max_iter: int = 1000,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        n_views: int = 1,
        conformal: str | None = None,
        device: Any = "auto",
        precision: str = "auto",
        memory: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            class_names=class_names,
            templates=templates,
            text_features=text_features,
            n_views=n_views,
            conformal=conformal,
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.C = C
        self.max_iter = max_iter

    def _fit_support(self, task: Task) -> dict[str, Any]:
        cache = task.cache
        seen = np.unique(cache.labels)
        coef = np.zeros((cache.n_classes, cache.keys.shape[1]), dtype=np.float32)
        intercept = np.zeros(cache.n_classes, dtype=np.float32)
        fitted = {
            "coef_": coef,
            "intercept_": intercept,
            "present_": np.isin(np.arange(cache.n_classes), seen),
            "n_trained_": len(seen) * (cache.keys.shape[1] + 1),
            "n_iter_": 0,
        }
        if len(seen) < 2:
            return fitted
        probe = LogisticRegression(C=self.C, max_iter=self.max_iter)
        with warnings.catch_warnings():
            # few shots of many classes look like a regression to scikit-learn
            warnings.filterwarnings("ignore", message="The number of unique classes")
            probe.fit(cache.keys.astype(np.float64), cache.labels, sample_weight=cache.weights.astype(np.float64))
        # of two classes scikit-learn fits one row, the log-odds of the second
        coef[seen] = probe.coef_ if len(seen) > 2 else np.r_[-probe.coef_, probe.coef_] / 2
        intercept[seen] = probe.intercept_ if len(seen) > 2 else np.r_[-probe.intercept_, probe.intercept_] / 2
        return {**fitted, "n_iter_": int(probe.n_iter_.max())}

    def _logits(self, features: Tensor) -> Tensor:
        coef, intercept, present = to_tensors(self.coef_, self.intercept_, self.present_, like=features)
        logits = features @ coef.T + intercept
        lowest = logits.masked_fill(~present, float("inf")).min(1, keepdim=True).values
        return logits.where(present, lowest)
