"""Support sets of very many images: learn on a stratified subsample, retrieve from all keys."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.model import CalibratedModel, CalibratedScorer
from skxma._evidence.fitted import FitReport
from skxma._runtime import blocks
from skxma.caches import Floats, ImageCache, Integers, to_tensors


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions for samples (n,) that a model has not seen.

    Attributes
    ----------
    hardness : ndarray of shape (n,)
    label_noise : ndarray of shape (n,)
        Posterior of a wrong label.
    label : ndarray of shape (n,)
        Most probable class.
    probability : ndarray of shape (n,)
        Probability of that class.
    """

    hardness: Floats
    label_noise: Floats
    label: Integers
    probability: Floats

    def merge(self, chosen: NDArray[np.bool_], chosen_predictions: HeldOutPredictions) -> HeldOutPredictions:
        """Merge these, of the samples that are not `chosen` (N,), with those of the chosen ones."""

        def merge_field(name: str) -> NDArray[Any]:
            values = np.empty(len(chosen), dtype=getattr(self, name).dtype)
            values[chosen], values[~chosen] = getattr(chosen_predictions, name), getattr(self, name)
            return values

        return HeldOutPredictions(*(merge_field(field.name) for field in fields(self)))


def extend_to_all(
    report: FitReport[CalibratedModel],
    chosen: NDArray[np.bool_],
    cache: ImageCache,
    config: CalibrationConfig,
    like: Tensor,
) -> FitReport[CalibratedModel]:
    """Extend a fit on a subsample to all samples, which all become keys.

    The model of the subsample predicts all other samples, which it has not seen.

    Parameters
    ----------
    report : FitReport
        Of the fit on the subsample.
    chosen : bool ndarray of shape (N,)
        True for the samples in it.
    cache : ImageCache
        All samples.
    config : CalibrationConfig
    like : Tensor
        Gives the device and the precision of the computation.
    """
    model = report.model
    left_out = report.left_out
    of_chosen = HeldOutPredictions(report.hardness, report.label_noise, left_out.label, left_out.probability)
    held_out = predict_held_out(model.scorer(like), cache, ~chosen, report.noise_rate, like)
    predictions = held_out.merge(chosen, of_chosen)
    wrong = probable_label_errors(cache, predictions.label_noise, config)
    if wrong.any():
        cache = cache.set_aside(wrong)
    return replace(
        report,
        model=replace(model, image_cache=cache),
        hardness=predictions.hardness,
        label_noise=predictions.label_noise,
        left_out=replace(
            left_out, label=predictions.label, probability=predictions.probability, rows=np.flatnonzero(chosen)
        ),
    )


def probable_label_errors(cache: ImageCache, posterior: Floats, config: CalibrationConfig) -> NDArray[np.bool_]:
    """Mask (N,) of keys to set aside: labels more likely wrong than right, but never half of a class or more.

    None with few shots per class, and none where the configuration keeps all.
    """
    counts = cache.shots
    n_independent = cache.independent_shots.sum()
    if not config.drop_wrong_labels or n_independent < config.min_shots_to_drop * (counts > 0).sum():
        return np.zeros(len(cache.labels), dtype=bool)
    wrong = posterior > config.max_label_noise
    dropped = np.bincount(cache.labels[wrong], minlength=cache.n_classes)
    return wrong & (2 * dropped < counts)[cache.labels]


@torch.no_grad()
def predict_held_out(
    scorer: CalibratedScorer, cache: ImageCache, held_out: NDArray[np.bool_], noise_rate: float, like: Tensor
) -> HeldOutPredictions:
    """Predict the samples of a cache that a model has not seen, those where `held_out` (N,) is True."""
    parts = []
    rows = np.flatnonzero(held_out)
    for some in blocks.slices(len(rows), blocks.HELD_OUT_ROWS):
        block = rows[some]
        features, labels = to_tensors(cache.keys[block], cache.labels[block], like=like)
        logits = scorer.fused(features, [])
        hard = F.standardized_gap(*scorer.prototype_and_text(features), labels)
        log_p = torch.log_softmax(logits, 1)
        wrong = F.wrong_label_posterior(log_p.gather(1, labels[:, None])[:, 0], noise_rate, cache.n_classes)
        best, label = log_p.max(1)
        parts.append([hard.float(), wrong.float(), label, best.exp().float()])
    return HeldOutPredictions(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
