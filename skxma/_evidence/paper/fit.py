"""Fit of the paper's form: its scalars on the untrained caches, then keys, nets and ratio, all leave-one-out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.fitted import FitReport, LeftOutPredictions
from skxma._evidence.paper.adamw import PaperTrainer, train_paper
from skxma._evidence.paper.config import PaperConfig
from skxma._evidence.paper.loss import SingletonAffinity, leave_one_out_loss
from skxma._evidence.paper.model import PaperModel
from skxma._evidence.paper.module import CrossModalCache
from skxma._runtime import blocks
from skxma._sampling import fusion_training_rows
from skxma._statistics import class_means, minimize_lbfgs, zero_shot_cosines
from skxma.caches import ImageCache, to_tensors

Epochs = Callable[[int, Callable[[], PaperModel]], Iterable[int]]
"""From the number of epochs, and a function that returns the model as it is, to the epochs."""


def fit_scalars(model: CrossModalCache, zero_shot: Tensor, weights: Tensor) -> None:
    """Learn the scalars that were not given, from the leave-one-out logits of the untrained caches, by L-BFGS.

    Penalties ``0.04 (u − 1 − log u)`` on alpha over 1 and beta over 5.5, ``0.04 θ² / 2`` on the logit of the ratio.

    Parameters
    ----------
    model : CrossModalCache
        Receives the scalars.
    zero_shot : Tensor of shape (N, C)
        Zero-shot logits.
    weights : Tensor of shape (N,)
        Loss weights.
    """
    config = model.config
    free_ratio = model.text is not None and config.fusion_ratio is None
    if config.alpha is not None and config.beta is not None and not free_ratio:
        return
    labels = model.support.labels.cpu().numpy()
    training_rows = fusion_training_rows(labels, zero_shot.shape[1], config.max_scores, config.max_pairs)
    rows = torch.as_tensor(training_rows, device=zero_shot.device)
    dtype = torch.float64 if len(rows) ** 2 <= config.max_double_pairs else zero_shot.dtype
    with torch.no_grad():
        image, text = (affinity.to(dtype) for affinity in model.affinities(F.normalize(model.keys[rows])))
        simulated = SingletonAffinity.from_keys(F.normalize(model.keys), config.singleton).to(dtype)
    support, zero_shot, weights = model.support.to(dtype), zero_shot[rows].to(dtype), weights[rows].to(dtype)

    def objective(theta: Tensor) -> Tensor:
        alpha = theta[0].exp() * config.alpha_prior if config.alpha is None else config.alpha
        beta = theta[1].exp() * config.beta_prior if config.beta is None else config.beta
        ratio = torch.sigmoid(theta[2]) if free_ratio else model.ratio().detach().to(dtype)
        loss = leave_one_out_loss(support, zero_shot, rows, image, text, (alpha, beta, ratio), simulated)
        penalty = (theta[:2].exp() - 1 - theta[:2]).sum() + theta[2] ** 2 / 2
        return (weights * loss).sum() / weights.sum() + config.scalar_penalty * penalty

    bounds = [(-config.scalar_bound, config.scalar_bound)] * 3
    solutions = [minimize_lbfgs(objective, start, zero_shot, bounds) for start in config.scalar_starts]
    _, theta = min(solutions, key=lambda solution: solution[0])
    model.log_alpha, model.log_beta = np.log(config.alpha_prior) + theta[0], np.log(config.beta_prior) + theta[1]
    with torch.no_grad():
        model.ratio_logit.fill_(float(theta[2]))


@torch.no_grad()
def leave_one_out_logits(model: CrossModalCache, features: Tensor, zero_shot: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and hardness (N,) of the support samples, whose own key retrieves nothing."""
    parts = []
    support = model.support
    width = max(len(features), zero_shot.shape[1])
    for rows in torch.arange(len(features), device=features.device).split(max(1, blocks.SCORE_ENTRIES // width)):
        image, text = model.affinities(features[rows])
        ratio, beta = model.ratio(), model.beta
        evidence = F.fused_evidence(image, text, support.labels, support.weights, ratio, beta, left_out=rows)
        hard = image.new_zeros(len(rows))
        if model.text is not None:
            hard = F.hardness(F.leave_self_out(image, rows), text, support.labels[rows], support.labels)
        parts.append((F.residual_logits(zero_shot[rows], evidence, model.alpha), hard))
    logits, hard = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits, hard


def class_mean_text(features: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Class means that stand for text (C, D), and the samples' cosines (N, C) to them, the own mean without itself."""
    means, mass = class_means(features, labels, weights, n_classes)
    rest = (mass[labels] - weights).clamp_min(F.EPS)[:, None]
    own = F.normalize((mass[labels][:, None] * means[labels] - weights[:, None] * features) / rest)
    means = F.normalize(means)
    return means, (features @ means.T).scatter(1, labels[:, None], (features * own).sum(1, keepdim=True))


def all_epochs(n_epochs: int, model: Callable[[], PaperModel]) -> Iterable[int]:
    """Every epoch, without a look at the model in between."""
    return range(n_epochs)


def to_paper_model(model: CrossModalCache, cache: ImageCache, text: Tensor) -> PaperModel:
    """Copy the model as it is now to arrays; `text` (C, D) are the zero-shot weights."""
    return PaperModel(
        replace(cache, keys=F.normalize(model.keys.detach()).float().cpu().numpy(), features=cache.keys),
        model.to_text_cache(),
        text.float().cpu().numpy(),
        model.alpha,
        model.beta,
        float(model.ratio().detach()),
        model.config.logit_scale,
    )


def fit_paper(
    cache: ImageCache,
    text: Tensor | None,
    config: PaperConfig,
    like: Tensor,
    before: PaperModel | None = None,
    epochs: Epochs = all_epochs,
) -> FitReport[PaperModel]:
    """Fit the paper's form on a support set.

    Parameters
    ----------
    cache : ImageCache
    text : Tensor of shape (C, D) or None
        L2-normalized class text; with None the class means stand for it, without a text cache.
    config : PaperConfig
    like : Tensor
        Gives the device and the precision of the computation.
    before : PaperModel, optional
        Training starts from there.
    epochs : callable
        Yields the epochs; receives their number, and a function that returns the model as it is in between.
    """
    features, labels, weights = to_tensors(cache.keys, cache.labels, cache.weights, like=like)
    if text is None:
        zero_shot_weights, cosines = class_mean_text(features, labels, weights, cache.n_classes)
    else:
        text = text.to(features)
        zero_shot_weights, cosines = text, zero_shot_cosines(features, text)
    zero_shot = config.logit_scale * cosines
    model = CrossModalCache(cache, text, config, like)
    if before is None:
        fit_scalars(model, zero_shot, weights)
    else:
        model.warm_start_from(before, cache.keys)

    trainer = PaperTrainer(model, features, zero_shot) if config.n_epochs else None

    def trained() -> PaperModel:
        if trainer is not None:
            trainer.write_back()
        return to_paper_model(model, cache, zero_shot_weights)

    passes = epochs(config.n_epochs, trained)
    curve = [0.0 for _ in passes] if trainer is None else train_paper(trainer, weights, passes)
    logits, hard = leave_one_out_logits(model, features, zero_shot)
    left_out = LeftOutPredictions.from_logits(logits, F.open_set_score(logits)[:, None], logits.new_ones(1))
    zeros = np.zeros(len(hard), dtype=np.float32)
    return FitReport(trained(), hard.float().cpu().numpy(), zeros, 0.0, curve, left_out)
