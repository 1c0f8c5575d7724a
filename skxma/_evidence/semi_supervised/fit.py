"""Fusion of a fitted model with a pool of unlabeled images, weighted on labels that the pool has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import LeaveOneOutScores
from skxma._evidence.calibrated.fusion import (
    leave_one_out_log_probability,
    mean_log_likelihood,
    weight_penalty,
)
from skxma._evidence.calibrated.metric import vocabulary_root
from skxma._evidence.calibrated.model import CalibratedModel
from skxma._evidence.calibrated.moderation import nearest_log_factors
from skxma._evidence.fitted import FitReport, FittedEvidence
from skxma._evidence.semi_supervised.class_statistics import PoolExperts, SoftLabeledPool, em_steps, fuse_pool
from skxma._evidence.semi_supervised.config import PoolConfig, PoolWeights, pool_prior_weights
from skxma._evidence.semi_supervised.model import PooledModel
from skxma._evidence.semi_supervised.pool import Pool
from skxma._runtime import blocks
from skxma._sampling import fusion_training_rows, stratified_folds
from skxma._statistics import minimize_lbfgs
from skxma.caches import Floats, ImageCache, Integers, to_tensors

LBFGS_OPTIONS = {"maxiter": 200, "ftol": 1e-11, "gtol": 1e-6}
"""Where the three weights of a pool stop: relative decrease of the objective, and its largest slope."""

Refit = Callable[[ImageCache], FitReport[CalibratedModel]]


@dataclass(frozen=True)
class PoolReport:
    """Result of a fit with a pool.

    Attributes
    ----------
    model : FittedEvidence
        The model without the pool, where the pool is not used.
    known : ndarray of shape (M,)
        Probability that each pool image is of a known class.
    soft_labels : ndarray of shape (M, C)
        Probabilities of the classes for the pool, each image's without its own contribution.
    used : bool
    """

    model: FittedEvidence
    known: Floats
    soft_labels: Floats
    used: bool


@dataclass(frozen=True)
class PoolProblem:
    """Inputs of a fit with a pool.

    Attributes
    ----------
    cache : ImageCache
        The labeled images in use.
    pool : Pool
    text : Tensor of shape (C, D) or None
        L2-normalized class text.
    root : Tensor of shape (D, R) or None
        ``B`` of the pool's metric.
    logit_scale : float
        The encoder's.
    refit : callable from ImageCache to FitReport
        Fits the model, with the settings of the fit without the pool, on some of the labeled images.
    like : Tensor
        Gives the device and the precision of the computation.
    config : PoolConfig
    """

    cache: ImageCache
    pool: Pool
    text: Tensor | None
    root: Tensor | None
    logit_scale: float
    refit: Refit
    like: Tensor
    config: PoolConfig = field(default_factory=PoolConfig)

    def experts(self, pool: SoftLabeledPool, cache: ImageCache, weights: PoolWeights) -> tuple[PoolExperts, Tensor]:
        """Experts of a pool and the labeled images of a cache, and the pool's contributions to the masses (M, C)."""
        labeled = to_tensors(cache.embeddings, cache.labels, cache.weights, like=pool.features)
        features, labels, counts = labeled
        return em_steps(pool, (features, labels, counts), self.root, weights, self.config)


def fit_with_pool(
    report: FitReport[CalibratedModel],
    pool: Pool,
    text: Tensor | None,
    vocabulary: Tensor | None,
    logit_scale: float,
    refit: Refit,
    like: Tensor,
    config: PoolConfig | None = None,
) -> PoolReport:
    """Fuse a fitted model with the experts of a pool, where that lowers the loss on labels the pool has not seen.

    Parameters
    ----------
    report : FitReport
        Of the fit without the pool.
    pool : Pool
    text : Tensor of shape (C, D) or None
        L2-normalized class text.
    vocabulary : Tensor of shape (M, D) or None
        See `fit.fit_calibrated`.
    logit_scale : float
    refit : callable from ImageCache to FitReport
    like : Tensor
        Gives the device and the precision of the computation.
    config : PoolConfig, optional
    """
    config = PoolConfig() if config is None else config
    cache = report.model.image_cache
    in_use = cache.weights > 0
    root = pool_root(vocabulary, config.calibration)
    if cache.blocks is not None:
        root = root_of_encoders(root, cache.blocks, [one.block for one in report.model.further], like)
    problem = PoolProblem(cache.keep(in_use), pool, text, root, logit_scale, refit, like, config)
    soft_pool, known = score_pool(report, problem, pool)
    unused = PoolReport(report.model, known, as_floats(torch.softmax(soft_pool.logits, 1)), used=False)
    if len(report.left_out.logits) < len(cache.labels):
        # so many labeled images that the fit read a subsample of them need no unlabeled ones
        return unused
    prior = pool_prior_weights(float((known * pool.weights).sum()) / cache.n_classes, config)
    left_out = report.left_out.logits[in_use]
    held_out = can_be_held_out(problem.cache)
    one_shot = not held_out.any()
    if not one_shot:
        weights = cross_fit_weights(report, left_out, held_out, problem, prior)
    else:
        weights = np.array(prior) if pool_helps_at_one_shot(problem, prior) else None
    if weights is None:
        return unused
    experts, own = problem.experts(soft_pool, problem.cache, prior)
    if one_shot:
        weights = weights * scale_at_one_shot(soft_pool, soft_pool.soft_labels(experts, own, weights))
    model = PooledModel(report.model, experts.to_statistics(), weights)
    return PoolReport(model, known, as_floats(soft_pool.soft_labels(experts, own, weights)), used=True)


