"""XMAdapterClassifier, the estimator."""

from __future__ import annotations

import inspect
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.class_prior import base_frequencies
from skxma._estimators.conformal import full_p_values, keeps_all_classes, left_out_calibration, shift_to
from skxma._estimators.encoder_parameter import is_several
from skxma._estimators.evidence import EVIDENCES, CalibratedEvidence, PaperEvidence
from skxma._estimators.pool_learning import fit_pool, label_pool
from skxma._estimators.preparation import kept_task
from skxma._estimators.rejection import RejectionRule
from skxma._estimators.scoring import Chunking, Scoring, chunks, settle_ties
from skxma._estimators.several_encoders import check_blocks, check_encoders
from skxma._estimators.support_set import first_samples
from skxma._estimators.task import Task
from skxma._evidence.fitted import FittedEvidence
from skxma._runtime.warning import warn
from skxma._sklearn_compat import Interval, StrOptions
from skxma.caches import Floats, Integers, TextCache

SAVED_SOFT_LABELS = 2**20
"""Numbers of soft labels that are saved with a model: 4 MiB of what no prediction reads."""
FULL_NEEDS_LEFT_OUT = (
    "conformal='full' compares left-out scores, and evidence='paper' sees every sample; pass conformal='cross'."
)
AUTO_OR_RATIO = [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})]


