"""Fusion weights and label-noise rate, learned from leave-one-out scores (docs/method.md, step 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import LeaveOneOutScores


@dataclass(frozen=True)
class Fusion:
    """Weights of the experts of one metric.

    Attributes
    ----------
    weights : ndarray of shape (J,), float64
    alpha : float
        Residual ratio: the mean of the cache experts' weights, each relative to its prior (1 is the prior).
    fusion_ratio : float
        The image experts' share of the cache experts' relative weights.
    noise_rate : float
        ε, the probability that a label is wrong.
    loss : float
        Mean leave-one-out negative log-likelihood, without the penalties.
    objective : float
        Loss and penalties.
    theta : ndarray of shape (J + 1,)
        The solution in the minimizer's coordinates: v of :class:`FusionParametrization`, and logit ε less its prior.
    """

    weights: NDArray[np.float64]
    alpha: float
    fusion_ratio: float
    noise_rate: float
    loss: float
    objective: float
    theta: NDArray[np.float64]

    def scaled(self, zero_shot: float, rest: float) -> Fusion:
        """Multiply the weights of zero-shot and of all other experts by a factor each; the rest of the report stays."""
        weights = self.weights * rest
        weights[0] = self.weights[0] * zero_shot
        return replace(self, weights=weights, alpha=self.alpha * rest)


@dataclass(frozen=True)
class RelativeWeights:
    """Relative weights u of several fusions and their penalty, with derivatives in v of :class:`FusionParametrization`.

    Attributes
    ----------
    values : Tensor of shape (..., J)
    jacobian : Tensor of shape (..., J, J)
        ``du_j / dv_k``.
    alpha, fusion_ratio, penalty : Tensor of shape (...)
    penalty_gradient : Tensor of shape (..., J)
    penalty_curvature : Tensor of shape (..., J, J)
        Positive semidefinite.
    """

    values: Tensor
    jacobian: Tensor
    alpha: Tensor
    fusion_ratio: Tensor
    penalty: Tensor
    penalty_gradient: Tensor
    penalty_curvature: Tensor


@dataclass(frozen=True)
class FusionParametrization:
    """Expert weights as functions of one unconstrained number v per expert, where alpha and the ratio may be held.

    The relative weights ``u = w / prior`` are ``exp(v)``, and v = 0 gives every weight its prior. Of n cache experts,
    a held alpha keeps the sum of their relative weights at ``α n``, a held ratio the image experts' share of it at γ:
    each group of experts whose sum is held is ``sum · softmax(v)``.

    Attributes
    ----------
    prior : ndarray of shape (J,)
        Weights from which the learning starts and to which the penalty pulls. Expert 0 is zero-shot, then come the
        text experts where there are any, then the image experts.
    n_text, n_image : int
    alpha, fusion_ratio : float or None
        Numbers are held, None is learned.
    """

    prior: NDArray[np.float64]
    n_text: int
    n_image: int
    alpha: float | None = None
    fusion_ratio: float | None = None

    @property
    def is_held(self) -> bool:
        """True where alpha or the ratio is held, so that the weights are not free of one another."""
        return self.alpha is not None or self.fusion_ratio is not None

    @property
    def groups(self) -> list[tuple[slice, float]]:
        """Groups of cache experts whose weights are shares of a sum, with their part of the sum of all."""
        n_text = 1 + self.n_text
        if self.fusion_ratio is None or self.n_text == 0:
            return [(slice(1, n_text + self.n_image), 1.0)]
        return [
            (slice(1, n_text), 1 - self.fusion_ratio),
            (slice(n_text, n_text + self.n_image), self.fusion_ratio),
        ]

    def relative_weights(self, v: Tensor) -> RelativeWeights:
        """Relative weights of v (..., J).

        The penalty ``Σ (u − log u)`` is computed from logarithms, which stay finite where a weight goes to 0; factors
        that are held are left out of it. Its curvature in a free v is ``u``, and the loss adds its own slope times u,
        which at the minimum is ``1 − u`` in units of the pull: their sum is bounded by the larger of u and 1.
        """
        u = torch.exp(v)
        jacobian, curvature, gradient = torch.diag_embed(u), torch.diag_embed(u.clamp_min(1)), u - 1
        n, first_image = self.n_text + self.n_image, 1 + self.n_text
        if self.alpha is None and (self.fusion_ratio is None or not self.n_text):
            cache = u[..., 1:]
            ratio = u[..., first_image:].sum(-1) / cache.sum(-1)
            return RelativeWeights(u, jacobian, cache.mean(-1), ratio, (u - v).sum(-1), gradient, curvature)
        # where the ratio alone is held, alpha is exp of the mean of v
        log_alpha = v[..., 1:].mean(-1)
        alpha = torch.exp(log_alpha) if self.alpha is None else torch.full_like(log_alpha, self.alpha)
        values, shares, penalty = u.clone(), torch.zeros_like(u), u[..., 0] - v[..., 0] + n * alpha
        for group, part in self.groups:
            log_share = torch.log_softmax(v[..., group], -1)
            share, size = torch.exp(log_share), log_share.shape[-1]
            shares[..., group] = part * share
            values[..., group] = (n * part * alpha)[..., None] * share
            spread = torch.diag_embed(share) - share[..., :, None] * share[..., None, :]
            jacobian[..., group, group] = (n * part * alpha)[..., None, None] * spread
            penalty = penalty - log_share.sum(-1)
            gradient[..., group] = size * share - 1
            curvature[..., group, group] = size * spread
        if self.alpha is None:
            jacobian[..., 1:, 1:] += values[..., 1:, None] / n
            penalty = penalty - n * log_alpha
            gradient[..., 1:] += (alpha - 1)[..., None]
            curvature[..., 1:, 1:] += alpha[..., None, None] / n
        return RelativeWeights(values, jacobian, alpha, shares[..., first_image:].sum(-1), penalty, gradient, curvature)

    def theta_from(
        self, relative: NDArray[np.float64], noise_rate: float, noise_prior_logit: float
    ) -> NDArray[np.float64]:
        """`Fusion.theta` (J + 1,) of relative weights (J,) and a noise rate."""
        noise = np.log(noise_rate + F.EPS) - np.log1p(-noise_rate) - noise_prior_logit
        return np.array([*np.log(np.maximum(relative, F.EPS)), noise])

    def rescaled(self, weights: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
        """Multiply the image experts' weights by `factor` relative to all others, keeping the geometric mean of both.

        Half of the factor is taken from zero-shot and text, since few samples leave weights (..., J) too large rather
        than too small. Where alpha or the ratio are held nothing changes.
        """
        if self.is_held:
            return weights
        scaled = weights / np.sqrt(factor)
        scaled[..., 1 + self.n_text :] *= factor
        return scaled

    def rescale_image_experts(self, fusion: Fusion, factor: float) -> Fusion:
        """Return a fusion with :meth:`rescaled` weights, and the alpha and ratio that these have."""
        if self.is_held:
            return fusion
        weights = self.rescaled(fusion.weights, factor)
        relative = (weights / self.prior)[1:]
        ratio = float(relative[self.n_text :].sum() / relative.sum())
        return replace(fusion, weights=weights, alpha=float(relative.mean()), fusion_ratio=ratio)


def leave_one_out_correction(counts: NDArray[np.float64]) -> float:
    """Factor that corrects image-expert weights learned leave-one-out (n − 1 shots) for prediction with n shots.

    A class mean of n images misses the class by ``1 + 1/n`` times the variance within it, that of the n − 1 others by
    ``1 + 1/(n − 1)``: evidence from the whole class deserves ``n² / (n² − 1)`` times the weight. Singletons are scored
    as one shot scores, and keep their factor of 1. The mean over the samples is returned.

    Parameters
    ----------
    counts : ndarray of shape (C,)
        Independent samples of each class.
    """
    n = counts[counts > 0].astype(float)
    factors = np.where(n > 1, n**2 / np.maximum(n**2 - 1, 1), 1.0)
    return float((n * factors).sum() / n.sum())


def leave_one_out_log_probability(scores: LeaveOneOutScores, weights: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the own class at each node, (N, Q), under logits ``Σ_j w_j E_j``."""
    logits = (weights @ scores.scores.flatten(1)).view(scores.scores.shape[1:])
    _, others = F.split_own_class(logits, labels)
    own_logit = torch.tensordot(weights, scores.own, dims=1)
    return own_logit - torch.logaddexp(own_logit, others[:, None])


