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
from skxma._estimators.evidence import EVIDENCES, CalibratedEvidence, PaperEvidence
from skxma._estimators.pool_learning import fit_pool, label_pool
from skxma._estimators.rejection import RejectionRule
from skxma._estimators.scoring import Scoring, chunks, settle_ties
from skxma._estimators.support_set import first_samples
from skxma._estimators.task import Task
from skxma._fitted import FittedEvidence
from skxma._runtime.warning import warn
from skxma._sklearn_compat import Interval, StrOptions
from skxma.caches import Floats, Integers, TextCache

SAVED_SOFT_LABELS = 2**20
AUTO_OR_RATIO = [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})]


class XMAdapterClassifier(BaseFewShotClassifier):
    """Few-shot image classifier that retrieves from an image cache and a text cache on top of a frozen CLIP.

    The method is XMAdapter [1]_: the few labelled images make an image cache (embeddings as keys, labels as values),
    the class prompts a text cache; a query's affinities to both are fused with a learned ratio, and what is retrieved
    is added to CLIP's zero-shot logits. By default everything that must be chosen is chosen on leave-one-out logits
    of the support set, in closed form, so no validation data is needed.

    Parameters
    ----------
    encoder : str or object, default="ViT-B-32/laion2b_s34b_b79k"
        An open_clip "model/tag", "hf-hub:org/name", "local-dir:/path", "tiny" (bundled, for trying things out), a
        `CLIPEncoder`, any object with ``encode_image`` and ``encode_text``, or "precomputed": then X holds embeddings.
        Clones and copies share such an object; pickles of a fitted model hold it where it pickles to at most 1 MiB.

    class_names : mapping label -> name, sequence of names or None, default=None
        What the prompts call each class. A sequence is indexed by integer labels. A name may be several (a sequence
        of synonyms and of descriptions, "a sleepy tabby" or whole sentences), or None for a class without text. Names
        of classes without pictures are learned from text alone. None takes string labels as names.

    templates : str or sequence of str, default="simple"
        Prompt templates: "simple" (CLIP's short list of 7), "imagenet" (CLIP's 80, a little more accurate and eleven
        times slower to encode), "photo", "bare", or format strings with one ``{}``.

    text_features : array-like of shape (n_classes, n_features), mapping or None, default=None
        Class text embeddings in the place of prompts. Rows follow `class_names` where given, else integer labels index
        them. With ``encoder="precomputed"`` and None, class means stand for the text.

    vocabulary : {"common"}, sequence of str, array-like of shape (m, n_features) or None, default="common"
        Words whose text embeddings shape the image metric. "common" is a bundled list of everyday words (with
        ``encoder="precomputed"`` it means none); an array holds embeddings.

    alpha : float or "auto", default="auto"
        Residual ratio: how much the caches add to zero-shot. In calibrated evidence 1 is the prior.

    beta : float or "auto", default="auto"
        Sharpness of the image cache's exponential.

    fusion_ratio : float in [0, 1] or "auto", default="auto"
        The image's share of the evidence.

    evidence : {"calibrated", "paper"}, default="calibrated"
        "calibrated" fuses several views of the caches under a cross-modal metric. "paper" is
        ``logit_scale · f T + alpha · exp(−beta (1 − A)) L`` with ``A = γ A_img + (1 − γ) A_txt`` on the raw embeddings
        and AdamW on the keys, MetaNet, Img2TxtNet and γ, as far as the paper is known.

    hard_sample_weight : float, default=0.3
        How much more than others the sample weighs in the loss on which the two modalities disagree the most.

    text_dim : int or None, default=None
        Width of the text cache with ``evidence="paper"``; None keeps that of the embeddings. A fit warns of parameters
        that its evidence does not read.

    n_epochs : int, default=20
        Passes over the support set. 0 is the training-free form. In calibrated evidence a residual is trained from
        two shots a class on, and kept only where held-out samples are better off with it.

    learning_rate, weight_decay : float, default=1e-3 and 1e-2
        Of AdamW, with ``evidence="paper"``.

    batch_size : int, default=256
        Of the training with ``evidence="paper"``.

    n_views : int, default=1
        Augmented views of each support image whose mean is its key.

    retrieval : {"auto", "exact", "top"}, default="auto"
        Which keys a prediction reads. "exact" reads all; "top" those nearest to the picture, a share of the others, and
        all of the classes that can still be the answer: probabilities then differ from the exact ones by less than
        0.01 (docs/method.md says when), and logits of classes that cannot be the answer are estimates. "auto" is
        "exact" below 131 072 keys, "top" from there on. `kneighbors` always reads all.

    false_rejection_rate : float in (0, 1) or None, default=None
        With a number, `predict` answers `unknown_label` for pictures that are like none of the classes: more so than
        all but this share of the support images, each judged by the model without it. None always answers a class.

    unknown_label : str, int or None, default=None
        That label; None is "unknown" among strings and -1 among numbers.

    warm_start : bool, default=False
        With True, `fit`, `partial_fit` and `drop` on a fitted classifier start from its solution, for other pictures or
        parameters that change little. Calibrated evidence then tries the metrics alone that were chosen before, from
        the weights learned before, in less than half the time; the paper's goes on training the keys of pictures that
        it knows, the nets and the scalars for `n_epochs` more. The pictures are always those given: `partial_fit` adds.

    unlabeled_label : str, int, NaN or None, default=None
        What stands in `y` for a picture without a label, as -1 does in `sklearn.semi_supervised`. NaN marks whatever
        is missing in `y`: None, NaN and pandas' NA. With None every picture has a label. In calibrated evidence such
        pictures are learned from where that lowers the loss on labels which they have not seen; in the paper's form
        they are left out.

    device : str, default="auto"
        "auto" takes CUDA, else MPS, else the CPU.

    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        Of the encoder. All else is computed in float32 or float64.

    memory : None, bool, path or EmbeddingStore, default=None
        Where embeddings are kept. None keeps them in this process, True or a path on disk, False nowhere.

    random_state : int, RandomState instance or None, default=None
        Seeds the nets and batches of ``evidence="paper"`` and the augmented views.

    verbose : int, default=0
        Above 0, a progress bar for encoding from its start. With 0 there is one, on a terminal and in a notebook, where
        encoding takes over 2 s; ``SKXMA_PROGRESS=0`` in the environment turns all off.

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
        None where no class has a text.
    alpha_, beta_, fusion_ratio_, logit_scale_ : float
        What the parameters came to.
    hardness_ : ndarray of shape (n_samples,)
        How far the two modalities disagree on each sample; 0 for one without a label.
    label_noise_ : ndarray of shape (n_samples,)
        Probability that each label is wrong; 0 where there is none.
    noise_rate_ : float
        Estimated share of wrong labels.
    left_out_label_ : ndarray of shape (n_samples,)
        Class that the model gives each sample without having seen its label.
    left_out_probability_ : ndarray of shape (n_samples,)
        The probability of that class.
    reject_threshold_ : float
        Open-set score above which `predict` answers `unknown_label`; infinite without a `false_rejection_rate`.
    n_unlabeled_used_ : int
        With an `unlabeled_label`: how many of the samples without a label, probably of a known class, the model
        learned from; 0 where they were of no use.
    soft_labels_ : ndarray of shape (n_unlabeled, n_classes)
        With an `unlabeled_label`: probabilities of the classes for the samples without a label, in their order, each
        judged without what it taught the model itself. Not saved with the model beyond a million entries.
    loss_curve_ : list of float
        Training loss at each pass; empty where nothing was trained.
    text_features_ : ndarray of shape (n_classes, n_features)
        Class text embeddings.
    n_features_in_ : int
        Width of the embeddings.
    encoder_fingerprint_ : str or None
        Which encoder made them.

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
    sample_position_: Integers

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
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
        alpha: Any = "auto",
        beta: Any = "auto",
        fusion_ratio: Any = "auto",
        evidence: str = "calibrated",
        hard_sample_weight: float = 0.3,
        text_dim: int | None = None,
        n_epochs: int = 20,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 256,
        n_views: int = 1,
        retrieval: str = "auto",
        false_rejection_rate: float | None = None,
        unknown_label: Any = None,
        warm_start: bool = False,
        unlabeled_label: Any = None,
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
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.vocabulary = vocabulary
        self.alpha = alpha
        self.beta = beta
        self.fusion_ratio = fusion_ratio
        self.evidence = evidence
        self.hard_sample_weight = hard_sample_weight
        self.text_dim = text_dim
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.retrieval = retrieval
        self.false_rejection_rate = false_rejection_rate
        self.unknown_label = unknown_label
        self.warm_start = warm_start
        self.unlabeled_label = unlabeled_label

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
        logits, scores = self._logits_and_open_set(X)
        rule = RejectionRule.of(self.false_rejection_rate, self.unknown_label, self.classes_)
        return rule.apply(self.classes_[logits.argmax(1)], scores > self.reject_threshold_, self.classes_)

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
        return self._logits_and_open_set(X)[1]

    def kneighbors(self, X: Any, n_neighbors: int = 5) -> tuple[Floats, Floats, Integers]:
        """Support images that a query retrieves, those with the highest fused affinity first.

        Parameters
        ----------
        X : sequence of images, or array-like of shape (n_samples, n_features)
            As in `fit`.
        n_neighbors : int, default=5
            How many; at most as many as there are keys in use.

        Returns
        -------
        image_affinity, text_affinity : ndarray of shape (n_samples, n_neighbors)
            Cosines in the image cache's metric and in the text cache's space; the second is 0 without text.
        indices : ndarray of shape (n_samples, n_neighbors)
            Which of the samples given to `fit` (and then to `partial_fit`) these are.
        """
        check_is_fitted(self)
        in_use = self.image_cache_.weights > 0
        n_neighbors = min(n_neighbors, int(in_use.sum()))
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
            "reject_threshold_": rule.threshold(report.left_out),
            "noise_rate_": report.noise_rate,
            "loss_curve_": report.loss_curve,
        }
        if task.support.unlabeled is not None:
            soft_labels, n_used = label_pool(task, model, pool)
            label[task.support.unlabeled] = task.classes[soft_labels.argmax(1)]
            probability[task.support.unlabeled] = soft_labels.max(1)
            fitted.update(soft_labels_=soft_labels, n_unlabeled_used_=n_used)
        return fitted

    def _evidence(self, task: Task) -> CalibratedEvidence | PaperEvidence:
        return EVIDENCES[self.evidence].of(self, task)

    def _n_steps(self) -> int:
        return self.n_epochs if self.evidence == "paper" else 0

    def _check_parameters(self) -> None:
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
            judge = self.model_.scorer(like).logits_and_open_set

            def rows(features: Tensor) -> Tensor:
                logits, scores = judge(features)
                return torch.cat([logits, scores[:, None]], dim=1)

            return rows

        found = self._score(X, make_scorer)
        return settle_ties(found[:, :-1]), found[:, -1]

    def _width(self) -> int:
        # the more queries at once, the more of them share a cell
        return self.model_.scorer(self._like()).index.n_clusters // 4

    def _scorer(self, like: Tensor) -> Scoring:
        return self.model_.scorer(like).logits

    def _logits(self, features: Tensor) -> Tensor:
        return self._scorer(features)(features)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the soft labels of a large pool, and class text that the calibrated text cache holds too."""
        state = super().__getstate__()
        if np.size(state.get("soft_labels_", 0)) > SAVED_SOFT_LABELS:
            del state["soft_labels_"]
        if self.evidence == "calibrated" and state.get("text_cache_") is not None:
            del state["text_features_"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        text_cache = state.get("text_cache_")
        if text_cache is not None and "text_features_" not in state:
            self.text_features_ = text_cache.keys
