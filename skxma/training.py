"""The paper's model: keys, MetaNet, Img2TxtNet and fusion ratio trained by AdamW on leave-one-out logits.

XMAdapter, arXiv:2404.12588. Depth, activation and width of the two nets are not stated there: the identity (or a shared
orthogonal projection), a trained shift and one narrow hidden layer that starts at zero are our reading, so that an
untrained model is a sound one and an epoch costs little more than that of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from . import functional as F
from .caches import Floats, ImageCache, Projection, ReadyOnce, TextCache, like
from .calibration import FitReport, LeftOutAnswers
from .experts import lone_nodes, zero_shot_cosines
from .metric import class_means
from .retrieval import KeyCells, ready_keys

ALPHA, BETA = 1.0, 5.5
SCALAR_PENALTY = 0.04
NARROWING, NETS_PACE = 16, 10.0
ADAM_EPS = 1e-4
STARTS = ((0.0, 0.0, 0.0), (3.0, 0.0, 1.5))


@dataclass(frozen=True)
class PaperSettings:
    """What the caller fixes of a trained fit; None for alpha, beta or fusion ratio is learned."""

    alpha: float | None
    beta: float | None
    fusion_ratio: float | None
    logit_scale: float
    hard_sample_weight: float
    text_dim: int | None
    n_epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    seed: int


class ProjectionNet(nn.Module):
    """Trainable `Projection`: ``normalise(x W + b + relu(x U + a) V)``, W fixed, b and V zero at the start.

    Parameters
    ----------
    dim : int
    weight : Tensor of shape (D, d) or None
        None stands for the identity.
    generator : torch.Generator
    like_this : Tensor
    """

    def __init__(self, dim: int, weight: Tensor | None, generator: torch.Generator, like_this: Tensor) -> None:
        super().__init__()
        d_out, hidden = dim if weight is None else weight.shape[1], max(1, dim // NARROWING)
        draw = torch.randn(dim, hidden, generator=generator) / dim**0.5
        self.weight = weight
        self.bias = nn.Parameter(like_this.new_zeros(d_out))
        self.inner = nn.Parameter(draw.to(like_this))
        self.inner_bias = nn.Parameter(like_this.new_zeros(hidden))
        self.outer = nn.Parameter(like_this.new_zeros(hidden, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, D) to L2-normalised (n, d)."""
        mapped = (x if self.weight is None else x @ self.weight) + self.bias
        return F.normalise(mapped + torch.relu(x @ self.inner + self.inner_bias) @ self.outer)

    def freeze(self) -> Projection:
        """The weights as they are now, as arrays."""
        bias, inner, inner_bias, outer = (
            p.detach().cpu().numpy().copy() for p in (self.bias, self.inner, self.inner_bias, self.outer)
        )
        weight = None if self.weight is None else self.weight.cpu().numpy()
        return Projection(weight, bias, (inner, inner_bias, outer))


class CrossModalCache(nn.Module):
    """The trainable cache: image keys, MetaNet, Img2TxtNet, fusion ratio, and the scalars that stay fixed."""

    def __init__(self, cache: ImageCache, text: Tensor | None, settings: PaperSettings, like_this: Tensor) -> None:
        super().__init__()
        keys, self.labels, self.weights = like(like_this, cache.keys, cache.labels, cache.weights)
        self.mass = self.weights.new_zeros(cache.n_classes).index_add(0, self.labels, self.weights)
        self.shots = torch.bincount(self.labels, minlength=cache.n_classes)
        self.keys = nn.Parameter(keys.clone())
        self.text = text
        self.log_alpha, self.log_beta = np.log(ALPHA), np.log(BETA)
        self.share = nn.Parameter(like_this.new_zeros(()))
        self.settings = settings
        if text is not None:
            generator = torch.Generator().manual_seed(settings.seed)
            dim = text.shape[1]
            shared = shared_projection(dim, settings.text_dim, generator)
            shared = None if shared is None else shared.to(like_this)
            self.metanet = ProjectionNet(dim, shared, generator, like_this)
            self.img2txt = ProjectionNet(dim, shared, generator, like_this)

    @property
    def alpha(self) -> float:
        """Residual ratio."""
        return float(np.exp(self.log_alpha)) if self.settings.alpha is None else self.settings.alpha

    @property
    def beta(self) -> float:
        """Sharpness."""
        return float(np.exp(self.log_beta)) if self.settings.beta is None else self.settings.beta

    def ratio(self) -> Tensor:
        """Fusion ratio γ; 1 where there is no text."""
        if self.text is None:
            return torch.ones_like(self.share)
        if self.settings.fusion_ratio is not None:
            return torch.full_like(self.share, self.settings.fusion_ratio)
        return torch.sigmoid(self.share)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Affinities of queries (n, D) to the images (n, N) and to the text of each class (n, C)."""
        image = F.affinity(features, F.normalise(self.keys))
        if self.text is None:
            # the fusion ratio is 1 then
            return image, image.new_ones(len(image), len(self.mass))
        return image, F.affinity(self.img2txt(features), self.metanet(self.text))

    @torch.no_grad()
    def freeze_text(self) -> TextCache | None:
        """The text cache as it is now; classes without text keep zero keys."""
        if self.text is None:
            return None
        keys = self.metanet(self.text) * self.text.any(1, keepdim=True)
        return TextCache(keys.float().cpu().numpy(), self.img2txt.freeze(), self.metanet.freeze())


@dataclass(frozen=True)
class LoneAffinity:
    """Simulated image affinities (Q,) of a picture to its class's only key, and the weights of these nodes (Q,)."""

    nodes: Tensor
    weights: Tensor

    @classmethod
    def of(cls, image_affinity: Tensor) -> LoneAffinity:
        """From the mean and the spread of the affinities (N, N) between different keys."""
        n = len(image_affinity)
        between = image_affinity[~torch.eye(n, dtype=torch.bool, device=image_affinity.device)]
        mean, sigma = (float(between.mean()), float(between.std(correction=0))) if n > 1 else (0.0, 0.0)
        nodes, weights = lone_nodes(sigma)
        return cls(*(torch.as_tensor(a).to(image_affinity) for a in (nodes + mean, weights))).cap()

    def cap(self) -> LoneAffinity:
        """No affinity is above 1."""
        return LoneAffinity(self.nodes.clamp_max(1.0), self.weights)