def fused_logits(scores: Tensor, weights: NDArray[np.float64]) -> Tensor:
    """Logits ``Σ_j w_j E_j`` (N, C) of scores (J, N, C), by weights (J,) or by those of each sample (N, J)."""
    w = torch.as_tensor(weights).to(scores)
    return torch.tensordot(w, scores, dims=1) if w.ndim == 1 else torch.einsum("nj,jnc->nc", w, scores)


def mean_log_likelihood(
    log_probability: Tensor, scores: LeaveOneOutScores, noise_rate: Tensor, loss_weights: Tensor, n_classes: int
) -> Tensor:
    """Weighted mean over the samples of the noisy log-likelihood, averaged over the nodes.

    Singletons are scored without noise: their own scores are simulated as those of a right label. Log-likelihoods are
    averaged over the nodes, never probabilities, so that a node at which the sample fails counts in full.
    """
    noisy = F.noisy_log_likelihood(log_probability, noise_rate, n_classes)
    likelihood = torch.where(scores.singleton[:, None], log_probability, noisy) @ scores.node_weights
    return (loss_weights * likelihood).sum() / loss_weights.sum()


def weight_penalty(n_samples: float, n_classes: int, config: CalibrationConfig) -> float:
    """Pull of the weights to their priors, relative to a mean loss over the samples.

    It counts as one sample, so that it fades as they grow many, but stays where there are few per class: the cache
    from which a sample is left out is then a worse one than that of the fit, however many classes there are.

    Parameters
    ----------
    n_samples : float
        Independent samples.
    n_classes : int
        Classes with samples.
    config : CalibrationConfig
    """
    by_samples = config.weight_penalty_samples / n_samples
    by_shots = config.weight_penalty_per_shot * n_classes / n_samples
    return min(config.max_weight_penalty, max(by_samples, by_shots))


