"""The leave-one-out-calibrated cache: fitted in closed form, every choice made on logits that did not see the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import MIN_SHOTS_TO_DROP, Settings
from skxma._calibrated.experts import (
    Scores,
    support_image_scores,
)
from skxma._calibrated.fusion import fused_logits
from skxma._calibrated.metric import (
    Frame,
)
from skxma._calibrated.metric_selection import (
    Candidate,
    Support,
    assemble,
    best_metrics,
    hardness,
    loss_weights,
    mean_logits,
    mean_over,
    metric_roots,
    prepare,
)
from skxma._calibrated.model import CalibratedCache, Member, StoredFrame
from skxma._calibrated.residual import MIN_SHOTS, choose_residual
from skxma._fitted import FitReport, LeftOutAnswers
from skxma._statistics import weighted_mean
from skxma.caches import Floats, ImageCache

"""Whose root it is, and B."""


def store(best: Sequence[Candidate]) -> tuple[list[StoredFrame], list[Member]]:
    """Frames and members of the best metrics as arrays; metrics of one frame share it."""
    frames: list[Frame] = []
    members = []
    for candidate in best:
        frame = candidate.metric.frame
        known = [i for i, other in enumerate(frames) if other is frame]
        if not known:
            frames.append(frame)
        scale = candidate.metric.scale
        members.append(
            Member(
                known[0] if known else len(frames) - 1,
                None if scale is None else scale.float().cpu().numpy(),
                candidate.scale.beta,
                candidate.scale.gaussian,
                candidate.whole.weights,
                candidate.prior,
                candidate.fusion.loss,
                candidate.metric.choice,
                candidate.share,
            )
        )
    stored = [
        StoredFrame(f.mean.float().cpu().numpy(), None if f.basis is None else f.basis.float().cpu().numpy())
        for f in frames
    ]
    return stored, members


def judge_all(best: Sequence[Candidate], support: Support, settings: Settings) -> tuple[Tensor, Tensor, Scores]:
    """What the mean of the best metrics says of all samples, each left out.

    Returns
    -------
    logits : Tensor of shape (N, C)
    open_set : Tensor of shape (N, Q)
        Open-set scores by the weights that new pictures get, with the own class at each node.
    scores : Scores
        In the best metric.
    """
    everyone = torch.arange(len(support.labels), device=support.labels.device)
    whole = [candidate.scores for candidate in best]
    if len(support.rows) < len(everyone):
        whole = []
        for one in best:
            leave_out, beta = one.metric.leave_out, settings.beta
            image, _ = support_image_scores(one.support, leave_out, beta, settings.leave_one_out, everyone, one.scale)
            whole.append(assemble(support, image, everyone))
    pairs = list(zip(whole, best, strict=True))
    logits = mean_logits(best, (fused_logits(scores, one.fusion.weights) for scores, one in pairs))
    as_new = mean_logits(best, (fused_logits(scores, one.whole.weights) for scores, one in pairs))
    own = mean_logits(best, (fused_logits(replace(s, scores=s.own), one.whole.weights) for s, one in pairs))
    others = F.log_odds_of_own(as_new, support.labels)[1][:, None].expand_as(own)
    return logits, F.open_set_score(torch.stack([own, others], dim=2)), whole[0]


def wrong_labels(best: Sequence[Candidate], logits: Tensor, lone: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Label-noise rate and each sample's posterior of a wrong label (N,); lone samples have none."""
    rate = mean_over(best, (candidate.fusion.noise_rate for candidate in best))
    log_p = torch.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    posterior = F.wrong_label_posterior(log_p, rate, logits.shape[1])
    return rate, torch.where(lone, 0.0, posterior)


def doubtful(cache: ImageCache, posterior: Floats) -> NDArray[np.bool_]:
    """Which keys (N,) to leave out: labels more likely wrong than right, but never half of a class or more."""
    wrong = posterior > 0.5
    counts = np.bincount(cache.labels, minlength=cache.n_classes)
    dropped = np.bincount(cache.labels[wrong], minlength=cache.n_classes)
    return wrong & (2 * dropped < counts)[cache.labels]


