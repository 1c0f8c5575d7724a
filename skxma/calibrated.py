"""The leave-one-out-calibrated cache: fitted in closed form, every choice made on logits that did not see the label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import functional as F
from .caches import Floats, ImageCache, Integers, TextCache, like
from .calibrated_cache import CalibratedCache, Member, StoredFrame
from .calibration import FitReport, Fusion, Layout, LeftOutAnswers, fit_fusion, fused_logits, missing_shot, shares
from .experts import (
    IMAGE_EXPERTS,
    TEXT_EXPERTS,
    ImageScale,
    Scores,
    centres,
    ridge_img2txt,
    support_image_scores,
    text_scores,
)
from .metric import (
    LEAST_ALIGNMENT,
    NO_ROOT,
    OF_CLASSES,
    OF_WORDS,
    SHRINKAGES,
    Frame,
    Metric,
    MetricSupport,
    alignment,
    metrics,
    see_support,
    text_root,
    vocabulary_root,
    weighted_mean,
)
from .residual import MIN_SHOTS, choose_residual, stratified_folds

TEXT_PRIOR, CENTRED_PRIOR, CACHE_PRIOR, PROTOTYPE_PRIOR, GAUSSIAN_PRIOR = 10.0, 5.0, 0.6, 0.3, 1.0
MEMBERS, MEMBERS_OF_A_ROOT, LEAST_SHARE = 6, 2, 0.02
MIN_SHOTS_TO_DROP = 3.0
MAX_WORK = 2**31
MAX_SCORES = 2**22
MAX_PAIRS = 2**26
Root = tuple[str, Tensor | None]
"""Whose root it is, and B."""


@dataclass(frozen=True)
class Start:
    """The solution of an earlier fit: weights over their priors (J,) in each metric that it chose; its noise rate."""

    relative: dict[tuple[str, float | None], NDArray[np.float64]]
    noise_rate: float

    @classmethod
    def of(cls, model: CalibratedCache, noise_rate: float) -> Start:
        """From a fitted model."""
        return cls({member.choice: member.weights / member.prior for member in model.members}, noise_rate)


@dataclass(frozen=True)
class Settings:
    """What a caller fixes of a calibrated fit; None is learned.

    The last four are for ablations: no sample is ever dropped, `shrinkages` of ``(1.0,)`` whiten nothing, one member
    is the best metric alone, and without leaving out a sample retrieves itself.

    `n_epochs` bounds the training of the residual, 0 leaves it out. With a `start` only the metrics are tried which
    that fit chose, from its weights on in each.
    """

    alpha: float | None = None
    beta: float | None = None
    fusion_ratio: float | None = None
    logit_scale: float = 100.0
    hard_sample_weight: float = 0.0
    n_epochs: int = 0
    drop_wrong_labels: bool = True
    shrinkages: tuple[float, ...] = SHRINKAGES
    members: int = MEMBERS
    leave_one_out: bool = True
    start: Start | None = None


@dataclass(frozen=True)
class Support:
    """The support set as tensors, with what does not depend on the metric.

    Attributes
    ----------
    features : Tensor of shape (N, D)
    labels, weights : Tensor of shape (N,)
    n_classes : int
    rows : integer Tensor of shape (n,)
        The samples from which the fusion is learned: all, or of a large support set a share of each class, as a few
        numbers do not take more.
    text_part : Tensor of shape (3, N, C) or None
        Leave-one-out scores of zero-shot and of the text experts.
    text_cache : TextCache or None
    plain : Scores or None
        Without text: scores in the plain embeddings, whose class means stand for zero-shot.
    large : bool
        Whether cross-validating a residual and averaging metrics would cost more than all the rest.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    n_classes: int
    rows: Tensor
    text_part: Tensor | None
    text_cache: TextCache | None
    plain: Scores | None

    @property
    def counts(self) -> Integers:
        """Samples of each class (C,)."""
        counts: Integers = torch.bincount(self.labels, minlength=self.n_classes).cpu().numpy()
        return counts

    @property
    def large(self) -> bool:
        """See the attributes."""
        n, width = self.features.shape
        return n * width * self.n_classes > MAX_WORK


