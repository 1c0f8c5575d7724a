"""Fit of the leave-one-out-calibrated cache: every choice is made on logits that did not see the label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.cross_fit import LeftOutLogits, cross_fitted_logits
from skxma._evidence.calibrated.experts import LeaveOneOutScores, left_out_image_scores
from skxma._evidence.calibrated.further import FurtherEncoder
from skxma._evidence.calibrated.metric import CenteredBasis
from skxma._evidence.calibrated.metric_selection import (
    MetricCandidate,
    MetricSelection,
    average,
    candidate_roots,
    select_metrics,
    with_further_encoders,
)
from skxma._evidence.calibrated.model import CalibratedModel, FurtherMetric, MetricComponent, StoredBasis
from skxma._evidence.calibrated.moderation import moderation_factors, rows_by_node
from skxma._evidence.calibrated.residual import choose_residual
from skxma._evidence.calibrated.subsample import extend_to_all, probable_label_errors
from skxma._evidence.calibrated.support import (
    CalibrationSupport,
    combine_scores,
    cross_modal_hardness,
    loss_weights,
    prepare_support,
)
from skxma._evidence.fitted import ExpectedScore, FitReport, LeftOutPredictions
from skxma._runtime import blocks
from skxma._sampling import stratified_subsample
from skxma._statistics import weighted_mean
from skxma.caches import Floats, ImageCache, Integers


@dataclass(frozen=True)
class LeftOutSupport:
    """The support samples as the best metrics see them, each left out.

    Attributes
    ----------
    honest : LeftOutLogits
        By weights and metrics that did not see the sample either.
    fitted : LeftOutLogits
        By those of the model, on whose logits the residual is trained. The open-set score is theirs too: it depends on
        the scale of the weights, which is another one in each fold.
    hardness : Tensor of shape (N,)
        Disagreement of the two modalities on each sample's class, in the best metric.
    singleton : bool Tensor of shape (N,)
        Samples whose class has no other when they are left out.
    node_weights : Tensor of shape (N, Q)
        Weights of the quadrature's nodes, at which the score of the own class is simulated.
    """

    honest: LeftOutLogits
    fitted: LeftOutLogits
    hardness: Tensor
    singleton: Tensor
    node_weights: Tensor


def leave_support_out(
    selection: MetricSelection, support: CalibrationSupport, config: CalibrationConfig
) -> LeftOutSupport:
    """Average the left-out logits of all samples over the best metrics."""
    best, folds = selection.best, selection.folds
    hardness = support.weights.new_empty(len(support.labels))
    singleton = torch.empty_like(support.labels, dtype=torch.bool)

    def in_metric(one: MetricCandidate) -> Iterator[LeftOutLogits]:
        for rows, scores in score_all_samples(one, support, config):
            if one is best[0]:
                hardness[rows] = cross_modal_hardness(support, scores, rows)
                singleton[rows] = scores.singleton
            yield LeftOutLogits.of(scores, one.fusion.weights, one.full_fusion.weights)

    # one metric at a time, and of many samples some: all scores of 16 000 among 1000 classes take half a gigabyte
    in_each = (LeftOutLogits.joined(in_metric(one), len(support.labels)) for one in best)
    averaged = LeftOutLogits.mean(in_each, [one.averaging_weight for one in best])
    fitted = averaged.ruling_out(support.unknown)
    honest = fitted
    if folds is not None:
        crossed = cross_fitted_logits(selection.cross_fitted, folds, singleton, support.independence, config)
        honest = crossed.ruling_out(support.unknown)
    return LeftOutSupport(honest, fitted, hardness, singleton, best[0].scores.node_weights)


def score_all_samples(
    one: MetricCandidate, support: CalibrationSupport, config: CalibrationConfig
) -> Iterator[tuple[Tensor, LeaveOneOutScores]]:
    """Yield rows (n,) and their leave-one-out scores in a metric, until those of all samples were there.

    If the fusion was learned on all samples, their scores are there at once.
    """
    if len(support.rows) == len(support.labels):
        yield support.rows, one.scores
        return
    for rows in support.all_rows.split(blocks.HELD_OUT_ROWS):
        image, _ = left_out_image_scores(one.support, one.metric.scatter_weight, config, rows, one.scale)
        combined = combine_scores(support, image, rows, config)
        yield rows, combined if one.text_only is None else one.text_only.apply(combined, support.has_images)


@dataclass(frozen=True)
class FittedMetrics:
    """The best metrics of a support set, and its samples left out by them.

    Attributes
    ----------
    support : CalibrationSupport
    best : list of MetricCandidate
    left_out : LeftOutSupport
    """

    support: CalibrationSupport
    best: list[MetricCandidate]
    left_out: LeftOutSupport


def moderated(selection: MetricSelection, support: CalibrationSupport, config: CalibrationConfig) -> FittedMetrics:
    """Give the best metrics, and the left-out samples, the scales that few samples leave room for."""
    left_out = leave_support_out(selection, support, config)
    factors = scale_factors(selection.best, left_out, support, config)
    best = [replace(one, full_fusion=one.full_fusion.scaled(*factors)) for one in selection.best]
    fitted = left_out.fitted.scaled(factors)
    # without folds the two are one
    honest = fitted if left_out.honest is left_out.fitted else left_out.honest.scaled(factors)
    return FittedMetrics(support, best, replace(left_out, honest=honest, fitted=fitted))


def scale_factors(
    best: Sequence[MetricCandidate], left_out: LeftOutSupport, support: CalibrationSupport, config: CalibrationConfig
) -> tuple[float, float]:
    """Factors of zero-shot and of all other experts that few samples leave room for."""
    honest = left_out.honest.among(support.imaged)
    n, n_classes = honest.logits.shape[1:]
    if not config.moderated or n * n_classes > config.max_moderated_scores:
        return 1.0, 1.0
    logits, labels, row_weights = rows_by_node(
        honest, support.imaged_labels, left_out.singleton, left_out.node_weights, support.independence
    )
    has_text = support.text_part is not None
    # without text the first expert is one of images too
    zero_shot, rest = logits if has_text else (torch.zeros_like(logits[0]), logits.sum(0))
    noise_rate = average(best, (candidate.fusion.noise_rate for candidate in best))
    factors = moderation_factors(
        zero_shot, rest, labels, row_weights, noise_rate, config.scale, has_text, config.alpha is not None
    )
    return factors if has_text else (factors[1], factors[1])


def label_noise_posterior(fitted: FittedMetrics) -> tuple[float, Tensor]:
    """Label-noise rate, and each sample's posterior of a wrong label (N,); singletons have 0.

    Step 7 of docs/method.md: ``(ε/C) / ((1 − ε) p + ε/C)`` with p the leave-one-out probability of the label among the
    C classes with images.
    """
    support, logits = fitted.support, fitted.left_out.honest.logits.sum(0)
    rate = average(fitted.best, (candidate.fusion.noise_rate for candidate in fitted.best))
    log_p = torch.log_softmax(logits[:, support.imaged], 1).gather(1, support.imaged_labels[:, None])[:, 0]
    posterior = F.wrong_label_posterior(log_p, rate, len(support.imaged))
    return rate, torch.where(fitted.left_out.singleton, 0.0, posterior)


def fit_residual(fitted: FittedMetrics, config: CalibrationConfig) -> tuple[Floats | None, list[float]]:
    """Train the residual on the centered embeddings, which know no label, on top of the leave-one-out logits.

    None is trained below two shots per class, where a held-out sample's class would be unseen, of a handful of samples,
    nor on a large support set, where the cost of the cross-validation would outgrow that of all else. Classes without
    images get none.
    """
    support, logits = fitted.support, fitted.left_out.fitted.logits.sum(0)
    features, imaged = support.features, support.imaged
    too_large = support.work > config.max_work
    n = float(support.independence.sum())
    too_few = n < max(config.min_residual_samples, config.min_residual_shots * len(imaged))
    if not config.n_epochs or too_few or too_large:
        return None, []
    queries = F.normalize(CenteredBasis(weighted_mean(features, support.weights), None)(features))
    weights = loss_weights(support, fitted.left_out.hardness, support.all_rows, config)
    trained, curve = choose_residual(
        queries, support.imaged_labels, weights, logits[:, imaged].to(queries.dtype), config, support.groups
    )
    if trained is None:
        return None, curve
    residual = trained.new_zeros(support.n_classes, trained.shape[1])
    residual[imaged] = trained
    return residual.float().cpu().numpy(), curve


def fit_calibrated(
    cache: ImageCache, text: Tensor | None, vocabulary: Tensor | None, config: CalibrationConfig, like: Tensor
) -> FitReport[CalibratedModel]:
    """Fit on a support set.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
        L2-normalized class text, zero rows for classes without; with None the class means stand for it.
    vocabulary : Tensor of shape (M, D) or None
        L2-normalized text embeddings of words, which shape the metric.
    config : CalibrationConfig
    like : Tensor
        Gives the device and the precision of the computation.
    """
    if len(cache.labels) > config.max_support:
        # the metric, the weights and the rate of wrong labels need no more than some ten thousand samples
        size, least = config.subsample_size, config.subsample_min_per_class
        chosen = stratified_subsample(cache.labels, cache.n_classes, size, least)
        # one metric, because every further one would map and keep all keys again; of very many classes the subsample
        # is larger than `max_support`
        once = replace(config, max_metrics=1, max_support=int(chosen.sum()))
        part = fit_calibrated(cache.keep(chosen), text, vocabulary, once, like)
        return part if chosen.all() else extend_to_all(part, chosen, cache, config, like)
    # the fit sees the classes in an order of its own, because an ill-conditioned fusion amplifies rounding, and class
    # names must not change an answer
    order = cache.class_order(text)
    cache = cache.rename_classes(np.argsort(order))
    text = None if text is None else text[torch.as_tensor(order, device=text.device)]
    if (cache.shots > 0).sum() < 2 and text is not None:
        support = prepare_support(cache, text, config, like)
        return _rename_classes(_zero_shot_report(cache, support, config), order)

    def support_of(samples: ImageCache) -> CalibrationSupport:
        return with_further_encoders(prepare_support(samples, text, config, like), samples, config)

    support = support_of(cache)
    roots = candidate_roots(vocabulary, text, support, config)
    first = moderated(select_metrics(support, roots, config), support, config)
    noise_rate, posterior = label_noise_posterior(first)
    wrong = probable_label_errors(cache, posterior.cpu().numpy(), config)
    # what is said of each sample is the first fit's word: the final one has not seen those that it sets aside
    final, kept = first, cache
    if wrong.any():
        support, kept = support_of(cache.keep(~wrong)), cache.set_aside(wrong)
        final = moderated(select_metrics(support, roots, config), support, config)
    residual, curve = fit_residual(final, config)
    open_set = final.left_out.fitted.open_set_scores(final.support.labels)
    left_out = first.left_out
    own = left_out.honest.own.sum(0) if bool(left_out.singleton.any()) else None
    predictions = LeftOutPredictions.from_logits(
        left_out.honest.logits.sum(0), open_set, left_out.node_weights, own, final.support.independence
    )
    report = FitReport(
        model=to_model(final, kept, residual),
        hardness=left_out.hardness.float().cpu().numpy(),
        label_noise=posterior.float().cpu().numpy(),
        noise_rate=noise_rate,
        loss_curve=curve,
        left_out=predictions,
        expected=expected_score(final),
    )
    return _rename_classes(report, order)


def to_model(fitted: FittedMetrics, cache: ImageCache, residual: Floats | None) -> CalibratedModel:
    """Convert the best metrics to a model with the keys of a cache, and a residual (C, D)."""
    best, support = fitted.best, fitted.support
    return CalibratedModel(
        cache,
        support.text_cache,
        *to_arrays(best),
        further=[to_further_metric(one) for one in support.further],
        logit_scale=average(best, (candidate.full_fusion.weights[0] for candidate in best)),
        alpha=average(best, (candidate.full_fusion.alpha for candidate in best)),
        beta=average(best, (candidate.scale.beta for candidate in best)),
        fusion_ratio=average(best, (candidate.full_fusion.fusion_ratio for candidate in best)),
        residual=residual,
    )


def to_arrays(best: Sequence[MetricCandidate]) -> tuple[list[StoredBasis], list[MetricComponent]]:
    """Convert the best metrics to arrays; metrics of one centered basis share it."""
    bases: list[CenteredBasis] = []
    components = []
    for candidate in best:
        basis = candidate.metric.basis
        known = [i for i, other in enumerate(bases) if other is basis]
        if not known:
            bases.append(basis)
        scale = candidate.metric.scale
        components.append(
            MetricComponent(
                basis=known[0] if known else len(bases) - 1,
                scale=None if scale is None else scale.float().cpu().numpy(),
                beta=candidate.scale.beta,
                gaussian=candidate.scale.gaussian,
                weights=candidate.full_fusion.weights,
                prior=candidate.prior,
                loss=candidate.fusion.loss,
                choice=candidate.metric.choice,
                averaging_weight=candidate.averaging_weight,
                text_only=candidate.text_only,
            )
        )
    return [to_stored_basis(basis) for basis in bases], components


def to_stored_basis(basis: CenteredBasis) -> StoredBasis:
    """Convert a centered basis to arrays."""
    matrix = None if basis.basis is None else basis.basis.float().cpu().numpy()
    return StoredBasis(basis.mean.float().cpu().numpy(), matrix)


def to_further_metric(one: FurtherEncoder) -> FurtherMetric:
    """Convert a further encoder's metric to arrays."""
    scale = one.metric.scale
    return FurtherMetric(
        one.block,
        to_stored_basis(one.metric.basis),
        None if scale is None else scale.float().cpu().numpy(),
        one.scale.beta,
        one.scale.gaussian,
        one.weights,
    )


