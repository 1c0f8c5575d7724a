"""scikit-learn's own methods for unlabeled samples, on the embeddings."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from torch import Tensor

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.embedding_input import EmbeddingInput
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval, StrOptions
from skxma.baselines._semi_supervised import UNLABELED_CONSTRAINTS

SKLEARN_UNLABELED = -1
LEAST = 1e-12


class SelfTrainingProbe(BaseFewShotClassifier):
    """Self-training: scikit-learn's around logistic regression on the embeddings; it sees no text.

    Parameters
    ----------
    threshold : float, default=0.75
        Confidence from which a prediction becomes a label; scikit-learn's default.

    C : float, default=31.6
        As in :class:`~skxma.baselines.LogisticRegressionProbe`.

    max_iter : int, default=1000
        Of the solver.

    unlabeled_label : str, int, NaN or None, default=None
        As in :class:`~skxma.XMAdapterClassifier`.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_seen, n_features), or (1, n_features) for two classes
        Of the last logistic regression; None where only one class has images.
    intercept_ : ndarray of shape (n_seen,) or (1,), or None
    seen_ : ndarray of shape (n_seen,)
        Positions in `classes_` of the classes with images.
    n_iter_ : int
        Steps that were taken.
    """

    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        **UNLABELED_CONSTRAINTS,
        "threshold": [Interval(Real, 0, 1, closed="left")],
        "C": [Interval(Real, 0, None, closed="right")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        threshold: float = 0.75,
        C: float = 31.6,
        max_iter: int = 1000,
        unlabeled_label: Any = None,
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
        self.unlabeled_label = unlabeled_label
        self.threshold = threshold
        self.C = C
        self.max_iter = max_iter

    def _fit_support(self, task: Task) -> dict[str, Any]:
        X, y = with_pool(task)
        seen = np.unique(task.cache.labels)
        fitted = {
            "seen_": seen,
            "n_trained_": len(seen) * (X.shape[1] + 1),
            "coef_": None,
            "intercept_": None,
            "n_iter_": 0,
        }
        if len(seen) > 1:
            inner = LogisticRegression(C=self.C, max_iter=self.max_iter)
            probe = SelfTrainingClassifier(inner, threshold=self.threshold)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="y contains no unlabeled samples")
                probe.fit(X, y)
            inner = probe.estimator_
            fitted.update(coef_=inner.coef_, intercept_=inner.intercept_, n_iter_=int(inner.n_iter_.max()))
        return fitted

    def _like(self, inputs: EmbeddingInput | None = None) -> Tensor:
        # scikit-learn computes on the CPU
        return torch.empty(0, dtype=getattr(torch, self.compute_dtype_))

    def _logits(self, features: Tensor) -> Tensor:
        if self.coef_ is None:
            return logits_of(None, features, len(self.classes_))
        probe = LogisticRegression()
        probe.coef_, probe.intercept_, probe.classes_ = self.coef_, self.intercept_, self.seen_
        return logits_of(probe, features, len(self.classes_))


class LabelSpreadingProbe(BaseFewShotClassifier):
    """Label spreading: scikit-learn's `LabelSpreading` on the embeddings; it sees no text.

    Parameters
    ----------
    kernel : {"rbf", "knn"}, default="rbf"
        "rbf" takes memory for the squares of all images, "knn" for a few neighbors of each.

    gamma : float, default=20
        Of the "rbf" kernel; scikit-learn's default.

    n_neighbors : int, default=7
        Of the "knn" kernel.

    alpha : float, default=0.2
        How far labels give way to their neighbors'.

    max_iter : int, default=30
        Steps.

    unlabeled_label : str, int, NaN or None, default=None
        As in :class:`~skxma.XMAdapterClassifier`.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    samples_ : ndarray of shape (n_samples, n_features)
        Embeddings of all images.
    label_distributions_ : ndarray of shape (n_samples, n_seen)
        Labels as they were spread.
    seen_ : ndarray of shape (n_seen,)
        Positions in `classes_` of the classes with images.
    n_iter_ : int
        Steps that were taken.
    """

    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        **UNLABELED_CONSTRAINTS,
        "kernel": [StrOptions({"rbf", "knn"})],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        kernel: str = "rbf",
        gamma: float = 20,
        n_neighbors: int = 7,
        alpha: float = 0.2,
        max_iter: int = 30,
        unlabeled_label: Any = None,
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
        self.unlabeled_label = unlabeled_label
        self.kernel = kernel
        self.gamma = gamma
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.max_iter = max_iter

    def _fit_support(self, task: Task) -> dict[str, Any]:
        X, y = with_pool(task)
        probe = self._probe(len(X))
        with warnings.catch_warnings():
            # its thirty steps are meant to be all
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(X, y)
        return {
            "samples_": probe.X_,
            "label_distributions_": probe.label_distributions_,
            "seen_": probe.classes_,
            "n_iter_": int(probe.n_iter_),
            "n_trained_": 0,
        }

    def _probe(self, n_samples: int) -> LabelSpreading:
        return LabelSpreading(
            kernel=self.kernel,
            gamma=self.gamma,
            n_neighbors=min(self.n_neighbors, n_samples),
            alpha=self.alpha,
            max_iter=self.max_iter,
        )

    def _like(self, inputs: EmbeddingInput | None = None) -> Tensor:
        # scikit-learn computes on the CPU
        return torch.empty(0, dtype=getattr(torch, self.compute_dtype_))

    def _logits(self, features: Tensor) -> Tensor:
        probe = self._probe(len(self.samples_))
        probe.X_, probe.label_distributions_, probe.classes_ = self.samples_, self.label_distributions_, self.seen_
        probe.n_features_in_, probe.nn_fit = self.samples_.shape[1], None
        return logits_of(probe, features, len(self.classes_))


def with_pool(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N + M, D) and class indices (N + M,) of a task, -1 for the M images without labels."""
    cache, pool = task.cache, task.pool
    if pool is None:
        return cache.keys.astype(np.float64), cache.labels
    unlabeled = np.full(len(pool.keys), SKLEARN_UNLABELED)
    return np.concatenate([cache.keys, pool.keys]).astype(np.float64), np.concatenate([cache.labels, unlabeled])


def logits_of(probe: Any, features: Tensor, n_classes: int) -> Tensor:
    """Log-probabilities (n, C) of a classifier of class indices; a class that it does not know is least likely."""
    logits = features.new_full((len(features), n_classes), float(np.log(LEAST)))
    if probe is None or not len(features):
        return logits
    with np.errstate(invalid="ignore", divide="ignore"):
        # spread labels vanish far from all samples
        found = np.nan_to_num(probe.predict_proba(features.double().cpu().numpy()), nan=0.0)
    logits[:, torch.as_tensor(probe.classes_)] = torch.as_tensor(np.log(np.maximum(found, LEAST))).to(logits)
    return logits
