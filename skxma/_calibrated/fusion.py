"""Fusion weights and label-noise rate, learned from leave-one-out scores (docs/method.md, step 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import CalibrationConfig
from skxma._calibrated.experts import LeaveOneOutScores
from skxma._statistics import minimize_lbfgs
from skxma.caches import Integers


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
    log_probability : Tensor of shape (N,)
        Leave-one-out log-probability of the given labels.
    theta : ndarray of shape (4 + n_text + n_image,)
        The solution in the minimizer's coordinates, see :class:`FusionParametrization`; logit ε less its prior last.
    """

    weights: NDArray[np.float64]
    alpha: float
    fusion_ratio: float
    noise_rate: float
    loss: float
    objective: float
    log_probability: Tensor
    theta: NDArray[np.float64]

    def scaled(self, zero_shot: float, rest: float) -> Fusion:
        """Multiply the weights of zero-shot and of all other experts by a factor each; the rest of the report stays."""
        weights = self.weights * rest
        weights[0] = self.weights[0] * zero_shot
        return replace(self, weights=weights, alpha=self.alpha * rest)


@dataclass(frozen=True)
class FusionParametrization:
    """Expert weights as functions of unconstrained parameters, of which alpha and the ratio may be held.

    With n = n_text + n_image cache experts, the relative weights ``u = w / prior`` are ``exp(θ_0)`` for zero-shot,
    ``α n (1 − γ) softmax(θ_text)`` and ``α n γ softmax(θ_image)``, where ``α = exp(θ_1)`` and
    ``γ = sigmoid(θ_2 + log(n_image / n_text))``: θ = 0 gives every weight its prior.

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

    def relative_weights(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Relative weights of parameters θ (3 + n_text + n_image,).

        The penalty ``Σ (u − log u)`` is computed from logarithms, which stay finite where a weight goes to 0; factors
        that are held are left out of it.

        Returns
        -------
        relative : Tensor of shape (J,)
        alpha, fusion_ratio, penalty : scalar Tensor
        """
        n = self.n_text + self.n_image
        log_zero, log_alpha = theta[0], theta[1]
        ratio_logit = theta[2] + float(np.log(self.n_image / max(self.n_text, 1)))
        log_text = torch.log_softmax(theta[3 : 3 + self.n_text], 0)
        log_image = torch.log_softmax(theta[3 + self.n_text :], 0)
        ratio, alpha = torch.sigmoid(ratio_logit), torch.exp(log_alpha)
        logs = log_zero + log_text.sum() + log_image.sum()
        if self.alpha is None:
            logs = logs + n * log_alpha
        else:
            alpha = torch.full_like(alpha, self.alpha)
        if self.n_text == 0:
            ratio = torch.ones_like(ratio)
        elif self.fusion_ratio is None:
            logs = logs + self.n_image * torch.nn.functional.logsigmoid(ratio_logit)
            logs = logs + self.n_text * torch.nn.functional.logsigmoid(-ratio_logit)
        else:
            ratio = torch.full_like(ratio, self.fusion_ratio)
        text, image = alpha * n * (1 - ratio) * torch.exp(log_text), alpha * n * ratio * torch.exp(log_image)
        relative = torch.cat([torch.exp(log_zero)[None], text, image])
        return relative, alpha, ratio, relative.sum() - logs

    def theta_from(
        self, relative: NDArray[np.float64], noise_rate: float, noise_prior_logit: float
    ) -> NDArray[np.float64] | None:
        """Parameters (4 + n_text + n_image,) of relative weights (J,) and a noise rate; None if J is another."""
        if len(relative) != 1 + self.n_text + self.n_image:
            return None
        logs = np.log(np.maximum(relative, F.EPS))
        text, image = logs[1 : 1 + self.n_text], logs[1 + self.n_text :]
        ratio_logit = np.logaddexp.reduce(image) - np.logaddexp.reduce(text) if self.n_text else 0.0
        log_alpha = np.logaddexp.reduce(logs[1:]) - np.log(self.n_text + self.n_image)
        prior_logit = np.log(self.n_image / max(self.n_text, 1))
        noise = np.log(noise_rate + F.EPS) - np.log1p(-noise_rate) - noise_prior_logit
        return np.array([logs[0], log_alpha, ratio_logit - prior_logit, *text, *image, noise])

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