def noise_penalty(n_samples: float, config: CalibrationConfig) -> float:
    """Pull of logit ε to its prior: that of `noise_penalty_samples`, but never less than `min_noise_penalty`."""
    return max(config.min_noise_penalty, config.noise_penalty_samples / n_samples)


@dataclass(frozen=True)
class FusionObjective:
    """Leave-one-out scores of one metric, and the penalties under which their fusion is learned.

    The objective is the mean negative log-likelihood of ``(1 − ε) softmax(Σ_j w_j E_j) + ε / C`` plus
    ``λ Σ (u − 1 − log u)``, ``u = w / prior``, λ of :func:`weight_penalty`, plus ``μ (logit ε − noise_prior_logit)²``,
    μ of :func:`noise_penalty`. The first penalty lets the weight of a useless expert go to 0, where a squared logarithm
    would not.

    Attributes
    ----------
    scores : LeaveOneOutScores
    labels : integer Tensor of shape (N,)
    loss_weights : Tensor of shape (N,)
    independence : Tensor of shape (N,)
        Part of an independent sample that each is.
    parametrization : FusionParametrization
    config : CalibrationConfig
    """

    scores: LeaveOneOutScores
    labels: Tensor
    loss_weights: Tensor
    independence: Tensor
    parametrization: FusionParametrization
    config: CalibrationConfig = field(default_factory=CalibrationConfig)

    @property
    def n_left_out(self) -> float:
        """Number of independent samples whose class keeps others when they are left out."""
        return float(self.independence[~self.scores.singleton].sum())


def part_of_each_class(labels: Tensor, step: int) -> Tensor:
    """Rows of samples, one in `step` of each class of labels (N,)."""
    return torch.argsort(labels, stable=True)[::step]


def logit(probability: float) -> float:
    """Log-odds of a probability."""
    return math.log(probability) - math.log1p(-probability)
