"""Scales of the fused logits, integrated over what a few samples leave open instead of maximized.

The fusion's weights are the likeliest ones. Of four samples that zero-shot tells apart, they say that zero-shot is
right at the encoder's own scale, although an encoder that is foreign to the images gets four right often enough.
Probabilities that are averaged over all scales which the samples allow are less sure; the pair of scales whose
probabilities come closest to them stands for the average, so that a prediction costs no more (the moderated output of
MacKay, "The evidence framework applied to classification networks", 1992, with a posterior on a grid).
"""

from __future__ import annotations

import torch
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import ScalePrior
from skxma._calibrated.cross_fit import LeftOutLogits
from skxma._calibrated.experts import LeaveOneOutScores
from skxma._statistics import minimize_lbfgs

RIDGE = 1e-4
"""Pull of the log factors to 0, for logits that do not tell one factor from the other."""


def scale_grid(prior: ScalePrior, like: Tensor, has_zero_shot: bool, holds_rest: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes of s_z (G,) and of s_r (H,), and their log prior (G, H); a scale that is held has one node."""
    zero = torch.linspace(prior.least_log, prior.largest_log, prior.n_zero_shot).to(like)
    rest = torch.linspace(prior.least_rest_log, prior.largest_log, prior.n_rest).to(like)
    native = torch.softmax(-0.5 * (zero / prior.native_std) ** 2, 0)
    foreign = torch.where(zero <= 0, 1.0, 0.0)
    log_zero = torch.log(prior.native * native + (1 - prior.native) * foreign / foreign.sum())
    log_rest = torch.log_softmax(-0.5 * (rest / prior.rest_std) ** 2, 0)
    if not has_zero_shot:
        zero = log_zero = like.new_zeros(1)
    if holds_rest:
        rest = log_rest = like.new_zeros(1)
    return torch.exp(zero), torch.exp(rest), log_zero[:, None] + log_rest


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
    zero, others, log_prior = scale_grid(prior, zero_shot, has_zero_shot, holds_rest)
    index = labels[:, None]
    scaled_rest = others[:, None, None] * rest
    log_posterior = torch.empty_like(log_prior)
    for g, scale in enumerate(zero):
        log_p = torch.log_softmax(scale * zero_shot + scaled_rest, 2).gather(2, index.expand(len(others), -1, 1))
        likelihood = F.noisy_log_likelihood(log_p[:, :, 0], noise_rate, rest.shape[1])
        log_posterior[g] = log_prior[g] + (row_weights * likelihood).sum(1)
    posterior = torch.softmax(log_posterior.flatten(), 0).view_as(log_posterior)
    target = torch.zeros_like(rest)
    for g, scale in enumerate(zero):
        target += torch.einsum("h,hnc->nc", posterior[g], torch.softmax(scale * zero_shot + scaled_rest, 2))
    target *= row_weights[:, None] / row_weights.sum()
    free = torch.tensor([has_zero_shot, not holds_rest], device=rest.device)

    def divergence(theta: Tensor) -> Tensor:
        factors = torch.exp(torch.where(free, theta, 0.0))
        logits = factors[0] * zero_shot + factors[1] * rest
        return -(target * torch.log_softmax(logits, 1)).sum() + RIDGE * theta.square().sum()

    _, theta = minimize_lbfgs(divergence, [0.0, 0.0], rest)
    factors = torch.exp(torch.where(free.cpu(), torch.as_tensor(theta), 0.0))
    # the caches hold images of the classes: whatever shrinks them more than zero-shot is the few samples' chance, which
    # cost .3 to 1 point and up to .02 nats on tasks of 20 and 60 ImageNet classes at one and two shots
    least_rest = float(factors[0]) if bool(free.all()) else 0.0
    return float(factors[0]), max(float(factors[1]), least_rest)


def rows_by_node(
    left_out: LeftOutLogits, labels: Tensor, scores: LeaveOneOutScores, independence: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Left-out logits with a row per node of the quadrature where the own class of any sample is simulated.

    Returns
    -------
    logits : Tensor of shape (2, n, C)
    labels : integer Tensor of shape (n,)
    row_weights : Tensor of shape (n,)
        Sums to the number of independent samples.
    """
    if not bool(scores.singleton.any()):
        return left_out.logits, labels, independence
    n_nodes = left_out.own.shape[2]
    logits = left_out.logits.repeat_interleave(n_nodes, 1)
    repeated = labels.repeat_interleave(n_nodes)
    logits.scatter_(2, repeated[None, :, None].expand(2, -1, 1), left_out.own.flatten(1)[:, :, None])
    return logits, repeated, (independence[:, None] * scores.node_weights).flatten()