def leave_one_out_correction(counts: Integers) -> float:
    """Factor that corrects image-expert weights learned leave-one-out (n − 1 shots) for prediction with n shots.

    A class mean of n images misses the class by ``1 + 1/n`` times the variance within it, that of the n − 1 others by
    ``1 + 1/(n − 1)``: evidence from the whole class deserves ``n² / (n² − 1)`` times the weight. Singletons are scored
    as one shot scores, and keep their factor of 1. The mean over the samples is returned.

    Parameters
    ----------
    counts : ndarray of shape (C,)
        Samples of each class.
    """
    n = counts[counts > 0].astype(float)
    factors = np.where(n > 1, n**2 / np.maximum(n**2 - 1, 1), 1.0)
    return float((n * factors).sum() / n.sum())


class LeaveOneOutLogProbability(torch.autograd.Function):
    """Log-probability of the own class at each node, (N, Q), under logits ``Σ_j w_j E_j``.

    The gradient in w (J,) is in closed form, ``(1 − p) (E_own − Σ_c s_c E_c)`` with s the softmax over the other
    classes, so that a step costs two products with the scores and keeps nothing of their size.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, scores: Tensor, own: Tensor, labels: Tensor) -> Tensor:
        """Weights (J,), scores (J, N, C), own scores (J, N, Q), labels (N,)."""
        logits = (weights @ scores.flatten(1)).view(scores.shape[1:])
        _, others = F.split_own_class(logits, labels)
        own_logit = torch.tensordot(weights, own, dims=1)
        log_p = own_logit - torch.logaddexp(own_logit, others[:, None])
        softmax = torch.exp(logits - others[:, None]).scatter_(1, labels[:, None], 0.0)
        ctx.save_for_backward(scores, own, softmax, log_p)
        return log_p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient in the weights."""
        scores, own, softmax, log_p = ctx.saved_tensors
        # 1 − p by expm1, which keeps its digits where p is near 1
        grad = gradients[0] * -torch.expm1(log_p)
        grad_own = own.flatten(1) @ grad.flatten()
        grad_others = scores.flatten(1) @ (grad.sum(1, keepdim=True) * softmax).flatten()
        return grad_own - grad_others, None, None, None


