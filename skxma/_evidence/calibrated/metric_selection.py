"""Candidate metrics, their leave-one-out objective, and the selection among them (docs/method.md, steps 1 to 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skxma._evidence.calibrated.averaging import choose_per_root
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.cross_fit import CrossFittedMetric, cross_fit_metrics
from skxma._evidence.calibrated.experts import (
    IMAGE_EXPERTS,
    TEXT_EXPERTS,
    ImageScale,
    LeaveOneOutScores,
    left_out_image_scores,
)
from skxma._evidence.calibrated.further import FurtherEncoder, encoder_trusts
from skxma._evidence.calibrated.fusion import (
    Fusion,
    FusionObjective,
    FusionParametrization,
    leave_one_out_correction,
)
from skxma._evidence.calibrated.metric import (
    CLASS_TEXT_ROOT,
    IDENTITY_ROOT,
    VOCABULARY_ROOT,
    Metric,
    MetricSupport,
    candidate_metrics,
    class_text_root,
    covariance_alignment,
    vocabulary_root,
)
from skxma._evidence.calibrated.newton import fit_fusions
from skxma._evidence.calibrated.support import (
    CalibrationSupport,
    combine_scores,
    cross_modal_hardness,
    loss_weights,
    plain_scores,
)
from skxma._evidence.calibrated.text_only import TextOnlyFusion, fit_text_only
from skxma._runtime import blocks
from skxma._sampling import stratified_folds
from skxma.caches import ImageCache, Integers, to_tensors

Root = tuple[str, Tensor | None]
"""Name of a root, and B."""


@dataclass(frozen=True)
class ScoredMetric:
    """A metric with leave-one-out scores, from which its fusion is learned.

    Attributes
    ----------
    metric : Metric
    support : MetricSupport
    scale : ImageScale
    scores : LeaveOneOutScores
        Of the support's `rows`, among all classes.
    problem : FusionObjective
        Among the classes with images.
    """

    metric: Metric
    support: MetricSupport
    scale: ImageScale
    scores: LeaveOneOutScores
    problem: FusionObjective


@dataclass(frozen=True)
class MetricCandidate(ScoredMetric):
    """A metric that was tried, with its fusion.

    Attributes
    ----------
    fusion : Fusion
        Learned on the leave-one-out scores, in which the own class has a shot less.
    full_fusion : Fusion
        The same, corrected for new images, which see all shots.
    text_only : TextOnlyFusion or None
        How it scores classes without images; None where there are none, or no class has a text.
    averaging_weight : float
        Weight of the metric in the mean over the metrics.
    """

    fusion: Fusion
    full_fusion: Fusion
    text_only: TextOnlyFusion | None = None
    averaging_weight: float = 1.0

    @property
    def prior(self) -> NDArray[np.float64]:
        """Prior weights (J,)."""
        return self.problem.parametrization.prior


def average(best: Sequence[MetricCandidate], values: Iterable[float]) -> float:
    """Mean over the metrics of one value of each, by their averaging weights."""
    return float(np.average(list(values), weights=[candidate.averaging_weight for candidate in best]))


def with_further_encoders(
    support: CalibrationSupport, cache: ImageCache, config: CalibrationConfig
) -> CalibrationSupport:
    """Add the encoders beside the first that are worth it, each in the metric in which it would be best alone.

    Parameters
    ----------
    support : CalibrationSupport
        Of the first encoder.
    cache : ImageCache
        Embeddings by all encoders.
    config : CalibrationConfig
    """
    encoders = cache.split(*to_tensors(cache.keys, like=support.features))
    if len(encoders) == 1 or len(support.imaged) < 2:
        return support
    trusts = encoder_trusts(encoders, support.labels, config)
    used = [b for b in range(1, len(encoders)) if trusts[b] >= config.least_trust]
    if not used:
        return support
    # without text the first encoder is one among others
    stays = support.text_part is not None or trusts[0] >= config.least_trust
    first = max(trusts[0], config.least_trust) if stays else config.trust_without_text
    total = first + sum(trusts[b] for b in used)
    shares = tuple(trust / total for trust in (first, *(trusts[b] for b in used)))
    further = tuple(best_alone(support, b, encoders[b], config) for b in used)
    return replace(support, further=further, shares=shares)


def best_alone(support: CalibrationSupport, block: int, features: Tensor, config: CalibrationConfig) -> FurtherEncoder:
    """A further encoder in the metric where its image experts, beside those of the text, have the least objective."""
    samples = support.labels, support.weights, support.n_classes
    alone = replace(support, features=features)
    if support.plain is not None:
        alone = replace(alone, plain=plain_scores(features, *samples, support.members, config))
    metrics = candidate_metrics(features, *samples, None, config.shrinkages)
    candidates = chain.from_iterable(fit_a_few_at_once(alone, metrics, replace(config, warm_start=None)))
    best = min(candidates, key=lambda one: one.fusion.objective)
    weights = np.zeros(len(IMAGE_EXPERTS))
    weights[: support.n_image_experts] = best.prior[-support.n_image_experts :]
    return FurtherEncoder(block, best.metric, best.support, best.scale, weights)


def expert_priors(
    sigma: float, has_text: bool, n_image: int, shares: Sequence[float], config: CalibrationConfig
) -> tuple[list[float], int]:
    """Prior weights of all experts, zero-shot first, and the number of text experts.

    Cosines to class means are measured in σ, the deviation of cosines in the metric, so their prior is divided by it.

    Parameters
    ----------
    sigma : float
    has_text : bool
    n_image : int
        Image experts of the first encoder.
    shares : sequence of float
        Factors of the priors of each encoder.
    config : CalibrationConfig
    """
    prototype = shares[0] * config.prototype_prior / sigma
    # without text, class means of the plain embeddings stand for zero-shot
    first = [config.logit_scale, config.text_cache_prior, config.centered_text_prior] if has_text else [prototype]
    image = [shares[0] * config.image_cache_prior, prototype, shares[0] * config.gaussian_prior]
    return [*first, *image[:n_image], *shares[1:]], len(first) - 1


def in_each_metric(features: Tensor, metrics: Iterable[Metric]) -> Iterator[tuple[Metric, Tensor]]:
    """Yield metrics with the features (n, R) in each; those of one basis, which come in a row, share a product."""
    basis, mapped = None, features
    for metric in metrics:
        if metric.basis is not basis:
            basis, mapped = metric.basis, metric.basis(features)
        yield metric, metric.stretch(mapped)


def score_metric(support: CalibrationSupport, metric: Metric, keys: Tensor, config: CalibrationConfig) -> ScoredMetric:
    """Score the support set in a metric, where it is the keys (N, R), leave-one-out."""
    samples = support.labels, support.weights, support.n_classes, support.members
    seen = MetricSupport.from_keys(keys, *samples)
    rows = support.rows
    image, scale = left_out_image_scores(seen, metric.scatter_weight, config, rows)
    scores = combine_scores(support, image, rows, config)
    has_text, n_image = support.text_part is not None, support.n_image_experts
    prior, n_text = expert_priors(seen.sigma, has_text, n_image, support.shares, config)
    parametrization = FusionParametrization(
        np.array(prior), n_text, len(prior) - n_text - 1, config.alpha, config.fusion_ratio
    )
    weights = loss_weights(support, cross_modal_hardness(support, scores, rows), rows, config)
    # a class without images is never right: among all classes the weights would learn to turn it down
    among = scores.among(support.imaged)
    problem = FusionObjective(
        among, support.imaged_labels[rows], weights, support.independence[rows], parametrization, config
    )
    return ScoredMetric(metric, seen, scale, scores, problem)


def fit_metrics(
    support: CalibrationSupport, metrics: Iterable[Metric], config: CalibrationConfig
) -> list[MetricCandidate]:
    """Score the support set in several metrics, leave-one-out, and learn the fusion in each."""
    scored = [score_metric(support, metric, keys, config) for metric, keys in in_each_metric(support.features, metrics)]
    fusions = fit_fusions([one.problem for one in scored], [warm_theta(one, config) for one in scored])
    correction = leave_one_out_correction(support.counts)
    return [to_candidate(one, fusion, correction, support, config) for one, fusion in zip(scored, fusions, strict=True)]


def to_candidate(
    scored: ScoredMetric, fusion: Fusion, correction: float, support: CalibrationSupport, config: CalibrationConfig
) -> MetricCandidate:
    """A metric with its fusion; `correction` is that of `leave_one_out_correction`."""
    problem, scores, text_only = scored.problem, scored.scores, None
    if len(support.imaged) < support.n_classes and support.text_part is not None:
        as_given = TextOnlyFusion(deviations=config.imageless_deviations)
        text_only = fit_text_only(problem, fusion.weights) if config.learns_text_only else as_given
        scores = text_only.apply(scores, support.has_images)
    full_fusion = problem.parametrization.rescale_image_experts(fusion, correction)
    return MetricCandidate(scored.metric, scored.support, scored.scale, scores, problem, fusion, full_fusion, text_only)


def fit_a_few_at_once(
    support: CalibrationSupport, metrics: Iterator[Metric], config: CalibrationConfig
) -> Iterator[list[MetricCandidate]]:
    """Yield :func:`fit_metrics` of as many metrics as memory allows, so that scores that are not kept are freed."""
    n_experts = 1 + len(TEXT_EXPERTS) + len(IMAGE_EXPERTS) + len(support.further)
    at_once = max(1, blocks.BATCH_ENTRIES // (len(support.rows) * support.n_classes * n_experts))
    while several := list(islice(metrics, at_once)):
        yield fit_metrics(support, several, config)


def cross_fit_candidates(
    candidates: Sequence[MetricCandidate],
    least: float,
    support: CalibrationSupport,
    folds: Integers,
    config: CalibrationConfig,
) -> list[CrossFittedMetric]:
    """Learn fusions without each fold, in the metrics whose objectives are near enough to the `least` of all so far."""
    n_left_out = max(1.0, candidates[0].problem.n_left_out)
    reach = -math.log(config.least_relative_weight) / (config.evidence_per_sample * n_left_out)
    near = [one for one in candidates if one.fusion.objective <= least + reach]
    if not near:
        return []
    return cross_fit_metrics(
        [one.metric.choice[0] for one in near],
        [one.problem for one in near],
        [one.scores for one in near],
        [one.fusion for one in near],
        folds,
        leave_one_out_correction(support.counts),
    )


def warm_theta(scored: ScoredMetric, config: CalibrationConfig) -> NDArray[np.float64] | None:
    """`Fusion.theta` of an earlier fit's solution in the metric; None where there is none by the same experts."""
    before = config.warm_start
    if before is None or scored.metric.choice not in before.relative_weights:
        return None
    if scored.problem.scores.names != before.experts:
        return None
    relative = before.relative_weights[scored.metric.choice]
    return scored.problem.parametrization.theta_from(relative, before.noise_rate, config.noise_prior_logit)


