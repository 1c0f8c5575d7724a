"""Growing and forgetting: samples and classes are added to a fitted model, or taken away, and nothing encoded again."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skxma._estimators.embedding_input import EncodedInput
from skxma._estimators.sample_names import names_with, names_without
from skxma._estimators.support_set import Samples, check_one_label_each, sample_weights
from skxma._labels import (
    ClassTable,
    announced_classes,
    join_labels,
    members,
    members_to_drop,
    resolve_classes,
    split_unlabelled,
)
from skxma._runtime.atomic import all_or_nothing
from skxma._semi_supervised.pool import Pool
from skxma._sklearn_compat import num_samples
from skxma.caches import Floats, ImageCache


class GrowingClassifier(EncodedInput):
    """A classifier that remembers its support set, and fits again when that changes."""

    class_names: Any
    text_features: Any
    unlabeled_label: Any = None
    classes_: NDArray[Any]
    dropped_classes_: NDArray[Any]
    image_cache_: ImageCache
    sample_position_: NDArray[np.intp]
    sample_weight_: NDArray[np.float64]
    sample_names_: NDArray[np.object_] | None
    unlabeled_cache_: Pool | None

    @abstractmethod
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on a few labelled images."""

    @abstractmethod
    def _fit(self, X: Any, y: Any, sample_weight: Any, classes: Any) -> Self:
        """Fit on a few labelled images, with further `classes` announced."""

    @abstractmethod
    def _fit_features(
        self,
        features: Floats,
        table: ClassTable,
        weights: NDArray[np.float64] | None,
        unlabelled: NDArray[np.bool_] | None,
    ) -> Self:
        """Fit from embeddings, once everything else is settled."""

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Add samples, and classes that were not known before, to the support set.

        The result is that of `fit` on all samples together; nothing is forgotten and no image is encoded again.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        y : array-like of shape (n_samples,)
            Labels, known or new.
        classes : array-like, optional
            All labels that this call and later ones may bring, as in scikit-learn. Those without images so far become
            classes at once, known by their text where they have one; `y` may hold no others. With None classes join
            as they come.
        sample_weight : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        if not hasattr(self, "classes_"):
            return self._fit(X, y, sample_weight, classes)
        self._validate_params()
        check_one_label_each(X, y)
        weights = sample_weights(sample_weight, num_samples(y))
        y, unlabelled = split_unlabelled(y, self.unlabeled_label, self.classes_[0])
        announced = announced_classes(classes, y, unlabelled, self.unlabeled_label, self.classes_)
        join_labels(self.classes_, y)
        labelled, pool = self._held()
        fresh = Samples.of(self._query_features(X), y, weights, unlabelled)
        known = labelled.joined(fresh) if pool is None else labelled.joined(fresh).joined(pool)
        table = self._resolve_classes(known.labels, known.labelled_weights, announced, self.classes_)
        if hasattr(self, "dropped_classes_"):
            self.dropped_classes_ = self.dropped_classes_[~members(self.dropped_classes_, known.labels.tolist())]
            table = table.without(self.dropped_classes_)
        self.sample_names_ = names_with(self, X)
        return self._fit_features(known.features, table, known.weights, known.unlabelled)

    @all_or_nothing
    def drop(self, classes: Any) -> Self:
        """Forget classes, their pictures and their text; nothing is encoded again.

        The result is that of `fit` without them. They come back with pictures given to `partial_fit`.

        Parameters
        ----------
        classes : array-like
            Members of `classes_`; at least two others must stay.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            A class that the model does not know, or too few that would stay.
        """
        check_is_fitted(self)
        dropped = members_to_drop(classes, self.classes_)
        stay = ~members(self.classes_, dropped.tolist())
        labelled, pool = self._held()
        known = labelled if pool is None else labelled.joined(pool)
        kept = ~members(known.labels, dropped.tolist())
        kept_labels = known.labels[kept & (known.labelled_weights > 0)]
        if stay.sum() < 2 or not len(kept_labels):
            raise ValueError(f"{int(stay.sum())} classes would stay; it takes two, one of them with pictures.")
        self.sample_names_ = names_without(self, kept)
        known = known.of_classes(kept, kept_labels[0])
        table = self._resolve_classes(known.labels, known.labelled_weights, known=self.classes_).without(dropped)
        self.dropped_classes_ = np.unique(join_labels(getattr(self, "dropped_classes_", dropped), dropped))
        return self._fit_features(known.features, table, known.weights, known.unlabelled)

    def _resolve_classes(
        self, y: Any, weights: NDArray[np.float64] | None, announced: list[Any] | None = None, known: Any = None
    ) -> ClassTable:
        kept = None if weights is None else weights > 0
        return resolve_classes(
            y,
            self.class_names,
            self.text_features,
            kept,
            announced=announced,
            known=known,
            marker=self.unlabeled_label,
        )

    def _held(self) -> tuple[Samples, Samples | None]:
        """The samples that the model remembers: the labelled in the order of the fit, and those without a label."""
        cache, held = self.image_cache_, self.sample_position_[self.sample_position_ >= 0]
        labelled = Samples.of(cache.embeddings[held], self.classes_[cache.labels[held]], self.sample_weight_)
        pool = getattr(self, "unlabeled_cache_", None)
        if pool is None:
            return labelled, None
        n = len(pool.keys)
        stand_in = np.repeat(self.classes_[:1], n)
        return labelled, Samples.of(pool.keys, stand_in, pool.weights, np.ones(n, dtype=bool))
