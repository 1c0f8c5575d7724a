"""APE and its trained form."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task, torch_seed
from skxma._sklearn_compat import Interval
from skxma._statistics import zero_shot_cosines
from skxma.baselines._base import SupportTensors, zero_shot_logits
from skxma.baselines._training import Plan, count, cross_entropy, frozen, leaf, train
from skxma.caches import to_tensors

APE_ADAM_EPS = 1e-3
"""Of AdamW, in the authors' code."""
DIVERGENCE_EPS = 1e-6
WEIGHT_DECAY = 0.1


class APEClassifier(BaseFewShotClassifier):
    """APE [1]_: Tip-Adapter on the channels that tell the classes apart, hard samples weighing more.

    ``logit_scale · f Tᵀ + alpha · exp(−beta (1 − f' F'ᵀ)) · (exp(gamma · KL) L)``. f' and F' are f and F on the
    channels with the largest ``−w · similarity + (1 − w) · variance`` (mean product over pairs of classes of texts and
    images; variance of the texts), normalized again; KL is the divergence, in bits, of the label from the softmax of
    ``F' T'ᵀ``. Nothing is trained. With ``keep=1`` and ``gamma=0`` it is Tip-Adapter.

    The official code [2]_ searches alpha, beta and gamma on a full validation set, for ImageNet on the test set, and
    has its w and its number of channels written down for each data set (500 to 900 of 1024). Here all are fixed:
    alpha and beta those of Tip-Adapter, gamma where its search starts, 800 channels of 1024 and w = 0.7 as for most of
    its data sets; :func:`skxma.model_selection.tune` searches them on validation images.

    Parameters
    ----------
    alpha : float, default=1.0
        Residual ratio.

    beta : float, default=5.5
        Sharpness.

    gamma : float, default=0.1
        How much more a sample weighs that the text gets wrong.

    keep : float in (0, 1], default=0.78
        Share of the channels that are kept.

    similarity_weight : float in [0, 1], default=0.7
        The w of the formula.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    channels_ : ndarray of shape (n_kept,)
        Indices of the channels that are kept.
    keys_ : ndarray of shape (n_keys, n_kept)
        F'.
    values_ : ndarray of shape (n_keys, n_classes)
        ``exp(gamma · KL) L``.

    References
    ----------
    .. [1] Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement", ICCV 2023,
       arXiv:2304.01195.
    .. [2] https://github.com/yangyangyang127/APE
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha": (0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0),
        "beta": (0.1, 1.0, 2.0, 4.0, 5.5, 7.0),
        "gamma": (0.0, 0.1, 0.3, 1.0),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "keep": [Interval(Real, 0, 1, closed="right")],
        "similarity_weight": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 1.0,
        beta: float = 5.5,
        gamma: float = 0.1,
        keep: float = 0.78,
        similarity_weight: float = 0.7,
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
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.keep = keep
        self.similarity_weight = similarity_weight

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        means = support.means[support.present]
        shots = torch.bincount(support.labels, minlength=len(support.mass))[support.present, None]
        rows = (support.text[support.present] + shots * means) / (1 + shots)
        channels = best_channels(rows, support.text, self.keep, self.similarity_weight)
        keys = F.normalize(support.features[:, channels])
        own = torch.softmax(F.affinity(keys, F.normalize(support.text[:, channels])), dim=1)
        label = (support.values > 0).to(own)
        divergence = (label * torch.log2((label + DIVERGENCE_EPS) / (own + DIVERGENCE_EPS))).sum(1, keepdim=True)
        return {
            "channels_": channels.cpu().numpy(),
            "keys_": frozen(keys),
            "values_": frozen(support.values * torch.exp(self.gamma * divergence)),
            "n_trained_": 0,
        }

    def _logits(self, features: Tensor) -> Tensor:
        keys, values, channels = to_tensors(self.keys_, self.values_, self.channels_, like=features)
        affinity = F.affinity(F.normalize(features[:, channels]), keys)
        evidence = F.cache_evidence(affinity, values, self.beta)
        return F.residual_logits(zero_shot_logits(self, features), evidence, self.alpha)


class APETClassifier(BaseFewShotClassifier):
    """APE-T [1]_: one residual a class, added to its text and to its keys on the chosen channels, and trained.

    ``logit_scale · f (T + R)ᵀ + alpha · exp(−beta (1 − f (F + R_y)ᵀ)) · (v L)``, R = 0 and the weight v of every key 1
    at the start; AdamW with cosine decay. Channels are chosen by the texts alone.

    The official code [2]_ keeps the epoch that is best on a full validation set, for ImageNet on the test set, then
    searches alpha and beta there. Here it is the last epoch, and both are fixed. For ImageNet it trains at a tenth of
    the rate.

    Parameters
    ----------
    alpha : float, default=1.0
        Residual ratio.

    beta : float, default=5.5
        Sharpness.

    keep : float in (0, 1], default=0.88
        Share of the channels that get a residual.

    similarity_weight : float in [0, 1], default=0.2
        Weight of similarity against variance in the choice of channels.

    n_epochs : int, default=20
        Passes over the support set.

    learning_rate : float, default=1e-3
        Of AdamW at the start.

    batch_size : int, default=256
        Images in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    channels_ : ndarray of shape (n_kept,)
        Indices of the channels that get a residual.
    residual_ : ndarray of shape (n_classes, n_kept)
        R; 0 for classes without images.
    value_weights_ : ndarray of shape (n_keys, 1)
        v.
    loss_curve_ : list of float
        Training loss of each epoch.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Zhu et al., "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement", ICCV 2023,
       arXiv:2304.01195.
    .. [2] https://github.com/yangyangyang127/APE
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"alpha": (0.5, 1.0, 2.0, 4.0), "beta": (1.0, 3.0, 5.5)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "keep": [Interval(Real, 0, 1, closed="right")],
        "similarity_weight": [Interval(Real, 0, 1, closed="both")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 1.0,
        beta: float = 5.5,
        keep: float = 0.88,
        similarity_weight: float = 0.2,
        n_epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
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
        self.alpha = alpha
        self.beta = beta
        self.keep = keep
        self.similarity_weight = similarity_weight
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        channels = best_channels(support.text, support.text, self.keep, self.similarity_weight)
        residual = leaf(torch.zeros_like(support.text[:, channels]), support.text)
        value_weights = leaf(torch.ones_like(support.weights[:, None]), support.text)
        seen = support.present[:, None].to(support.text)

        def losses(rows: Tensor) -> Tensor:
            known = support.features, support.values, support.labels, support.zero_shot_text, channels
            logits = self._refined(support.scale, support.features[rows], seen * residual, value_weights, *known)
            return cross_entropy(logits, support.labels[rows])

        plan = Plan(
            "adamw",
            self.learning_rate,
            self.n_epochs,
            self.batch_size,
            weight_decay=WEIGHT_DECAY,
            eps=APE_ADAM_EPS,
        )
        curve = train([residual, value_weights], losses, support.weights, plan, torch_seed(self.random_state))
        return {
            "channels_": channels.cpu().numpy(),
            "loss_curve_": curve,
            "residual_": frozen(seen * residual),
            "value_weights_": frozen(value_weights),
            "n_trained_": count([residual, value_weights]),
        }

    def _refined(
        self,
        scale: float,
        features: Tensor,
        residual: Tensor,
        value_weights: Tensor,
        keys: Tensor,
        values: Tensor,
        labels: Tensor,
        text: Tensor,
        channels: Tensor,
    ) -> Tensor:
        """Logits (n, C) with a residual (C, n_kept) and weights of the keys (N, 1)."""
        shift = residual.new_zeros(len(residual), features.shape[1]).index_copy(1, channels, residual)
        evidence = F.cache_evidence(F.affinity(features, keys + shift[labels]), values * value_weights, self.beta)
        cosines = zero_shot_cosines(features, text) + F.affinity(features, shift)
        return F.residual_logits(scale * cosines, evidence, self.alpha)

    def _logits(self, features: Tensor) -> Tensor:
        cache = self.image_cache_
        arrays = self.residual_, self.value_weights_, cache.keys, cache.labels, self.text_features_, self.channels_
        residual, value_weights, keys, labels, text, channels = to_tensors(*arrays, like=features)
        known = keys, cache.value_rows(features), labels, text, channels
        return self._refined(self.encoder_logit_scale_, features, residual, value_weights, *known)


def best_channels(rows: Tensor, text: Tensor, keep: float, similarity_weight: float) -> Tensor:
    """Channels that tell the classes apart, the best first.

    Parameters
    ----------
    rows : Tensor of shape (C', D)
        Mean of each class's samples: the pair products of all samples average to those of these means.
    text : Tensor of shape (C, D)
    keep : float
        Share of the channels.
    similarity_weight : float
        w in ``−w · similarity + (1 − w) · variance``.
    """
    n = len(rows)
    similarity = (rows.sum(0) ** 2 - (rows**2).sum(0)) / max(n * (n - 1), 1)
    criterion = (1 - similarity_weight) * text.var(0) - similarity_weight * similarity
    n_kept = max(1, round(keep * text.shape[1]))
    return torch.argsort(criterion, descending=True, stable=True)[:n_kept]