def pool_root(vocabulary: Tensor | None, config: CalibrationConfig) -> Tensor | None:
    """Root ``B`` of the pool's metric: of the vocabulary, or none.

    Class texts shape it no better than none where they come from a CLIP, and worse where they come from a small
    encoder.
    """
    return None if vocabulary is None else vocabulary_root(vocabulary, config.vocabulary_shrinkage)


def root_of_encoders(first: Tensor | None, widths: Sequence[int], used: Sequence[int], like: Tensor) -> Tensor:
    """Root (D, R) of a pool's metric over the embeddings of several encoders side by side.

    Parameters
    ----------
    first : Tensor of shape (D₁, D₁) or None
        That of the first encoder, or none.
    widths : sequence of int
        Of each encoder's embeddings; they sum to D.
    used : sequence of int
        Places of the further encoders that the model uses; nothing is seen of the others.
    like : Tensor
        Gives device and dtype.
    """
    roots = [torch.eye(widths[0]) if first is None else first]
    roots += [torch.eye(width)[:, : width if place in used else 0] for place, width in enumerate(widths) if place]
    return torch.block_diag(*(root.to(like) for root in roots))


def as_floats(tensor: Tensor) -> Floats:
    """Convert a tensor to an array of float32."""
    array: Floats = tensor.float().cpu().numpy()
    return array


