"""Choice among metrics by their leave-one-out objectives, and their weights in the mean (docs/method.md, step 5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from skxma._evidence.calibrated.config import CalibrationConfig


def choose_per_root(
    objectives: Sequence[tuple[str, float]], n_left_out: float, config: CalibrationConfig
) -> list[tuple[int, float]]:
    """Choose the metrics with the least objective, no more than `metrics_per_root` of each root, and weigh them.

    Parameters
    ----------
    objectives : sequence of (str, float)
        Name of the root B and `Fusion.objective` of each metric.
    n_left_out : float
        Independent samples that judge the metrics, see :func:`pseudo_bma_weights`.
    config : CalibrationConfig

    Returns
    -------
    list of (int, float)
        Index and weight in the mean of each chosen metric, the best first; the weights sum to 1. Metrics that would
        count less than `min_averaging_weight` are left out.
    """
    chosen: list[int] = []
    for index in sorted(range(len(objectives)), key=lambda index: objectives[index][1]):
        root = objectives[index][0]
        if sum(objectives[other][0] == root for other in chosen) < config.metrics_per_root:
            chosen.append(index)
    del chosen[config.max_metrics :]
    weights = pseudo_bma_weights([objectives[index][1] for index in chosen], n_left_out, config.evidence_per_sample)
    kept = weights >= config.min_averaging_weight
    renormalized = weights[kept] / weights[kept].sum()
    return list(zip(compress(chosen, kept), renormalized.tolist(), strict=True))


def pseudo_bma_weights(
    objectives: Sequence[float], n_samples: float, evidence_per_sample: float
) -> NDArray[np.float64]:
    """Weights of several metrics in the mean of their logits, ``∝ exp(−e n objective)``.

    The weights of pseudo-BMA (Yao et al., "Using stacking to average Bayesian predictive distributions", 2018), cooled
    by the evidence per sample e, because the samples that judge the metrics are those on which experts were weighed.

    Parameters
    ----------
    objectives : sequence of float
        `Fusion.objective` of each.
    n_samples : float
        Independent samples that were left out. The scores of singletons are simulated and cannot judge a metric: with
        no others all metrics have the same weight.
    evidence_per_sample : float

    Returns
    -------
    ndarray of shape (M,)
        Sums to 1.
    """
    logs = -evidence_per_sample * n_samples * np.asarray(objectives)
    return np.asarray(softmax(logs), dtype=np.float64)
