"""Class statistics of a pool of unlabeled images, which do not grow with the pool (docs/method.md, step 9).

With soft labels ``P`` (M, C), the classes of a pool have masses ``Pᵀ1``, means and a scatter around them, as labeled
classes have. Two experts follow, the cosine to the class mean and a Gaussian score, and they improve the soft labels
from which they came: a few rounds of expectation and maximization.
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
from skxma._evidence.semi_supervised.config import PoolConfig
from skxma._runtime import blocks
from skxma._statistics import SINGLETON_TOLERANCE, Spectrum
from skxma.caches import Floats, to_tensors


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of a pool's classes in the metric that whitens the scatter within them, as arrays.

    Attributes
    ----------
    center : ndarray of shape (D,)
    projection : ndarray of shape (D, R)
        Maps an image f to ``(f − center) · projection``.
    means : ndarray of shape (C, R)
        Class means, the labeled images among them.
    present : bool ndarray of shape (C,)
        True for classes that have any image.
    spreads : tuple of float
        Standard deviations of the two experts' scores over the pool, by which they are divided.
    """

    center: Floats
    projection: Floats
    means: Floats
    present: NDArray[np.bool_]
    spreads: tuple[float, float]

    def experts(self, like: Tensor) -> PoolExperts:
        """Return the statistics as tensors with the device and dtype of `like`."""
        arrays = self.center, self.projection, self.means, self.present
        center, projection, means, present = to_tensors(*arrays, like=like)
        return PoolExperts(center, projection, means, present, self.spreads)


@dataclass(frozen=True)
class PoolExperts:
    """Class statistics as tensors, ready to score.

    Attributes
    ----------
    center, projection, means, present, spreads
        See `ClassStatistics`.
    mass : Tensor of shape (C,), optional
        Images that each class mean averages; needed only for the pool's own images.
    """

    center: Tensor
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
            Contribution of each image to the mass of each class: the image is scored against the means without it,
            ``μ' = (1 + s) μ − s q`` with ``s = own / (mass − own)``.
        """
        queries = (features - self.center) @ self.projection
        dots, lengths = queries @ self.means.T, self.means.square().sum(1)
        norms = queries.square().sum(1, keepdim=True)
        present = self.present
        if own is not None and self.mass is not None:
            rest = self.mass - own
            present = present & (rest > SINGLETON_TOLERANCE * self.mass)
            s = own / torch.where(present, rest, 1.0)
            lengths = (1 + s) ** 2 * lengths - 2 * s * (1 + s) * dots + s**2 * norms
            dots = (1 + s) * dots - s * norms
        cosines = dots / (norms * lengths.clamp_min(0)).sqrt().clamp_min(F.EPS)
        scores = F.fill_absent(torch.stack([cosines, dots - lengths / 2]), present)
        return torch.stack([score / spread for score, spread in zip(scores, self.spreads, strict=True)])

    def with_spreads(self, features: Tensor, own: Tensor) -> PoolExperts:
        """Return the experts with their spreads taken over pool images (n, D), each scored without itself."""
        spreads = self(features, own).std(dim=(1, 2), correction=0).tolist()
        first, second = (value if value > F.EPS else 1.0 for value in spreads)
        return replace(self, spreads=(first, second))

    def to_statistics(self) -> ClassStatistics:
        """Convert to arrays."""
        center, projection, means = (a.float().cpu().numpy() for a in (self.center, self.projection, self.means))
        return ClassStatistics(center, projection, means, self.present.cpu().numpy(), self.spreads)


@dataclass(frozen=True)
class SoftLabeledPool:
    """A pool, with the logits of a model that was fitted without it.

    Attributes
    ----------
    features : Tensor of shape (M, D)
    logits : Tensor of shape (M, C)
    counts : Tensor of shape (M,)
        Expected number of images of known classes that each stands for.
    """

    features: Tensor
    logits: Tensor
    counts: Tensor

    def row_blocks(self) -> Iterator[slice]:
        """Split the rows so that the scores of a block stay small."""
        width = max(self.features.shape[1], self.logits.shape[1])
        return blocks.slices(len(self.features), blocks.POOL_ENTRIES // width)

    def soft_labels(self, experts: PoolExperts, own: Tensor, weights: Any) -> Tensor:
        """Probabilities (M, C) by model and experts, each image's without its own contribution `own` (M, C)."""
        soft = torch.empty_like(own)
        for rows in self.row_blocks():
            scores = experts(self.features[rows], own[rows])
            soft[rows] = torch.softmax(fuse_pool(weights, self.logits[rows], scores), 1)
        return soft