@dataclass(frozen=True)
class Candidate:
    """A metric that was tried, with its leave-one-out scores of the support's `rows`.

    `fusion` was learned on these; `whole` weighs for new pictures, which see all shots. `share` is what the metric
    counts in the mean over the metrics.
    """

    metric: Metric
    support: MetricSupport
    scale: ImageScale
    fusion: Fusion
    whole: Fusion
    prior: NDArray[np.float64]
    scores: Scores
    share: float = 1.0


def mean_over(best: Sequence[Candidate], values: Iterable[float]) -> float:
    """The mean of one value of each of the metrics, by their shares."""
    return float(np.average(list(values), weights=[candidate.share for candidate in best]))


def mean_logits(best: Sequence[Candidate], logits: Iterable[Tensor]) -> Tensor:
    """The mean of logits (n, C) in each of the metrics, by their shares."""
    pairs = zip(logits, best, strict=True)
    return torch.stack([one * candidate.share for one, candidate in pairs]).sum(0)


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


def prepare(cache: ImageCache, text: Tensor | None, beta: float | None, like_this: Tensor) -> Support:
    """Score the support set by what does not depend on the metric, leave-one-out."""
    features, weights, labels = like(like_this, cache.keys, cache.weights, cache.labels)
    rows = torch.as_tensor(rows_to_learn_from(cache.labels, cache.n_classes), device=labels.device)
    if text is None:
        keys = Frame(weighted_mean(features, weights), None)(features)
        plain, _ = support_image_scores(see_support(keys, labels, weights, cache.n_classes), 0.0, beta)
        return Support(features, labels, weights, cache.n_classes, rows, None, None, plain)
    seen_by_net = torch.where(text.any(1)[labels], weights, 0.0)
    net, mapped = ridge_img2txt(features, text[labels], seen_by_net)
    means = centres(features, labels, weights, text)
    image_mean, text_mean = (mean.float().cpu().numpy() for mean in means)
    text_cache = TextCache(text.float().cpu().numpy(), net, centres=(image_mean, text_mean))
    text_part = text_scores(features, mapped, text, means)
    return Support(features, labels, weights, cache.n_classes, rows, text_part, text_cache, None)