def candidate_roots(
    vocabulary: Tensor | None, text: Tensor | None, support: CalibrationSupport, config: CalibrationConfig
) -> list[Root]:
    """Roots to try: of the vocabulary, of the class texts, none; two of the three where a metric is expensive."""
    known = text_roots(vocabulary, text, support.features, support.weights, config)
    too_large = support.work > config.max_work
    if support.all_singletons and known:
        # one metric that stands alone cannot be chosen by simulated scores, and is that of the first root
        alone = too_large or config.max_metrics == 1 or not config.halves_one_shot_text
        return known[:1] if alone else one_shot_roots(known)
    return [*known[: 1 if too_large else None], (IDENTITY_ROOT, None)]


def one_shot_roots(known: Sequence[Root]) -> list[Root]:
    """Roots whose metrics are averaged where no class has two samples, so that nothing can be learned about metrics.

    A vocabulary's root stands alone, that of class texts beside none, with half of the weight each.

    Parameters
    ----------
    known : sequence of (str, Tensor)
        As `text_roots` gives them.
    """
    if known and known[0][0] == VOCABULARY_ROOT:
        return [known[0]]
    return [*known, (IDENTITY_ROOT, None)]


def text_roots(
    vocabulary: Tensor | None, text: Tensor | None, features: Tensor, weights: Tensor, config: CalibrationConfig
) -> list[Root]:
    """Roots that words shape, the one to be preferred first: of the vocabulary, then of the class texts.

    A vocabulary is the encoder's or the user's own, and is trusted. Class texts may belong to other things than the
    images show: those along whose directions the images do not vary more than along random ones shape no metric.

    Parameters
    ----------
    vocabulary : Tensor of shape (M, D) or None
    text : Tensor of shape (C, D) or None
    features : Tensor of shape (N, D)
        Image embeddings.
    weights : Tensor of shape (N,)
    config : CalibrationConfig
    """
    roots: list[Root] = []
    if vocabulary is not None:
        roots.append((VOCABULARY_ROOT, vocabulary_root(vocabulary, config.vocabulary_shrinkage)))
    if (
        text is not None
        and config.text_shapes_metric
        and covariance_alignment(text[text.any(1)], features, weights) >= config.min_text_alignment
    ):
        roots.append((CLASS_TEXT_ROOT, class_text_root(text, config.class_text_shrinkage)))
    return [root for root in roots if root[1] is not None]


