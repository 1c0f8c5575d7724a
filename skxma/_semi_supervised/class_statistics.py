"""Pictures without labels: what a pool of them says of each class, in statistics that do not grow with the pool.

With soft labels ``P`` (M, C), the classes of a pool have masses ``Pᵀ1``, means and a scatter around them, as labelled
classes have. Two experts follow, the cosine to the class mean and a Gaussian score, and they improve the soft labels
from which they came: a few rounds of expectation and maximisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma.caches import Floats, like

SHRINKAGE = 0.6
ROUNDS = 4
FEW_PER_CLASS = 5.0
ALONE = 1e-6
SPREAD_ROWS = 4096
BLOCK_ENTRIES = 2**22


@dataclass(frozen=True)
class ClassStatistics:
    """What is kept of a pool: its classes in the metric that whitens the scatter within them.

    Attributes
    ----------
    centre : ndarray of shape (D,)
    projection : ndarray of shape (D, R)
        A picture f is seen as ``(f − centre) · projection``.
    means : ndarray of shape (C, R)
        Class means, the labelled pictures among them.
    present : bool ndarray of shape (C,)
        Which classes have any.
    spreads : tuple of float
        Standard deviations of the two experts' scores over the pool, by which they are divided.
    """

    centre: Floats
    projection: Floats
    means: Floats
    present: NDArray[np.bool_]
    spreads: tuple[float, float]

    def on(self, like_this: Tensor) -> PoolExperts:
        """Make it ready to score, with the device and precision of `like_this`."""
        centre, projection, means = like(like_this, self.centre, self.projection, self.means)
        present = torch.as_tensor(self.present, device=like_this.device)
        return PoolExperts(centre, projection, means, present, self.spreads)


@dataclass(frozen=True)
class PoolExperts:
    """Class statistics as tensors.

    Attributes
    ----------
    centre, projection, means, present, spreads
        See `ClassStatistics`.
    mass : Tensor of shape (C,), optional
        What each class mean is a mean of; only the pool's own pictures need it.
    """

    centre: Tensor
    projection: Tensor
    means: Tensor
    present: Tensor
    spreads: tuple[float, float] = (1.0, 1.0)
    mass: Tensor | None = None

    def __call__(self, features: Tensor, own: Tensor | None = None) -> Tensor:
        """Cosines to the class means and Gaussian scores ``q·μ − ½|μ|²``, each divided by its spread (2, n, C).

        Parameters
        ----------
        features : Tensor of shape (n, D)
        own : Tensor of shape (n, C), optional
            What each picture has put into the mass of each class: it is judged by the means without it.
        """
        queries = (features - self.centre) @ self.projection
        dots, lengths = queries @ self.means.T, self.means.square().sum(1)
        norms = queries.square().sum(1, keepdim=True)
        present = self.present
        if own is not None and self.mass is not None:
            rest = self.mass - own
            present = present & (rest > ALONE * self.mass)
            share = own / torch.where(present, rest, 1.0)
            lengths = (1 + share) ** 2 * lengths - 2 * share * (1 + share) * dots + share**2 * norms
            dots = (1 + share) * dots - share * norms
        cosines = dots / (norms * lengths.clamp_min(0)).sqrt().clamp_min(F.EPS)
        scores = F.fill_absent(torch.stack([cosines, dots - lengths / 2]), present)
        return scores / features.new_tensor(self.spreads)[:, None, None]

    def scaled_on(self, features: Tensor, own: Tensor) -> PoolExperts:
        """The experts with their spreads taken over pictures of the pool (n, D), each judged without itself."""
        spreads = self(features, own).std(dim=(1, 2), correction=0).tolist()
        first, second = (value if value > F.EPS else 1.0 for value in spreads)
        return replace(self, spreads=(first, second))

    def stored(self) -> ClassStatistics:
        """As arrays, which persist."""
        centre, projection, means = (a.float().cpu().numpy() for a in (self.centre, self.projection, self.means))
        return ClassStatistics(centre, projection, means, self.present.cpu().numpy(), self.spreads)


@dataclass(frozen=True)
class Judged:
    """A pool that a model has judged which was fitted without it.

    Attributes
    ----------
    features : Tensor of shape (M, D)
    logits : Tensor of shape (M, C)
    counts : Tensor of shape (M,)
        How many pictures of the known classes each stands for.
    """

    features: Tensor
    logits: Tensor
    counts: Tensor

    def blocks(self) -> Iterator[slice]:
        """Rows small enough to be scored."""
        n = max(1, BLOCK_ENTRIES // max(self.features.shape[1], self.logits.shape[1]))
        return (slice(start, start + n) for start in range(0, len(self.features), n))

    def fused(self, experts: PoolExperts, own: Tensor, weights: Any) -> Tensor:
        """Probabilities (M, C) by model and experts; each picture is judged without what it put in, `own` (M, C)."""
        soft = torch.empty_like(own)
        for rows in self.blocks():
            scores = experts(self.features[rows], own[rows])
            soft[rows] = torch.softmax(fused(weights, self.logits[rows], scores), 1)
        return soft


def trust(per_class: float) -> tuple[float, float, float]:
    """Prior weights of the model's logits and of the pool's two experts, for so many pictures of the pool a class.

    With ``s = (m / (m + 5))²`` they are ``1 − 0.8 s``, ``2 s`` and ``s``: means of one or two pictures whose classes
    are guessed know less than the model that guessed, those of many know more.
    """
    s = (per_class / (per_class + FEW_PER_CLASS)) ** 2
    return 1 - 0.8 * s, 2.0 * s, s


def fused(weights: Any, logits: Tensor, scores: Tensor) -> Tensor:
    """``w₀ · logits + w₁ · cosine + w₂ · Gaussian`` (n, C) of logits (n, C) and scores (2, n, C)."""
    w = torch.as_tensor(weights).to(logits)
    return w[0] * logits + torch.tensordot(w[1:], scores, dims=1)


def refine(
    pool: Judged, features: Tensor, labels: Tensor, counts: Tensor, root: Tensor | None, weights: Any
) -> tuple[PoolExperts, Tensor]:
    """Class statistics of a pool after a few rounds, each with the soft labels that the one before gave.

    No picture is judged by what it said itself in the round before; otherwise each would soon be sure.

    Parameters
    ----------
    pool : Judged
        Its softmax is the first soft label.
    features : Tensor of shape (N, D)
        Labelled pictures, which keep their labels; N may be 0.
    labels, counts : Tensor of shape (N,)
    root : Tensor of shape (D, D) or None
        ``B`` of the cross-modal metric (`metric.vocabulary_root`).
    weights : sequence of 3 float
        Of the logits and the two experts, see :func:`trust`.

    Returns
    -------
    experts : PoolExperts
    own : Tensor of shape (M, C)
        What each picture of the pool put into the masses of the classes.
    """
    like_this = pool.features
    total = pool.counts.sum() + counts.sum()
    centre = (pool.counts @ pool.features + counts @ features) / total
    second_moment = _moment(features - centre, counts)
    for rows in pool.blocks():
        second_moment += _moment(pool.features[rows] - centre, pool.counts[rows])
    one_hot = like_this.new_zeros(len(labels), pool.logits.shape[1]).scatter_(1, labels[:, None], counts[:, None])
    step = -(-len(like_this) // SPREAD_ROWS)
    soft = torch.softmax(pool.logits, 1)
    for turn in range(ROUNDS):
        own = soft * pool.counts[:, None]
        sums, mass = one_hot.double().T @ (features - centre).double(), one_hot.double().sum(0)
        for rows in pool.blocks():
            sums += (own[rows].T @ (pool.features[rows] - centre)).double()
        mass += own.sum(0, dtype=torch.float64)
        experts = _experts(centre, second_moment, sums, mass, root)
        experts = experts.scaled_on(like_this[::step], own[::step])
        if turn < ROUNDS - 1:
            soft = pool.fused(experts, own, weights)
    return experts, own


def _moment(centred: Tensor, counts: Tensor) -> Tensor:
    """Weighted sum of the outer products (D, D) of rows (n, D)."""
    return (centred.T @ (counts[:, None] * centred)).double()


def _experts(centre: Tensor, second_moment: Tensor, sums: Tensor, mass: Tensor, root: Tensor | None) -> PoolExperts:
    """Whiten the scatter within the classes, ``((1 − ρ) S_W / (tr S_W / D) + ρ I)^(−1/2)``, and map the class means."""
    means = sums / mass.clamp_min(F.EPS)[:, None]
    scatter = second_moment - means.T @ (mass[:, None] * means)
    if root is not None:
        scatter = root.double().T @ scatter @ root.double()
    scale = scatter.diagonal().mean().clamp_min(F.EPS)
    values, vectors = torch.linalg.eigh(scatter / scale)
    projection = vectors * ((1 - SHRINKAGE) * values.clamp_min(0) + SHRINKAGE) ** -0.5
    if root is not None:
        projection = root.double() @ projection
    projection = projection.to(centre)
    return PoolExperts(centre, projection, means.to(centre) @ projection, mass > F.EPS, mass=mass.to(centre))
