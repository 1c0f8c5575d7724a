"""The paper's model: keys, MetaNet, Img2TxtNet and fusion ratio trained by AdamW on leave-one-out logits.

XMAdapter, arXiv:2404.12588. Depth, activation and width of the two nets are not stated there: the identity (or a shared
orthogonal projection), a trained shift and one narrow hidden layer that starts at zero are our reading, so that an
untrained model is a sound one and an epoch costs little more than that of the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from . import functional as F
from .caches import Floats, ImageCache, Projection, TextCache, like
from .calibration import FitReport, LeftOutAnswers
from .experts import lone_nodes, zero_shot_cosines
from .metric import ALONE, class_means
from .trained_cache import TrainedCache

ALPHA, BETA = 1.0, 5.5
SCALAR_PENALTY = 0.04
NARROWING, NETS_PACE = 16, 10.0
ADAM_EPS = 1e-4
Epochs = Callable[[int, Callable[[], "TrainedCache"]], Iterable[int]]
DOUBLE_SQUARE = 2**24
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

    @torch.no_grad()
    def go_on_from(self, before: Projection) -> None:
        """Take over the weights of a trained net, where its widths are the same."""
        if before.hidden is None or before.bias.shape != self.bias.shape or len(before.hidden[0]) != len(self.inner):
            return
        if before.weight is not None:
            self.weight = like(self.bias, before.weight)[0]
        for parameter, array in zip(
            (self.bias, self.inner, self.inner_bias, self.outer), (before.bias, *before.hidden), strict=True
        ):
            parameter.copy_(torch.as_tensor(array))


class CrossModalCache(nn.Module):
    """The trainable cache: image keys, MetaNet, Img2TxtNet, fusion ratio, and the scalars that stay fixed."""

    def __init__(self, cache: ImageCache, text: Tensor | None, settings: PaperSettings, like_this: Tensor) -> None:
        super().__init__()
        keys, self.labels, self.weights = like(like_this, cache.keys, cache.labels, cache.weights)
        self.mass = self.weights.new_zeros(cache.n_classes).index_add(0, self.labels, self.weights)
        own_mass = self.mass[self.labels]
        self.rest = own_mass - self.weights
        # what rounding leaves beside a weight that outweighs all others of its class is no sample
        self.lone = self.rest <= ALONE * own_mass
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

    @torch.no_grad()
    def go_on_from(self, before: TrainedCache, embeddings: Floats) -> None:
        """Take over what an earlier fit learned: the keys of pictures that it had, the nets, the scalars.

        Parameters
        ----------
        before : TrainedCache
        embeddings : ndarray of shape (N, D)
            What the keys are before training, by which pictures are known again.
        """
        trained = {
            row.tobytes(): key for row, key in zip(before.image_cache.embeddings, before.image_cache.keys, strict=True)
        }
        for i, row in enumerate(embeddings):
            key = trained.get(row.tobytes())
            if key is not None:
                self.keys[i] = torch.as_tensor(key)
        self.log_alpha, self.log_beta = np.log(max(before.alpha, F.EPS)), np.log(before.beta)
        if self.text is not None and before.text_cache is not None and before.text_cache.metanet is not None:
            self.share.fill_(float(np.log(before.fusion_ratio + F.EPS) - np.log1p(F.EPS - before.fusion_ratio)))
            self.img2txt.go_on_from(before.text_cache.img2txt)
            self.metanet.go_on_from(before.text_cache.metanet)

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
class Support:
    """What a loss needs of a cache.

    Labels and weights (N,) of the keys, mass (C,) of the classes, what a class has without the key (N,), and whether
    that is nothing.
    """

    labels: Tensor
    weights: Tensor
    mass: Tensor
    rest: Tensor
    lone: Tensor


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

    def to(self, dtype: torch.dtype) -> LoneAffinity:
        """In another precision."""
        return LoneAffinity(self.nodes.to(dtype), self.weights.to(dtype))


def shared_projection(dim: int, text_dim: int | None, generator: torch.Generator) -> Tensor | None:
    """What both nets start as (D, d): orthonormal columns or rows; None, the identity, where d is D."""
    if text_dim is None or text_dim == dim:
        return None
    return nn.init.orthogonal_(torch.empty(dim, text_dim), generator=generator)


def leave_one_out_loss(
    model: CrossModalCache | Support,
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
    model : CrossModalCache or Support
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
    alone = model.lone[rows][:, None]
    rest = torch.where(alone, 1.0, model.rest[rows][:, None])
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
    # by losses in single precision the search stops where their rounding does, thousandths from the minimum
    dtype = torch.float64 if len(rows) ** 2 <= DOUBLE_SQUARE else zero_shot.dtype
    with torch.no_grad():
        image, text = (affinity.to(dtype) for affinity in model.affinities(F.normalise(model.keys)))
    support = Support(model.labels, model.weights.to(dtype), model.mass.to(dtype), model.rest.to(dtype), model.lone)
    zero_shot, weights, lone = zero_shot.to(dtype), weights.to(dtype), lone.to(dtype)

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = torch.tensor(values, dtype=zero_shot.dtype, device=zero_shot.device, requires_grad=True)
        alpha = theta[0].exp() * ALPHA if held.alpha is None else held.alpha
        beta = theta[1].exp() * BETA if held.beta is None else held.beta
        free = model.text is not None and held.fusion_ratio is None
        ratio = torch.sigmoid(theta[2]) if free else model.ratio().detach().to(dtype)
        loss = leave_one_out_loss(support, zero_shot, rows, image, text, (alpha, beta, ratio), lone)
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


def train(
    model: CrossModalCache, features: Tensor, zero_shot: Tensor, weights: Tensor, epochs: Iterable[int]
) -> list[float]:
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
    curve, hard, any_lone = [], sample_hardness(model, features), bool(model.lone.any())
    lone = current_lone(model)
    for _ in epochs:
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


def all_epochs(n_epochs: int, model: Callable[[], TrainedCache]) -> Iterable[int]:
    """Every epoch; nobody looks at the model in between."""
    return range(n_epochs)


def freeze(model: CrossModalCache, cache: ImageCache, text: Tensor) -> TrainedCache:
    """The model as it is now, as arrays; `text` (C, D) is what zero-shot uses."""
    return TrainedCache(
        replace(cache, keys=F.normalise(model.keys.detach()).float().cpu().numpy(), features=cache.keys),
        model.freeze_text(),
        text.float().cpu().numpy(),
        model.alpha,
        model.beta,
        float(model.ratio().detach()),
        model.settings.logit_scale,
    )


def fit_trained(
    cache: ImageCache,
    text: Tensor | None,
    settings: PaperSettings,
    like_this: Tensor,
    before: TrainedCache | None = None,
    epochs: Epochs = all_epochs,
) -> FitReport:
    """Fit the paper's model on a support set.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
        L2-normalised class text; None lets class means stand for it, without a text cache.
    settings : PaperSettings
    like_this : Tensor
        Gives the device and the precision of the computation.
    before : TrainedCache, optional
        Training goes on from there.
    epochs : callable
        Numbers the epochs; is given how many there are to be, and what gives the model as it is in between.
    """
    features, labels, weights = like(like_this, cache.keys, cache.labels, cache.weights)
    if text is None:
        stand_in, cosines = class_mean_text(features, labels, weights, cache.n_classes)
    else:
        text = text.to(features)
        stand_in, cosines = text, zero_shot_cosines(features, text)
    zero_shot = settings.logit_scale * cosines
    model = CrossModalCache(cache, text, settings, like_this)
    if before is None:
        fit_scalars(model, zero_shot, weights, current_lone(model))
    else:
        model.go_on_from(before, cache.keys)

    def fitted() -> TrainedCache:
        return freeze(model, cache, stand_in)

    curve = train(model, features, zero_shot, weights, epochs(settings.n_epochs, fitted))
    hard = sample_hardness(model, features)
    logits = left_out_logits(model, features, zero_shot)
    left_out = LeftOutAnswers.of(logits, F.open_set_score(logits)[:, None], logits.new_ones(1))
    return FitReport(fitted(), hard.float().cpu().numpy(), np.zeros(len(hard), dtype=np.float32), 0.0, curve, left_out)


@torch.no_grad()
def left_out_logits(model: CrossModalCache, features: Tensor, zero_shot: Tensor) -> Tensor:
    """Logits (N, C) of the support samples whose own key retrieves nothing."""
    rows = torch.arange(len(features), device=features.device)
    image, text = model.affinities(features)
    evidence = F.fused_evidence(image, text, model.labels, model.weights, model.ratio(), model.beta, left_out=rows)
    return F.residual_logits(zero_shot, evidence, model.alpha)