def shrinkages_to_try(roots: Sequence[Root], config: CalibrationConfig) -> list[tuple[Root, tuple[float, ...]]]:
    """Pair roots with their shrinkages: all, or those that the fit before a warm start chose, if any are among them."""
    every = [(root, config.shrinkages) for root in roots]
    if config.warm_start is None:
        return every
    chosen = config.warm_start.relative_weights
    kept = [(root, tuple(rho for rho in shrinkages if (root[0], rho) in chosen)) for root, shrinkages in every]
    return [(root, shrinkages) for root, shrinkages in kept if shrinkages] or every


@dataclass(frozen=True)
class MetricSelection:
    """The metrics that were chosen, and what all metrics say of samples that neither weights nor choice have seen.

    Attributes
    ----------
    best : list of MetricCandidate
        With their averaging weights, which sum to 1; the best first.
    cross_fitted : list of CrossFittedMetric
        Of every metric that may count for some fold; empty where there are no folds.
    folds : ndarray of shape (N,) or None
        None where the samples are so many that cross-fitting changes nothing.
    """

    best: list[MetricCandidate]
    cross_fitted: list[CrossFittedMetric]
    folds: Integers | None


def cross_fit_folds(support: CalibrationSupport, config: CalibrationConfig) -> Integers | None:
    """Folds (N,) for cross-fitting; None where the samples are too many to flatter a few weights, or fewer than two."""
    n = len(support.labels)
    n_groups = len(support.members[:, 0].unique())
    if n_groups < 2 or n * support.n_classes > config.max_cross_fit_scores or len(support.rows) < n:
        return None
    return stratified_folds(support.labels.cpu().numpy(), config.cross_fit_folds, support.groups)