def score_pool(report: FitReport[CalibratedModel], problem: PoolProblem, pool: Pool) -> tuple[SoftLabeledPool, Floats]:
    """Score a pool by a model that was fitted without it.

    Returns
    -------
    pool : SoftLabeledPool
    known : ndarray of shape (M,)
        Probability of being of a known class, ``sigmoid(θ − s)`` of the open-set score s. θ is what a tenth of the
        labeled images exceeds, each left out.
    """
    (features,) = to_tensors(pool.keys, like=problem.like)
    cache = report.model.image_cache
    scorer = report.model.scorer(problem.like)
    row = max(features.shape[1], len(cache.keys), cache.n_classes)
    parts = [scorer.logits_and_open_set(rows) for rows in features.split(max(1, blocks.POOL_ENTRIES // row))]
    logits, scores = (torch.cat(part) for part in zip(*parts, strict=True))
    known = torch.sigmoid(report.left_out.open_set_quantile(problem.config.known_rejected) - scores)
    counts = known * torch.as_tensor(pool.weights / problem.cache.weight_unit).to(known)
    return SoftLabeledPool(features, logits, counts), as_floats(known)


def can_be_held_out(cache: ImageCache) -> NDArray[np.bool_]:
    """Mask (N,) of labeled images whose class keeps another; none unless two classes have such."""
    several = ~cache.singleton
    return several if len(np.unique(cache.labels[several])) > 1 else np.zeros_like(several)


def held_out_folds(cache: ImageCache, held_out: NDArray[np.bool_], config: PoolConfig) -> Integers:
    """Fold of each labeled image (N,); -1 for those that are never held out. Costly fits get fewer folds."""
    n, width = cache.keys.shape
    work = n * width * cache.n_classes
    folds = np.full(n, -1, dtype=np.intp)
    n_folds = config.n_folds if work <= config.max_work else config.n_folds_large
    groups = None if cache.groups is None else cache.groups[held_out]
    folds[held_out] = stratified_folds(cache.labels[held_out], n_folds, groups)
    return folds


def left_out_folds(
    problem: PoolProblem, pool: Pool, folds: Integers, prior: PoolWeights
) -> Iterator[tuple[Tensor, FittedEvidence, PoolExperts]]:
    """Leave each fold out of a model that labels a pool.

    Parameters
    ----------
    problem : PoolProblem
    pool : Pool
        To be labeled: that of the problem, or a part of it.
    folds : ndarray of shape (N,)
        Fold of each labeled image; those of -1 stay in every model.
    prior : tuple of 3 float

    Yields
    ------
    out : integer Tensor of shape (n,)
        Labeled images of the fold.
    model : FittedEvidence
        Fitted without them.
    experts : PoolExperts
        Of the pool, which that model labeled, and of all other labeled images.
    """
    for fold in np.unique(folds[folds >= 0]):
        rest = problem.cache.keep(folds != fold)
        report = problem.refit(rest)
        soft_pool, _ = score_pool(report, problem, pool)
        experts, _ = problem.experts(soft_pool, rest, prior)
        yield torch.as_tensor(np.flatnonzero(folds == fold), device=problem.like.device), report.model, experts


def cross_fit_weights(
    report: FitReport[CalibratedModel],
    left_out: Floats,
    held_out: NDArray[np.bool_],
    problem: PoolProblem,
    prior: PoolWeights,
) -> NDArray[np.float64] | None:
    """Weights (3,) learned on labeled images that neither the model nor the pool's soft labels saw.

    For each fold the model is fitted without it, labels the pool, and the pool's experts score the fold. The model's
    own logits are its leave-one-out logits `left_out` (N, C), which is to the model's advantage. None where the pool
    does not lower the loss by `PoolConfig.min_gain`.
    """
    cache, config = problem.cache, problem.config
    folds = held_out_folds(cache, held_out, config)
    pool = problem.pool.thinned(max(config.fold_rows, config.fold_rows_per_class * cache.n_classes))
    (features,) = to_tensors(cache.embeddings, like=problem.like)
    scores = torch.zeros(2, *left_out.shape, dtype=features.dtype, device=features.device)
    for out, _, experts in left_out_folds(problem, pool, folds, prior):
        scores[:, out] = experts(features[out])
    rows = np.flatnonzero(held_out)
    limits = config.calibration.max_scores, config.calibration.max_pairs
    rows = rows[fusion_training_rows(cache.labels[rows], cache.n_classes, *limits)]
    arrays = cache.labels[rows], cache.weights[rows], left_out[rows]
    labels, loss_weights, logits = to_tensors(*arrays, like=features)
    stacked = as_experts(logits, scores[:, rows], labels)
    weights, loss, model_loss = fit_pool_weights(
        stacked, labels, loss_weights, prior, report.noise_rate, config.calibration
    )
    return weights if loss < (1 - config.min_gain) * model_loss else None


def as_experts(logits: Tensor, scores: Tensor, labels: Tensor) -> LeaveOneOutScores:
    """Stack logits (n, C) and the pool's scores (2, n, C) as three experts, none of which simulates anything."""
    stacked = torch.cat([logits[None], scores]).double()
    own = stacked.gather(2, labels[None, :, None].expand(len(stacked), -1, 1))
    singleton = torch.zeros_like(labels, dtype=torch.bool)
    return LeaveOneOutScores(("model", "pool_prototype", "pool_gaussian"), stacked, own, own.new_ones(1), singleton)


def fit_pool_weights(
    experts: LeaveOneOutScores,
    labels: Tensor,
    loss_weights: Tensor,
    prior: PoolWeights,
    noise_rate: float,
    config: CalibrationConfig,
) -> tuple[NDArray[np.float64], float, float]:
    """Learn the weights of the model and of the pool's experts by the noisy likelihood, pulled to their priors.

    The model's weight is 1 at most: unlabeled images are no reason to be surer of it than it is.

    Parameters
    ----------
    experts : LeaveOneOutScores
        Of labeled images that were held out.
    labels, loss_weights : Tensor of shape (n,)
    prior : tuple of 3 float
    noise_rate : float
        The model's rate of wrong labels.
    config : CalibrationConfig

    Returns
    -------
    weights : ndarray of shape (3,)
    loss, model_loss : float
        Mean negative log-likelihood with these weights, and of the model alone.
    """
    penalty = weight_penalty(len(labels), len(labels.unique()), config)
    start = torch.tensor(prior, dtype=torch.float64, device=labels.device)
    rate, loss_weights = start.new_tensor(noise_rate), loss_weights.double()
    n_classes = experts.scores.shape[2]

    def loss_of(weights: Tensor) -> Tensor:
        log_p = leave_one_out_log_probability(experts, weights, labels)
        return -mean_log_likelihood(log_p, experts, rate, loss_weights, n_classes)

    def objective(theta: Tensor) -> Tensor:
        # θ = log(w / prior)
        return loss_of(torch.exp(theta) * start) + penalty * (torch.exp(theta) - theta).sum()

    bounds = [(None, -math.log(prior[0])), (None, None), (None, None)]
    _, theta = minimize_lbfgs(objective, np.zeros(3), start, bounds, LBFGS_OPTIONS)
    with torch.no_grad():
        weights = torch.exp(torch.as_tensor(theta, device=labels.device)) * start
        losses = [float(loss_of(w)) for w in (weights, start.new_tensor([1.0, 0.0, 0.0]))]
    return weights.cpu().numpy(), losses[0], losses[1]


def scale_at_one_shot(pool: SoftLabeledPool, soft_labels: Tensor) -> float:
    """Factor of the weights where no labeled image tells how sure the pool makes the model, at most 1.

    If the pool repeated what the model says of it, the scale τ at which its soft labels (M, C) come closest to the
    model's own would be right; if it knew as much again, 1. √τ lies between. Through "tiny", the log loss of digits
    falls by .19 nats by it and that of the CIFAR images by .26, on the features of the CIFAR files it rises by .01.
    """
    target = torch.softmax(pool.logits, 1) * pool.counts[:, None] / pool.counts.sum().clamp_min(F.EPS)
    log_soft = torch.log(soft_labels.clamp_min(torch.finfo(soft_labels.dtype).tiny))
    (log_scale,) = nearest_log_factors(target.double(), log_soft.double()[None], ridge=0.0, largest=0.0)
    return math.exp(log_scale / 2)


def pool_helps_at_one_shot(problem: PoolProblem, prior: PoolWeights) -> bool:
    """Test that a pool does not harm where no label can be held out without its class.

    It is used if it passes one of two tests: that it does not harm zero-shot, which has seen no label, or that it does
    not harm the model without the only image of the class. False without text for every class, because then nothing
    can recognize a class without its image.
    """
    if problem.text is None or not bool(problem.text.any(1).all()):
        return False
    # without the images of the only class that has some there is nothing to fit a model on
    several = len(np.unique(problem.cache.labels)) > 1
    tests = (rise_of_zero_shot_loss, rise_of_loss_without_own_image)[: 1 + several]
    return any(is_no_harm(test(problem, prior)) for test in tests)


def is_no_harm(rise: Tensor) -> bool:
    """True if the mean rise of a loss over samples (n,) is within a standard error of 0, or below."""
    return float(rise.mean()) <= float(rise.std(correction=0)) / math.sqrt(len(rise))


def rise_of_loss_without_own_image(problem: PoolProblem, prior: PoolWeights) -> Tensor:
    """Rise of the log loss (N,) of support images by a pool, in models that have no image of their class.

    The classes are dealt out to folds. A model without the images of a fold knows its classes by text alone, labels
    the pool, and scores the images with the pool and without it.
    """
    cache, config = problem.cache, problem.config
    features, labels = to_tensors(cache.embeddings, cache.labels, like=problem.like)
    folds = stratified_folds(cache.labels, config.n_folds)
    rise = torch.zeros_like(features[:, 0])
    for out, model, experts in left_out_folds(problem, problem.pool, folds, prior):
        own_logits = model.scorer(problem.like).logits(features[out])
        rise[out] = rise_of_loss(own_logits, fuse_pool(prior, own_logits, experts(features[out])), labels[out])
    return rise


def rise_of_loss(logits: Tensor, other: Tensor, labels: Tensor) -> Tensor:
    """Log loss (n,) of other logits (n, C) less that of the first ones."""
    before, after = (torch.nn.functional.cross_entropy(one, labels, reduction="none") for one in (logits, other))
    return after - before


def rise_of_zero_shot_loss(problem: PoolProblem, prior: PoolWeights) -> Tensor:
    """Rise of zero-shot's log loss (N,) on the support images by a pool that zero-shot has labeled."""
    assert problem.text is not None
    cache, config = problem.cache, problem.config
    keys, features, labels, text, weights = to_tensors(
        problem.pool.keys,
        cache.embeddings,
        cache.labels,
        problem.text.cpu().numpy(),
        problem.pool.weights,
        like=problem.like,
    )
    # texts are of the first of several encoders
    seen = (cache.split(some)[0] for some in (keys, features))
    pool_logits, own_logits = (problem.logit_scale * F.affinity(some, text) for some in seen)
    threshold = torch.quantile(F.open_set_score(own_logits), 1 - config.known_rejected)
    counts = torch.sigmoid(threshold - F.open_set_score(pool_logits)) * weights
    no_labeled = features[:0], labels[:0], features.new_zeros(0)
    experts, _ = em_steps(SoftLabeledPool(keys, pool_logits, counts), no_labeled, problem.root, prior, config)
    with_pool = fuse_pool(prior, own_logits, experts(features))
    return rise_of_loss(own_logits, with_pool, labels)