def expected_score(fitted: FittedMetrics) -> ExpectedScore:
    """Score to expect on new images; unknown where images of one class only leave nothing to confuse."""
    support, left_out = fitted.support, fitted.left_out
    if len(support.imaged) < 2:
        return ExpectedScore()
    judges = ~left_out.singleton
    return ExpectedScore.from_left_out(
        left_out.honest.logits.sum(0)[judges],
        support.labels[judges],
        (support.weights * support.independence)[judges],
        support.members[judges, 0],
    )


def _rename_classes(report: FitReport[CalibratedModel], order: Integers) -> FitReport[CalibratedModel]:
    """Report with class c renamed to ``order[c]``."""
    model, place = report.model, np.argsort(order)
    text_cache = model.text_cache
    renamed = replace(
        model,
        image_cache=model.image_cache.rename_classes(order),
        text_cache=None if text_cache is None else replace(text_cache, keys=text_cache.keys[place]),
        residual=None if model.residual is None else model.residual[place],
    )
    predictions = report.left_out
    left_out = replace(predictions, label=order[predictions.label], logits=predictions.logits[:, place])
    return replace(report, model=renamed, left_out=left_out)


def _zero_shot_report(
    cache: ImageCache, support: CalibrationSupport, config: CalibrationConfig
) -> FitReport[CalibratedModel]:
    """Report with zero-shot as it is, for images of one class only: nothing tells how far to trust them."""
    model = CalibratedModel(
        cache, support.text_cache, [], [], config.logit_scale, alpha=0.0, beta=config.beta or 1.0, fusion_ratio=1.0
    )
    zeros = np.zeros(len(cache.labels), dtype=np.float32)
    assert support.text_part is not None
    logits = F.rule_out(config.logit_scale * support.text_part[0], support.unknown)
    left_out = LeftOutPredictions.from_logits(logits, F.open_set_score(logits)[:, None], logits.new_ones(1))
    return FitReport(model, zeros, zeros, 0.0, [], left_out)