def best_per_root(candidates: Iterable[MetricCandidate], n_kept: int) -> list[MetricCandidate]:
    """Return the candidates with the least objectives of each root, root after root."""
    of_root: dict[str, list[MetricCandidate]] = {}
    for one in candidates:
        of_root.setdefault(one.metric.choice[0], []).append(one)
    return [one for some in of_root.values() for one in sorted(some, key=lambda c: c.fusion.objective)[:n_kept]]


def select_metrics(support: CalibrationSupport, roots: Sequence[Root], config: CalibrationConfig) -> MetricSelection:
    """Choose the metrics with the least leave-one-out objective, no more than two per root, with averaging weights."""
    if support.work > config.max_work:
        config = replace(config, max_metrics=1)
    # of very many samples the scores of a metric take a hundred megabytes
    n_kept = min(config.metrics_per_root, config.max_metrics)
    best: list[MetricCandidate] = []
    cross_fitted: list[CrossFittedMetric] = []
    folds, least = cross_fit_folds(support, config), math.inf
    samples = support.features, support.labels, support.weights, support.n_classes
    metrics = chain.from_iterable(
        candidate_metrics(*samples, root, shrinkages, name)
        for (name, root), shrinkages in shrinkages_to_try(roots, config)
    )
    for candidates in fit_a_few_at_once(support, metrics, config):
        least = min([least, *(one.fusion.objective for one in candidates)])
        if folds is not None:
            cross_fitted += cross_fit_candidates(candidates, least, support, folds, config)
        best = best_per_root([*best, *candidates], n_kept)
    objectives = [(one.metric.choice[0], one.fusion.objective) for one in best]
    n_left_out = best[0].problem.n_left_out
    chosen = [replace(best[i], averaging_weight=w) for i, w in choose_per_root(objectives, n_left_out, config)]
    return MetricSelection(chosen, cross_fitted, folds)
