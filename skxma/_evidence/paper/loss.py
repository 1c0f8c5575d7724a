"""Leave-one-out loss of the paper's form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skxma import functional as F
from skxma._statistics import SINGLETON_TOLERANCE, SingletonPrior, pairwise_cosine_moments


@dataclass(frozen=True)
class LossSupport:
    """The support set without its embeddings.

    Attributes
    ----------
    labels, weights : Tensor of shape (N,)
    mass : Tensor of shape (C,)
        Sum of the weights of each class.
    rest : Tensor of shape (N,)
        Mass of the own class without the sample.
    singleton : bool Tensor of shape (N,)
        Samples that are the only one of their class.
    """

    labels: Tensor
    weights: Tensor
    mass: Tensor
    rest: Tensor
    singleton: Tensor

    @classmethod
    def from_labels(cls, labels: Tensor, weights: Tensor, n_classes: int) -> LossSupport:
        """Sum the weights (N,) by their labels (N,)."""
        mass = weights.new_zeros(n_classes).index_add(0, labels, weights)
        own_mass = mass[labels]
        rest = own_mass - weights
        # what rounding leaves beside a weight that outweighs all others of its class is no sample
        return cls(labels, weights, mass, rest, rest <= SINGLETON_TOLERANCE * own_mass)

    def to(self, dtype: torch.dtype) -> LossSupport:
        """Convert the floats to another precision."""
        return LossSupport(
            self.labels, self.weights.to(dtype), self.mass.to(dtype), self.rest.to(dtype), self.singleton
        )


@dataclass(frozen=True)
class SingletonAffinity:
    """Simulated image affinities (Q,) of an image to its class's only key, and the weights (Q,) of these nodes."""

    nodes: Tensor
    weights: Tensor

    @classmethod
    def from_keys(cls, unit: Tensor, prior: SingletonPrior) -> SingletonAffinity:
        """Simulate from the mean and the spread of the affinities between different unit keys (N, D).

        Unlike in the calibrated form the keys are not centered, so the prior counts from the mean affinity.
        """
        mean, std = pairwise_cosine_moments(unit)
        nodes, weights = prior.quadrature(std)
        return cls(*(torch.as_tensor(a).to(unit) for a in (nodes + mean, weights))).clip()

    def clip(self) -> SingletonAffinity:
        """Clip the affinities at 1."""
        return SingletonAffinity(self.nodes.clamp_max(1.0), self.weights)

    def to(self, dtype: torch.dtype) -> SingletonAffinity:
        """Convert to another precision."""
        return SingletonAffinity(self.nodes.to(dtype), self.weights.to(dtype))


def leave_one_out_loss(
    support: LossSupport,
    zero_shot: Tensor,
    rows: Tensor,
    image: Tensor,
    text: Tensor,
    scalars: tuple[Tensor | float, Tensor | float, Tensor],
    simulated: SingletonAffinity,
) -> Tensor:
    """Negative log-likelihood (n,) of support samples whose own key retrieves nothing.

    The evidence of the rest of the own class is scaled to the mass that the class has for a new image. The own class
    of a singleton is simulated at the nodes, and the log-likelihoods are averaged over them.

    Parameters
    ----------
    support : LossSupport
    zero_shot : Tensor of shape (n, C)
        Zero-shot logits of the rows.
    rows : integer Tensor of shape (n,)
    image : Tensor of shape (n, N)
        Image affinities of the rows.
    text : Tensor of shape (n, C)
        Text affinities of the rows.
    scalars : alpha, beta, fusion ratio
    simulated : SingletonAffinity
    """
    alpha, beta, ratio = scalars
    labels = support.labels[rows]
    place = torch.arange(len(rows), device=rows.device)
    evidence = F.fused_evidence(image, text, support.labels, support.weights, ratio, beta, left_out=rows)
    _, others = F.split_own_class(F.residual_logits(zero_shot, evidence, alpha), labels)
    affinity = F.fuse(simulated.nodes[None, :], text[place, labels][:, None], ratio)
    mass, weight = support.mass[labels][:, None], support.weights[rows][:, None]
    singleton = support.singleton[rows][:, None]
    rest = torch.where(singleton, 1.0, support.rest[rows][:, None])
    own_evidence = torch.where(
        singleton, weight * F.modulate(affinity, beta), evidence[place, labels][:, None] * mass / rest
    )
    own = F.residual_logits(zero_shot[place, labels][:, None], own_evidence, alpha)
    return -(own - torch.logaddexp(own, others[:, None])) @ simulated.weights