def shared_projection(dim: int, text_dim: int | None, generator: torch.Generator) -> Tensor | None:
    """What both nets start as (D, d): orthonormal columns or rows; None, the identity, where d is D."""
    if text_dim is None or text_dim == dim:
        return None
    return nn.init.orthogonal_(torch.empty(dim, text_dim), generator=generator)


def leave_one_out_loss(
    model: CrossModalCache,
    zero_shot: Tensor,
    rows: Tensor,
    image: Tensor,
    text: Tensor,
    scalars: tuple[Tensor | float, Tensor | float, Tensor],
    lone: LoneAffinity,
) -> Tensor:
    """Negative log-likelihood (n,) of support samples whose own key retrieves nothing.

    What is left of the own class stands for all of it: its evidence is raised to the mass that the class has for a
    new picture. The own class of a lone sample is simulated at the nodes, whose log-likelihoods are averaged.

    Parameters
    ----------
    model : CrossModalCache
    zero_shot : Tensor of shape (n, C)
        Zero-shot logits of the rows.
    rows : integer Tensor of shape (n,)
    image : Tensor of shape (n, N)
    text : Tensor of shape (n, C)
        Affinities of the rows.
    scalars : alpha, beta, fusion ratio
    lone : LoneAffinity
    """
    alpha, beta, ratio = scalars
    labels = model.labels[rows]
    place = torch.arange(len(rows), device=rows.device)
    evidence = F.fused_evidence(image, text, model.labels, model.weights, ratio, beta, left_out=rows)
    _, others = F.log_odds_of_own(F.residual_logits(zero_shot, evidence, alpha), labels)
    simulated = F.fuse(lone.nodes[None, :], text[place, labels][:, None], ratio)
    mass, weight = model.mass[labels][:, None], model.weights[rows][:, None]
    alone = (model.shots[labels] == 1)[:, None]
    rest = torch.where(alone, 1.0, mass - weight)
    own_evidence = torch.where(
        alone, weight * torch.exp(-beta * (1 - simulated)), evidence[place, labels][:, None] * mass / rest
    )
    own = F.residual_logits(zero_shot[place, labels][:, None], own_evidence, alpha)
    return -(own - torch.logaddexp(own, others[:, None])) @ lone.weights


def fit_scalars(model: CrossModalCache, zero_shot: Tensor, weights: Tensor, lone: LoneAffinity) -> None:
    """Learn the scalars that were not given, from the logits of the untrained caches, by L-BFGS.

    Penalties ``0.04 (u − 1 − log u)`` on alpha over 1 and beta over 5.5, ``0.04 θ² / 2`` on the logit of the ratio.
    """
    held = model.settings
    if held.alpha is not None and held.beta is not None and (held.fusion_ratio is not None or model.text is None):
        return
    rows = torch.arange(len(zero_shot), device=zero_shot.device)
    with torch.no_grad():
        image, text = model.affinities(F.normalise(model.keys))

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = torch.tensor(values, dtype=zero_shot.dtype, device=zero_shot.device, requires_grad=True)
        alpha = theta[0].exp() * ALPHA if held.alpha is None else held.alpha
        beta = theta[1].exp() * BETA if held.beta is None else held.beta
        free = model.text is not None and held.fusion_ratio is None
        ratio = torch.sigmoid(theta[2]) if free else model.ratio().detach()
        loss = leave_one_out_loss(model, zero_shot, rows, image, text, (alpha, beta, ratio), lone)
        penalty = (theta[:2].exp() - 1 - theta[:2]).sum() + theta[2] ** 2 / 2
        total = (weights * loss).sum() / weights.sum() + SCALAR_PENALTY * penalty
        (gradient,) = torch.autograd.grad(total, theta)
        return float(total.detach()), gradient.double().cpu().numpy()

    # a strong and a weak cache are minima of their own
    found = [minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(-7, 7)] * 3) for start in STARTS]
    best = min(found, key=lambda result: float(result.fun))
    model.log_alpha, model.log_beta = np.log(ALPHA) + best.x[0], np.log(BETA) + best.x[1]
    with torch.no_grad():
        model.share.fill_(float(best.x[2]))


