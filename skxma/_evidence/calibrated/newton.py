"""Newton's method for the fusions of several metrics, and of all samples but each fold, at once.

A fusion has a handful of numbers and a loss whose second derivatives are products of the scores, so that about ten
steps find its minimum, and the steps of several fusions are joint operations on stacked scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.fusion import (
    Fusion,
    FusionObjective,
    FusionParametrization,
    logit,
    noise_penalty,
    part_of_each_class,
    weight_penalty,
)
from skxma._runtime import blocks
from skxma.caches import Integers


@dataclass(frozen=True)
class SampleLikelihoods:
    """Likelihood of each label, averaged over the nodes of its own-class scores, and derivatives in the weights.

    M is the number of metrics, K that of sets of weights in each.

    Attributes
    ----------
    value : Tensor of shape (M, N, K)
        Log-likelihood of the label, which may be wrong.
    gradient : Tensor of shape (M, N, K, J)
    curvature : Tensor of shape (M, N, K, J, J)
        That of the log-softmax, positive semidefinite: r Cov(E), with r the posterior that the label is right. The part
        that comes from r changing, which may be negative, is left out; it vanishes where ε does.
    by_noise : Tensor of shape (M, N, K)
        Derivative in logit ε.
    noise_curvature : Tensor of shape (M, N, K)
        Its square, averaged over the nodes.
    """

    value: Tensor
    gradient: Tensor
    curvature: Tensor
    by_noise: Tensor
    noise_curvature: Tensor


def sample_likelihoods(
    scores: Tensor, own: Tensor, node_weights: Tensor, labels: Tensor, weights: Tensor, rate: Tensor
) -> SampleLikelihoods:
    """Likelihoods of the labels of N samples.

    Parameters
    ----------
    scores : Tensor of shape (M, N, J, C)
    own : Tensor of shape (M, N, J, Q)
        Scores of the own class at the nodes.
    node_weights : Tensor of shape (Q,)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (M, K, J)
    rate : Tensor of shape (M, N, K)
        ε, the probability that the label is wrong.
    """
    n_metrics, n, n_experts, n_classes = scores.shape
    n_sets = weights.shape[1]
    others = weights[:, None] @ scores
    others.scatter_(3, labels[None, :, None, None].expand(n_metrics, -1, n_sets, -1), -torch.inf)
    log_others = torch.logsumexp(others, 3, keepdim=True)
    softmax = torch.exp(others - log_others)
    own_logit = weights[:, None] @ own
    log_p = own_logit - torch.logaddexp(own_logit, log_others)
    # 1 − p by expm1, which keeps its digits where p is near 1
    p, rest = torch.exp(log_p), -torch.expm1(log_p)

    rate = rate[..., None]
    likelihood = (1 - rate) * p + rate / n_classes
    # log p is exact where p is so small that its logarithm would not be
    noisy = torch.where(rate > 0, torch.log(likelihood), log_p)
    right = torch.where(rate > 0, (1 - rate) * p / likelihood, 1.0)
    by_noise = torch.where(rate > 0, rate * (1 - rate) * (1 / n_classes - p) / likelihood, 0.0)

    # (K · J, C) products with (C, J) of each sample
    weighted = (softmax[:, :, :, None] * scores[:, :, None]).view(n_metrics, n, n_sets * n_experts, n_classes)
    second = (weighted @ scores.mT).view(n_metrics, n, n_sets, n_experts, n_experts)
    mean = softmax @ scores.mT
    toward = own[:, :, None] - mean[..., None]
    slope = node_weights * right * rest
    curvature = slope.sum(3)[..., None, None] * (second - mean[..., :, None] * mean[..., None, :])
    curvature += (toward * (slope * p)[..., None, :]) @ toward.mT
    return SampleLikelihoods(
        noisy @ node_weights,
        (toward @ slope[..., None])[..., 0],
        curvature,
        by_noise @ node_weights,
        by_noise.square() @ node_weights,
    )


def joined(parts: Iterable[SampleLikelihoods], dim: int) -> SampleLikelihoods:
    """Put the likelihoods of some metrics (`dim` 0) or samples (`dim` 1) after those of others."""
    several = list(parts)
    if len(several) == 1:
        return several[0]
    names = (one.name for one in fields(SampleLikelihoods))
    return SampleLikelihoods(*(torch.cat([getattr(part, name) for part in several], dim) for name in names))


@dataclass(frozen=True)
class Evaluation:
    """Objectives at a point θ = (v, logit ε less its prior), with derivatives.

    Attributes
    ----------
    value, loss : Tensor of shape (M, K)
        With and without the penalties.
    gradient : Tensor of shape (M, K, J + 1)
    curvature : Tensor of shape (M, K, J + 1, J + 1)
        Positive semidefinite.
    """

    value: Tensor
    loss: Tensor
    gradient: Tensor
    curvature: Tensor

    def where(self, better: Tensor, before: Evaluation) -> Evaluation:
        """Take this evaluation of the fusions that became better (M, K), and the one before of the others."""
        return Evaluation(
            torch.where(better, self.value, before.value),
            torch.where(better, self.loss, before.loss),
            torch.where(better[..., None], self.gradient, before.gradient),
            torch.where(better[..., None, None], self.curvature, before.curvature),
        )

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All tensors."""
        return self.value, self.loss, self.gradient, self.curvature

    def step(self, damping: Tensor | float) -> Tensor:
        """Step (M, K, J + 1) of Levenberg and Marquardt with dampings (M, K), no longer than 2 in any direction."""
        # the weight of an expert that is alone in a group whose sum is held has neither slope nor curvature
        diagonal = torch.diag_embed(torch.diagonal(self.curvature, dim1=-2, dim2=-1) + F.EPS)
        damped = self.curvature + torch.as_tensor(damping).to(diagonal)[..., None, None] * diagonal
        return torch.linalg.solve(damped, self.gradient[..., None])[..., 0].clamp(-2, 2)


