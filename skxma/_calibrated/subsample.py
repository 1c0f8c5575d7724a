"""Support sets of very many pictures: learned is on a share of them, retrieved from all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import MIN_SHOTS_TO_DROP, Settings
from skxma._calibrated.fit import doubtful, fit_calibrated
from skxma._calibrated.model import CalibratedCache, CalibratedScorer
from skxma._fitted import FitReport, RetrievalModel
from skxma._index.clusters import cut_cells
from skxma._paper.model import TrainedCache
from skxma._sampling import MAX_SUPPORT, SHARE, share_of_each
from skxma._statistics import spread
from skxma.caches import Floats, ImageCache, Integers, like

BLOCK_ROWS = 2**12
MAX_SHARPNESS = 2.5


@dataclass(frozen=True)
class Judged:
    """What a model says of samples (n,): how hard, whether wrongly labelled, their class and its probability."""

    hardness: Floats
    label_noise: Floats
    label: Integers
    probability: Floats

    def merge(self, chosen: NDArray[np.bool_], of_chosen: Judged) -> Judged:
        """Put these, of the samples that are not `chosen` (N,), and those of the chosen ones in their places."""

        def both(name: str) -> NDArray[Any]:
            values = np.empty(len(chosen), dtype=getattr(self, name).dtype)
            values[chosen], values[~chosen] = getattr(of_chosen, name), getattr(self, name)
            return values

        return Judged(*(both(field.name) for field in fields(self)))


def in_cells(model: RetrievalModel, like_this: Tensor) -> RetrievalModel:
    """The model with its keys in cells, so that predictions need not read all of them.

    A model stays as it is where nothing was learned; where a class has no pictures, for what stands for its evidence
    depends on that of all others; and where beta is so sharp that a share of the keys does not tell of the others.
    """
    assert isinstance(model, (CalibratedCache, TrainedCache))
    cache = model.image_cache
    if not (cache.shots > 0).all() or (isinstance(model, CalibratedCache) and not model.members):
        return model
    unit = model.on(like_this).all_keys.unit
    sharpness = model.members[0].beta if isinstance(model, CalibratedCache) else model.beta * model.fusion_ratio
    if sharpness * spread(unit[:: max(1, len(unit) // SHARE)]) > MAX_SHARPNESS:
        return model
    (labels,) = like(unit, cache.labels)
    return replace(model, cells=cut_cells(unit, labels, cache.n_classes))


def fit_share(
    cache: ImageCache, text: Tensor | None, vocabulary: Tensor | None, settings: Settings, like_this: Tensor
) -> FitReport:
    """Fit as `calibrated.fit_calibrated` does, but on an equal share of each class where there are very many keys.

    The metric, the weights and the rate of wrong labels need no more than some ten thousand samples. The other samples
    are judged by the model of the share, which has not seen them. In the end all are keys.

    Parameters
    ----------
    cache, text, vocabulary, settings, like_this
        As in `calibrated.fit_calibrated`.
    """
    n = len(cache.labels)
    if n <= MAX_SUPPORT:
        return fit_calibrated(cache, text, vocabulary, settings, like_this)
    chosen = share_of_each(cache.labels, cache.n_classes)
    share = fit_calibrated(cache.keep(chosen), text, vocabulary, replace(settings, members=1), like_this)
    model = share.model
    assert isinstance(model, CalibratedCache)
    answers = share.left_out
    of_share = Judged(share.hardness, share.label_noise, answers.label, answers.probability)
    judged = judge(model.on(like_this), cache, ~chosen, share.noise_rate, like_this).merge(chosen, of_share)
    wrong = doubtful(cache, judged.label_noise)
    if settings.drop_wrong_labels and wrong.any() and n >= MIN_SHOTS_TO_DROP * (cache.shots > 0).sum():
        cache = cache.set_aside(wrong)
    return FitReport(
        replace(model, image_cache=cache),
        judged.hardness,
        judged.label_noise,
        share.noise_rate,
        share.loss_curve,
        replace(answers, label=judged.label, probability=judged.probability),
    )


@torch.no_grad()
def judge(
    scorer: CalibratedScorer, cache: ImageCache, others: NDArray[np.bool_], noise_rate: float, like_this: Tensor
) -> Judged:
    """Judge the samples of a cache that a model has not seen, `others` (N,)."""
    parts = []
    rows = np.flatnonzero(others)
    for start in range(0, len(rows), BLOCK_ROWS):
        some = rows[start : start + BLOCK_ROWS]
        features, labels = like(like_this, cache.keys[some], cache.labels[some])
        logits = scorer.fused(features, [])
        hard = F.standardised_gap(*scorer.prototype_and_text(features), labels)
        log_p = torch.log_softmax(logits, 1)
        wrong = F.wrong_label_posterior(log_p.gather(1, labels[:, None])[:, 0], noise_rate, cache.n_classes)
        best, label = log_p.max(1)
        parts.append([hard.float(), wrong.float(), label, best.exp().float()])
    return Judged(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
