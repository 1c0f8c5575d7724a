"""The base of the few-shot classifiers: fit, growing and dropping, predictions from logits."""

from __future__ import annotations

import copy
import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skxma import functional as F
from skxma._estimators import conformal as sets
from skxma._estimators.class_prior import ClassPrior, base_frequencies
from skxma._estimators.embedding_input import EmbeddingInput
from skxma._estimators.encoder_parameter import PRECOMPUTED, is_callers_own, is_precomputed, without_weights
from skxma._estimators.fitted_attributes import with_attributes, without_fitted
from skxma._estimators.preparation import first_task, grown_task, reduced_task
from skxma._estimators.sample_names import Names
from skxma._estimators.scoring import Chunking, Scoring, score, settle_ties, softmax
from skxma._estimators.task import Task, warn_of_unknown_classes
from skxma._labels.arrays import with_spelling_of
from skxma._labels.by_label import Name
from skxma._persistence import hub, model_file
from skxma._persistence.estimator_state import pack_estimator
from skxma._persistence.model_card import model_card
from skxma._runtime.device import PRECISIONS
from skxma._runtime.doc_links import doc_link_parameters, doc_link_template
from skxma._sklearn_compat import CallbackSupportMixin, HasMethods, Interval, StrOptions
from skxma._statistics import Calibration, fill_empty_sets, prediction_sets, zero_shot_cosines
from skxma.caches import Floats, ImageCache, Integers
from skxma.inspection._model_report import ModelReport, model_report


class BaseFewShotClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Base of the few-shot classifiers on top of a frozen encoder, with the parameters that all of them have.

    A subclass assigns its own parameters in ``__init__``, returns its fitted attributes from `_fit_support` and scores
    in `_logits`. Nothing is set on the estimator before a fit has come to its end.

    Attributes
    ----------
    search_grid : dict from parameter to candidates
        Searched where there are validation images (:func:`skxma.model_selection.tune`); empty where nothing is.
    learns_frequencies : bool
        Whether a class wins by the number of its support images, as in a loss or an evidence that counts each once.
    """

    unlabeled_label: Any = None
    classes_: NDArray[Any]
    class_names_: list[Name | None] | None
    image_cache_: ImageCache
    sample_position_: Integers
    sample_weight_: NDArray[np.float64]
    sample_names_: Names | None
    text_features_: Floats
    encoder_logit_scale_: float
    calibration_: Calibration
    fold_fits_: list[dict[str, Any]]
    compute_dtype_: str
    n_features_in_: int
    encoder_fingerprint_: str | None
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {}
    learns_frequencies: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "encoder": [str, HasMethods(["encode_image"])],
        "class_names": ["array-like", dict, None],
        "templates": [str, "array-like"],
        "text_features": ["array-like", dict, None],
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "conformal": [StrOptions({"cross"}), None],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", *PRECISIONS})],
        "memory": "no_validation",
        "verbose": ["verbose"],
    }
    _doc_link_module = "skxma"
    _doc_link_template = doc_link_template
    _doc_link_url_param_generator = doc_link_parameters

    # images that belong together are left out together by a fit as by the splits, wherever scikit-learn routes metadata
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"groups": True}

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
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
        self.encoder = encoder
        self.class_names = class_names
        self.templates = templates
        self.text_features = text_features
        self.n_views = n_views
        self.conformal = conformal
        self.device = device
        self.precision = precision
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @abstractmethod
    def _fit_support(self, task: Task) -> dict[str, Any]:
        """Learn from a task; returns the fitted attributes, of which none is set yet."""

    @abstractmethod
    def _logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalized embeddings (n, D)."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit on a few labeled images.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            Paths, PIL images, uint8 arrays or tensors, bytes, open files or records with "bytes" and "path";
            embeddings if ``encoder="precomputed"``. A float array of the encoder's own embeddings (see `encode`) is
            accepted too; of several encoders also a list of arrays, one per encoder.
        y : array-like of shape (n_samples,)
            Labels. Strings are taken as class names unless `class_names` says otherwise. A classifier with an
            `unlabeled_label` takes images marked with it as images without a label.
        sample_weight : array-like of shape (n_samples,), optional
            Weight 2 is the same as giving the sample twice, weight 0 the same as leaving it out.
        groups : array-like of shape (n_samples,), optional
            Names of groups of images that depend on one another: of one burst, one patient, or copies that augment
            one image. What is left out to choose the weights and to judge the model is left out with its group. None
            as a name is a group of one. Without `groups`, near-duplicates are such groups, with a warning.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            Labels, names or text features that do not match, or fewer than two classes.
        skxma.errors.ImageError
            An image that cannot be read; the message names it.
        """
        with first_task(self, X, y, sample_weight, groups) as task:
            warn_of_unknown_classes(task)
            task.fitted.update(self._fit_support(task) | self._cross_fit(task))
        return self._set_fitted(task.fitted)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
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
            classes at once, known by their text if they have one, with a warning if not; `y` must not contain others.
            With None, classes join as they appear.
        sample_weight : array-like of shape (n_samples,), optional
            As in `fit`.
        groups : array-like of shape (n_samples,), optional
            As in `fit`; a name that an earlier call used is the same group.

        Returns
        -------
        self : object
            The fitted classifier.
        """
        prepare = grown_task if hasattr(self, "classes_") else first_task
        with prepare(self, X, y, sample_weight, groups, classes) as task:
            warn_of_unknown_classes(task)
            task.fitted.update(self._fit_support(task) | self._cross_fit(task))
        return self._set_fitted(task.fitted)

    def drop(self, classes: Any) -> Self:
        """Remove classes, their images and their text; nothing is encoded again.

        The result is that of `fit` without them. They return when `partial_fit` brings images of them.

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
        with reduced_task(self, classes) as task:
            task.fitted.update(self._fit_support(task) | self._cross_fit(task))
        return self._set_fitted(task.fitted)

    def predict(self, X: Any, class_prior: Any = None) -> NDArray[Any]:
        """Most probable class of each image.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        class_prior : array-like of shape (n_classes,), mapping label -> share, "batch" or None, default=None
            As in `predict_proba`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Members of `classes_`.
        """
        prior = self._class_prior(class_prior)
        best = self._apply_prior(self._predict_logits(X), prior).argmax(1)
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

    def predict_proba(self, X: Any, class_prior: Any = None) -> NDArray[np.float64]:
        """Probability of each class.

        Without a `class_prior` the probabilities of calibrated evidence hold for equally frequent classes, whatever
        their numbers of support images, because its evidence for a class is a mean over the images. Where an evidence
        or a loss counts each image (``evidence="paper"`` and most rivals), they hold for the classes' shares of the
        support set. A `class_prior` takes the place of either.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        class_prior : array-like of shape (n_classes,), mapping label -> share, "batch" or None, default=None
            Class frequencies among the images, in the order of `classes_` or by label; they sum to 1. "batch" estimates
            them from the images themselves [1]_ and uses the estimate only where a likelihood-ratio test says that they
            are others than without a `class_prior`; the answer for an image then depends on the others in X.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.

        Raises
        ------
        ValueError
            A `class_prior` with an unknown class or without one of the classes, or with shares that are negative or do
            not sum to 1.

        References
        ----------
        .. [1] Saerens, Latinne & Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A
           Simple Procedure", Neural Computation 14(1), 2002; here with five pseudo-images per class.
        """
        prior = self._class_prior(class_prior)
        return softmax(self._apply_prior(self._predict_logits(X), prior))

    def predict_set(
        self,
        X: Any,
        confidence_level: Any = 0.9,
        *,
        allow_empty: bool = False,
        class_conditional: bool = False,
        class_prior: Any = None,
    ) -> NDArray[np.bool_]:
        """Sets of classes, which hold the right class with a given confidence.

        Where the labeled images and the new one are drawn alike (exchangeable), the set of a new image misses its class
        in a share of at most ``1 - confidence_level`` of all draws with ``conformal="full"``; of at most twice that and
        a little with "cross", and in practice of that; with "loo" nothing is proved for so few images. It is a promise
        for the mean over images and support sets: not for each class, unless `class_conditional`, and not for images of
        another kind.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        confidence_level : float or array-like of shape (n_levels,), default=0.9
            In (0, 1).
        allow_empty : bool, default=False
            Whether a set may be empty, which tells that an image is like none of the classes. With False such a set
            gets the likeliest class; the sets then hold the right class more often.
        class_conditional : bool, default=False
            Whether the level is to hold among the images of each class. Every class then needs the labeled images that
            the level needs: 9 for 0.9, 19 for 0.95.
        class_prior : array-like of shape (n_classes,), mapping label -> share, "batch" or None, default=None
            Class frequencies among the images, as in `predict_proba`. A labeled image then counts by the frequency of
            its class over the share of the class among the labeled images [1]_, and a class of frequency 0 is in no
            set. With None the sets hold for images whose classes are as frequent as among the labeled ones, which is
            another meaning than in `predict_proba` where these are unbalanced. With "batch" the level holds as far as
            the estimate is right.

        Returns
        -------
        sets : bool ndarray of shape (n_samples, n_classes), or (n_samples, n_classes, n_levels) for several levels
            In the order of `classes_`. A class without labeled images may be in a set, but the level holds for images
            of the other classes alone.

        Raises
        ------
        ValueError
            A level that so few labeled images cannot give, with the number that it needs; a model that keeps nothing
            to calibrate sets by; a `class_prior` that `predict_proba` refuses too, or that gives a share to classes
            without labeled images alone.

        References
        ----------
        .. [1] Podkopaev & Ramdas, "Distribution-free uncertainty quantification for classification under label shift",
           UAI 2021.
        """
        check_is_fitted(self)
        levels = sets.as_levels(confidence_level)
        prior = self._class_prior(class_prior)
        if prior is not None:
            sets.check_prior(self, prior.shares)
        if prior is None or prior.shares is not None:
            sets.check_support(self, levels, class_conditional, None if prior is None else prior.shares)
        features = self._embed(X)
        frequencies = self._frequencies(features, prior)
        if prior is not None and prior.shares is None:
            sets.check_support(self, levels, class_conditional, frequencies)
        found = self._sets(features, levels, class_conditional, frequencies)
        empty = ~np.all(found.any(axis=1), axis=1)
        if not allow_empty and empty.any():
            # several classes may share the least p-value there is, of which one is the likeliest
            logits = self._score_embeddings(features[empty], self._scorer)
            shift = 0.0 if frequencies is None else sets.shift_to(frequencies, self)
            known = self.image_cache_.known_classes(self.text_features_)
            likeliest = settle_ties(np.where(known, logits + shift, -np.inf)).argmax(axis=1)
            found[empty] = fill_empty_sets(found[empty], likeliest)
        return found[:, :, 0] if np.ndim(confidence_level) == 0 else found

    def predict_p(self, X: Any, *, class_conditional: bool = False, class_prior: Any = None) -> NDArray[np.float64]:
        """Conformal p-value of each class: the share of labeled images that fit their class no better.

        The set of a level holds the classes whose p-value exceeds one minus the level.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        class_conditional : bool, default=False
            Whether a class is compared with its own labeled images alone.
        class_prior : array-like of shape (n_classes,), mapping label -> share, "batch" or None, default=None
            As in `predict_set`.

        Returns
        -------
        p_values : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; without a `class_prior` at least ``1 / (N + 1)`` for N labeled images.

        Raises
        ------
        ValueError
            A model that keeps nothing to calibrate sets by, or a `class_prior` that `predict_set` refuses too.
        """
        check_is_fitted(self)
        sets.check_calibrated(self)
        prior = self._class_prior(class_prior)
        if prior is not None:
            sets.check_prior(self, prior.shares)
        features = self._embed(X)
        return self._p_values(features, class_conditional, self._frequencies(features, prior))

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
        """Probability of each class from the text alone, before any of the labeled images.

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
        features, text = torch.as_tensor(self._embed(X)), torch.as_tensor(self.text_features_)
        if text.shape[1] < features.shape[1]:
            # texts are of the first of several encoders
            features = self.image_cache_.split(features)[0]
        logits = self.encoder_logit_scale_ * zero_shot_cosines(features, text).double()
        unknown = self.image_cache_.unknown_classes(self.text_features_, logits)
        return softmax(F.rule_out(logits, unknown).numpy())

    def encode(self, X: Any) -> Floats:
        """L2-normalized embeddings of images, as `fit` and the predictions use them.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`; embeddings are returned normalized.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features), float32
        """
        return self._embed(X)

    def report(self, images: Any = None, *, suggested: Sequence[str] = ()) -> ModelReport:
        """One page about the fitted model that can be acted on.

        The accuracy to expect with its interval, calibration, classes that are confused, doubtful labels,
        near-duplicates, outliers, classes with too few images, and what to label next, all from the support images
        alone.

        Parameters
        ----------
        images : sequence of images, optional
            What was given to `fit`, for the page to show. By default the files whose paths the model has kept in
            `sample_names_`, where they are still there.
        suggested : sequence of str, default=()
            Paths of images without labels that are worth one, as :func:`skxma.active.suggest` finds them.

        Returns
        -------
        report : ModelReport
            ``print(report)``, or ``report.save("birds.html")``.
        """
        return model_report(self, images, suggested)

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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        license: str | None = None,
        include_paths: bool = False,
        commit_message: str = "Upload a classifier of skxma",
    ) -> str:
        """Upload the fitted classifier to the Hugging Face hub, for ``skxma.load("hf-hub:organization/name")``.

        One commit brings the model file, as `save` writes it, and a card with the classes, the encoder, the left-out
        accuracy and what the file discloses; a card that is there is replaced. An upload that breaks off changes
        nothing in the repository. Log in before with ``hf auth login``.

        Parameters
        ----------
        repo_id : str
            "organization/name"; it is created if it does not exist.
        private : bool, default=True
            Whether a repository that is created can be seen by you alone; the embeddings in the file disclose
            something of the images.
        license : str, optional
            A name of the hub's list, such as "cc-by-4.0".
        include_paths : bool, default=False
            Whether the paths of the support images go along.
        commit_message : str, default="Upload a classifier of skxma"
            Of the commit.

        Returns
        -------
        url : str
            Address of the repository.

        Raises
        ------
        ValueError
            `repo_id` is no name of a repository.
        skxma.errors.ModelFileError
            A parameter that a model file cannot hold, before anything is sent.
        OSError
            The hub cannot be reached or refuses, or the upload broke off.
        """
        check_is_fitted(self)
        shared = copy.copy(self)
        if not include_paths:
            shared.sample_names_ = None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / hub.MODEL_FILE
            shared.save(path)
            card = model_card(shared, repo_id, license)
            return hub.upload(repo_id, path, card, private=private, message=commit_message)

    def _cross_fit(self, task: Task) -> dict[str, Any]:
        """The fitted attributes of sets that are calibrated by folds, or none."""
        # a warm start would know the samples that are left out
        return sets.cross_fit(without_fitted(self), task) if self.conformal == "cross" else {}

    def _set_fitted(self, fitted: dict[str, Any]) -> Self:
        """Replace all fitted attributes, in one assignment: an interrupt finds the old ones or the new ones."""
        self.__dict__ = {**vars(without_fitted(self)), **fitted}
        return self

    def _check_parameters(self) -> None:
        """Warn of parameters that have no effect, or refuse such that do not go together."""

    def _n_steps(self) -> int:
        """Number of steps of `_fit_support` that callbacks may watch; 0 where it learns as a whole."""
        return 0

    def _embed(self, X: Any) -> Floats:
        """L2-normalized embeddings of new images (n, D), by the encoder of the fit."""
        return self._fitted_input().embed_queries(X)

    def _fitted_input(self) -> EmbeddingInput:
        """The encoder of the fit and its device."""
        # scikit-learn's check reads the tags of the estimator first
        if not hasattr(self, "classes_"):
            check_is_fitted(self)
        return EmbeddingInput.of(self)

    def _like(self, inputs: EmbeddingInput | None = None) -> Tensor:
        """An empty tensor on the device and in the precision of the computation."""
        device = (EmbeddingInput.of(self) if inputs is None else inputs).compute_device
        return torch.empty(0, device=device, dtype=getattr(torch, self.compute_dtype_))

    def _scorer(self, like: Tensor) -> Scoring:
        """The function from a chunk (n, D) to its logits (n, C); prepares once what all chunks need."""
        return self._logits

    def _chunking(self, like: Tensor) -> Chunking:
        """Cut queries so that the affinities of a chunk to all keys fit in memory."""
        return Chunking(len(self.image_cache_.keys))

    def _predict_logits(self, X: Any) -> NDArray[np.float64]:
        """Logits (n, C) as float64."""
        return settle_ties(self._score(X, self._scorer))

    def _class_prior(self, given: Any) -> ClassPrior | None:
        """The class frequencies that a caller asks for, checked before images are encoded."""
        if given is None:
            return None
        check_is_fitted(self)
        return ClassPrior.of(given, self.classes_)

    def _apply_prior(self, logits: NDArray[np.float64], prior: ClassPrior | None) -> NDArray[np.float64]:
        """Logits (n, C) under class frequencies."""
        return logits if prior is None else prior.apply(logits, self._base_frequencies())

    def _base_frequencies(self) -> NDArray[np.float64]:
        """Class frequencies (C,) for which the logits hold."""
        return base_frequencies(self.image_cache_, self.learns_frequencies)

    def _frequencies(self, features: Floats, prior: ClassPrior | None) -> NDArray[np.float64] | None:
        """Class frequencies (C,) of embeddings (n, D), or None where none are asked for."""
        if prior is None:
            return None
        if prior.shares is not None:
            return prior.shares
        logits = settle_ties(self._score_embeddings(features, self._scorer))
        return prior.frequencies(logits, self._base_frequencies())

    def _sets(
        self,
        features: Floats,
        levels: Sequence[float],
        class_conditional: bool,
        frequencies: NDArray[np.float64] | None,
    ) -> NDArray[np.bool_]:
        """Prediction sets (n, C, n_levels) of embeddings (n, D), of which some may be empty."""
        is_one_model = self.conformal != "full" and not hasattr(self, "fold_fits_")
        if is_one_model and not class_conditional and frequencies is None:
            (model,) = self._left_out_models()
            return sets.sets_of_one_model(self.calibration_, model, features, levels)
        return prediction_sets(self._p_values(features, class_conditional, frequencies), levels)

    def _p_values(
        self, features: Floats, class_conditional: bool, frequencies: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Conformal p-values (n, C) of embeddings (n, D), whose classes have some frequencies (C,)."""
        return sets.p_values(self.calibration_, self._left_out_models(), features, class_conditional, frequencies)

    def _fitted_as(self, fitted: dict[str, Any]) -> Self:
        """A classifier with these parameters and some fitted attributes."""
        return with_attributes(self, {**vars(without_fitted(self)), **fitted})

    def _left_out_models(self) -> list[Any]:
        """The models by which the calibration scores were made: that of each fold."""
        return [self._fitted_as(fold) for fold in self.fold_fits_]

    def _score(self, X: Any, make_scorer: Callable[[Tensor], Scoring]) -> NDArray[np.float64]:
        """Scores (n, k) of new images as float64."""
        inputs = self._fitted_input()
        return self._score_embeddings(inputs.embed_queries(X), make_scorer, inputs)

    def _score_embeddings(
        self, features: Floats, make_scorer: Callable[[Tensor], Scoring], inputs: EmbeddingInput | None = None
    ) -> NDArray[np.float64]:
        """Scores (n, k) of embeddings (n, D) as float64."""
        return score(features, make_scorer, self._like(inputs), self.image_cache_, self._chunking)

    def __copy__(self) -> Self:
        """Copy the attributes; pickles may lack some."""
        return with_attributes(self, vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the attributes deeply, but for an encoder object of the caller's, which may hold locks and handles."""
        if is_callers_own(self.encoder):
            memo[id(self.encoder)] = self.encoder
        copied = with_attributes(self, {})
        memo[id(self)] = copied
        copied.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return copied

    def __sklearn_clone__(self) -> Self:
        """Clone the parameters, but for an encoder object of the caller's, which the clone shares."""
        if not is_callers_own(self.encoder) or hasattr(self.encoder, "get_params"):
            cloned: Self = super().__sklearn_clone__()
            return cloned
        named = with_attributes(self, {**vars(self), "encoder": PRECOMPUTED})
        cloned = BaseEstimator.__sklearn_clone__(named)
        cloned.encoder = self.encoder
        return cloned

    def __getstate__(self) -> dict[str, Any]:
        """Leave the weights of the encoder out of a fitted model."""
        state: dict[str, Any] = dict(super().__getstate__())
        if hasattr(self, "classes_"):
            state["encoder"] = without_weights(state["encoder"])
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if not is_precomputed(self.encoder):
            tags.input_tags.two_d_array = False
            tags.input_tags.one_d_array = True
            tags.input_tags.string = True
            tags.input_tags.three_d_array = True
        return tags
