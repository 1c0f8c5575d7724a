"""A model and a pool of pictures without labels: how far the pool is believed, by labels that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.experts import Scores
from skxma._calibrated.fusion import TOLERANCES, leave_one_out_log_probability, mean_log_likelihood, weight_penalty
from skxma._calibrated.metric import text_root, vocabulary_root
from skxma._calibrated.model import CalibratedCache
from skxma._fitted import FitReport, RetrievalModel
from skxma._sampling import rows_to_learn_from, stratified_folds
from skxma._semi_supervised.class_statistics import Judged, PoolExperts, fused, refine, trust
from skxma._semi_supervised.model import PooledModel
from skxma._semi_supervised.pool import Pool
from skxma.caches import Floats, ImageCache, Integers, like

N_FOLDS, FEW_FOLDS = 4, 2
MANY_FOLDS_WORK = 2**27
FOLD_ROWS, FOLD_ROWS_PER_CLASS = 2**14, 64
KNOWN_REJECTED = 0.1
LEAST_GAIN = 0.02
Refit = Callable[[ImageCache], FitReport]


@dataclass(frozen=True)
class PoolReport:
    """What came of a pool.

    Attributes
    ----------
    model : RetrievalModel
        The model that was there before where the pool was of no use.
    known : ndarray of shape (M,)
        Probability that each picture of the pool is of a known class.
    soft_labels : ndarray of shape (M, C)
        What the model says of the pool, of each picture without what that said itself.
    used : bool
    """

    model: RetrievalModel
    known: Floats
    soft_labels: Floats
    used: bool


@dataclass(frozen=True)
class Evidence:
    """What a fit with a pool reads: the labelled pictures, the pool, text, and how a model is fitted.

    Attributes
    ----------
    cache : ImageCache
    pool : Pool
    text : Tensor of shape (C, D) or None
    root : Tensor of shape (D, D) or None
    logit_scale : float
        The encoder's.
    refit : callable from ImageCache to FitReport
        Fits the model, as it was fitted, on some of the labelled pictures.
    """

    cache: ImageCache
    pool: Pool
    text: Tensor | None
    root: Tensor | None
    logit_scale: float
    refit: Refit

    def refined(
        self, judged: Judged, cache: ImageCache, weights: tuple[float, float, float]
    ) -> tuple[PoolExperts, Tensor]:
        """Experts of a judged pool and the labelled pictures of a cache, and what the pool put in (M, C)."""
        features, labels, mass = like(judged.features, cache.embeddings, cache.labels, cache.weights)
        return refine(judged, features, labels, mass, self.root, weights)


def fit_with_pool(
    report: FitReport,
    pool: Pool,
    text: Tensor | None,
    vocabulary: Tensor | None,
    logit_scale: float,
    refit: Refit,
    like_this: Tensor,
) -> PoolReport:
    """Fuse a fitted model with what a pool says, where labels that the pool has not seen are better off with it.

    Parameters
    ----------
    report : FitReport
        Of the fit without the pool.
    pool : Pool
    text : Tensor of shape (C, D) or None
        L2-normalised class text.
    vocabulary : Tensor of shape (M, D) or None
        See `calibrated.fit_calibrated`.
    logit_scale : float
    refit : callable from ImageCache to FitReport
    like_this : Tensor
        Gives the device and the precision of the computation.
    """
    cache = report.model.image_cache
    in_use = cache.weights > 0
    root = root_of(vocabulary, text)
    evidence = Evidence(cache.keep(in_use), pool, text, root, logit_scale, refit)
    judged, known = judge_pool(report, evidence, like_this, pool)
    unused = PoolReport(report.model, known, as_floats(torch.softmax(judged.logits, 1)), used=False)
    if len(report.left_out.logits) < len(cache.labels):
        # so many labelled pictures that the fit read a share of them need no others
        return unused
    prior = trust(float((known * pool.weights).sum()) / cache.n_classes)
    left_out = report.left_out.logits[in_use]
    held = held_out_rows(evidence.cache)
    if held.any():
        weights = weigh_by_folds(report, left_out, held, evidence, prior, like_this)
    else:
        weights = np.array(prior) if text_is_better_off(evidence, prior, like_this) else None
    if weights is None:
        return unused
    experts, own = evidence.refined(judged, evidence.cache, prior)
    assert isinstance(report.model, CalibratedCache)
    model = PooledModel(report.model, experts.stored(), weights)
    return PoolReport(model, known, as_floats(judged.fused(experts, own, weights)), used=True)


def root_of(vocabulary: Tensor | None, text: Tensor | None) -> Tensor | None:
    """``B`` of the pool's metric: by the vocabulary, without one by the class texts, without text none."""
    if vocabulary is not None:
        return vocabulary_root(vocabulary)
    return None if text is None else text_root(text)


