"""Leave-one-out loss of the paper's model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skxma import functional as F
from skxma._paper.module import CrossModalCache
from skxma._statistics import lone_nodes


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
    def of(cls, unit: Tensor) -> LoneAffinity:
        """From the mean and the spread of the affinities between different unit keys (N, D)."""
        n, wide = len(unit), unit.double()
        pairs = max(1, n * (n - 1))
        products = wide.T @ wide if n > unit.shape[1] else wide @ wide.T
        own = wide.square().sum(1)
        mean = float((wide.sum(0).square().sum() - own.sum()) / pairs)
        square = float((products.square().sum() - own.square().sum()) / pairs)
        nodes, weights = lone_nodes(max(0.0, square - mean**2) ** 0.5)
        return cls(*(torch.as_tensor(a).to(unit) for a in (nodes + mean, weights))).cap()

    def cap(self) -> LoneAffinity:
        """No affinity is above 1."""
        return LoneAffinity(self.nodes.clamp_max(1.0), self.weights)

    def to(self, dtype: torch.dtype) -> LoneAffinity:
        """In another precision."""
        return LoneAffinity(self.nodes.to(dtype), self.weights.to(dtype))


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


@torch.no_grad()
def current_lone(model: CrossModalCache) -> LoneAffinity:
    """Simulated affinities for the keys as they are now."""
    return LoneAffinity.of(F.normalise(model.keys))
