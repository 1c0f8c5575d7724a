"""Candidate metrics, their leave-one-out loss, and the selection among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import Settings
from skxma._calibrated.experts import (
    IMAGE_EXPERTS,
    TEXT_EXPERTS,
    ImageScale,
    Scores,
    centres,
    ridge_img2txt,
    support_image_scores,
    text_scores,
)
from skxma._calibrated.fusion import Fusion, Layout, fit_fusion, missing_shot
from skxma._calibrated.metric import (
    LEAST_ALIGNMENT,
    NO_ROOT,
    OF_CLASSES,
    OF_WORDS,
    Frame,
    Metric,
    MetricSupport,
    alignment,
    metrics,
    see_support,
    text_root,
    vocabulary_root,
)
from skxma._sampling import rows_to_learn_from
from skxma._statistics import weighted_mean
from skxma.caches import ImageCache, Integers, TextCache, like

TEXT_PRIOR, CENTRED_PRIOR, CACHE_PRIOR, PROTOTYPE_PRIOR, GAUSSIAN_PRIOR = 10.0, 5.0, 0.6, 0.3, 1.0

MEMBERS_OF_A_ROOT = 2

LEAST_SHARE = 0.02
MAX_WORK = 2**31
Root = tuple[str, Tensor | None]


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


SAMPLE_EVIDENCE = 0.3


def shares(objectives: Sequence[float], n_samples: int) -> NDArray[np.float64]:
    """How much each of several metrics counts in the mean of their logits, ``∝ exp(−0.3 n objective)``.

    The weights of pseudo-BMA (Yao et al., "Using stacking to average Bayesian predictive distributions", 2018), cooled:
    the metrics are judged by the samples that their experts were weighed on.

    Parameters
    ----------
    objectives : sequence of float
        `Fusion.objective` of each.
    n_samples : int
        Samples that were left out. Of lone samples scores are simulated, and say nothing of a metric: with no others
        all count alike.

    Returns
    -------
    ndarray of shape (M,)
        They sum to 1.
    """
    logs = -SAMPLE_EVIDENCE * n_samples * np.asarray(objectives)
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)
