"""The pool: embeddings without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skxma._statistics import are_among
from skxma.caches import Floats, ImageCache, Integers


@dataclass(frozen=True)
class Pool:
    """Embeddings of unlabeled images.

    Attributes
    ----------
    keys : ndarray of shape (M, D), float32
        L2-normalized and different from each other, in an order that depends on their content alone.
    weights : ndarray of shape (M,)
        Number of images that each stands for.
    """

    keys: Floats
    weights: NDArray[np.float64]

    @classmethod
    def build(cls, features: Floats, weights: NDArray[np.float64], cache: ImageCache) -> tuple[Pool | None, Integers]:
        """Build a pool of M' images; those that the image cache holds with a label teach nothing and are left out.

        Parameters
        ----------
        features : ndarray of shape (M', D), L2-normalized
        weights : ndarray of shape (M',)
            Images of weight 0 are not kept.
        cache : ImageCache

        Returns
        -------
        pool : Pool or None
            None where nothing is left.
        position : ndarray of shape (M',)
            Index of the key that each image became; -1 for those that were not kept.
        """
        weights = np.where(are_among(features, cache.embeddings), 0.0, weights)
        if not weights.any():
            return None, np.full(len(features), -1, dtype=np.intp)
        merged, position = ImageCache.build(features, np.zeros(len(features), dtype=np.intp), 1, weights)
        return cls(merged.keys, merged.weights.astype(np.float64) * merged.weight_unit), position

    def thinned(self, most: int) -> Pool:
        """Return the pool itself, or `most` keys of it: evenly spaced in its order, which follows no class."""
        if len(self.keys) <= most:
            return self
        chosen = np.linspace(0, len(self.keys) - 1, most).round().astype(np.intp)
        weights = self.weights[chosen]
        return Pool(self.keys[chosen], weights * (self.weights.sum() / weights.sum()))
