"""Fit of the leave-one-out-calibrated cache: every choice is made on logits that did not see the label."""

from __future__ import annotations

from collections.abc import Sequence
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
    CalibrationSupport,
    MetricCandidate,
    MetricSelection,
    average,
    candidate_roots,
    combine_scores,
    cross_modal_hardness,
    loss_weights,
    prepare_support,
    select_metrics,
)
from skxma._evidence.calibrated.model import CalibratedModel, FurtherMetric, MetricComponent, StoredBasis
from skxma._evidence.calibrated.moderation import moderation_factors, rows_by_node
from skxma._evidence.calibrated.residual import choose_residual
from skxma._evidence.calibrated.subsample import extend_to_all, probable_label_errors
from skxma._evidence.fitted import ExpectedScore, FitReport, LeftOutPredictions
from skxma._sampling import stratified_subsample
from skxma._statistics import weighted_mean
from skxma.caches import Floats, ImageCache, Integers


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
                known[0] if known else len(bases) - 1,
                None if scale is None else scale.float().cpu().numpy(),
                candidate.scale.beta,
                candidate.scale.gaussian,
                candidate.full_fusion.weights,
                candidate.prior,
                candidate.fusion.loss,
                candidate.metric.choice,
                candidate.averaging_weight,
                candidate.text_only,
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
    scores : LeaveOneOutScores
        In the best metric.
    """

    honest: LeftOutLogits
    fitted: LeftOutLogits
    scores: LeaveOneOutScores


def leave_support_out(
    selection: MetricSelection, support: CalibrationSupport, config: CalibrationConfig
) -> LeftOutSupport:
    """Average the left-out logits of all samples over the best metrics."""
    best, folds = selection.best, selection.folds
    scores = [candidate.scores for candidate in best]
    if len(support.rows) < len(support.labels):
        # the fusion was learned on some of the samples
        everyone = torch.arange(len(support.labels), device=support.labels.device)
        scores = []
        for one in best:
            image, _ = left_out_image_scores(one.support, one.metric.scatter_weight, config, everyone, one.scale)
            combined = combine_scores(support, image, everyone, config)
            scores.append(combined if one.text_only is None else one.text_only.apply(combined, support.has_images))
    parts = [LeftOutLogits.of(s, o.fusion.weights, o.full_fusion.weights) for s, o in zip(scores, best, strict=True)]
    fitted = LeftOutLogits.mean(parts, [one.averaging_weight for one in best]).ruling_out(support.unknown)
    if folds is None:
        return LeftOutSupport(fitted, fitted, scores[0])
    honest = cross_fitted_logits(selection.cross_fitted, folds, scores[0].singleton, support.independence, config)
    return LeftOutSupport(honest.ruling_out(support.unknown), fitted, scores[0])


def moderated(
    selection: MetricSelection, support: CalibrationSupport, config: CalibrationConfig
) -> tuple[list[MetricCandidate], LeftOutSupport]:
    """The best metrics and the left-out samples, with the scales that few samples leave room for."""
    left_out = leave_support_out(selection, support, config)
    factors = scale_factors(selection.best, left_out, support, config)
    best = [replace(one, full_fusion=one.full_fusion.scaled(*factors)) for one in selection.best]
    honest, fitted = left_out.honest.scaled(factors), left_out.fitted.scaled(factors)
    return best, replace(left_out, honest=honest, fitted=fitted)


def scale_factors(
    best: Sequence[MetricCandidate], left_out: LeftOutSupport, support: CalibrationSupport, config: CalibrationConfig
) -> tuple[float, float]:
    """Factors of zero-shot and of all other experts that few samples leave room for."""
    honest = left_out.honest.among(support.imaged)
    n, n_classes = honest.logits.shape[1:]
    if not config.moderated or n * n_classes > config.max_moderated_scores:
        return 1.0, 1.0
    logits, labels, row_weights = rows_by_node(honest, support.imaged_labels, left_out.scores, support.independence)
    has_text = support.text_part is not None
    # without text the first expert is one of images too
    zero_shot, rest = logits if has_text else (torch.zeros_like(logits[0]), logits.sum(0))
    noise_rate = average(best, (candidate.fusion.noise_rate for candidate in best))
    factors = moderation_factors(
        zero_shot, rest, labels, row_weights, noise_rate, config.scale, has_text, config.alpha is not None
    )
    return factors if has_text else (factors[1], factors[1])


def label_noise_posterior(
    best: Sequence[MetricCandidate], logits: Tensor, singleton: Tensor, support: CalibrationSupport
) -> tuple[float, Tensor]:
    """Label-noise rate, and each sample's posterior of a wrong label (N,); singletons have 0.

    Step 7 of docs/method.md: ``(ε/C) / ((1 − ε) p + ε/C)`` with p the leave-one-out probability of the label among the
    C classes with images.
    """
    rate = average(best, (candidate.fusion.noise_rate for candidate in best))
    log_p = torch.log_softmax(logits[:, support.imaged], 1).gather(1, support.imaged_labels[:, None])[:, 0]
    posterior = F.wrong_label_posterior(log_p, rate, len(support.imaged))
    return rate, torch.where(singleton, 0.0, posterior)


def fit_residual(
    logits: Tensor, scores: LeaveOneOutScores, support: CalibrationSupport, config: CalibrationConfig
) -> tuple[Floats | None, list[float]]:
    """Train the residual on the centered embeddings, which know no label, on top of the leave-one-out logits.

    None is trained below three shots per class, where a held-out sample's class would be nearly unseen, nor on a large
    support set, where the cost of the cross-validation would outgrow that of all else.
    """
    features = support.features
    n_seen = len(support.imaged)
    too_large = support.work > config.max_work
    if not config.n_epochs or float(support.independence.sum()) < config.min_residual_shots * n_seen or too_large:
        return None, []
    queries = F.normalize(CenteredBasis(weighted_mean(features, support.weights), None)(features))
    everyone = torch.arange(len(features), device=features.device)
    weights = loss_weights(support, scores, everyone, config)
    residual, curve = choose_residual(
        queries, support.imaged_labels, weights, logits[:, support.imaged].to(queries.dtype), config, support.groups
    )
    if residual is None:
        return None, curve
    of_all = residual.new_zeros(support.n_classes, residual.shape[1])
    of_all[support.imaged] = residual
    return of_all.float().cpu().numpy(), curve


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
    support = prepare_support(cache, text, config, like)
    roots = candidate_roots(vocabulary, text, support, config)
    if (cache.shots > 0).sum() < 2 and text is not None:
        return _rename_classes(_zero_shot_report(cache, support, config), order)
    best, left_out = moderated(select_metrics(support, roots, config), support, config)
    logits, scores = left_out.honest.logits.sum(0), left_out.scores
    noise_rate, posterior = label_noise_posterior(best, logits, scores.singleton, support)
    hard = cross_modal_hardness(scores.among(support.imaged), support.imaged_labels)
    wrong = probable_label_errors(cache, posterior.cpu().numpy(), config)
    if wrong.any():
        support = prepare_support(cache.keep(~wrong), text, config, like)
        best, left_out = moderated(select_metrics(support, roots, config), support, config)
        cache = cache.set_aside(wrong)
    residual, curve = fit_residual(left_out.fitted.logits.sum(0), left_out.scores, support, config)
    model = CalibratedModel(
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
    open_set = left_out.fitted.open_set_scores(support.labels)
    predictions = LeftOutPredictions.from_logits(logits, open_set, scores.node_weights)
    noise = posterior.float().cpu().numpy()
    judges = ~left_out.scores.singleton
    expected = ExpectedScore.from_left_out(
        left_out.honest.logits.sum(0)[judges],
        support.labels[judges],
        (support.weights * support.independence)[judges],
        support.members[judges, 0],
    )
    report = FitReport(model, hard.float().cpu().numpy(), noise, noise_rate, curve, predictions, expected)
    return _rename_classes(report, order)


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
