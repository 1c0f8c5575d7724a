"""Further encoders beside the first: their metrics and image experts, and how far each is trusted before labels tell.

One image of each class tells nothing about an encoder: left out, it has no other image to be near to. But random
embeddings show without labels. They vary along all directions alike, and what is near in them is not near for any other
encoder, nor of one class (docs/method.md, "Several encoders").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import ImageScale, LeaveOneOutScores, encoder_expert, left_out_image_scores
from skxma._evidence.calibrated.metric import Metric, MetricSupport


@dataclass(frozen=True)
class FurtherEncoder:
    """Contribution of a further encoder to the fusion.

    Attributes
    ----------
    block : int
        Its place among the encoders; the first one has 0.
    metric : Metric
    support : MetricSupport
    scale : ImageScale
    weights : ndarray of shape (3,)
        Weights of its image experts, whose sum is one expert in the fusion.
    """

    block: int
    metric: Metric
    support: MetricSupport
    scale: ImageScale
    weights: NDArray[np.float64]

    def left_out(self, rows: Tensor, config: CalibrationConfig) -> LeaveOneOutScores:
        """Leave-one-out scores of the rows (n,) of the support set by the encoder's one expert."""
        image, _ = left_out_image_scores(self.support, self.metric.scatter_weight, config, rows, self.scale)
        weights = torch.as_tensor(self.weights).to(image.scores)
        scores, own = (torch.tensordot(weights, part, dims=1)[None] for part in (image.scores, image.own))
        return replace(image, names=(encoder_expert(self.block),), scores=scores, own=own)


def encoder_trusts(encoders: Sequence[Tensor], labels: Tensor, config: CalibrationConfig) -> list[float]:
    """Trust in each encoder relative to the best one, from 0 to 1, before the leave-one-out scores tell.

    It is the share of the variance of its cosines that is more than chance, times a power of how far the cosines within
    a class exceed those between classes, in deviations. Before labels tell, that excess is expected to grow with the
    number of directions along which the images vary, the inverse of the cosines' variance (an effective rank, which
    tells the accuracy of encoders without labels: Garrido et al., "RankMe", 2023); and an encoder whose cosines have
    nothing to do with the first one's is expected to have none.

    Parameters
    ----------
    encoders : sequence of Tensor of shape (N, D_b), L2-normalized
        Embeddings of the same images by each.
    labels : integer Tensor of shape (N,)
    config : CalibrationConfig
    """
    rows = slice(None, None, max(1, -(-len(labels) // config.max_trust_samples)))
    labels = labels[rows]
    first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    cosines = [_centered_cosines(features[rows])[first, second] for features in encoders]
    same = (labels[first] == labels[second]).double()
    effect = max(0.0, _class_effect(cosines[0], same, config.effect_mean, config.effect_std))
    effects, known = [effect], _more_than_chance(cosines[0], encoders[0].shape[1], config)
    for values in cosines[1:]:
        rank = float(cosines[0].var() / values.var().clamp_min(F.EPS)) if len(values) > 2 else 1.0
        # that they have nothing to do with those of an encoder which varies like chance says nothing
        related = 1 - known * (1 - _related(values, cosines[0], config))
        expected = effect * min(rank, config.max_rank_ratio) * related
        effects.append(max(0.0, _class_effect(values, same, expected, config.further_effect_std)))
    trusts = [
        _more_than_chance(values, features.shape[1], config) * effect**config.trust_power
        for values, features, effect in zip(cosines, encoders, effects, strict=True)
    ]
    largest = max(trusts)
    return [trust / largest if largest > 0 else float(b == 0) for b, trust in enumerate(trusts)]


def _centered_cosines(features: Tensor) -> Tensor:
    """Cosines (n, n) of embeddings (n, D) around their mean."""
    centered = F.normalize(features.double() - features.double().mean(0))
    return centered @ centered.T


def _more_than_chance(cosines: Tensor, width: int, config: CalibrationConfig) -> float:
    """Share of the variance of cosines (m,) beyond that of random directions, ``1 / width``; 1 for up to two pairs."""
    if len(cosines) < 3:
        return 1.0
    chance = (1 + config.chance_deviations * math.sqrt(2 / len(cosines))) / width
    variance = float(cosines.var())
    return max(0.0, 1 - chance / variance) if variance > 0 else 0.0


def _correlation(one: Tensor, other: Tensor) -> float:
    """Correlation of two vectors; 0 where one of them is constant."""
    if not (one.std() > 0 and other.std() > 0):
        return 0.0
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


def _related(cosines: Tensor, others: Tensor, config: CalibrationConfig) -> float:
    """Probability that an encoder's cosines (m,) have to do with the first encoder's, by their correlation.

    It is normal around 0 with variance 1 / m for an encoder that knows nothing of the images, and around
    `agreement_mean` for one that does; before it is seen, both are as likely. Two pairs tell nothing.
    """
    if len(cosines) < 3:
        return 1.0
    correlation, noise = _correlation(cosines, others), 1 / len(cosines)
    known = noise + config.agreement_std**2
    difference = correlation - config.agreement_mean
    log_odds = 0.5 * (correlation**2 / noise - difference**2 / known + math.log(noise / known))
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, log_odds))))


def _class_effect(cosines: Tensor, same: Tensor, expected: float, std: float) -> float:
    """Excess of the cosines (m,) of pairs of one class, in deviations: posterior mean under a normal prior."""
    share = float(same.mean()) if len(same) else 0.0
    if not 0 < share < 1:
        return expected
    observed = _correlation(cosines, same) / math.sqrt(share * (1 - share))
    n_pairs, prior = len(same) * share * (1 - share), 1 / std**2
    return (prior * expected + n_pairs * observed) / (prior + n_pairs)