def rows_to_learn_from(labels: Integers, n_classes: int) -> Integers:
    """Samples (n,) on which fusion weights are learned: so many of each class that their scores are few enough.

    Their affinities to all samples are too.
    """
    n_parts = max(-(-len(labels) * n_classes // MAX_SCORES), -(-(len(labels) ** 2) // MAX_PAIRS))
    return np.flatnonzero(stratified_folds(labels, n_parts) == 0)


def assemble(support: Support, image: Scores, rows: Tensor) -> Scores:
    """Put zero-shot and the text cache before the image experts; where no class has a pair the Gaussian is left out."""
    n_image = 2 if no_pairs(support) else 3
    if support.text_part is not None:
        first = support.text_part[:, rows]
        names: tuple[str, ...] = ("zero_shot", *TEXT_EXPERTS)
        index = support.labels[rows][None, :, None].expand(len(first), -1, 1)
        own = first.gather(2, index).expand(-1, -1, image.own.shape[2])
    else:
        assert support.plain is not None
        names, first, own = ("zero_shot",), support.plain.scores[1:2, rows], support.plain.own[1:2, rows]
    return Scores(
        names + IMAGE_EXPERTS[:n_image],
        torch.cat([first, image.scores[:n_image]]),
        torch.cat([own, image.own[:n_image]]),
        image.node_weights,
        image.lone,
    )


def hardness(scores: Scores, labels: Tensor) -> Tensor:
    """``|A_img − A_txt|`` of each sample with its own class (N,), both affinities standardised over the classes.

    A lone sample has no image affinity to its class, and hardness 0.
    """
    text = scores.scores[scores.names.index("text_cache") if "text_cache" in scores.names else 0]
    image = scores.scores[scores.names.index("prototype")]
    return torch.where(scores.lone, 0.0, F.standardised_gap(image, text, labels))


def no_pairs(support: Support) -> bool:
    """Whether every class is a single picture, or none."""
    return len(support.labels.unique()) == len(support.labels)


def loss_weights(support: Support, scores: Scores, rows: Tensor, settings: Settings) -> Tensor:
    """What each of the rows weighs in a loss (n,): its own weight, more where the modalities disagree."""
    hard = hardness(scores, support.labels[rows])
    return support.weights[rows] * F.hard_sample_weights(hard, settings.hard_sample_weight)


def try_metric(
    support: Support, metric: Metric, settings: Settings, start: NDArray[np.float64] | None = None
) -> Candidate:
    """Score the support set in a metric, leave-one-out, and learn the fusion there."""
    seen = see_support(metric(support.features), support.labels, support.weights, support.n_classes)
    rows = support.rows
    image, scale = support_image_scores(seen, metric.leave_out, settings.beta, settings.leave_one_out, rows)
    scores = assemble(support, image, rows)
    sigma = seen.sigma
    has_text = support.text_part is not None
    prior = [settings.logit_scale, TEXT_PRIOR, CENTRED_PRIOR] if has_text else [PROTOTYPE_PRIOR / sigma]
    n_first = len(prior)
    prior += [CACHE_PRIOR, PROTOTYPE_PRIOR / sigma, GAUSSIAN_PRIOR]
    n_experts = len(scores.names)
    layout = Layout(
        np.array(prior[:n_experts]), n_first - 1, n_experts - n_first, settings.alpha, settings.fusion_ratio
    )
    before = settings.start
    if before is not None and metric.choice in before.relative:
        start = layout.theta_of(before.relative[metric.choice], before.noise_rate)
    fusion = fit_fusion(scores, support.labels[rows], loss_weights(support, scores, rows, settings), layout, start)
    whole = layout.with_more_image(fusion, missing_shot(support.counts))
    return Candidate(metric, seen, scale, fusion, whole, layout.prior, scores)


def metric_roots(vocabulary: Tensor | None, text: Tensor | None, support: Support) -> list[Root]:
    """Roots to try: of the vocabulary, of the class texts, none; with a large support set two of the three.

    Words in whose directions the pictures do not differ shape no metric.
    """

    def meaningful(words: Tensor | None) -> Tensor | None:
        told = words is not None and alignment(words, support.features, support.weights) >= LEAST_ALIGNMENT
        return words if told else None

    vocabulary, text = meaningful(vocabulary), meaningful(None if text is None else text[text.any(1)])
    of_words = None if vocabulary is None else vocabulary_root(vocabulary)
    of_classes = None if text is None else text_root(text)
    known = [root for root in ((OF_WORDS, of_words), (OF_CLASSES, of_classes)) if root[1] is not None]
    return [*known[: 1 if support.large else None], (NO_ROOT, None)]


def worth_trying(roots: Sequence[Root], settings: Settings) -> list[tuple[Root, tuple[float, ...]]]:
    """Roots with their shrinkages: all, or those that the fit chose which is the start, if any are among these."""
    every = [(root, settings.shrinkages) for root in roots]
    if settings.start is None:
        return every
    chosen = settings.start.relative
    kept = [(root, tuple(rho for rho in all_of if (root[0], rho) in chosen)) for root, all_of in every]
    return [(root, some) for root, some in kept if some] or every


def best_metrics(support: Support, roots: Sequence[Root], settings: Settings) -> list[Candidate]:
    """The metrics with the least leave-one-out objective, no more than two of a root, with their shares."""
    best: list[Candidate] = []
    candidate = None
    samples = support.features, support.labels, support.weights, support.n_classes
    for (name, root), shrinkages in worth_trying(roots, settings):
        of_root: list[Candidate] = []
        for metric in metrics(*samples, root, shrinkages, name):
            candidate = try_metric(support, metric, settings, None if candidate is None else candidate.fusion.theta)
            of_root = sorted([*of_root, candidate], key=lambda one: one.fusion.objective)[:MEMBERS_OF_A_ROOT]
        best = sorted([*best, *of_root], key=lambda one: one.fusion.objective)
        del best[1 if support.large else settings.members :]
    return with_shares(best)


def with_shares(best: Sequence[Candidate]) -> list[Candidate]:
    """The metrics, the best first, with what each counts in their mean; without those that count next to nothing."""
    of_all = shares([one.fusion.objective for one in best], int((~best[0].scores.lone).sum()))
    kept = of_all >= LEAST_SHARE
    of_kept = of_all[kept] / of_all[kept].sum()
    return [replace(one, share=float(share)) for one, share in zip(compress(best, kept), of_kept, strict=True)]


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
