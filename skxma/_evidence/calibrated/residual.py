"""A trained residual on the fused logits, kept where it lowers the held-out loss clearly (docs/method.md, step 8)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._sampling import stratified_folds
from skxma.caches import Integers


def sample_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (n,) of logits (n, C)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def train_residual(
    features: Tensor, labels: Tensor, weights: Tensor, offset: Tensor, penalty: float, n_epochs: int
) -> tuple[Tensor, list[float]]:
    """Minimize the cross-entropy of ``offset + q Rᵀ`` plus ``penalty · |R|²`` by L-BFGS over whole epochs.

    Parameters
    ----------
    features : Tensor of shape (N, D)
        ``q``, which must not know the labels.
    labels, weights : Tensor of shape (N,)
    offset : Tensor of shape (N, C)
        Leave-one-out logits.
    penalty : float
    n_epochs : int
        Most passes over the support set, those of the line search included.

    Returns
    -------
    residual : Tensor of shape (C, D)
    curve : list of float
        Objective at each pass.
    """
    residual = torch.zeros(offset.shape[1], features.shape[1], dtype=features.dtype, device=features.device)
    residual.requires_grad_(True)
    curve: list[Tensor] = []
    # torch's and not scipy's: C × D parameters stay on the device
    optimizer = torch.optim.LBFGS(
        [residual], max_iter=n_epochs, max_eval=n_epochs, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = sample_losses(offset + features @ residual.T, labels)
        loss = (weights * losses).sum() / weights.sum() + penalty * residual.square().sum()
        loss.backward()
        curve.append(loss.detach())
        return loss

    optimizer.step(closure)
    # read at the end, for each reading waits for the device
    return residual.detach(), torch.stack(curve).tolist()


def choose_residual(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    offset: Tensor,
    config: CalibrationConfig,
    groups: Integers | None = None,
) -> tuple[Tensor | None, list[float]]:
    """Choose the penalty by cross-validation and train with it; None where none lowers the held-out loss clearly.

    Penalties are tried from the heaviest on, until one is no better than the one before.

    Parameters
    ----------
    features : Tensor of shape (N, D)
    labels, weights : Tensor of shape (N,)
    offset : Tensor of shape (N, C)
    config : CalibrationConfig
    groups : ndarray of shape (N,), optional
        Samples of one group share a fold.

    Returns
    -------
    residual : Tensor of shape (C, D) or None
    curve : list of float
    """
    n, n_epochs = len(labels), config.n_epochs
    folds = stratified_folds(labels.cpu().numpy(), config.residual_folds, groups)
    shares = weights / weights.sum()
    without = sample_losses(offset, labels)
    best, held_out = None, without
    for penalty in config.residual_penalties:
        losses = without.clone()
        for fold in range(config.residual_folds):
            sides = (np.flatnonzero(folds == fold), np.flatnonzero(folds != fold))
            if not all(map(len, sides)):
                continue
            out, rest = (torch.as_tensor(rows, device=labels.device) for rows in sides)
            residual, _ = train_residual(
                features[rest], labels[rest], weights[rest], offset[rest], penalty / n, n_epochs
            )
            losses[out] = sample_losses(offset[out] + features[out] @ residual.T, labels[out])
        if float(shares @ losses) >= float(shares @ held_out):
            break
        best, held_out = penalty, losses
    # kept for any fall at all, residuals of few samples cost a third of a point on new images
    if best is None or not falls_clearly(without - held_out, shares, groups):
        return None, []
    return train_residual(features, labels, weights, offset, best / n, n_epochs)


def falls_clearly(falls: Tensor, shares: Tensor, groups: Integers | None = None) -> bool:
    """Tell whether the mean of the samples' falls in loss exceeds its standard error.

    Parameters
    ----------
    falls, shares : Tensor of shape (n,)
        The shares are weights whose sum is 1.
    groups : ndarray of shape (n,), optional
        The samples of a group count as one.
    """
    mean = shares @ falls
    deviations = shares * (falls - mean)
    if groups is not None:
        group = torch.as_tensor(np.unique(groups, return_inverse=True)[1], device=falls.device)
        deviations = deviations.new_zeros(int(group.max()) + 1).index_add(0, group, deviations)
    return bool(mean > deviations.square().sum().sqrt())