def leave_one_out_log_probability(scores: LeaveOneOutScores, weights: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the own class at each node, (N, Q), under logits ``Σ_j w_j E_j``."""
    log_p: Tensor = LeaveOneOutLogProbability.apply(weights, scores.scores, scores.own, labels)
    return log_p


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


def weight_penalty(n_samples: int, n_classes: int, config: CalibrationConfig) -> float:
    """Pull of the weights to their priors, relative to a mean loss over the samples.

    It counts as one sample, so that it fades as they grow many, but stays where there are few per class: the cache
    from which a sample is left out is then a worse one than that of the fit, however many classes there are.

    Parameters
    ----------
    n_samples : int
    n_classes : int
        Classes with samples.
    config : CalibrationConfig
    """
    by_samples = config.weight_penalty_samples / n_samples
    by_shots = config.weight_penalty_per_shot * n_classes / n_samples
    return min(config.max_weight_penalty, max(by_samples, by_shots))


def noise_penalty(n_samples: int, config: CalibrationConfig) -> float:
    """Pull of logit ε to its prior: that of half a sample, but never less than 0.01."""
    return max(config.min_noise_penalty, config.noise_penalty_samples / n_samples)


@dataclass(frozen=True)
class FusionObjective:
    """The objective of :func:`fit_fusion` as a function of `Fusion.theta`.

    Attributes
    ----------
    scores : LeaveOneOutScores
    labels : integer Tensor of shape (N,)
    loss_weights : Tensor of shape (N,)
    parametrization : FusionParametrization
    config : CalibrationConfig
    """

    scores: LeaveOneOutScores
    labels: Tensor
    loss_weights: Tensor
    parametrization: FusionParametrization
    config: CalibrationConfig = field(default_factory=CalibrationConfig)

    def take(self, rows: Tensor) -> FusionObjective:
        """Return the objective of some of the samples (n,)."""
        return replace(
            self, scores=self.scores.take(rows), labels=self.labels[rows], loss_weights=self.loss_weights[rows]
        )

    def to(self, dtype: torch.dtype) -> FusionObjective:
        """Return the objective in another precision."""
        return replace(self, scores=self.scores.to(dtype), loss_weights=self.loss_weights.to(dtype))

    @cached_property
    def has_noise(self) -> bool:
        """True unless all samples are singletons, whose labels count as right."""
        return not bool(self.scores.singleton.all())

    @cached_property
    def prior(self) -> Tensor:
        """Prior weights (J,) as a tensor like the scores."""
        return self.tensor(self.parametrization.prior)

    @cached_property
    def penalties(self) -> tuple[float, float]:
        """Pull of the weights and of the noise rate to their priors."""
        n = len(self.labels)
        return weight_penalty(n, len(self.labels.unique()), self.config), noise_penalty(n, self.config)

    def parts(self, theta: Tensor, noisy: bool) -> tuple[Tensor, ...]:
        """Loss, objective, relative weights (J,), alpha, ratio, ε, log-probabilities (N, Q); ε is 0 unless `noisy`."""
        penalty, noise_pull = self.penalties
        relative, alpha, ratio, distance = self.parametrization.relative_weights(theta[:-1])
        rate = torch.sigmoid(theta[-1] + self.config.noise_prior_logit) if noisy else theta.new_zeros(())
        log_p = leave_one_out_log_probability(self.scores, relative * self.prior, self.labels)
        loss = -mean_log_likelihood(log_p, self.scores, rate, self.loss_weights, self.scores.scores.shape[2])
        objective = loss + penalty * distance + noise_pull * theta[-1] ** 2
        return loss, objective, relative, alpha, ratio, rate, log_p

    def tensor(self, values: NDArray[np.float64]) -> Tensor:
        """Values with the precision and on the device of the scores."""
        return torch.tensor(values, dtype=self.scores.scores.dtype, device=self.scores.scores.device)

    def minimize(self, start: NDArray[np.float64], noisy: bool) -> tuple[float, NDArray[np.float64]]:
        """Minimize the objective from a start; returns its least value and where that is."""
        return minimize_lbfgs(
            lambda theta: self.parts(theta, noisy)[1], start, self.scores.scores, options=lbfgs_options(self.config)
        )

    def solve(self, start: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Minimize the objective from a start, or from the priors.

        Where text is useless the priors lie so far off that most labels seem wrong: a second minimum. Weights learned
        with ε = 0 have a gradient to follow everywhere, and lead from there to the better one.
        """
        priors = np.zeros(4 + self.parametrization.n_text + self.parametrization.n_image)
        least, solution = self.minimize(priors if start is None else start, self.has_noise)
        limit = logit(self.config.suspicious_noise_rate) - self.config.noise_prior_logit
        if self.has_noise and solution[-1] > limit:
            trusting = self.minimize(priors, noisy=False)[1]
            other, alternative = self.minimize(trusting, self.has_noise)
            solution = alternative if other < least else solution
        return solution


def logit(probability: float) -> float:
    """Log-odds of a probability."""
    return math.log(probability) - math.log1p(-probability)


def lbfgs_options(config: CalibrationConfig) -> dict[str, Any]:
    """Options of L-BFGS-B."""
    return {"maxiter": config.max_iterations, "ftol": config.loss_tolerance, "gtol": config.gradient_tolerance}


def fit_fusion(problem: FusionObjective, start: NDArray[np.float64] | None = None) -> Fusion:
    """Learn the expert weights and the label-noise rate from leave-one-out scores.

    Minimizes the mean negative log-likelihood of ``(1 − ε) softmax(Σ_j w_j E_j) + ε / C`` plus
    ``λ Σ (u − 1 − log u)``, ``u = w / prior``, λ of :func:`weight_penalty`, plus ``μ (logit ε + 4)²``, μ of
    :func:`noise_penalty`, by L-BFGS. The first penalty lets the weight of a useless expert go to 0, where a squared
    logarithm would not.

    Parameters
    ----------
    problem : FusionObjective
    start : ndarray, optional
        `Fusion.theta` of a similar problem.
    """
    is_small = problem.scores.scores.numel() <= problem.config.max_double_scores
    problem = problem.to(torch.float64 if is_small else torch.float32)
    theta = problem.solve(start)
    with torch.no_grad():
        loss, objective, relative, alpha, ratio, rate, log_p = problem.parts(problem.tensor(theta), problem.has_noise)
    return Fusion(
        relative.double().cpu().numpy() * problem.parametrization.prior,
        float(alpha),
        float(ratio),
        float(rate),
        float(loss),
        float(objective),
        log_p @ problem.scores.node_weights,
        theta,
    )