class XMAdapterClassifier(BaseFewShotClassifier):
    """Few-shot image classifier that retrieves from an image cache and a text cache on top of a frozen CLIP.

    The method is XMAdapter [1]_. The few labeled images form an image cache (embeddings as keys, labels as values), the
    class prompts a text cache. The affinities of a query to both are fused with a learned ratio, and the retrieved
    evidence is added to CLIP's zero-shot logits. By default every choice is made on leave-one-out logits of the support
    set, in closed form, so that no validation data is needed.

    The parameters come in groups: the data (`encoder`, `class_names`), the prompts (`templates` to `vocabulary`), the
    predictions (`false_rejection_rate` to `unlabeled_label`), the evidence (`evidence` to `warm_start`), the training
    of ``evidence="paper"`` alone (`text_dim` to `batch_size`), and the run time (`device` to `verbose`). Most users
    need the first group only.

    Parameters
    ----------
    encoder : str, object or list of them, default="ViT-B-32/laion2b_s34b_b79k"
        An open_clip "model/tag", "hf-hub:org/name", "local-dir:/path", "photo" (of packages, where there is no hub),
        "tiny" (bundled, for first steps and tests), "timm:NAME", "transformers:NAME" or "sentence-transformers:NAME",
        a `CLIPEncoder` or another of `skxma.encoder`, any object with ``encode_image`` and, if it knows texts,
        ``encode_text``, or "precomputed": then X holds embeddings. Without texts the evidence is of images alone.
        Clones and copies share such an object; pickles of a fitted model hold it where it pickles to at most 1 MiB.
        Of a list, the first that knows texts encodes them, and the others add what they see in the images.

    class_names : mapping label -> name, sequence of names or None, default=None
        Names of the classes in the prompts. Integer labels index a sequence. A name may be a sequence (synonyms and
        descriptions, "a sleepy tabby" or whole sentences), or None for a class without text. Named classes without
        images are learned from their text alone. With None, string labels are the names.

    templates : str or sequence of str, default="simple"
        Prompt templates: "simple" (CLIP's short list of 7), "imagenet" (CLIP's 80, a little more accurate and eleven
        times slower to encode), "photo", "bare", or format strings with one ``{}``.

    text_features : array-like of shape (n_classes, n_features), mapping or None, default=None
        Class text embeddings that take the place of prompts; of shape (n_classes, n_prompts, n_features) those of the
        prompts, whose mean is the class's. Rows follow `class_names` if given, else integer labels index them; a data
        frame is aligned by its index. With ``encoder="precomputed"`` and None, class means take the place of the text.

    vocabulary : {"common"}, sequence of str, array-like of shape (m, n_features) or None, default="common"
        Words whose text embeddings shape the image metric. "common" is a bundled list of everyday words (no words with
        ``encoder="precomputed"``, nor with an encoder whose `text_shapes_metric` is False, as "tiny" and "photo" say);
        an array holds embeddings.

    blocks : sequence of int or None, default=None
        Widths of the encoders' parts of a row, such as ``[512, 768]``, where X is one array that holds the embeddings
        of several encoders side by side. `text_features` and `vocabulary` are of the first. With None the rows are of
        one encoder, unless X is a list of arrays, one per encoder.

    false_rejection_rate : float in (0, 1) or None, default=None
        Largest share of images of known classes that `predict` answers with `unknown_label`: those whose open-set score
        has a conformal p-value of at most this rate among the left-out scores of the support images. N of these give no
        rate below ``1 / (N + 1)``. It holds for classes with images; of those that are known by their text alone more
        are refused. With None, `predict` always answers a class.

        `fit`, `partial_fit` and `drop` read the rate and keep the threshold: a fitted classifier predicts with that of
        its fit whatever the rate is set to, and None alone turns it off.

    unknown_label : str, int or None, default=None
        Label of rejected images; None is "unknown" for string labels and -1 for numbers.

    unlabeled_label : str, int, NaN or None, default=None
        Value of `y` that marks an image without a label, as -1 does in `sklearn.semi_supervised`. NaN marks every
        missing value: None, NaN and pandas' NA. With None every image has a label. Calibrated evidence learns from
        images without labels if that lowers the loss on held-out labels; ``evidence="paper"`` leaves them out.

    evidence : {"calibrated", "paper"}, default="calibrated"
        "calibrated" fuses several experts on the caches under a cross-modal metric. "paper" is
        ``logit_scale · f T + alpha · exp(−beta (1 − A)) L`` with ``A = γ A_img + (1 − γ) A_txt`` on the raw embeddings,
        with AdamW on the keys, MetaNet, Img2TxtNet and γ, as far as the paper is known.

    alpha : float or "auto", default="auto"
        Residual ratio: the weight of the caches relative to zero-shot. In calibrated evidence 1 is the prior.

    beta : float or "auto", default="auto"
        Sharpness of the exponential of the image cache.

    fusion_ratio : float in [0, 1] or "auto", default="auto"
        Share of the image cache in the evidence.

    hard_sample_weight : float, default=0.3
        Extra loss weight λ of the sample on which the two modalities disagree most: ``w_i = 1 + λ h_i``.

    n_epochs : int, default=20
        Passes over the support set; 0 is the training-free form. Calibrated evidence trains a residual from two shots
        per class and ten images on, and keeps it only if held-out samples gain more from it than their standard error.

    n_views : int, default=1
        Number of augmented views of each support image; their mean embedding is its key.

    conformal : {"loo", "cross", "full"} or None, default="loo"
        Calibration of the sets of `predict_set`. "loo" takes the left-out predictions that every fit makes: it costs
        nothing, and nothing is proved for it. "cross" fits once more for each of five folds; a set of level 1 − α is
        then proved to miss its class in no more than 2α of all draws and a little, and in practice α. "full" fits once
        per image and class when sets are asked for, and is exact: no more than α. None keeps nothing. Read by
        `predict_set` and `predict_p` only; ``evidence="paper"`` needs "cross".

    retrieval : {"auto", "exact", "top"}, default="auto"
        Keys that a prediction reads. "exact" reads all; "top" reads those nearest to the query, a sample of the others,
        and all keys of the classes that can still be the answer: probabilities then differ from the exact ones by less
        than 0.01 (docs/method.md says when), and logits of classes that cannot be the answer are estimates. "auto" is
        "exact" below 131 072 keys and "top" from there on. `kneighbors` always reads all.

    warm_start : bool, default=False
        With True, `fit`, `partial_fit` and `drop` on a fitted classifier start from its solution, for images or
        parameters that change little. Calibrated evidence then tries only the metrics that it chose before, from the
        weights that it learned before, in less than half the time; ``evidence="paper"`` continues to train the keys of
        known images, the nets and the scalars for `n_epochs` more. The support set is always the one given:
        `partial_fit` adds to it.

    text_dim : int or None, default=None
        Dimension of the text cache, to which MetaNet and Img2TxtNet are linear maps, as far as is known of the paper;
        32 to 128 are as accurate as more. None keeps the dimension of the embeddings, and the nets have a hidden layer.
        Read by ``evidence="paper"`` only.

    learning_rate, weight_decay : float, default=1e-3 and 1e-2
        Parameters of AdamW. Read by ``evidence="paper"`` only.

    batch_size : int, default=256
        Batch size of the training. Read by ``evidence="paper"`` only.

    device : str, default="auto"
        "auto" takes CUDA, else MPS, else the CPU.

    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        Precision of the encoder. Everything else is computed in float32 or float64.

    memory : None, bool, path or EmbeddingStore, default=None
        Place where embeddings are kept: None keeps them in this process, True or a path on disk, False nowhere.

    random_state : int, RandomState instance or None, default=None
        Seed of the augmented views, and of the nets and batches of ``evidence="paper"``.

    verbose : int, default=0
        Above 0, encoding shows a progress bar from its start. With 0 it shows one on a terminal and in a notebook if it
        takes over 2 s; ``SKXMA_PROGRESS=0`` in the environment turns all progress off.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    image_cache_ : ImageCache
        Keys, labels and weights of the support images in use.
    sample_names_ : ndarray of shape (n_samples,) of str or None, or None
        Paths of the images as they were given, None for an image without one; None where no image has a path. They are
        saved with the model: set the attribute to None to leave them out.
    set_aside_ : ndarray of shape (n_samples,), bool
        Samples left out because their labels are probably wrong.
    text_cache_ : TextCache or None
        None if no class has a text.
    alpha_, beta_, fusion_ratio_, logit_scale_ : float
        The chosen values. Those of calibrated evidence are a report: its predictions read the experts' weights in
        `model_` instead.
    hardness_ : ndarray of shape (n_samples,)
        Disagreement of the two modalities on each sample; 0 for a sample without a label.
    label_noise_ : ndarray of shape (n_samples,)
        Probability that each label is wrong; 0 for a sample without a label.
    noise_rate_ : float
        Estimated rate of wrong labels.
    left_out_label_ : ndarray of shape (n_samples,)
        Class that the model predicts for each sample with that sample left out.
    left_out_probability_ : ndarray of shape (n_samples,)
        The probability of that class.
    left_out_score_ : float
        Share of right answers to expect of this model on new images of the same kind. It counts the left-out answers,
        which neither the caches nor the weights have seen, and allows for the shot that is missing when a sample is
        left out. NaN where no class has two samples or only one class has images, and for the paper's form, whose nets
        have seen all samples.
    left_out_interval_ : ndarray of shape (2,)
        Its 90 % interval; 0 and 1 where the score is NaN. A pool of unlabeled samples is not counted in.
    reject_threshold_ : float
        Open-set score above which `predict` answers `unknown_label`; infinite without a `false_rejection_rate`.
    n_unlabeled_used_ : int
        With an `unlabeled_label`: number of samples without a label, probably of a known class, that the model learned
        from; 0 if they did not help.
    soft_labels_ : ndarray of shape (n_unlabeled, n_classes)
        With an `unlabeled_label`: class probabilities of the samples without a label, in their order, each without its
        own contribution to the model. Not saved with the model beyond a million entries.
    loss_curve_ : list of float
        Training loss of each pass; empty if nothing was trained.
    text_features_ : ndarray of shape (n_classes, n_features)
        Class text embeddings.
    n_features_in_ : int
        Dimension of the embeddings; of several encoders the sum of theirs.
    encoder_fingerprint_ : str or None
        Fingerprint of the encoder that made them.

    References
    ----------
    .. [1] "Cross-Modal Adapter: Parameter-Efficient Transfer Learning Approach for Vision-Language Models", 2024,
       arXiv:2404.12588.

    Examples
    --------
    >>> from skxma import XMAdapterClassifier
    >>> from skxma.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> shots = emoji.sets == "noto"
    >>> clf = XMAdapterClassifier("tiny").fit(emoji.images[shots], emoji.target[shots])
    >>> clf.predict_proba(emoji.images[~shots]).shape
    (160, 40)
    """

    model_: FittedEvidence
    text_cache_: TextCache | None
    fusion_ratio_: float
    reject_threshold_: float

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "encoder": [*BaseFewShotClassifier._parameter_constraints["encoder"], list, tuple],
        "blocks": ["array-like", None],
        "vocabulary": [str, "array-like", None],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "beta": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "fusion_ratio": AUTO_OR_RATIO,
        "evidence": [StrOptions({"calibrated", "paper"})],
        "hard_sample_weight": [Interval(Real, 0, None, closed="left")],
        "text_dim": [Interval(Integral, 1, None, closed="left"), None],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "retrieval": [StrOptions({"auto", "exact", "top"})],
        "conformal": [StrOptions({"loo", "cross", "full"}), None],
        "random_state": ["random_state"],
        "false_rejection_rate": [Interval(Real, 0, 1, closed="neither"), None],
        "unknown_label": [str, Integral, Real, None],
        "unlabeled_label": [str, Integral, Real, None],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        vocabulary: Any = "common",
        blocks: Any = None,
        false_rejection_rate: float | None = None,
        unknown_label: Any = None,
        unlabeled_label: Any = None,
        evidence: str = "calibrated",
        alpha: Any = "auto",
        beta: Any = "auto",
        fusion_ratio: Any = "auto",
        hard_sample_weight: float = 0.3,
        n_epochs: int = 20,
        n_views: int = 1,
        conformal: str | None = "loo",
        retrieval: str = "auto",
        warm_start: bool = False,
        text_dim: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 256,
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
        self.vocabulary = vocabulary
        self.blocks = blocks
        self.false_rejection_rate = false_rejection_rate
        self.unknown_label = unknown_label
        self.unlabeled_label = unlabeled_label
        self.evidence = evidence
        self.alpha = alpha
        self.beta = beta
        self.fusion_ratio = fusion_ratio
        self.hard_sample_weight = hard_sample_weight
        self.n_epochs = n_epochs
        self.retrieval = retrieval
        self.warm_start = warm_start
        self.text_dim = text_dim
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size

    def predict(self, X: Any, class_prior: Any = None) -> NDArray[Any]:
        """Most probable class of each image, or `unknown_label` if a `false_rejection_rate` is set.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        class_prior : array-like of shape (n_classes,), mapping label -> share, "batch" or None, default=None
            As in `predict_proba`; which images are unknown does not depend on it.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Members of `classes_`, or `unknown_label`.
        """
        if self.false_rejection_rate is None:
            return super().predict(X, class_prior)
        prior = self._class_prior(class_prior)
        rule = RejectionRule.of(self.false_rejection_rate, self.unknown_label, self.classes_)
        # the label may have been set to something else since the fit
        rule.check(self.classes_)
        logits, scores = self._logits_and_open_set(X)
        logits = self._apply_prior(logits, prior)
        return rule.apply(self.classes_[logits.argmax(1)], scores > self.reject_threshold_, self.classes_)

    def open_set_score(self, X: Any) -> NDArray[np.float64]:
        """Score of how unlike all known classes each image is: minus the log-sum-exp of its logits.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Higher is more unlike; compare them with each other and with `reject_threshold_`.
        """
        return self._logits_and_open_set(X)[1]

    def kneighbors(self, X: Any, n_neighbors: int = 5) -> tuple[Floats, Floats, Integers]:
        """Support images that a query retrieves, those with the highest fused affinity first.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        n_neighbors : int, default=5
            Number of support images; at most the number of keys in use.

        Returns
        -------
        image_affinity, text_affinity : ndarray of shape (n_samples, n_neighbors)
            Cosines in the image cache's metric and in the text cache's space; the second is 0 without text. Of several
            encoders they are the first one's.
        indices : ndarray of shape (n_samples, n_neighbors)
            Positions of these images among the samples given to `fit` (and then to `partial_fit`).
        """
        check_is_fitted(self)
        if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, Integral) or n_neighbors < 1:
            raise ValueError(f"n_neighbors={n_neighbors!r} must be an integer of at least 1.")
        in_use = self.image_cache_.weights > 0
        n_neighbors = min(int(n_neighbors), int(in_use.sum()))
        queries, like = self._embed(X), self._like()
        parts = []
        with torch.inference_mode():
            scorer = self.model_.scorer(like)
            for features in chunks(queries, like, max(len(in_use), len(self.classes_))):
                image, text = scorer.affinities(features)
                fused = F.fuse(image, text, self.fusion_ratio_)
                top = fused[:, torch.as_tensor(in_use)].topk(n_neighbors, dim=1).indices.cpu()
                keys = torch.as_tensor(np.flatnonzero(in_use))[top]
                parts.append([a.cpu().gather(1, keys).float().numpy() for a in (image, text)] + [keys.numpy()])
        affinities, text_affinities, found = (np.concatenate(part) for part in zip(*parts, strict=True))
        return affinities, text_affinities, first_samples(self.sample_position_, len(in_use))[found]

    def _fit_support(self, task: Task) -> dict[str, Any]:
        if task.cache.blocks is not None:
            self._check_several()
        rule = RejectionRule.of(self.false_rejection_rate, self.unknown_label, task.classes)
        rule.check(task.classes)
        evidence = self._evidence(task)
        report = evidence.fit(task)
        pool = fit_pool(report, task, evidence)
        model = report.model if pool is None else pool.model
        label = task.classes[task.per_sample(report.left_out.label)]
        probability = task.per_sample(report.left_out.probability)
        fitted = {
            "model_": model,
            "image_cache_": model.image_cache,
            "text_cache_": model.text_cache,
            "alpha_": model.alpha,
            "beta_": model.beta,
            "fusion_ratio_": model.fusion_ratio,
            "logit_scale_": model.logit_scale,
            "hardness_": task.per_sample(report.hardness),
            "label_noise_": task.per_sample(report.label_noise),
            "set_aside_": task.per_sample((model.image_cache.weights == 0).astype(np.float32)) > 0,
            "left_out_label_": label,
            "left_out_probability_": probability,
            "left_out_score_": report.expected.value,
            "left_out_interval_": np.array([report.expected.low, report.expected.high]),
            "reject_threshold_": rule.threshold(report.left_out),
            "noise_rate_": report.noise_rate,
            "loss_curve_": report.loss_curve,
        }
        if self.conformal == "loo" and evidence.leaves_out:
            fitted["calibration_"] = left_out_calibration(
                task.cache, report.left_out, all_classes=keeps_all_classes(task.cache)
            )
        if task.support.unlabeled is not None:
            soft_labels, n_used = label_pool(task, model, pool)
            label[task.support.unlabeled] = task.classes[soft_labels.argmax(1)]
            probability[task.support.unlabeled] = soft_labels.max(1)
            fitted.update(soft_labels_=soft_labels, n_unlabeled_used_=n_used)
        return fitted

    def _evidence(self, task: Task) -> CalibratedEvidence | PaperEvidence:
        return EVIDENCES[self.evidence].of(self, task)

    def _p_values(
        self, features: Floats, class_conditional: bool, frequencies: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        if self.conformal == "full" and self.model_.evidence == "paper":
            raise ValueError(FULL_NEEDS_LEFT_OUT)
        if self.conformal != "full":
            return super()._p_values(features, class_conditional, frequencies)
        with kept_task(self) as task:
            # which `conformal="full"` asks for
            evidence = CalibratedEvidence.of(self, task)
            shift = None if frequencies is None else shift_to(frequencies, self)
            return full_p_values(task, evidence.refit(task), features, class_conditional, shift, frequencies)

    def _left_out_models(self) -> list[Any]:
        if hasattr(self, "fold_fits_"):
            return super()._left_out_models()
        # the left-out scores know nothing of a pool
        model = self.model_.without_pool()
        if model is self.model_:
            return [self]
        return [self._fitted_as({**vars(self), "model_": model, "image_cache_": model.image_cache})]

    def _base_frequencies(self) -> NDArray[np.float64]:
        return base_frequencies(self.image_cache_, EVIDENCES[self.model_.evidence].learns_frequencies)

    def _n_steps(self) -> int:
        return self.n_epochs if self.evidence == "paper" else 0

    def _check_several(self) -> None:
        """Refuse what cannot be done with several encoders."""
        if self.evidence == "paper":
            raise ValueError(
                "evidence='paper' knows one encoder, and X holds embeddings of several; pass evidence='calibrated', or "
                "one encoder."
            )

    def _check_parameters(self) -> None:
        if self.blocks is not None:
            check_blocks(self.blocks)
        if is_several(self.encoder):
            check_encoders(self.encoder)
        if is_several(self.encoder) or (self.blocks is not None and len(self.blocks) > 1):
            self._check_several()
        if self.conformal == "full" and self.evidence == "paper":
            raise ValueError(FULL_NEEDS_LEFT_OUT)
        defaults = inspect.signature(type(self)).parameters
        unread = []
        for name in EVIDENCES[self.evidence].unread:
            value, default = getattr(self, name), defaults[name].default
            # an array as a whole is equal to nothing
            if value is not None and (np.ndim(value) > 0 or value != default):
                unread.append(name)
        if unread:
            others = next(name for name in EVIDENCES if name != self.evidence)
            them = "it" if len(unread) == 1 else "them"
            warn(
                f"evidence={self.evidence!r} does not read {', '.join(unread)}; leave {them} out, or pass "
                f"evidence={others!r}."
            )

    def _logits_and_open_set(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits (n, C) and open-set scores (n,) of new images, in one pass."""

        def make_scorer(like: Tensor) -> Scoring:
            predict_with_scores = self.model_.scorer(like).logits_and_open_set

            def rows(features: Tensor) -> Tensor:
                logits, scores = predict_with_scores(features)
                return torch.cat([logits, scores[:, None]], dim=1)

            return rows

        found = self._score(X, make_scorer)
        return settle_ties(found[:, :-1]), found[:, -1]

    def _chunking(self, like: Tensor) -> Chunking:
        return Chunking.of(self.model_, like)

    def _scorer(self, like: Tensor) -> Scoring:
        return self.model_.scorer(like).logits

    def _logits(self, features: Tensor) -> Tensor:
        return self._scorer(features)(features)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the soft labels of a large pool, and class text that the calibrated text cache holds too."""
        state = super().__getstate__()
        if np.size(state.get("soft_labels_", 0)) > SAVED_SOFT_LABELS:
            del state["soft_labels_"]
        # what was fitted, for the parameter may have been set to something else since
        is_calibrated = "model_" in state and state["model_"].evidence == "calibrated"
        if is_calibrated and state.get("text_cache_") is not None:
            del state["text_features_"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        text_cache = state.get("text_cache_")
        if text_cache is not None and "text_features_" not in state:
            self.text_features_ = text_cache.keys