def fuse_pool(weights: Any, logits: Tensor, scores: Tensor) -> Tensor:
    """``w₀ · logits + w₁ · cosine + w₂ · Gaussian`` (n, C) of logits (n, C) and scores (2, n, C)."""
    (w,) = to_tensors(np.asarray(weights), like=logits)
    return w[0] * logits + torch.tensordot(w[1:], scores, dims=1)


def em_steps(
    pool: SoftLabeledPool,
    labeled: tuple[Tensor, Tensor, Tensor],
    root: Tensor | None,
    weights: Any,
    config: PoolConfig,
) -> tuple[PoolExperts, Tensor]:
    """Estimate the class statistics of a pool in a few rounds, each with the soft labels that the one before gave.

    No image is scored with its own contribution to the round before; otherwise each would soon be sure of its label.

    Parameters
    ----------
    pool : SoftLabeledPool
        The softmax of its logits is the first soft label.
    labeled : features (N, D), labels (N,) and counts (N,)
        Labeled images, which keep their labels; N may be 0.
    root : Tensor of shape (D, R) or None
        ``B`` of the cross-modal metric (`metric.covariance_root`), of several encoders `fit.root_of_encoders`.
    weights : sequence of 3 float
        Of the logits and the two experts, see `config.pool_prior_weights`.
    config : PoolConfig

    Returns
    -------
    experts : PoolExperts
    own : Tensor of shape (M, C)
        Contribution of each pool image to the masses of the classes.
    """
    features, labels, counts = labeled
    center = (pool.counts @ pool.features + counts @ features) / (pool.counts.sum() + counts.sum())
    second_moment = _second_moment(features - center, counts)
    for rows in pool.row_blocks():
        second_moment += _second_moment(pool.features[rows] - center, pool.counts[rows])
    one_hot = pool.features.new_zeros(len(labels), pool.logits.shape[1]).scatter_(1, labels[:, None], counts[:, None])
    step = -(-len(pool.features) // config.spread_rows)
    soft = torch.softmax(pool.logits, 1)
    for turn in range(config.n_rounds):
        own = soft * pool.counts[:, None]
        sums, mass = one_hot.double().T @ (features - center).double(), one_hot.double().sum(0)
        for rows in pool.row_blocks():
            sums += (own[rows].T @ (pool.features[rows] - center)).double()
        mass += own.sum(0, dtype=torch.float64)
        experts = _whiten(center, second_moment, sums, mass, root, config.shrinkage)
        experts = experts.with_spreads(pool.features[::step], own[::step])
        if turn < config.n_rounds - 1:
            soft = pool.soft_labels(experts, own, weights)
    return experts, own


def _second_moment(centered: Tensor, counts: Tensor) -> Tensor:
    """Weighted sum of the outer products (D, D) of rows (n, D)."""
    return (centered.T @ (counts[:, None] * centered)).double()


def _whiten(
    center: Tensor, second_moment: Tensor, sums: Tensor, mass: Tensor, root: Tensor | None, shrinkage: float
) -> PoolExperts:
    """Whiten the scatter within the classes, ``((1 − ρ) S_W / (tr S_W / D) + ρ I)^(−1/2)``, and map the class means.

    ``S_W = Σ w x xᵀ − Σ_c m_c μ_c μ_cᵀ``, so that the second moment is computed once for all rounds.
    """
    means = sums / mass.clamp_min(F.EPS)[:, None]
    scatter = second_moment - means.T @ (mass[:, None] * means)
    if root is not None:
        scatter = root.double().T @ scatter @ root.double()
    spectrum = Spectrum.of(scatter)
    projection = spectrum.vectors * spectrum.shrunk_power(shrinkage, -0.5)
    if root is not None:
        projection = root.double() @ projection
    projection = projection.to(center)
    return PoolExperts(center, projection, means.to(center) @ projection, mass > F.EPS, mass=mass.to(center))