def fit_residual(
    logits: Tensor, scores: Scores, support: Support, settings: Settings
) -> tuple[Floats | None, list[float]]:
    """Train the residual on the centred embeddings, which know no label, on top of the leave-one-out logits.

    Left out below two shots a class, where every held-out sample's class would be unseen, and of a large support set,
    where the cost of the cross-validation would outgrow that of the rest.
    """
    features = support.features
    n_seen = len(support.labels.unique())
    if not settings.n_epochs or len(features) < MIN_SHOTS * n_seen or support.large:
        return None, []
    queries = F.normalise(Frame(weighted_mean(features, support.weights), None)(features))
    everyone = torch.arange(len(features), device=features.device)
    weights = loss_weights(support, scores, everyone, settings)
    residual, curve = choose_residual(queries, support.labels, weights, logits.to(queries.dtype), settings.n_epochs)
    return (None if residual is None else residual.float().cpu().numpy()), curve


def fit_calibrated(
    cache: ImageCache, text: Tensor | None, vocabulary: Tensor | None, settings: Settings, like_this: Tensor
) -> FitReport:
    """Fit on a support set.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
        L2-normalised class text, zero rows for classes without; None lets class means stand for it.
    vocabulary : Tensor of shape (M, D) or None
        L2-normalised text embeddings of words, which shape the metric.
    settings : Settings
    like_this : Tensor
        Gives the device and the precision of the computation.
    """
    # the fit sees the classes in an order of its own, for rounding is amplified where the fusion is ill-conditioned
    order = cache.class_order(text)
    place = np.argsort(order)
    ordered = None if text is None else text[torch.as_tensor(order, device=text.device)]
    report = fit_in_order(cache.rename_classes(place), ordered, vocabulary, settings, like_this)
    model = report.model
    assert isinstance(model, CalibratedCache)
    text_cache = model.text_cache
    named = replace(
        model,
        image_cache=model.image_cache.rename_classes(order),
        text_cache=None if text_cache is None else replace(text_cache, keys=text_cache.keys[place]),
        residual=None if model.residual is None else model.residual[place],
    )
    answers = report.left_out
    left_out = replace(answers, label=order[answers.label], logits=answers.logits[:, place])
    return replace(report, model=named, left_out=left_out)


def fit_in_order(
    cache: ImageCache, text: Tensor | None, vocabulary: Tensor | None, settings: Settings, like_this: Tensor
) -> FitReport:
    """:func:`fit_calibrated` with the classes in an order that depends on their content alone."""
    support = prepare(cache, text, settings.beta, like_this)
    roots = metric_roots(vocabulary, text, support)
    n, n_seen = len(cache.labels), int((cache.shots > 0).sum())
    if n_seen < 2 and text is not None:
        return nothing_to_learn(cache, support, settings)
    best = best_metrics(support, roots, settings)
    logits, open_set, scores = judge_all(best, support, settings)
    all_logits = logits
    noise_rate, posterior = wrong_labels(best, logits, scores.lone, support.labels)
    hard = hardness(scores, support.labels)
    wrong = doubtful(cache, posterior.cpu().numpy()) if n >= MIN_SHOTS_TO_DROP * n_seen else np.zeros(n, dtype=bool)
    if settings.drop_wrong_labels and wrong.any():
        support = prepare(cache.keep(~wrong), text, settings.beta, like_this)
        best = best_metrics(support, roots, settings)
        logits, open_set, scores = judge_all(best, support, settings)
        cache = cache.set_aside(wrong)
    residual, curve = fit_residual(logits, scores, support, settings)
    model = CalibratedCache(
        cache,
        support.text_cache,
        *store(best),
        logit_scale=mean_over(best, (candidate.whole.weights[0] for candidate in best)),
        alpha=mean_over(best, (candidate.whole.alpha for candidate in best)),
        beta=mean_over(best, (candidate.scale.beta for candidate in best)),
        fusion_ratio=mean_over(best, (candidate.whole.fusion_ratio for candidate in best)),
        residual=residual,
    )
    left_out = LeftOutAnswers.of(all_logits, open_set, scores.node_weights)
    return FitReport(model, hard.float().cpu().numpy(), posterior.float().cpu().numpy(), noise_rate, curve, left_out)


def nothing_to_learn(cache: ImageCache, support: Support, settings: Settings) -> FitReport:
    """Zero-shot as it is: with pictures of one class only, nothing tells how far to trust them."""
    model = CalibratedCache(
        cache, support.text_cache, [], [], settings.logit_scale, alpha=0.0, beta=settings.beta or 1.0, fusion_ratio=1.0
    )
    nothing = np.zeros(len(cache.labels), dtype=np.float32)
    assert support.text_part is not None
    logits = settings.logit_scale * support.text_part[0]
    left_out = LeftOutAnswers.of(logits, F.open_set_score(logits)[:, None], logits.new_ones(1))
    return FitReport(model, nothing, nothing, 0.0, [], left_out)
