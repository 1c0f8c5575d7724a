"""Classes that are known by their text alone, beside classes with images (docs/method.md, "Classes without images").

No sample of the support set is of such a class, so weights that are learned among all classes learn to turn these
classes down. The fusion is learned among the classes with images instead, and then each of them in turn is taken for
one without: that tells how much its text must count, and how high the experts of images must place it, for its own
images to be found and those of the others not to be lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import LeaveOneOutScores, expert_names
from skxma._evidence.calibrated.fusion import FusionObjective, part_of_each_class, weight_penalty
from skxma._statistics import minimize_lbfgs

TEXT_ROWS = tuple(expert_names(True, 0).index(name) for name in ("zero_shot", "centered_text"))
"""Experts that score a class by its text as it is: zero-shot and the centered text. The text cache does not: its
Img2Txt leads images to the texts of the classes with images (78 % of novel CIFAR classes instead of 93 %)."""


@dataclass(frozen=True)
class TextOnlyFusion:
    """Scores of a class without images by the experts of a metric, whose weights are those for the others.

    Attributes
    ----------
    zero_shot, centered_text : float
        Factors by which the scores of these two experts lie farther from the row's mean over the classes with images.
    deviations : float
        Deviations above that mean at which all other experts place the class.
    """

    zero_shot: float = 1.0
    centered_text: float = 1.0
    deviations: float = CalibrationConfig.imageless_deviations

    def apply(self, scores: LeaveOneOutScores, has_images: Tensor) -> LeaveOneOutScores:
        """The scores with those of the classes changed that have no images; `has_images` is (C,)."""
        factors = self.zero_shot, self.centered_text
        return replace(scores, scores=place_text_only(scores.scores, has_images, factors, self.deviations))


def place_text_only(
    scores: Tensor, has_images: Tensor, factors: tuple[Tensor | float, Tensor | float], deviations: Tensor | float
) -> Tensor:
    """Scores (J, ..., C) of the experts, zero-shot and those of text first, with classes without images placed.

    Parameters
    ----------
    scores : Tensor of shape (J, ..., C)
    has_images : bool Tensor of shape (C,)
    factors : tuple of two floats, or of Tensors broadcastable to (..., C)
        Of the experts of `TEXT_ROWS`, see `TextOnlyFusion`.
    deviations : float, or Tensor broadcastable to (..., C)
    """
    placed = F.fill_absent(scores, has_images, deviations).clone()
    for row, factor in zip(TEXT_ROWS, factors, strict=True):
        placed[row] = F.stretch_absent(scores[row], has_images, factor)
    return placed


def statistics_of_others(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (..., K) of each row of scores (..., K) over all columns but each."""
    n_others = max(1, scores.shape[-1] - 1)
    mean = scores.mean(-1, keepdim=True)
    centered = scores - mean
    shift = -centered / n_others
    square = (centered.square().sum(-1, keepdim=True) - centered.square()) / n_others
    return mean + shift, (square - shift.square()).clamp_min(0).sqrt()


def likelihood_beside_text_only(logits: Tensor, text_only: Tensor, labels: Tensor) -> Tensor:
    """Sum over the classes of the log-likelihood of each label (N,) where that class has no images.

    Parameters
    ----------
    logits : Tensor of shape (N, K)
        Among the classes with images.
    text_only : Tensor of shape (N, K)
        Logit of each class if it had none.
    labels : integer Tensor of shape (N,)
    """
    log_p = torch.log_softmax(logits, 1)
    others = logits - log_p + torch.log1p(-log_p.exp().clamp_max(1 - F.EPS))
    index = labels[:, None]
    known = logits.gather(1, index).expand_as(logits).scatter(1, index, text_only.gather(1, index))
    return (known - torch.logaddexp(text_only, others)).sum(1)


def fit_text_only(problem: FusionObjective, weights: NDArray[np.float64]) -> TextOnlyFusion:
    """Learn how the experts of a metric score classes without images, from those with images.

    The objective is the mean over the samples of :func:`likelihood_beside_text_only`, with the fusion's penalty
    ``λ Σ (u − log u)``, λ of `fusion.weight_penalty`, on the weights u that the two experts of the text get for such a
    class, relative to their priors, and ``λ (δ − δ₀)²`` on the deviations δ, δ₀ those of the config.

    Parameters
    ----------
    problem : FusionObjective
        Among the classes with images.
    weights : ndarray of shape (J,)
        Learned from it.
    """
    (n, n_classes), config = problem.scores.scores.shape[1:], problem.config
    penalty = weight_penalty(float(problem.independence.sum()), n_classes, config)
    rows = part_of_each_class(problem.labels, -(-n * n_classes // config.max_text_only_scores))
    # on the host: three numbers are read again at each step
    experts = problem.scores.scores[:, rows].cpu().double()
    labels, loss_weights = problem.labels[rows].cpu(), problem.loss_weights[rows].cpu()
    w = torch.as_tensor(weights).to(experts)
    text = list(TEXT_ROWS)
    others = [row for row in range(len(experts)) if row not in TEXT_ROWS]
    mean, std = statistics_of_others(experts)
    logits, base = torch.tensordot(w, experts, dims=1), torch.tensordot(w, mean, dims=1)
    beyond = w[text, None, None] * (experts[text] - mean[text])
    spread = torch.tensordot(w[others], std[others], dims=1)
    shares = (loss_weights / loss_weights.sum()).to(experts)
    prior = torch.as_tensor(problem.parametrization.prior[text]).to(w)
    # a held ratio may leave the text no weight, which no factor changes
    log_relative = torch.log((w[text] / prior).clamp_min(F.EPS))

    def objective(theta: Tensor) -> Tensor:
        log_factors, deviations = theta[:2], theta[2]
        text_only = base + torch.tensordot(log_factors.exp(), beyond, dims=1) + deviations * spread
        log_u = log_factors + log_relative
        pulls = (log_u.exp() - log_u).sum() + (deviations - config.imageless_deviations) ** 2
        return penalty * pulls - shares @ likelihood_beside_text_only(logits, text_only, labels)

    largest = config.max_text_only_log_factor, config.max_text_only_log_factor, config.max_imageless_deviations
    bounds = [(-bound, bound) for bound in largest]
    _, theta = minimize_lbfgs(objective, [0.0, 0.0, config.imageless_deviations], experts, bounds)
    zero_shot, centered_text = np.exp(theta[:2])
    return TextOnlyFusion(float(zero_shot), float(centered_text), float(theta[2]))
