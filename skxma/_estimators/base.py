"""What every few-shot classifier shares: classes, the support set, growing, predictions from logits."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skxma._estimators.growing import GrowingClassifier
from skxma._estimators.sample_names import names_of
from skxma._estimators.scoring import settle_ties, softmax
from skxma._estimators.support_set import check_one_label_each, labelled_weights, sample_weights
from skxma._estimators.task import Task
from skxma._labels import ClassTable, announced_classes, split_unlabelled, with_spelling_of
from skxma._persistence import model_file
from skxma._persistence.estimator_state import pack_estimator
from skxma._runtime.atomic import all_or_nothing
from skxma._runtime.callbacks import FitTask, validated
from skxma._runtime.device import memory_for, resolve_device
from skxma._runtime.threads import blas_for, threads_for
from skxma._semi_supervised.pool import Pool
from skxma._sklearn_compat import CallbackSupportMixin, num_samples
from skxma._statistics import class_means, zero_shot_cosines
from skxma.caches import Floats, ImageCache
from skxma.embeddings import is_embeddings, unit_rows

LOGIT_SCALE = 100.0
DOUBLE_ENTRIES = 2**16
CHUNK_ENTRIES = 2**22
FIT_PASSES = 1000
KEPT_POOL, KEPT_POOL_PER_CLASS = 1024, 16
POOL_STATE = ("unlabeled_cache_", "unlabeled_position_", "soft_labels_", "n_unlabeled_used_")


class FewShotClassifier(CallbackSupportMixin, ClassifierMixin, GrowingClassifier):
    """Base of the few-shot classifiers on top of a frozen encoder.

    A subclass assigns its parameters in ``__init__``, learns in `_fit_task` and scores in `_logits`.
    """

    @abstractmethod
    def _fit_task(self, task: Task) -> None:
        """Learn from a task."""

    @abstractmethod
    def _logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalised embeddings (n, D)."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on a few labelled images.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            Paths, PIL images or uint8 arrays; embeddings where ``encoder="precomputed"``. A float array of the
            encoder's own embeddings (see `encode`) is taken as such too.
        y : array-like of shape (n_samples,)
            Labels. Strings are taken as class names unless `class_names` says otherwise. A classifier with an
            `unlabeled_label` takes pictures so marked as without a label.
        sample_weight : array-like of shape (n_samples,), optional
            Weight 2 is the same as giving the sample twice, weight 0 the same as leaving it out.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            Labels, names or text features that do not fit together, or fewer than two classes.
        skxma.errors.ImageError
            An image that cannot be read; says which.
        """
        return self._fit(X, y, sample_weight)

    @validated
    @all_or_nothing
    def _fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """Fit with further `classes` announced, as the first `partial_fit` does."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        resolve_device(self.device)
        if isinstance(X, (str, os.PathLike)):
            raise ValueError(f"X is the single path {str(X)!r}; pass a list of pictures, one for each label.")
        with FitTask.fit(self, X, y, sample_weight, n_subtasks=2) as whole:
            with whole.subtask("encode"):
                features, table, weights, unlabelled = self._encode_support(X, y, sample_weight, classes)
            if hasattr(self, "dropped_classes_"):
                del self.dropped_classes_
            self.sample_names_ = names_of(X)
            return self._fit_features(features, table, weights, unlabelled, whole)

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable class of each image.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Members of `classes_`.
        """
        best = self._predict_logits(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of the predictions.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        y : array-like of shape (n_samples,)
            Labels; in either Unicode form.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples.

        Returns
        -------
        accuracy : float
        """
        check_is_fitted(self)
        return float(super().score(X, with_spelling_of(y, self.classes_), sample_weight))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return softmax(self._predict_logits(X))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits of each class.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes)
            For two classes of shape (n_samples,): the second class's logit minus the first's.
        """
        logits = self._predict_logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def zero_shot(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class from the text alone, before any of the labelled images.

        Where no class has a text, class means stand for it.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        features = torch.as_tensor(self._query_features(X))
        cosines = zero_shot_cosines(features, torch.as_tensor(self.text_features_))
        return softmax(self.encoder_logit_scale_ * cosines.double().numpy())

    def encode(self, X: Any) -> Floats:
        """L2-normalised embeddings of images, as `fit` and the predictions use them.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`; embeddings come back normalised.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features), float32
        """
        return self._query_features(X)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to a file that `skxma.load` reads: arrays and JSON, nothing that can be run.

        The file is there whole or not at all. The encoder's weights stay out of it: a name and a `CLIPEncoder`'s
        settings are kept, any other encoder object must be given back after loading (``set_params(encoder=...)``).
        Places on disk that `memory` or `cache_dir` name stay out too.

        Parameters
        ----------
        path : str or path-like
            By custom it ends in ".skxma". What was there is replaced.

        Raises
        ------
        skxma.errors.ModelFileError
            A parameter that a model file cannot hold; says which, before anything is written.
        OSError
            A folder that cannot be written, or a full disk; what was there before is as it was.
        """
        check_is_fitted(self)
        model_file.write(path, *pack_estimator(self))

    def _encode_support(
        self, X: Any, y: Any, sample_weight: Any, classes: Any = None
    ) -> tuple[Floats, ClassTable, NDArray[np.float64] | None, NDArray[np.bool_] | None]:
        """Embeddings (n, D), the classes, weights (n,), and which have no label (n,).

        Labels are settled before pictures are encoded.
        """
        ready = self._support_features(X) if self._is_precomputed() or is_embeddings(X) else None
        check_one_label_each(X, y)
        weights = sample_weights(sample_weight, num_samples(y))
        y, unlabelled = split_unlabelled(y, self.unlabeled_label)
        announced = announced_classes(classes, y, unlabelled, self.unlabeled_label)
        table = self._resolve_classes(y, labelled_weights(weights, unlabelled), announced)
        features = self._support_features(X) if ready is None else ready
        unread = np.asarray(np.isnan(features).any(axis=1))
        if unread.any():
            # an encoder with on_error="skip" has warned of them
            weights = np.where(unread, 0.0, 1.0 if weights is None else weights)
            table = self._resolve_classes(y, labelled_weights(weights, unlabelled), announced)
            features = np.where(unread[:, None], np.float32(0), features)
        return features, table, weights, unlabelled

    def _fit_features(
        self,
        features: Floats,
        table: ClassTable,
        weights: NDArray[np.float64] | None,
        unlabelled: NDArray[np.bool_] | None,
        whole: FitTask | None = None,
    ) -> Self:
        """Fit from embeddings, once everything else is settled."""
        text = self._class_text(table)
        n_classes = len(table.classes)
        support = labelled_weights(weights, unlabelled)
        cache, self.sample_position_ = ImageCache.build(features, table.indices, n_classes, support, text)
        self.sample_weight_ = np.ones(len(features)) if support is None else support[support > 0]
        pool = self._pool_of(features, weights, unlabelled, cache)
        scale = LOGIT_SCALE
        if not self._is_precomputed():
            scale = float(getattr(self._make_encoder(), "logit_scale", LOGIT_SCALE))
        self.classes_ = table.classes
        self.class_names_ = table.names
        self.encoder_logit_scale_ = scale
        self.image_cache_: ImageCache = cache
        small = len(cache.keys) * (features.shape[1] + n_classes) <= DOUBLE_ENTRIES
        # batch-invariant to the last digits where that costs nothing
        self.compute_dtype_ = "float64" if small else "float32"
        device, dtype = self._compute_on()
        as_tensor = None if text is None else torch.as_tensor(text, device=device, dtype=dtype)
        self.text_features_ = class_mean_directions(cache) if text is None else text
        n, width = cache.keys.shape
        work = float(n) * n * width + float(n) * n_classes * FIT_PASSES
        told = memory_for(f"Fitting {n} pictures of {n_classes} classes", device)
        with (
            threads_for(work),
            blas_for(work),
            told,
            (whole or FitTask()).subtask("learn", self._n_steps()) as learning,
        ):
            self._fit_task(Task(cache, as_tensor, scale, device, dtype, learning, pool))
            if unlabelled is not None:
                self._answer_unlabelled(features[unlabelled], unlabelled)
        return self

    def _n_steps(self) -> int:
        """In how many steps `_fit_task` learns that callbacks may watch; 0 for as a whole."""
        return 0

    def _pool_of(
        self,
        features: Floats,
        weights: NDArray[np.float64] | None,
        unlabelled: NDArray[np.bool_] | None,
        cache: ImageCache,
    ) -> Pool | None:
        """The pictures without labels; some of a large pool are remembered, to stand for it when the model grows."""
        for name in POOL_STATE:
            if hasattr(self, name):
                delattr(self, name)
        if unlabelled is None:
            return None
        rows = np.flatnonzero(unlabelled)
        counts = np.ones(len(rows)) if weights is None else weights[rows]
        pool, self.unlabeled_position_ = Pool.build(features[rows], counts, cache)
        most = max(KEPT_POOL, KEPT_POOL_PER_CLASS * cache.n_classes)
        self.unlabeled_cache_ = None if pool is None else pool.thinned(most)
        return pool

    def _answer_unlabelled(self, features: Floats, unlabelled: NDArray[np.bool_]) -> None:
        """Say what came of the embeddings (M, D) given without a label; `unlabelled` (n_samples,) is True there."""

    def _compute_on(self) -> tuple[torch.device, torch.dtype]:
        """Where and in what the mathematics runs; MPS has no double, and all but encoding is light."""
        device = resolve_device(self._present_device())
        on = device if device.type == "cuda" else torch.device("cpu")
        return on, getattr(torch, self.compute_dtype_)

    def _like_fit(self) -> Tensor:
        """An empty tensor where and in what the mathematics runs."""
        device, dtype = self._compute_on()
        return torch.empty(0, device=device, dtype=dtype)

    def _scorer(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """What gives the logits (n, C) of each chunk (n, D); prepares once what all chunks need."""
        return self._logits

    def _width(self) -> int:
        """How many numbers a prediction holds for a query: here, affinities to all keys."""
        return len(self.image_cache_.keys)

    def _chunks(self, features: Floats, width: int | None = None) -> Iterator[Tensor]:
        """Embeddings (n, D) in pieces that fit in memory with arrays (n, width), as wide as predictions need."""
        device, dtype = self._compute_on()
        width = max(self._width() if width is None else width, len(self.classes_), features.shape[1])
        for piece in torch.as_tensor(features).split(max(1, CHUNK_ENTRIES // width)):
            yield piece.to(device=device, dtype=dtype)

    def _predict_logits(self, X: Any) -> NDArray[np.float64]:
        """Logits (n, C) as float64."""
        return settle_ties(self._score(X, self._scorer))

    def _score(self, X: Any, scorer: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> NDArray[np.float64]:
        """The rows (n, k) as float64 that a scorer, made ready once, gives of new images, chunk by chunk."""
        check_is_fitted(self)
        return self._score_features(self._query_features(X), scorer)

    def _score_features(self, features: Floats, scorer: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> Any:
        """The same for embeddings (n, D)."""
        n_keys, width = self.image_cache_.keys.shape
        threads = threads_for(float(len(features)) * width * (n_keys + width))
        told = memory_for(f"Predicting with {n_keys} keys of {len(self.classes_)} classes", self._compute_on()[0])
        with torch.inference_mode(), threads, told:
            score = scorer(self._like_fit())
            return np.concatenate([score(chunk).double().cpu().numpy() for chunk in self._chunks(features)])


def class_mean_directions(cache: ImageCache) -> Floats:
    """L2-normalised class means (C, D), which stand for the text where there is none."""
    keys, labels, weights = map(torch.as_tensor, (cache.keys, cache.labels, cache.weights))
    return unit_rows(class_means(keys, labels, weights, cache.n_classes)[0].numpy())
