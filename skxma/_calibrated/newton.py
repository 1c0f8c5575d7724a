"""Newton's method for the fusion of one metric, for several sets of loss weights at once.

Cross-fitting needs the fusion of all samples but each fold. These problems share the scores, differ in the weight of
each sample, and have solutions close to that of all samples, so that a few joint steps solve them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import CalibrationConfig
from skxma._calibrated.experts import LeaveOneOutScores
from skxma._calibrated.fusion import Fusion, FusionObjective, fit_fusion, noise_penalty, weight_penalty
from skxma.caches import Integers


@dataclass(frozen=True)
class NewtonProblem:
    """Fusion objectives of B sets of loss weights, in the logarithms v of the relative weights and in logit ε.

    Attributes
    ----------
    scores : LeaveOneOutScores
    labels : integer Tensor of shape (N,)
    shares : Tensor of shape (B, N)
        Loss weights, each row with sum 1.
    prior : Tensor of shape (J,)
    pull : Tensor of shape (B,)
        Pull of the weights to their priors, see `fusion.weight_penalty`.
    noise_pull : Tensor of shape (B,)
    has_noise : bool
    config : CalibrationConfig
    """

    scores: LeaveOneOutScores
    labels: Tensor
    shares: Tensor
    prior: Tensor
    pull: Tensor
    noise_pull: Tensor
    has_noise: bool
    config: CalibrationConfig

    def evaluate(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (B,), gradient (B, J + 1) and Hessian (B, J + 1, J + 1) at θ = (v, logit ε less its prior).

        The Hessian is that of the log-softmax, ``Σ_i r_i Cov_i(E)``, with r the posterior that the label is right; the
        part that comes from r changing, which may be negative, is left out. It vanishes where ε does.
        """
        scores, own, nodes = self.scores.scores, self.scores.own, self.scores.node_weights
        n_classes, relative = scores.shape[2], torch.exp(theta[:, :-1])
        weights = relative * self.prior
        logits = torch.einsum("bj,jnc->bnc", weights, scores)
        index = self.labels[None, :, None].expand(len(theta), -1, 1)
        others = logits.scatter(2, index, -torch.inf)
        log_others = torch.logsumexp(others, 2)
        softmax = torch.exp(others - log_others[:, :, None])
        own_logit = torch.einsum("bj,jnq->bnq", weights, own)
        log_p = own_logit - torch.logaddexp(own_logit, log_others[:, :, None])
        p, rest = torch.exp(log_p), -torch.expm1(log_p)

        rate = torch.sigmoid(theta[:, -1] + self.config.noise_prior_logit)[:, None, None]
        rate = torch.where(self.scores.singleton[None, :, None], 0.0, rate) if self.has_noise else torch.zeros_like(p)
        likelihood = (1 - rate) * p + rate / n_classes
        noisy = torch.where(rate > 0, torch.log(likelihood), log_p)
        right = torch.where(rate > 0, (1 - rate) * p / likelihood, 1.0)
        share = self.shares[:, :, None] * nodes
        distance = (relative - theta[:, :-1]).sum(1)
        value = -(share * noisy).sum((1, 2)) + self.pull * distance + self.noise_pull * theta[:, -1] ** 2

        mean = torch.einsum("jnc,bnc->bjn", scores, softmax)
        toward = own[None] - mean[:, :, :, None]
        gradient = -torch.einsum("bnq,bjnq->bj", share * right * rest, toward)
        spread = share * right * rest
        once = spread.sum(2)
        hessian = torch.einsum("jnc,bnc,knc->bjk", scores, once[:, :, None] * softmax, scores)
        hessian = hessian - torch.einsum("bjn,bn,bkn->bjk", mean, once, mean)
        hessian = hessian + torch.einsum("bjnq,bnq,bknq->bjk", toward, spread * p, toward)

        by_noise = torch.where(rate > 0, rate * (1 - rate) * (1 / n_classes - p) / likelihood, 0.0)
        full = theta.new_zeros(len(theta), theta.shape[1], theta.shape[1])
        full[:, :-1, :-1] = weights[:, :, None] * hessian * weights[:, None, :]
        # in logarithms the penalty's curvature is `pull · u`, and the loss adds its slope times u, which at the
        # minimum is `pull · (1 − u)`
        full[:, :-1, :-1] += self.pull[:, None, None] * torch.diag_embed(
            torch.maximum(relative, torch.ones_like(relative))
        )
        full[:, -1, -1] = (share * by_noise**2).sum((1, 2)) + 2 * self.noise_pull
        gradient = gradient * weights + self.pull[:, None] * (relative - 1)
        slope = -(share * by_noise).sum((1, 2)) + 2 * self.noise_pull * theta[:, -1]
        return value, torch.cat([gradient, slope[:, None]], 1), full

    def minimize(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Minimize all objectives by Levenberg–Marquardt steps from a start (B, J + 1); values (B,) and solutions."""
        theta = start
        value, gradient, hessian = self.evaluate(theta)
        damping = torch.full_like(value, 1e-3)
        for _ in range(self.config.max_newton_steps):
            if bool((gradient.abs().amax(1) < self.config.newton_tolerance).all()):
                break
            diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
            damped = hessian + torch.diag_embed(damping[:, None] * diagonal)
            step = torch.linalg.solve(damped, gradient[:, :, None])[:, :, 0].clamp(-2, 2)
            tried = theta - step
            new_value, new_gradient, new_hessian = self.evaluate(tried)
            better = new_value <= value
            theta = torch.where(better[:, None], tried, theta)
            value = torch.where(better, new_value, value)
            gradient = torch.where(better[:, None], new_gradient, gradient)
            hessian = torch.where(better[:, None, None], new_hessian, hessian)
            damping = torch.where(better, damping / 10, damping * 10)
            if bool((damping > 1e8).all()):
                break
        return value, theta


def refit_without_folds(
    problem: FusionObjective, fusion: Fusion, folds: Integers
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Learn the weights of the experts without each fold.

    Parameters
    ----------
    problem : FusionObjective
    fusion : Fusion
        Learned on all samples, from which the search starts.
    folds : ndarray of shape (N,)

    Returns
    -------
    weights : ndarray of shape (K, J)
    objectives : ndarray of shape (K,)
        Loss and penalties on all folds but one.
    """
    parametrization, config = problem.parametrization, problem.config
    names = np.unique(folds)
    if parametrization.is_held:
        rest = [torch.as_tensor(np.flatnonzero(folds != fold), device=problem.labels.device) for fold in names]
        roughly = replace(config, loss_tolerance=config.newton_tolerance**2, gradient_tolerance=config.newton_tolerance)
        fusions = [fit_fusion(replace(problem.take(rows), config=roughly), fusion.theta) for rows in rest]
        return np.stack([one.weights for one in fusions]), np.array([one.objective for one in fusions])
    kept = torch.as_tensor(folds[None, :] != names[:, None], device=problem.labels.device)
    problem = problem.to(torch.float64)
    loss_weights = problem.loss_weights * kept
    n_kept = kept.sum(1).tolist()
    n_classes = [len(problem.labels[mask].unique()) for mask in kept]
    pulls = [weight_penalty(n, c, config) for n, c in zip(n_kept, n_classes, strict=True)]
    newton = NewtonProblem(
        problem.scores,
        problem.labels,
        loss_weights / loss_weights.sum(1, keepdim=True),
        torch.as_tensor(parametrization.prior).to(loss_weights),
        loss_weights.new_tensor(pulls),
        loss_weights.new_tensor([noise_penalty(n, config) for n in n_kept]),
        problem.has_noise,
        config,
    )
    relative = np.log(np.maximum(fusion.weights / parametrization.prior, F.EPS))
    start = loss_weights.new_tensor([*relative, fusion.theta[-1]]).repeat(len(names), 1)
    objectives, theta = newton.minimize(start)
    return (torch.exp(theta[:, :-1]) * newton.prior).cpu().numpy(), objectives.cpu().numpy()
