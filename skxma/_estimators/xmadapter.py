"""XMAdapterClassifier, the estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import CalibrationConfig
from skxma._calibrated.model import CalibratedModel
from skxma._calibrated.subsample import fit_on_subsample
from skxma._estimators.pool_learning import SemiSupervisedClassifier
from skxma._estimators.task import Task
from skxma._estimators.vocabulary import common_words
from skxma._fitted import FitReport, FittedEvidence
from skxma._paper.config import PaperConfig
from skxma._paper.fit import fit_paper
from skxma._paper.model import PaperModel
from skxma._semi_supervised.model import PooledModel
from skxma._sklearn_compat import Interval, StrOptions
from skxma.caches import Floats, ImageCache, Integers, to_tensors
from skxma.embeddings import unit_rows
from skxma.encoder._class_weights import class_weights

RETRIEVE_FROM = 2**17
VOCABULARY_TEMPLATE = "photo"
AUTO_OR_RATIO = [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})]


class XMAdapterClassifier(SemiSupervisedClassifier):
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
        Width of the text cache with ``evidence="paper"``; None keeps that of the embeddings.

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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **SemiSupervisedClassifier._parameter_constraints,
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
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "retrieval": [StrOptions({"auto", "exact", "top"})],
        "random_state": ["random_state"],
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
        self.encoder = encoder
        self.class_names = class_names
        self.templates = templates
        self.text_features = text_features
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
        self.n_views = n_views
        self.retrieval = retrieval
        self.false_rejection_rate = false_rejection_rate
        self.unknown_label = unknown_label
        self.warm_start = warm_start
        self.unlabeled_label = unlabeled_label
        self.device = device
        self.precision = precision
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

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
        parts = []
        with torch.inference_mode():
            scorer = self.model_.scorer(self._like_fit())
            for features in self._chunks(self._query_features(X), len(in_use)):
                image, text = scorer.affinities(features)
                fused = F.fuse(image, text, self.fusion_ratio_)
                top = fused[:, torch.as_tensor(in_use)].topk(n_neighbors, dim=1).indices.cpu()
                keys = torch.as_tensor(np.flatnonzero(in_use))[top]
                parts.append([a.cpu().gather(1, keys).float().numpy() for a in (image, text)] + [keys.numpy()])
        affinities, text_affinities, found = (np.concatenate(part) for part in zip(*parts, strict=True))
        return affinities, text_affinities, self._first_samples()[found]

    def _first_samples(self) -> Integers:
        """For each key, the first sample given to `fit` that became it (N,)."""
        first = np.zeros(len(self.image_cache_.keys), dtype=np.intp)
        samples = np.arange(len(self.sample_position_))[::-1]
        known = self.sample_position_[samples] >= 0
        first[self.sample_position_[samples[known]]] = samples[known]
        return first

    def _fit_task(self, task: Task) -> None:
        self._check_unknown()
        report, model = self._fit_paper(task) if self.evidence == "paper" else self._fit_calibrated(task)
        self.model_ = model
        self.image_cache_ = model.image_cache
        self.text_cache_ = model.text_cache
        self.alpha_, self.beta_ = model.alpha, model.beta
        self.fusion_ratio_, self.logit_scale_ = model.fusion_ratio, model.logit_scale
        self.hardness_ = self._per_sample(report.hardness)
        self.label_noise_ = self._per_sample(report.label_noise)
        self.set_aside_ = self._per_sample((model.image_cache.weights == 0).astype(np.float32)) > 0
        answers = report.left_out
        self.left_out_label_ = self.classes_[self._per_sample(answers.label)]
        self.left_out_probability_ = self._per_sample(answers.probability)
        self._calibrate_rejection(answers)
        self.noise_rate_ = report.noise_rate
        self.loss_curve_ = report.loss_curve

    def _per_sample(self, of_keys: NDArray[Any]) -> NDArray[Any]:
        """Values of the keys (N,) for the samples given to `fit` (n_samples,); 0 for a sample of weight 0."""
        position = self.sample_position_
        return np.where(position >= 0, of_keys[np.maximum(position, 0)], of_keys.dtype.type(0))

    def _solution_before(self) -> Any:
        """The fitted model to start from, or None."""
        model = getattr(self, "model_", None) if self.warm_start else None
        return model.base if isinstance(model, PooledModel) else model

    def _retrieves(self, task: Task) -> bool:
        """Whether predictions are to read no more keys than they need."""
        return self.retrieval == "top" or (self.retrieval == "auto" and len(task.cache.keys) >= RETRIEVE_FROM)

    def _fit_calibrated(self, task: Task) -> tuple[FitReport, FittedEvidence]:
        before = self._solution_before()
        config = CalibrationConfig(
            alpha=number(self.alpha),
            beta=number(self.beta),
            fusion_ratio=number(self.fusion_ratio),
            logit_scale=task.logit_scale,
            hard_sample_weight=self.hard_sample_weight,
            n_epochs=self.n_epochs,
            warm_start=before.warm_start(self.noise_rate_) if isinstance(before, CalibratedModel) else None,
        )
        if self._retrieves(task):
            # every further metric would need an index of its own
            config = replace(config, max_metrics=1)
        words = self._vocabulary_features()
        vocabulary = None if words is None else to_tensors(words, like=task.like)[0]
        report = fit_on_subsample(task.cache, task.text, vocabulary, config, task.like)
        if self._retrieves(task):
            report = replace(report, model=report.model.with_index(task.like))
        untrained = replace(config, n_epochs=0, warm_start=None)

        def refit(cache: ImageCache) -> FitReport:
            return fit_on_subsample(cache, task.text, vocabulary, untrained, task.like)

        return report, self._learn_from_pool(report, task, vocabulary, refit)

    def _fit_paper(self, task: Task) -> tuple[FitReport, FittedEvidence]:
        config = PaperConfig(
            alpha=number(self.alpha),
            beta=number(self.beta),
            fusion_ratio=number(self.fusion_ratio),
            logit_scale=task.logit_scale,
            hard_sample_weight=self.hard_sample_weight,
            text_dim=self.text_dim,
            n_epochs=self.n_epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        before = self._solution_before()
        known = isinstance(before, PaperModel) and before.image_cache.keys.shape[1] == self.n_features_in_

        def epochs(n: int, model: Callable[[], PaperModel]) -> Iterator[int]:
            # what an epoch leaves has no threshold yet
            return task.watched.steps("epoch", n, lambda: {"model_": model(), "reject_threshold_": np.inf})

        report = fit_paper(task.cache, task.text, config, task.like, before if known else None, epochs)
        return report, report.model.with_index(task.like) if self._retrieves(task) else report.model

    def _n_steps(self) -> int:
        return self.n_epochs if self.evidence == "paper" else 0

    def _vocabulary_features(self) -> Floats | None:
        """L2-normalised embeddings (m, n_features) of the vocabulary, or None for none."""
        words = self.vocabulary
        if words is None or (isinstance(words, str) and words == "common" and self._is_precomputed()):
            return None
        if isinstance(words, str):
            if words != "common":
                raise ValueError(f"vocabulary={words!r} is none that skxma knows; pass 'common' or a list of words.")
            words = common_words()
        if len(words) and all(isinstance(word, str) for word in words):
            if self._is_precomputed():
                raise ValueError(
                    "vocabulary holds words, which encoder='precomputed' cannot encode; pass their embeddings."
                )
            return class_weights(self._make_encoder(), list(words), VOCABULARY_TEMPLATE)
        rows = check_array(words, dtype=[np.float64, np.float32], input_name="vocabulary")
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"vocabulary has {rows.shape[1]} columns, the embeddings have {self.n_features_in_}; "
                "both must come from one encoder."
            )
        return unit_rows(rows)

    def _width(self) -> int:
        # the more queries at once, the more of them share a cell
        return self.model_.scorer(self._like_fit()).index.n_clusters // 4

    def _scorer(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        return self.model_.scorer(like).logits

    def _logits(self, features: Tensor) -> Tensor:
        return self._scorer(features)(features)

    def __getstate__(self) -> dict[str, Any]:
        """Store the class text once: in calibrated evidence it is what the text cache holds."""
        state = super().__getstate__()
        if self.evidence == "calibrated" and state.get("text_cache_") is not None:
            del state["text_features_"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        text_cache = state.get("text_cache_")
        if text_cache is not None and "text_features_" not in state:
            self.text_features_ = text_cache.keys


def number(parameter: Any) -> float | None:
    """A parameter's number, or None for "auto"."""
    return None if isinstance(parameter, str) else float(parameter)
