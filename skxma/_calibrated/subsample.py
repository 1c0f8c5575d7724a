"""Support sets of very many images: learn on a stratified subsample, retrieve from all keys."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import CalibrationConfig
from skxma._calibrated.fit import fit_calibrated, probable_label_errors
from skxma._calibrated.model import CalibratedModel, CalibratedScorer
from skxma._fitted import FitReport
from skxma._runtime import blocks
from skxma._sampling import stratified_subsample
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


def fit_on_subsample(
    cache: ImageCache, text: Tensor | None, vocabulary: Tensor | None, config: CalibrationConfig, like: Tensor
) -> FitReport:
    """Fit as :func:`~skxma._calibrated.fit.fit_calibrated`, of very many keys on a stratified subsample.

    The metric, the weights and the rate of wrong labels need no more than some ten thousand samples. The model of the
    subsample predicts all other samples, which it has not seen. In the end all are keys.

    Parameters
    ----------
    cache, text, vocabulary, config, like
        See :func:`~skxma._calibrated.fit.fit_calibrated`.
    """
    if len(cache.labels) <= config.max_support:
        return fit_calibrated(cache, text, vocabulary, config, like)
    chosen = stratified_subsample(cache.labels, cache.n_classes, config.subsample_size, config.subsample_min_per_class)
    # one metric, because every further one would map and keep all keys again
    report = fit_calibrated(cache.keep(chosen), text, vocabulary, replace(config, max_metrics=1), like)
    model = report.model
    assert isinstance(model, CalibratedModel)
    left_out = report.left_out
    of_chosen = HeldOutPredictions(report.hardness, report.label_noise, left_out.label, left_out.probability)
    held_out = predict_held_out(model.scorer(like), cache, ~chosen, report.noise_rate, like)
    predictions = held_out.merge(chosen, of_chosen)
    wrong = probable_label_errors(cache, predictions.label_noise, config)
    if wrong.any():
        cache = cache.set_aside(wrong)
    return FitReport(
        replace(model, image_cache=cache),
        predictions.hardness,
        predictions.label_noise,
        report.noise_rate,
        report.loss_curve,
        replace(left_out, label=predictions.label, probability=predictions.probability),
    )


@torch.no_grad()
def predict_held_out(
    scorer: CalibratedScorer, cache: ImageCache, held_out: NDArray[np.bool_], noise_rate: float, like: Tensor
) -> HeldOutPredictions:
    """Predict the samples of a cache that a model has not seen, those where `held_out` (N,) is True."""
    parts = []
    rows = np.flatnonzero(held_out)
    for start in range(0, len(rows), blocks.HELD_OUT_ROWS):
        block = rows[start : start + blocks.HELD_OUT_ROWS]
        features, labels = to_tensors(cache.keys[block], cache.labels[block], like=like)
        logits = scorer.fused(features, [])
        hard = F.standardized_gap(*scorer.prototype_and_text(features), labels)
        log_p = torch.log_softmax(logits, 1)
        wrong = F.wrong_label_posterior(log_p.gather(1, labels[:, None])[:, 0], noise_rate, cache.n_classes)
        best, label = log_p.max(1)
        parts.append([hard.float(), wrong.float(), label, best.exp().float()])
    return HeldOutPredictions(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
