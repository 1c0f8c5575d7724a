"""Searching alpha, beta and the fusion ratio on similarities that are computed once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import check_consistent_length, indexable
from torch import Tensor

from skxma import functional as F
from skxma._estimators.embedding_input import EmbeddingInput
from skxma._estimators.scoring import chunks, settle_ties, softmax
from skxma._estimators.xmadapter import XMAdapterClassifier
from skxma._labels.arrays import with_spelling_of
from skxma._runtime.doc_links import DocumentedMixin
from skxma._sklearn_compat import has_callbacks, safe_indexing
from skxma.embeddings import Embeddings
from skxma.model_selection import UnlabeledInTraining

SWEPT = ("alpha", "beta", "fusion_ratio")


class XMAdapterSearchCV(DocumentedMixin, GridSearchCV):
    """`GridSearchCV` for :class:`~skxma.XMAdapterClassifier` that repeats no work which the candidates share.

    Images are encoded once, before the folds. Where candidates differ by the numbers alpha, beta and fusion ratio alone
    and nothing is learned (``evidence="paper"``, ``n_epochs=0``, all three numbers in the grid or the estimator, no
    sample weights), each fold is fitted once and its affinities serve all candidates: a hundred times faster, with
    the scores that `GridSearchCV` gives. All other searches are `GridSearchCV`'s on the embeddings, because each of
    their candidates learns something of its own.

    Parameters
    ----------
    estimator : XMAdapterClassifier

    param_grid : dict or list of dict
        As in `GridSearchCV`.

    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in `GridSearchCV`, but for `cv` where the estimator has an `unlabeled_label`: samples so marked are trained
        on in each fold and never tested on, see :class:`~skxma.model_selection.UnlabeledInTraining`. A sweep runs in
        this process, and a fold that cannot be fitted raises: it would fail all candidates.

    Attributes
    ----------
    cv_results_, best_estimator_, best_params_, best_score_, best_index_, scorer_, n_splits_, refit_time_
        As in `GridSearchCV`. Of a swept fold, `mean_fit_time` is the share of each candidate.
    swept_ : bool
        Whether the folds were fitted once for all candidates.

    Examples
    --------
    >>> from skxma import XMAdapterClassifier, XMAdapterSearchCV
    >>> from skxma.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> clf = XMAdapterClassifier("tiny", evidence="paper", n_epochs=0, fusion_ratio=0.8)
    >>> search = XMAdapterSearchCV(clf, {"alpha": [1, 3, 10], "beta": [2, 5.5]}, cv=2).fit(emoji.images, emoji.target)
    >>> search.swept_, len(search.cv_results_["params"])
    (True, 6)
    """

    cv: Any

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Search, and fit the best on all samples.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in :meth:`XMAdapterClassifier.fit`.
        y : array-like of shape (n_samples,)
            Labels.
        **params : dict
            ``sample_weight`` of shape (n_samples,) for the fits, ``groups`` for the splitter.

        Returns
        -------
        self : object
            The search, fitted.

        Raises
        ------
        TypeError
            The estimator is no XMAdapterClassifier.
        """
        if not isinstance(self.estimator, XMAdapterClassifier):
            raise TypeError(
                f"XMAdapterSearchCV searches an XMAdapterClassifier, not {type(self.estimator).__name__}; "
                "sklearn.model_selection.GridSearchCV takes any estimator."
            )
        X = EmbeddingInput.of(clone(self.estimator)).joined(X)
        check_consistent_length(X, y)
        X = self._encoded(X)
        given: Any = self.cv
        try:
            # the base class reads the parameter itself
            self.cv = self._honest_cv()
            return self._search(X, y, params)
        finally:
            self.cv = given

    def _honest_cv(self) -> Any:
        """The splitter, which must not test on samples without a label."""
        marker = self.estimator.unlabeled_label
        keeps = isinstance(self.cv, UnlabeledInTraining) or getattr(self.cv, "unlabeled_label", None) is not None
        if marker is None or keeps:
            return self.cv
        return UnlabeledInTraining(5 if self.cv is None else self.cv, marker)

    def _search(self, X: Any, y: Any, params: dict[str, Any]) -> Self:
        """Search embeddings, or images where they must stay such."""
        candidates = list(ParameterGrid(self.param_grid))
        if not candidates:
            raise ValueError(f"param_grid={self.param_grid!r} holds no candidates; name parameters and their values.")
        # releases of scikit-learn differ in whether sample weights count in the scores
        self.swept_ = set(params) <= {"groups"} and self._can_sweep(candidates)
        return self._sweep(X, y, candidates, **params) if self.swept_ else super().fit(X, y, **params)

    def _encoded(self, X: Any) -> Any:
        """Embeddings of the images; images as they are where fits need views of them, or some cannot be read."""
        inputs = EmbeddingInput.of(clone(self.estimator))
        if inputs.holds_embeddings(X) or self.estimator.n_views > 1:
            return X
        features = inputs.encode_images(X)
        return X if np.isnan(features).any() else Embeddings(features, inputs.fingerprint, features.blocks)

    def _can_sweep(self, candidates: Sequence[Mapping[str, Any]]) -> bool:
        """Return True if all candidates can share one fit per fold."""
        clf = self.estimator
        plain = not self.return_train_score and (self.scoring is None or isinstance(self.scoring, str))
        learns = clf.evidence != "paper" or clf.n_epochs > 0
        numbers = all(
            isinstance(candidate.get(name, getattr(clf, name)), Real) for candidate in candidates for name in SWEPT
        )
        # callbacks observe every fit, so every fit is made
        watched = any(has_callbacks(one) for one in (self, clf))
        return (
            plain
            and not learns
            and not watched
            and numbers
            and all(set(candidate) <= set(SWEPT) for candidate in candidates)
        )

    def _sweep(self, X: Any, y: Any, candidates: list[Mapping[str, Any]], groups: Any = None) -> Self:
        """Fit each fold once and score all candidates on it."""
        X, y = indexable(X, y)
        self.scorer_ = check_scoring(self.estimator, self.scoring)
        self.multimetric_ = False
        folds = list(check_cv(self.cv, y, classifier=True).split(X, y, groups))
        self.n_splits_ = len(folds)
        clf = clone(self.estimator)
        for name, value in {item for candidate in candidates for item in candidate.items()}:
            # all are validated before any work
            clf.set_params(**{name: value})._validate_params()
        by_fold = [self._score_fold(X, y, train, test, candidates) for train, test in folds]
        out = [by_fold[split][i] for i, split in product(range(len(candidates)), range(len(folds)))]
        results = self._format_results(candidates, len(folds), out)
        self.cv_results_ = results
        self.best_index_ = self._select_best_index(self.refit, "score", results)
        self.best_params_ = results["params"][self.best_index_]
        if not callable(self.refit):
            self.best_score_ = results["mean_test_score"][self.best_index_]
        if self.refit:
            start = time.time()
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, y)
            self.refit_time_ = time.time() - start
        return self

    def _score_fold(
        self,
        X: Any,
        y: Any,
        train: NDArray[np.intp],
        test: NDArray[np.intp],
        candidates: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Scores of all candidates on one fold, as `GridSearchCV` collects them."""
        start = time.perf_counter()
        clf = clone(self.estimator).set_params(**candidates[0])
        clf.fit(safe_indexing(X, train), safe_indexing(y, train))
        fit_time = (time.perf_counter() - start) / len(candidates)
        X_test, y_test = safe_indexing(X, test), with_spelling_of(safe_indexing(y, test), clf.classes_)
        numbers = [[float(c.get(name, getattr(self.estimator, name))) for name in SWEPT] for c in candidates]
        # those that share their evidence follow each other
        order = sorted(range(len(numbers)), key=lambda i: numbers[i][1:])
        scores: list[Any] = [None] * len(numbers)
        for i, logits in zip(order, sweep_logits(clf, X_test, [numbers[i] for i in order]), strict=True):
            start = time.perf_counter()
            if self.scoring in (None, "accuracy"):
                score = float(np.mean(clf.classes_[logits.argmax(1)] == y_test))
            else:
                score = self.scorer_(Scored(clf.classes_, logits), X_test, y_test)
            scores[i] = {
                "test_scores": score,
                "n_test_samples": len(y_test),
                "fit_time": fit_time,
                "score_time": time.perf_counter() - start,
                "fit_error": None,
            }
        return scores


def sweep_logits(clf: XMAdapterClassifier, X: Any, numbers: Sequence[Sequence[float]]) -> Iterator[NDArray[np.float64]]:
    """Yield the logits (n, C) that a model of the paper's form would give with other numbers.

    Parameters
    ----------
    clf : XMAdapterClassifier
        Fitted, with nothing trained.
    X
        Images or embeddings.
    numbers : sequence of (alpha, beta, fusion ratio)
        Those of equal beta and ratio share their evidence when they follow each other.
    """
    like = clf._like()
    scorer: Any = clf.model_.scorer(like)
    with torch.inference_mode():
        pieces = [
            (*scorer.affinities_to_texts(chunk), scorer.index.cosines(chunk))
            for chunk in chunks(clf._embed(X), like, max(len(clf.image_cache_.keys), len(clf.classes_)))
        ]
        known: tuple[tuple[float, float], list[Tensor]] | None = None
        for alpha, beta, ratio in numbers:
            if known is None or known[0] != (beta, ratio):
                known = (beta, ratio), [scorer.evidence(image, text, ratio, beta) for _, text, image in pieces]
            logits = [
                F.residual_logits(zero_shot, evidence, alpha)
                for (zero_shot, _, _), evidence in zip(pieces, known[1], strict=True)
            ]
            yield settle_ties(torch.cat(logits).double().cpu().numpy())


@dataclass
class Scored(ClassifierMixin, BaseEstimator):
    """A classifier that has given its answer, for scorers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    logits : ndarray of shape (n_samples, n_classes)
    """

    classes_: NDArray[Any]
    logits: NDArray[np.float64]

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable class of the samples that were scored."""
        best: NDArray[Any] = self.classes_[self.logits.argmax(1)]
        return best

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class of the samples that were scored."""
        return softmax(self.logits)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits; of two classes the second's minus the first's."""
        return self.logits[:, 1] - self.logits[:, 0] if self.logits.shape[1] == 2 else self.logits