def train(model: CrossModalCache, features: Tensor, zero_shot: Tensor, weights: Tensor) -> list[float]:
    """AdamW with cosine decay, the nets at ten times the rate of the keys; returns the mean loss of each epoch.

    Samples on which the modalities disagree weigh more (`functional.hard_sample_weights`, by how far they disagreed in
    the epoch before).
    """
    settings, n = model.settings, len(features)
    steps = -(-n // settings.batch_size)
    rate = settings.learning_rate
    nets = [p for name, p in model.named_parameters() if name.startswith(("metanet", "img2txt"))]
    groups = [{"params": [model.keys, model.share], "lr": rate}, {"params": nets, "lr": NETS_PACE * rate}]
    optimiser = torch.optim.AdamW(
        groups[: 2 if nets else 1], eps=ADAM_EPS, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, settings.n_epochs * steps))
    generator = torch.Generator().manual_seed(settings.seed)
    curve, hard, any_lone = [], sample_hardness(model, features), bool((model.shots == 1).any())
    lone = current_lone(model)
    for _ in range(settings.n_epochs):
        importance = weights * F.hard_sample_weights(hard, settings.hard_sample_weight)
        hard = torch.empty_like(hard)
        lone = current_lone(model) if any_lone else lone
        total = 0.0
        for batch in torch.randperm(n, generator=generator).split(settings.batch_size):
            rows = batch.to(features.device)
            image, text = model.affinities(features[rows])
            hard[rows] = hardness_of(model, rows, image.detach(), text.detach())
            scalars = (model.alpha, model.beta, model.ratio())
            loss = leave_one_out_loss(model, zero_shot[rows], rows, image, text, scalars, lone)
            loss = (importance[rows] * loss).sum() / importance[rows].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        curve.append(total / n)
    return curve


@torch.no_grad()
def current_lone(model: CrossModalCache) -> LoneAffinity:
    """Simulated affinities for the keys as they are now."""
    keys = F.normalise(model.keys)
    return LoneAffinity.of(F.affinity(keys, keys))


@torch.no_grad()
def sample_hardness(model: CrossModalCache, features: Tensor) -> Tensor:
    """Hardness of each support sample (N,), its own key left out."""
    return hardness_of(model, torch.arange(len(features), device=features.device), *model.affinities(features))


def hardness_of(model: CrossModalCache, rows: Tensor, image: Tensor, text: Tensor) -> Tensor:
    """Hardness of the rows (n,) from their affinities to images (n, N) and to texts (n, C)."""
    if model.text is None:
        return image.new_zeros(len(image))
    return F.hardness(F.leave_self_out(image, rows), text, model.labels[rows], model.labels)