def as_floats(tensor: Tensor) -> Floats:
    """A tensor as an array of float32."""
    array: Floats = tensor.float().cpu().numpy()
    return array


def judge_pool(report: FitReport, evidence: Evidence, like_this: Tensor, pool: Pool) -> tuple[Judged, Floats]:
    """A pool as a model sees it, fitted without it, and the probability (M,) that pictures are of known classes.

    That is ``sigmoid(τ − s)`` of the open-set score s, τ what a tenth of the labelled pictures exceeds, left out.
    """
    (features,) = like(like_this, pool.keys)
    scorer = report.model.on(like_this)
    parts = [scorer.judge(some) for some in features.split(max(1, 2**22 // max(features.shape[1], _width(report))))]
    logits, scores = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
    known = torch.sigmoid(report.left_out.rejection_threshold(KNOWN_REJECTED) - scores)
    counts = known * torch.as_tensor(pool.weights / evidence.cache.weight_unit).to(known)
    return Judged(features, logits, counts), as_floats(known)


def _width(report: FitReport) -> int:
    """The longest row that scoring a picture makes."""
    cache = report.model.image_cache
    return max(len(cache.keys), cache.n_classes)


def held_out_rows(cache: ImageCache) -> NDArray[np.bool_]:
    """Labelled pictures (N,) that can be held out: those whose class keeps another, if two classes have such."""
    several = (cache.shots > 1)[cache.labels]
    return several if len(np.unique(cache.labels[several])) > 1 else np.zeros_like(several)


def folds_of(cache: ImageCache, held: NDArray[np.bool_]) -> Integers:
    """Fold of each labelled picture (N,); -1 for those that are never held out. Costly fits get fewer folds."""
    n, width = cache.keys.shape
    work = n * width * cache.n_classes
    folds = np.full(n, -1, dtype=np.intp)
    folds[held] = stratified_folds(cache.labels[held], N_FOLDS if work <= MANY_FOLDS_WORK else FEW_FOLDS)
    return folds


def weigh_by_folds(
    report: FitReport,
    left_out: Floats,
    held: NDArray[np.bool_],
    evidence: Evidence,
    prior: tuple[float, float, float],
    like_this: Tensor,
) -> NDArray[np.float64] | None:
    """Weights (3,) learned on labelled pictures that neither the model nor the pool's soft labels saw; None for no use.

    For each fold the model is fitted without it, labels the pool, and the pool's experts score the fold. The model's
    own logits are its leave-one-out logits `left_out` (N, C), which is to the model's advantage.
    """
    cache = evidence.cache
    folds = folds_of(cache, held)
    pool = evidence.pool.thinned(max(FOLD_ROWS, FOLD_ROWS_PER_CLASS * cache.n_classes))
    (features,) = like(like_this, cache.embeddings)
    scores = torch.zeros(2, *left_out.shape, dtype=features.dtype, device=features.device)
    for fold in np.unique(folds[held]):
        rest = cache.keep(folds != fold)
        judged, _ = judge_pool(evidence.refit(rest), evidence, like_this, pool)
        out = torch.as_tensor(np.flatnonzero(folds == fold), device=features.device)
        scores[:, out] = evidence.refined(judged, rest, prior)[0](features[out])
    rows = np.flatnonzero(held)
    rows = rows[rows_to_learn_from(cache.labels[rows], cache.n_classes)]
    labels, loss_weights, logits = like(features, cache.labels[rows], cache.weights[rows], left_out[rows])
    experts = as_experts(logits, scores[:, rows], labels)
    weights, loss, without = learn_weights(experts, labels, loss_weights, prior, report.noise_rate)
    return weights if loss < (1 - LEAST_GAIN) * without else None


def as_experts(logits: Tensor, scores: Tensor, labels: Tensor) -> Scores:
    """Logits (n, C) and the pool's scores (2, n, C) as three experts, none of which simulates anything."""
    every = torch.cat([logits[None], scores]).double()
    own = every.gather(2, labels[None, :, None].expand(len(every), -1, 1))
    lone = torch.zeros_like(labels, dtype=torch.bool)
    return Scores(("model", "pool_prototype", "pool_gaussian"), every, own, own.new_ones(1), lone)


def learn_weights(
    experts: Scores, labels: Tensor, loss_weights: Tensor, prior: tuple[float, float, float], noise_rate: float
) -> tuple[NDArray[np.float64], float, float]:
    """Weights of the model and of the pool's experts by the noisy likelihood, pulled to their priors.

    The model's weight is 1 at most: pictures without labels are no reason to be surer of it than it is.

    Parameters
    ----------
    experts : Scores
        Of labelled pictures that were held out.
    labels, loss_weights : Tensor of shape (n,)
    prior : tuple of 3 float
    noise_rate : float
        The model's rate of wrong labels.

    Returns
    -------
    weights : ndarray of shape (3,)
    loss, without : float
        Mean negative log-likelihood with these weights, and of the model alone.
    """
    pull = weight_penalty(len(labels), len(labels.unique()))
    start = torch.tensor(prior, dtype=torch.float64, device=labels.device)
    rate, share = start.new_tensor(noise_rate), loss_weights.double()
    n_classes = experts.scores.shape[2]

    def loss_of(weights: Tensor) -> Tensor:
        log_p = leave_one_out_log_probability(experts, weights, labels)
        return -mean_log_likelihood(log_p, experts, rate, share, n_classes)

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = torch.tensor(values, device=labels.device, requires_grad=True)
        total = loss_of(torch.exp(theta) * start) + pull * (torch.exp(theta) - theta).sum()
        (gradient,) = torch.autograd.grad(total, theta)
        return float(total.detach()), gradient.cpu().numpy()

    bounds = [(None, -math.log(prior[0])), (None, None), (None, None)]
    best = minimize(objective, np.zeros(3), jac=True, method="L-BFGS-B", bounds=bounds, options=TOLERANCES)
    with torch.no_grad():
        weights = torch.exp(torch.as_tensor(best.x, device=labels.device)) * start
        losses = [float(loss_of(w)) for w in (weights, start.new_tensor([1.0, 0.0, 0.0]))]
    return weights.cpu().numpy(), losses[0], losses[1]


def text_is_better_off(evidence: Evidence, prior: tuple[float, float, float], like_this: Tensor) -> bool:
    """Whether the pool does the text no harm on pictures that are all single of their class, none of which it has seen.

    With one picture a class no label can be held out without its class. But zero-shot has seen none: with a pool that
    it has labelled itself, it must not lose more on the labelled pictures than the standard error of the difference.
    Without text for every class there is nothing to judge by.
    """
    if evidence.text is None or not bool(evidence.text.any(1).all()):
        return False
    cache = evidence.cache
    keys, features, labels, text = like(
        like_this, evidence.pool.keys, cache.embeddings, cache.labels, evidence.text.cpu().numpy()
    )
    pooled, own = (evidence.logit_scale * F.affinity(some, text) for some in (keys, features))
    limit = torch.quantile(F.open_set_score(own), 1 - KNOWN_REJECTED)
    (weights,) = like(like_this, evidence.pool.weights)
    counts = torch.sigmoid(limit - F.open_set_score(pooled)) * weights
    nothing = features[:0], labels[:0], features.new_zeros(0)
    experts, _ = refine(Judged(keys, pooled, counts), *nothing, evidence.root, prior)
    with_pool = fused(prior, own, experts(features))
    losses = [torch.nn.functional.cross_entropy(logits, labels, reduction="none") for logits in (with_pool, own)]
    rise = losses[0] - losses[1]
    return float(rise.mean()) <= float(rise.std(correction=0)) / math.sqrt(len(rise))
