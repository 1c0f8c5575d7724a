"""Everything that is chosen from leave-one-out logits: fusion weights, label-noise rate, metric, wrong labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.experts import Scores
from skxma.caches import Integers

WEIGHT_PENALTY, PENALTY_SAMPLES, PENALTY_SHOTS = 0.02, 1.0, 0.04
NOISE_PENALTY, NOISE_SAMPLES, NOISE_LOGIT = 0.01, 0.5, -4.0
# a third of the labels
SUSPICIOUS = float(np.log(0.5)) - NOISE_LOGIT
TOLERANCES = {"maxiter": 200, "ftol": 1e-11, "gtol": 1e-6}
DOUBLE_ENTRIES = 2**24


@dataclass(frozen=True)
class Fusion:
    """How the experts of one metric are weighed.

    Attributes
    ----------
    weights : ndarray of shape (J,), float64
    alpha : float
        Residual ratio: the mean of the cache experts' weights, each relative to its prior (1 is the prior).
    fusion_ratio : float
        The image experts' share of that.
    noise_rate : float
        ε, the probability that a label is wrong.
    loss : float
        Mean leave-one-out negative log-likelihood, without the penalties.
    objective : float
        What was minimised: with them.
    log_probability : Tensor of shape (N,)
        Leave-one-out log-probability of the given labels.
    theta : ndarray
        The solution as the minimiser sees it.
    """

    weights: NDArray[np.float64]
    alpha: float
    fusion_ratio: float
    noise_rate: float
    loss: float
    objective: float
    log_probability: Tensor
    theta: NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Which of J experts is which; expert 0 is zero-shot, then the text cache where there is one, then the image's.

    Attributes
    ----------
    prior : ndarray of shape (J,)
        Weights from which the learning starts and to which the penalty pulls.
    n_text, n_image : int
    alpha, fusion_ratio : float or None
        Numbers are held, None is learned.
    """

    prior: NDArray[np.float64]
    n_text: int
    n_image: int
    alpha: float | None = None
    fusion_ratio: float | None = None

    def relative_weights(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights over their priors u (J,) of free ones (3 + n_text + n_image,), alpha, ratio, ``Σ u − log u``."""
        n = self.n_text + self.n_image
        log_zero, log_alpha = theta[0], theta[1]
        share = theta[2] + float(np.log(self.n_image / max(self.n_text, 1)))
        log_text = torch.log_softmax(theta[3 : 3 + self.n_text], 0)
        log_image = torch.log_softmax(theta[3 + self.n_text :], 0)
        ratio, alpha = torch.sigmoid(share), torch.exp(log_alpha)
        logs = log_zero + log_text.sum() + log_image.sum()
        if self.alpha is None:
            logs = logs + n * log_alpha
        else:
            alpha = torch.full_like(alpha, self.alpha)
        if self.n_text == 0:
            ratio = torch.ones_like(ratio)
        elif self.fusion_ratio is None:
            logs = logs + self.n_image * torch.nn.functional.logsigmoid(share)
            logs = logs + self.n_text * torch.nn.functional.logsigmoid(-share)
        else:
            ratio = torch.full_like(ratio, self.fusion_ratio)
        text, image = alpha * n * (1 - ratio) * torch.exp(log_text), alpha * n * ratio * torch.exp(log_image)
        relative = torch.cat([torch.exp(log_zero)[None], text, image])
        return relative, alpha, ratio, relative.sum() - logs

    def theta_of(self, relative: NDArray[np.float64], noise_rate: float) -> NDArray[np.float64] | None:
        """The solution (4 + n_text + n_image,) with these weights over their priors (J,); None if J is another."""
        if len(relative) != 1 + self.n_text + self.n_image:
            return None
        logs = np.log(np.maximum(relative, F.EPS))
        text, image = logs[1 : 1 + self.n_text], logs[1 + self.n_text :]
        share = np.logaddexp.reduce(image) - np.logaddexp.reduce(text) if self.n_text else 0.0
        log_alpha = np.logaddexp.reduce(logs[1:]) - np.log(self.n_text + self.n_image)
        prior_share = np.log(self.n_image / max(self.n_text, 1))
        noise = np.log(noise_rate + F.EPS) - np.log1p(-noise_rate) - NOISE_LOGIT
        return np.array([logs[0], log_alpha, share - prior_share, *text, *image, noise])

    def with_more_image(self, fusion: Fusion, factor: float) -> Fusion:
        """A fusion whose image experts weigh `factor` times as much beside the text, half of it taken from the text.

        Few samples leave weights too large rather than too small. Where alpha or the ratio are held nothing changes.
        """
        if self.alpha is not None or self.fusion_ratio is not None:
            return fusion
        weights = fusion.weights / np.sqrt(factor)
        weights[1 + self.n_text :] *= factor
        relative = (weights / self.prior)[1:]
        ratio = float(relative[self.n_text :].sum() / relative.sum())
        return replace(fusion, weights=weights, alpha=float(relative.mean()), fusion_ratio=ratio)


def missing_shot(counts: Integers) -> float:
    """By what weights of image evidence fall short that were learned with one shot of the own class left out.

    A class mean of n pictures misses the class by ``1 + 1/n`` times the variance within it, that of the n − 1 others
    by ``1 + 1/(n − 1)``: evidence by the whole class deserves ``n² / (n² − 1)`` times the weight. Lone samples are
    scored as one shot scores, and stand as they are. The mean over the samples is returned.

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
        """Scores (J, N, C), own scores (J, N, Q), labels (N,)."""
        logits = (weights @ scores.flatten(1)).view(scores.shape[1:])
        _, others = F.log_odds_of_own(logits, labels)
        mine = torch.tensordot(weights, own, dims=1)
        log_p = mine - torch.logaddexp(mine, others[:, None])
        share = torch.exp(logits - others[:, None]).scatter_(1, labels[:, None], 0.0)
        ctx.save_for_backward(scores, own, share, log_p)
        return log_p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient in the weights."""
        scores, own, share, log_p = ctx.saved_tensors
        pull = gradients[0] * -torch.expm1(log_p)
        towards_own = own.flatten(1) @ pull.flatten()
        from_others = scores.flatten(1) @ (pull.sum(1, keepdim=True) * share).flatten()
        return towards_own - from_others, None, None, None


def leave_one_out_log_probability(scores: Scores, weights: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the own class at each node, (N, Q), under logits ``Σ_j w_j E_j``."""
    log_p: Tensor = LeaveOneOutLogProbability.apply(weights, scores.scores, scores.own, labels)
    return log_p


def fused_logits(scores: Scores, weights: NDArray[np.float64]) -> Tensor:
    """Logits ``Σ_j w_j E_j`` (N, C); the own class of a lone sample at the mean of its simulated scores."""
    return torch.tensordot(torch.as_tensor(weights).to(scores.scores), scores.scores, dims=1)


def mean_log_likelihood(
    log_probability: Tensor, scores: Scores, noise_rate: Tensor, loss_weights: Tensor, n_classes: int
) -> Tensor:
    """Weighted mean over the samples of the noisy log-likelihood, averaged over the nodes.

    Lone samples are scored without noise: their own scores are simulated as those of a right label.
    """
    noisy = F.noisy_log_likelihood(log_probability, noise_rate, n_classes)
    likelihood = torch.where(scores.lone[:, None], log_probability, noisy) @ scores.node_weights
    return (loss_weights * likelihood).sum() / loss_weights.sum()


def weight_penalty(n_samples: int, n_classes: int) -> float:
    """How hard weights are pulled to their priors, against a mean over the samples.

    It counts as one sample, so that it fades as they grow many, but stays where they are few a class: the cache that a
    sample is left out of then is a worse one than that of the fit, however many classes there are.

    Parameters
    ----------
    n_samples : int
    n_classes : int
        Classes with samples.
    """
    return min(WEIGHT_PENALTY, max(PENALTY_SAMPLES / n_samples, PENALTY_SHOTS * n_classes / n_samples))


def noise_penalty(n_samples: int) -> float:
    """How hard the label-noise rate is pulled to its prior: as by half a sample, but never less than by 0.01."""
    return max(NOISE_PENALTY, NOISE_SAMPLES / n_samples)


@dataclass(frozen=True)
class FusionProblem:
    """What :func:`fit_fusion` minimises, as a function of `Fusion.theta`.

    Attributes
    ----------
    scores : Scores
    labels : integer Tensor of shape (N,)
    loss_weights : Tensor of shape (N,)
    layout : Layout
    """

    scores: Scores
    labels: Tensor
    loss_weights: Tensor
    layout: Layout

    @cached_property
    def noisy(self) -> bool:
        """Whether a label may be wrong: no lone sample's."""
        return not bool(self.scores.lone.all())

    @cached_property
    def prior(self) -> Tensor:
        """The layout's priors (J,) as a tensor like the scores."""
        return self.tensor(self.layout.prior)

    @cached_property
    def penalties(self) -> tuple[float, float]:
        """How hard weights and the noise rate are pulled to their priors."""
        n = len(self.labels)
        return weight_penalty(n, len(self.labels.unique())), noise_penalty(n)

    def parts(self, theta: Tensor, noisy: bool) -> tuple[Tensor, ...]:
        """The loss, with its penalties, weights over priors (J,), alpha, ratio, ε, log-probabilities (N, Q)."""
        pull, pull_of_noise = self.penalties
        relative, alpha, ratio, distance = self.layout.relative_weights(theta[:-1])
        rate = torch.sigmoid(theta[-1] + NOISE_LOGIT) if noisy else torch.zeros_like(theta[-1])
        log_p = leave_one_out_log_probability(self.scores, relative * self.prior, self.labels)
        loss = -mean_log_likelihood(log_p, self.scores, rate, self.loss_weights, self.scores.scores.shape[2])
        total = loss + pull * distance + pull_of_noise * theta[-1] ** 2
        return loss, total, relative, alpha, ratio, rate, log_p

    def tensor(self, values: NDArray[np.float64], requires_grad: bool = False) -> Tensor:
        """Values with the precision and on the device of the scores."""
        like_this = self.scores.scores
        return torch.tensor(values, dtype=like_this.dtype, device=like_this.device, requires_grad=requires_grad)

    def minimum(self, start: NDArray[np.float64], noisy: bool) -> tuple[float, NDArray[np.float64]]:
        """The least objective that is found from a start, and where."""

        def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            theta = self.tensor(values, requires_grad=True)
            total = self.parts(theta, noisy)[1]
            (gradient,) = torch.autograd.grad(total, theta)
            return float(total.detach()), gradient.double().cpu().numpy()

        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=TOLERANCES)
        return float(found.fun), found.x

    def solve(self, start: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """The solution from a start, or from the priors.

        Where text is useless the priors lie so far off that most labels seem wrong. Weights learned as if none was have
        a slope to follow everywhere, and lead from there.
        """
        priors = np.zeros(4 + self.layout.n_text + self.layout.n_image)
        least, solution = self.minimum(priors if start is None else start, self.noisy)
        if self.noisy and solution[-1] > SUSPICIOUS:
            trusting = self.minimum(priors, noisy=False)[1]
            other, instead = self.minimum(trusting, self.noisy)
            solution = instead if other < least else solution
        return solution


def fit_fusion(
    scores: Scores,
    labels: Tensor,
    loss_weights: Tensor,
    layout: Layout,
    start: NDArray[np.float64] | None = None,
) -> Fusion:
    """Learn the expert weights and the label-noise rate from leave-one-out scores.

    Minimises the mean negative log-likelihood of ``(1 − ε) softmax(Σ_j w_j E_j) + ε / C`` plus
    ``λ Σ (u − 1 − log u)``, ``u = w / prior``, λ of :func:`weight_penalty`, plus ``μ (logit ε + 4)²``, μ of
    :func:`noise_penalty`, by L-BFGS.

    Parameters
    ----------
    scores : Scores
    labels : integer Tensor of shape (N,)
    loss_weights : Tensor of shape (N,)
    layout : Layout
    start : ndarray, optional
        `Fusion.theta` of a like problem.
    """
    dtype = torch.float64 if scores.scores.numel() <= DOUBLE_ENTRIES else torch.float32
    cast = Scores(
        scores.names, scores.scores.to(dtype), scores.own.to(dtype), scores.node_weights.to(dtype), scores.lone
    )
    problem = FusionProblem(cast, labels, loss_weights.to(dtype), layout)
    theta = problem.solve(start)
    with torch.no_grad():
        loss, total, relative, alpha, ratio, rate, log_p = problem.parts(problem.tensor(theta), problem.noisy)
    return Fusion(
        relative.double().cpu().numpy() * layout.prior,
        float(alpha),
        float(ratio),
        float(rate),
        float(loss),
        float(total),
        log_p @ cast.node_weights,
        theta,
    )