def class_mean_text(features: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Class means in the place of text (C, D), and the cosines (N, C) of the samples to them, each without itself."""
    means, mass = class_means(features, labels, weights, n_classes)
    rest = (mass[labels] - weights).clamp_min(F.EPS)[:, None]
    own = F.normalise((mass[labels][:, None] * means[labels] - weights[:, None] * features) / rest)
    means = F.normalise(means)
    return means, (features @ means.T).scatter(1, labels[:, None], (features * own).sum(1, keepdim=True))


@dataclass(frozen=True)
class TrainedCache(ReadyOnce["TrainedScorer"]):
    """A fitted cache of the paper's form.

    Attributes
    ----------
    image_cache : ImageCache
        With trained keys.
    text_cache : TextCache or None
    text : ndarray of shape (C, D)
        What zero-shot uses: the class text, or class means where there is none.
    alpha, beta, fusion_ratio, logit_scale : float
    cells : KeyCells or None
        Of the keys, where predictions read no more of them than they need.
    """

    image_cache: ImageCache
    text_cache: TextCache | None
    text: Floats
    alpha: float
    beta: float
    fusion_ratio: float
    logit_scale: float
    cells: KeyCells | None = None

    def _scorer(self, like_this: Tensor) -> TrainedScorer:
        return TrainedScorer(self, like_this)


class TrainedScorer:
    """A trained cache as tensors.

    Parameters
    ----------
    cache : TrainedCache
    like_this : Tensor
    """

    def __init__(self, cache: TrainedCache, like_this: Tensor) -> None:
        self.cache = cache
        image = cache.image_cache
        self.text, keys, labels, weights = like(like_this, cache.text, image.keys, image.labels, image.weights)
        self.all_keys = ready_keys(keys, labels, weights, image.n_classes, cache.cells)

    def logits(self, features: Tensor) -> Tensor:
        """``logit_scale · f T + α exp(−β (1 − A)) L`` (n, C) of L2-normalised embeddings (n, D)."""
        return self._logits(features, certain_is_enough=True)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) of L2-normalised embeddings (n, D), and how unlike all known classes each of them is, (n,)."""
        logits = self._logits(features, certain_is_enough=False)
        return logits, F.open_set_score(logits)

    def _logits(self, features: Tensor, certain_is_enough: bool) -> Tensor:
        cache = self.cache
        zero_shot, text = self.affinities_to_texts(features)
        ratio = self._ratio(cache.fusion_ratio)
        gate = F.text_gate(text, ratio, cache.beta)

        def combine(evidence: Tensor) -> Tensor:
            return F.residual_logits(zero_shot, evidence * gate, cache.alpha)

        return combine(self.all_keys.enough_evidence(features, cache.beta * ratio, [combine], certain_is_enough))

    def affinities_to_texts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Zero-shot logits and affinities to the class texts, both (n, C)."""
        zero_shot = self.cache.logit_scale * zero_shot_cosines(features, self.text)
        if self.cache.text_cache is None:
            # a gate that is open, as the fusion ratio is 1
            return zero_shot, torch.ones_like(zero_shot)
        return zero_shot, self.cache.text_cache.class_affinity(features)

    def evidence(self, image: Tensor, text: Tensor, fusion_ratio: float, beta: float) -> Tensor:
        """Evidence (n, C) of affinities to the images (n, N), as `affinities` has them, and to the texts (n, C)."""
        labels, weights = like(image, self.cache.image_cache.labels, self.cache.image_cache.weights)
        return F.fused_evidence(image, text, labels, weights, self._ratio(fusion_ratio), beta)

    def _ratio(self, fusion_ratio: float) -> float:
        return 1.0 if self.cache.text_cache is None else fusion_ratio

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``A_img`` and ``A_txt`` (n, N) of L2-normalised embeddings (n, D)."""
        image = self.all_keys.cosines(features)
        if self.cache.text_cache is None:
            return image, torch.zeros_like(image)
        return image, self.cache.text_cache.affinity(features, self.cache.image_cache.labels)


def fit_trained(cache: ImageCache, text: Tensor | None, settings: PaperSettings, like_this: Tensor) -> FitReport:
    """Fit the paper's model on a support set.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
        L2-normalised class text; None lets class means stand for it, without a text cache.
    settings : PaperSettings
    like_this : Tensor
        Gives the device and the precision of the computation.
    """
    features, labels, weights = like(like_this, cache.keys, cache.labels, cache.weights)
    if text is None:
        stand_in, cosines = class_mean_text(features, labels, weights, cache.n_classes)
    else:
        text = text.to(features)
        stand_in, cosines = text, zero_shot_cosines(features, text)
    zero_shot = settings.logit_scale * cosines
    model = CrossModalCache(cache, text, settings, like_this)
    fit_scalars(model, zero_shot, weights, current_lone(model))
    curve = train(model, features, zero_shot, weights)
    hard = sample_hardness(model, features)
    fitted = TrainedCache(
        replace(cache, keys=F.normalise(model.keys.detach()).float().cpu().numpy(), features=cache.keys),
        model.freeze_text(),
        stand_in.float().cpu().numpy(),
        model.alpha,
        model.beta,
        float(model.ratio().detach()),
        settings.logit_scale,
    )
    logits = left_out_logits(model, features, zero_shot)
    left_out = LeftOutAnswers.of(logits, F.open_set_score(logits)[:, None], logits.new_ones(1))
    return FitReport(fitted, hard.float().cpu().numpy(), np.zeros(len(hard), dtype=np.float32), 0.0, curve, left_out)


@torch.no_grad()
def left_out_logits(model: CrossModalCache, features: Tensor, zero_shot: Tensor) -> Tensor:
    """Logits (N, C) of the support samples whose own key retrieves nothing."""
    rows = torch.arange(len(features), device=features.device)
    image, text = model.affinities(features)
    evidence = F.fused_evidence(image, text, model.labels, model.weights, model.ratio(), model.beta, left_out=rows)
    return F.residual_logits(zero_shot, evidence, model.alpha)
