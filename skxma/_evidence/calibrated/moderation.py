"""Scales of the fused logits, integrated over what a few samples leave open instead of maximized.

The fusion's weights are the likeliest ones. Of four samples that zero-shot tells apart, they say that zero-shot is
right at the encoder's own scale, although an encoder that is foreign to the images gets four right often enough.
Probabilities that are averaged over all scales which the samples allow are less sure; the pair of scales whose
probabilities come closest to them stands for the average, so that a prediction costs no more (the moderated output of
MacKay, "The evidence framework applied to classification networks", 1992, with a posterior on a grid).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import ScalePrior
from skxma._evidence.calibrated.cross_fit import LeftOutLogits
from skxma._statistics import minimize_lbfgs

NEGLIGIBLE_POSTERIOR = 1e-10
"""Posterior of a node of the grid below which it is left out of the mean: a hundred of them change no probability by
more than 1e-8."""


@dataclass(frozen=True)
class ScaleGrid:
    """Nodes of the two scales; a scale that is held has one.

    Attributes
    ----------
    zero_shot : Tensor of shape (G,)
        s_z.
    rest : Tensor of shape (H,)
        s_r.
    log_prior : Tensor of shape (G, H)
    native : Tensor of shape (G,)
        Probability that the encoder knows such images, given s_z.
    """

    zero_shot: Tensor
    rest: Tensor
    log_prior: Tensor
    native: Tensor

    @classmethod
    def of(cls, prior: ScalePrior, like: Tensor, has_zero_shot: bool, holds_rest: bool) -> ScaleGrid:
        """Lay out the nodes, with the device and dtype of `like`."""
        zero = torch.linspace(prior.least_log, prior.largest_log, prior.n_zero_shot).to(like)
        rest = torch.linspace(prior.least_rest_log, prior.largest_log, prior.n_rest).to(like)
        native = prior.native * torch.softmax(-0.5 * (zero / prior.native_std) ** 2, 0)
        foreign = torch.where(zero <= 0, 1.0, 0.0)
        both = native + (1 - prior.native) * foreign / foreign.sum()
        log_zero, native = torch.log(both), native / both
        log_rest = torch.log_softmax(-0.5 * (rest / prior.rest_std) ** 2, 0)
        if not has_zero_shot:
            zero = log_zero = native = like.new_zeros(1)
        if holds_rest:
            rest = log_rest = like.new_zeros(1)
        return cls(torch.exp(zero), torch.exp(rest), log_zero[:, None] + log_rest, native)


def nearest_log_factors(
    target: Tensor, parts: Tensor, ridge: float, offset: Tensor | None = None, largest: float | None = None
) -> NDArray[np.float64]:
    """Logarithms (P,) of the factors with which the sum of logits has the probabilities nearest to a target.

    Parameters
    ----------
    target : Tensor of shape (n, C)
        Probabilities, each row times its share of the samples.
    parts : Tensor of shape (P, n, C)
    ridge : float
        Pull of the log factors to 0.
    offset : Tensor of shape (n, C), optional
        Logits whose factor is held at 1.
    largest : float, optional
        Largest log factor.
    """

    def divergence(theta: Tensor) -> Tensor:
        logits = torch.tensordot(torch.exp(theta), parts, dims=1)
        logits = logits if offset is None else logits + offset
        return -(target * torch.log_softmax(logits, 1)).sum() + ridge * theta.square().sum()

    bounds = None if largest is None else [(None, largest)] * len(parts)
    _, theta = minimize_lbfgs(divergence, np.zeros(len(parts)), parts, bounds)
    return theta


def moderation_factors(
    zero_shot: Tensor,
    rest: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    noise_rate: float,
    prior: ScalePrior,
    has_zero_shot: bool = True,
    holds_rest: bool = False,
) -> tuple[float, float]:
    """Factors of zero-shot's logits and of all others whose probabilities are nearest to the posterior mean.

    Parameters
    ----------
    zero_shot, rest : Tensor of shape (n, C)
        Left-out logits of zero-shot, and of all other experts.
    labels : integer Tensor of shape (n,)
    row_weights : Tensor of shape (n,)
        Samples that each row stands for: a row per node of a simulated sample, with the weight of the node.
    noise_rate : float
        ε, the rate of wrong labels.
    prior : ScalePrior
    has_zero_shot : bool
        False where `zero_shot` is 0, because no class has a text.
    holds_rest : bool
        True where the caller holds the weights of the other experts.
    """
    zero_shot, rest, row_weights = zero_shot.double(), rest.double(), row_weights.double()
    grid = ScaleGrid.of(prior, zero_shot, has_zero_shot, holds_rest)
    index = labels[:, None]
    scaled_rest = grid.rest[:, None, None] * rest
    log_posterior = torch.empty_like(grid.log_prior)
    for g, scale in enumerate(grid.zero_shot):
        log_p = torch.log_softmax(scale * zero_shot + scaled_rest, 2).gather(2, index.expand(len(grid.rest), -1, 1))
        likelihood = F.noisy_log_likelihood(log_p[:, :, 0], noise_rate, rest.shape[1])
        log_posterior[g] = grid.log_prior[g] + (row_weights * likelihood).sum(1)
    posterior = torch.softmax(log_posterior.flatten(), 0).view_as(log_posterior)
    target = torch.zeros_like(rest)
    for g, scale in enumerate(grid.zero_shot):
        # of many samples nearly all nodes are without any weight
        likely = posterior[g] > NEGLIGIBLE_POSTERIOR
        if bool(likely.any()):
            probabilities = torch.softmax(scale * zero_shot + scaled_rest[likely], 2)
            target += torch.einsum("h,hnc->nc", posterior[g, likely], probabilities)
    target *= row_weights[:, None] / row_weights.sum()
    ridge = prior.factor_ridge
    if holds_rest:
        if not has_zero_shot:
            return 1.0, 1.0
        return float(np.exp(nearest_log_factors(target, zero_shot[None], ridge, rest)[0])), 1.0
    if not has_zero_shot:
        return 1.0, float(np.exp(nearest_log_factors(target, rest[None], ridge)[0]))
    separate = np.exp(nearest_log_factors(target, torch.stack([zero_shot, rest]), ridge))
    # the caches hold images of the classes: whatever shrinks them more than zero-shot is the few samples' chance, which
    # cost .3 to 1 point and up to .02 nats on tasks of 20 and 60 ImageNet classes at one and two shots
    separate[1] = separate.max()
    # an encoder that knows the images leaves no doubt of zero-shot's scale alone, and then the learned ratio stands;
    # neighboring ImageNet classes gain 1 point by it at two shots, the CIFAR files .1 to .3 at two and eight
    native = float(posterior.sum(1) @ grid.native)
    common = np.exp(nearest_log_factors(target, (zero_shot + rest)[None], ridge))
    factors = separate ** (1 - native) * common**native
    return float(factors[0]), float(factors[1])


def rows_by_node(
    left_out: LeftOutLogits, labels: Tensor, singleton: Tensor, node_weights: Tensor, independence: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Left-out logits with a row per node of the quadrature where the own class of any sample is simulated.

    Returns
    -------
    logits : Tensor of shape (2, n, C)
    labels : integer Tensor of shape (n,)
    row_weights : Tensor of shape (n,)
        Sums to the number of independent samples.
    """
    if not bool(singleton.any()):
        return left_out.logits, labels, independence
    n_nodes = left_out.own.shape[2]
    logits = left_out.logits.repeat_interleave(n_nodes, 1)
    repeated = labels.repeat_interleave(n_nodes)
    logits.scatter_(2, repeated[None, :, None].expand(2, -1, 1), left_out.own.flatten(1)[:, :, None])
    return logits, repeated, (independence[:, None] * node_weights).flatten()
