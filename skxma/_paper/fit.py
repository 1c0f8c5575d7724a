"""Fitting the paper's model: its scalars on the untrained caches, then keys, nets and ratio, all leave-one-out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from skxma import functional as F
from skxma._fitted import FitReport, LeftOutAnswers
from skxma._paper.adamw import Descent, descend
from skxma._paper.loss import LoneAffinity, Support, current_lone, leave_one_out_loss
from skxma._paper.model import TrainedCache
from skxma._paper.module import ALPHA, BETA, CrossModalCache, PaperSettings
from skxma._sampling import rows_to_learn_from
from skxma._statistics import BLOCK_ENTRIES, class_means, zero_shot_cosines
from skxma.caches import ImageCache, like

SCALAR_PENALTY = 0.04
Epochs = Callable[[int, Callable[[], TrainedCache]], Iterable[int]]
DOUBLE_SQUARE = 2**24
STARTS = ((0.0, 0.0, 0.0), (3.0, 0.0, 1.5))


def fit_scalars(model: CrossModalCache, zero_shot: Tensor, weights: Tensor, lone: LoneAffinity) -> None:
    """Learn the scalars that were not given, from the logits of the untrained caches, by L-BFGS.

    Penalties ``0.04 (u − 1 − log u)`` on alpha over 1 and beta over 5.5, ``0.04 θ² / 2`` on the logit of the ratio.
    """
    held = model.settings
    if held.alpha is not None and held.beta is not None and (held.fusion_ratio is not None or model.text is None):
        return
    learned_from = rows_to_learn_from(model.labels.cpu().numpy(), zero_shot.shape[1])
    rows = torch.as_tensor(learned_from, device=zero_shot.device)
    zero_shot, weights = zero_shot[rows], weights[rows]
    # by losses in single precision the search stops where their rounding does, thousandths from the minimum
    dtype = torch.float64 if len(rows) ** 2 <= DOUBLE_SQUARE else zero_shot.dtype
    with torch.no_grad():
        image, text = (affinity.to(dtype) for affinity in model.affinities(F.normalise(model.keys[rows])))
    support = Support(model.labels, model.weights.to(dtype), model.mass.to(dtype), model.rest.to(dtype), model.lone)
    zero_shot, weights, lone = zero_shot.to(dtype), weights.to(dtype), lone.to(dtype)

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = torch.tensor(values, dtype=zero_shot.dtype, device=zero_shot.device, requires_grad=True)
        alpha = theta[0].exp() * ALPHA if held.alpha is None else held.alpha
        beta = theta[1].exp() * BETA if held.beta is None else held.beta
        free = model.text is not None and held.fusion_ratio is None
        ratio = torch.sigmoid(theta[2]) if free else model.ratio().detach().to(dtype)
        loss = leave_one_out_loss(support, zero_shot, rows, image, text, (alpha, beta, ratio), lone)
        penalty = (theta[:2].exp() - 1 - theta[:2]).sum() + theta[2] ** 2 / 2
        total = (weights * loss).sum() / weights.sum() + SCALAR_PENALTY * penalty
        (gradient,) = torch.autograd.grad(total, theta)
        return float(total.detach()), gradient.double().cpu().numpy()

    # a strong and a weak cache are minima of their own
    found = [minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(-7, 7)] * 3) for start in STARTS]
    best = min(found, key=lambda result: float(result.fun))
    model.log_alpha, model.log_beta = np.log(ALPHA) + best.x[0], np.log(BETA) + best.x[1]
    with torch.no_grad():
        model.share.fill_(float(best.x[2]))


@torch.no_grad()
def judge_left_out(model: CrossModalCache, features: Tensor, zero_shot: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and hardness (N,) of the support samples, whose own key retrieves nothing."""
    parts = []
    width = max(len(features), zero_shot.shape[1])
    for rows in torch.arange(len(features), device=features.device).split(max(1, BLOCK_ENTRIES // width)):
        image, text = model.affinities(features[rows])
        ratio, beta = model.ratio(), model.beta
        evidence = F.fused_evidence(image, text, model.labels, model.weights, ratio, beta, left_out=rows)
        hard = image.new_zeros(len(rows))
        if model.text is not None:
            hard = F.hardness(F.leave_self_out(image, rows), text, model.labels[rows], model.labels)
        parts.append((F.residual_logits(zero_shot[rows], evidence, model.alpha), hard))
    logits, hard = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits, hard


def class_mean_text(features: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Class means in the place of text (C, D), and the cosines (N, C) of the samples to them, each without itself."""
    means, mass = class_means(features, labels, weights, n_classes)
    rest = (mass[labels] - weights).clamp_min(F.EPS)[:, None]
    own = F.normalise((mass[labels][:, None] * means[labels] - weights[:, None] * features) / rest)
    means = F.normalise(means)
    return means, (features @ means.T).scatter(1, labels[:, None], (features * own).sum(1, keepdim=True))


def all_epochs(n_epochs: int, model: Callable[[], TrainedCache]) -> Iterable[int]:
    """Every epoch; nobody looks at the model in between."""
    return range(n_epochs)


def freeze(model: CrossModalCache, cache: ImageCache, text: Tensor) -> TrainedCache:
    """The model as it is now, as arrays; `text` (C, D) is what zero-shot uses."""
    return TrainedCache(
        replace(cache, keys=F.normalise(model.keys.detach()).float().cpu().numpy(), features=cache.keys),
        model.freeze_text(),
        text.float().cpu().numpy(),
        model.alpha,
        model.beta,
        float(model.ratio().detach()),
        model.settings.logit_scale,
    )


def fit_trained(
    cache: ImageCache,
    text: Tensor | None,
    settings: PaperSettings,
    like_this: Tensor,
    before: TrainedCache | None = None,
    epochs: Epochs = all_epochs,
) -> FitReport:
    """Fit the paper's model on a support set.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
        L2-normalised class text; None lets class means stand for it, without a text cache.
    settings : PaperSettings
    like_this : Tensor
        Gives the device and the precision of the computation.
    before : TrainedCache, optional
        Training goes on from there.
    epochs : callable
        Numbers the epochs; is given how many there are to be, and what gives the model as it is in between.
    """
    features, labels, weights = like(like_this, cache.keys, cache.labels, cache.weights)
    if text is None:
        stand_in, cosines = class_mean_text(features, labels, weights, cache.n_classes)
    else:
        text = text.to(features)
        stand_in, cosines = text, zero_shot_cosines(features, text)
    zero_shot = settings.logit_scale * cosines
    model = CrossModalCache(cache, text, settings, like_this)
    if before is None:
        fit_scalars(model, zero_shot, weights, current_lone(model))
    else:
        model.go_on_from(before, cache.keys)

    descent = Descent(model, features, zero_shot) if settings.n_epochs else None

    def fitted() -> TrainedCache:
        if descent is not None:
            descent.put_back()
        return freeze(model, cache, stand_in)

    passes = epochs(settings.n_epochs, fitted)
    curve = [0.0 for _ in passes] if descent is None else descend(descent, weights, passes)
    logits, hard = judge_left_out(model, features, zero_shot)
    left_out = LeftOutAnswers.of(logits, F.open_set_score(logits)[:, None], logits.new_ones(1))
    return FitReport(fitted(), hard.float().cpu().numpy(), np.zeros(len(hard), dtype=np.float32), 0.0, curve, left_out)