@dataclass(frozen=True)
class FusionBatch:
    """Fusion objectives of the same samples in M metrics, under K sets of loss weights.

    Attributes
    ----------
    scores : Tensor of shape (M, N, J, C)
    own : Tensor of shape (M, N, J, Q)
    node_weights : Tensor of shape (Q,)
    labels : integer Tensor of shape (N,)
    independence : Tensor of shape (N,)
        Part of an independent sample that each is.
    fallible : bool Tensor of shape (N,)
        False for singletons, whose own scores are simulated as those of a right label.
    shares : Tensor of shape (M, N, K)
        Loss weights, with sum 1 over the samples.
    prior : Tensor of shape (M, 1, J)
        Weights where v = 0.
    penalty_weight, noise_penalty_weight : Tensor of shape (K,)
        Pull of the weights and of logit ε to their priors.
    parametrization : FusionParametrization
        Of any metric: `prior` has the priors.
    config : CalibrationConfig
    """

    scores: Tensor
    own: Tensor
    node_weights: Tensor
    labels: Tensor
    independence: Tensor
    fallible: Tensor
    shares: Tensor
    prior: Tensor
    penalty_weight: Tensor
    noise_penalty_weight: Tensor
    parametrization: FusionParametrization
    config: CalibrationConfig

    @classmethod
    def stack(cls, problems: Sequence[FusionObjective]) -> FusionBatch:
        """Stack the objectives of several metrics on the same samples, under one set of loss weights each."""
        first = problems[0]
        labels, singleton, nodes = first.labels, first.scores.singleton, first.scores.node_weights
        is_small = first.scores.scores.numel() <= first.config.max_double_scores
        like = torch.empty(0, dtype=torch.float64 if is_small else torch.float32, device=labels.device)
        if not bool(singleton.any()):
            # the nodes differ for singletons only
            nodes = torch.ones_like(nodes[:1])
        loss_weights = torch.stack([one.loss_weights for one in problems])
        n = float(first.independence.sum())
        return cls(
            scores=torch.stack([one.scores.scores.transpose(0, 1) for one in problems]).to(like),
            own=torch.stack([one.scores.own[:, :, : len(nodes)].transpose(0, 1) for one in problems]).to(like),
            node_weights=nodes.to(like),
            labels=labels,
            independence=first.independence.to(like),
            fallible=~singleton,
            shares=normalized_shares(loss_weights[..., None].to(like)),
            prior=like.new_tensor(np.stack([one.parametrization.prior for one in problems]))[:, None],
            penalty_weight=like.new_tensor([weight_penalty(n, len(labels.unique()), first.config)]),
            noise_penalty_weight=like.new_tensor([noise_penalty(n, first.config)]),
            parametrization=first.parametrization,
            config=first.config,
        )

    def take(self, metrics: Tensor) -> FusionBatch:
        """Return the objectives in some of the metrics."""
        names = ("scores", "own", "shares", "prior")
        return replace(self, **{name: getattr(self, name)[metrics] for name in names})

    def take_sets(self, sets: Tensor) -> FusionBatch:
        """Return the objectives under some of the sets of loss weights."""
        return replace(
            self,
            shares=self.shares[..., sets],
            penalty_weight=self.penalty_weight[sets],
            noise_penalty_weight=self.noise_penalty_weight[sets],
        )

    def coarse(self) -> FusionBatch:
        """Return the objectives on an equal part of each class, whose solution is close to that of all samples."""
        rows = part_of_each_class(self.labels, len(self.labels) // self.config.coarse_samples)
        return replace(
            self,
            scores=self.scores[:, rows],
            own=self.own[:, rows],
            labels=self.labels[rows],
            independence=self.independence[rows],
            fallible=self.fallible[rows],
            shares=normalized_shares(self.shares[:, rows]),
        )

    def without_each_fold(self, folds: Integers) -> FusionBatch:
        """Return the objectives of all samples but each of the K folds; `folds` (N,) has the fold of each sample."""
        kept = torch.as_tensor(folds[:, None] != np.unique(folds), device=self.labels.device)
        n_kept = (self.independence @ kept.to(self.independence)).tolist()
        n_classes = [len(self.labels[mask].unique()) for mask in kept.T]
        weights = [weight_penalty(n, c, self.config) for n, c in zip(n_kept, n_classes, strict=True)]
        return replace(
            self,
            shares=normalized_shares(self.shares * kept),
            penalty_weight=self.penalty_weight.new_tensor(weights),
            noise_penalty_weight=self.penalty_weight.new_tensor([noise_penalty(n, self.config) for n in n_kept]),
        )

    @cached_property
    def has_noise(self) -> bool:
        """True unless all samples are singletons, whose labels count as right."""
        return bool(self.fallible.any())

    def weights(self, theta: Tensor) -> Tensor:
        """Expert weights (M, K, J) at θ."""
        return self.prior * self.parametrization.relative_weights(theta[..., :-1]).values

    def noise_rate(self, theta: Tensor) -> Tensor:
        """ε (M, K) at θ; 0 where no label can be wrong."""
        rate = torch.sigmoid(theta[..., -1] + self.config.noise_prior_logit)
        return rate if self.has_noise else torch.zeros_like(rate)

    def likelihoods(self, theta: Tensor, noisy: bool = True) -> SampleLikelihoods:
        """Likelihoods of the samples at θ (M, K, J + 1), a block of samples at a time; ε is 0 unless `noisy`."""
        weights, rate = self.weights(theta), self.noise_rate(theta)[:, None]
        rate = torch.where(self.fallible[:, None] & noisy, rate, 0.0)
        n_metrics, n, n_experts, n_classes = self.scores.shape
        per_sample = weights.shape[1] * n_experts * n_classes

        def of(metrics: slice, rows: slice) -> SampleLikelihoods:
            scores, own = self.scores[metrics, rows], self.own[metrics, rows]
            return sample_likelihoods(
                scores, own, self.node_weights, self.labels[rows], weights[metrics], rate[metrics, rows]
            )

        # whole metrics, or samples of one metric: other blocks lie in pieces, which a product would copy first
        samples = list(blocks.slices(n, blocks.LIKELIHOOD_ENTRIES // per_sample))
        metrics = blocks.slices(n_metrics, blocks.LIKELIHOOD_ENTRIES // (n * per_sample))
        return joined((joined((of(some, rows) for rows in samples), dim=1) for some in metrics), dim=0)

    def logit_deviation(self, weights: Tensor) -> Tensor:
        """Deviation (M, K) of the logits with these weights (M, K, J) from their mean over the classes."""
        centered = self.scores - self.scores.mean(3, keepdim=True)
        covariance = (centered @ centered.mT).mean(1) / centered.shape[3]
        return ((weights @ covariance) * weights).sum(-1).clamp_min(0).sqrt()

    def evaluate(self, theta: Tensor, noisy: bool = True) -> Evaluation:
        """Objectives at θ (M, K, J + 1); ε is 0 unless `noisy`."""
        return self.penalized(theta, self.likelihoods(theta, noisy))

    def penalized(self, theta: Tensor, samples: SampleLikelihoods) -> Evaluation:
        """Sum of the samples' likelihoods at θ by their shares, with the penalties.

        Likelihoods at one θ (M, 1, J + 1) serve several sets of loss weights.
        """
        relative = self.parametrization.relative_weights(theta[..., :-1])
        jacobian = self.prior[..., None] * relative.jacobian
        shares, weight = self.shares, self.penalty_weight[:, None]
        loss = -(shares * samples.value).sum(1)
        slope = -(shares[..., None] * samples.gradient).sum(1)
        curvature = (shares[..., None, None] * samples.curvature).sum(1)
        n_free = theta.shape[-1]
        full = curvature.new_zeros(*loss.shape, n_free, n_free)
        full[..., :-1, :-1] = jacobian.mT @ curvature @ jacobian + weight[..., None] * relative.penalty_curvature
        full[..., -1, -1] = (shares * samples.noise_curvature).sum(1) + 2 * self.noise_penalty_weight
        gradient = (slope[..., None, :] @ jacobian)[..., 0, :] + weight * relative.penalty_gradient
        by_noise = -(shares * samples.by_noise).sum(1) + 2 * self.noise_penalty_weight * theta[..., -1]
        value = loss + self.penalty_weight * relative.penalty + self.noise_penalty_weight * theta[..., -1] ** 2
        return Evaluation(value, loss, torch.cat([gradient, by_noise[..., None]], -1), full)

    def minimize(
        self, start: Tensor, tolerance: float, damping: float, noisy: bool = True
    ) -> tuple[Evaluation, Tensor]:
        """Minimize all objectives by Levenberg–Marquardt steps.

        Parameters
        ----------
        start : Tensor of shape (M, K, J + 1)
        tolerance : float
            Expected decrease of an objective below which a step is the last.
        damping : float
            Damping of the first step.
        noisy : bool
            False holds ε at 0.

        Returns
        -------
        evaluation : Evaluation
            At the solution.
        theta : Tensor of shape (M, K, J + 1)
        """
        theta, now = start, self.evaluate(start, noisy)
        dampings = torch.full_like(now.value, damping)
        rounding = torch.finfo(now.value.dtype).eps
        for _ in range(self.config.max_newton_steps):
            step = now.step(dampings)
            decrease = (now.gradient * step).sum(-1) / 2
            tried = theta - step
            then = self.evaluate(tried, noisy)
            better = then.value <= now.value + rounding * now.value.abs()
            theta, now = torch.where(better[..., None], tried, theta), then.where(better, now)
            dampings = torch.where(better, (dampings / 10).clamp_min(self.config.least_damping), dampings * 10)
            # the step that promises nothing has been taken all the same, and squares the distance to the minimum
            if bool((decrease < max(tolerance, rounding)).all()):
                break
        return now, theta

    def solve(self, start: Tensor) -> tuple[Evaluation, Tensor]:
        """Minimize all objectives from a start (M, 1, J + 1), and again where most labels seem wrong.

        Where text is useless the priors lie so far off that most labels seem wrong: a second minimum. Weights learned
        with ε = 0 have a gradient to follow everywhere, and lead from there to the better one.
        """
        how = self.config.newton_tolerance, self.config.first_damping
        found, theta = self.minimize(start, *how)
        limit = logit(self.config.suspicious_noise_rate) - self.config.noise_prior_logit
        suspicious = (theta[..., -1] > limit).any(1)
        if not self.has_noise or not bool(suspicious.any()):
            return found, theta
        part = self.take(suspicious)
        trusting = part.minimize(theta[suspicious], *how, noisy=False)[1]
        other, alternative = part.minimize(trusting, *how)
        better = other.value < found.value[suspicious]
        improved = torch.nonzero(suspicious)[:, 0][better[:, 0]]
        for values, others in zip((*found.parts, theta), (*other.parts, alternative), strict=True):
            values[improved] = others[better[:, 0]]
        return found, theta


def normalized_shares(loss_weights: Tensor) -> Tensor:
    """Loss weights (M, N, K) with sum 1 over the samples."""
    return loss_weights / loss_weights.sum(1, keepdim=True)


def fit_fusions(problems: Sequence[FusionObjective], starts: Sequence[NDArray[np.float64] | None]) -> list[Fusion]:
    """Learn the expert weights and the label-noise rate of several metrics from their leave-one-out scores.

    Parameters
    ----------
    problems : sequence of FusionObjective
        On the same samples.
    starts : sequence of ndarray or None
        `Fusion.theta` of a similar problem for each; None starts from the priors.
    """
    batch = FusionBatch.stack(problems)
    zeros = np.zeros(batch.prior.shape[-1] + 1)
    first = np.stack([zeros if one is None else one for one in starts])
    start = batch.prior.new_tensor(first)[:, None]
    if len(batch.labels) > 2 * batch.config.coarse_samples:
        start = batch.coarse().solve(start)[1]
    found, theta = batch.solve(start)
    relative = batch.parametrization.relative_weights(theta[:, 0, :-1])
    columns = (
        relative.values.double().cpu().numpy() * np.stack([one.parametrization.prior for one in problems]),
        relative.alpha.tolist(),
        relative.fusion_ratio.tolist(),
        batch.noise_rate(theta)[:, 0].tolist(),
        found.loss[:, 0].tolist(),
        found.value[:, 0].tolist(),
        theta[:, 0].double().cpu().numpy(),
    )
    return [Fusion(*one) for one in zip(*columns, strict=True)]


def refit_without_folds(
    problems: Sequence[FusionObjective], fusions: Sequence[Fusion], folds: Integers
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Learn the weights of the experts without each fold, in several metrics.

    The likelihoods at the solution of all samples are the same for all folds, so the first step costs nothing. Of many
    samples it is the last one of folds whose logits it hardly changes (approximate cross-validation: Beirami et al.,
    "On optimal generalizability in parametric learning", 2017).

    Parameters
    ----------
    problems : sequence of FusionObjective
        On the same samples.
    fusions : sequence of Fusion
        Learned on all samples.
    folds : ndarray of shape (N,)

    Returns
    -------
    weights : ndarray of shape (M, K, J)
    objectives : ndarray of shape (M, K)
        Loss and penalties on all folds but one.
    """
    whole = FusionBatch.stack(problems)
    batch, config = whole.without_each_fold(folds), whole.config
    start = whole.prior.new_tensor(np.stack([one.theta for one in fusions]))[:, None]
    now = batch.penalized(start, whole.likelihoods(start))
    step = now.step(config.least_damping)
    theta, objectives = start - step, now.value - (now.gradient * step).sum(-1) / 2
    change = whole.logit_deviation(batch.weights(theta) - whole.weights(start))
    is_small = whole.scores.numel() * change.shape[1] <= config.max_exact_fold_scores
    far = torch.nonzero((change > (0 if is_small else config.max_logit_change)).any(0))[:, 0]
    if len(far):
        found, theta[:, far] = batch.take_sets(far).minimize(theta[:, far], config.fold_tolerance, config.least_damping)
        objectives[:, far] = found.value
    return batch.weights(theta).double().cpu().numpy(), objectives.double().cpu().numpy()
