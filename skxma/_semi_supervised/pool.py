"""The pool: embeddings without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skxma.caches import Floats, ImageCache, Integers


@dataclass(frozen=True)
class Pool:
    """Embeddings of pictures without labels.

    Attributes
    ----------
    keys : ndarray of shape (M, D), float32
        L2-normalised and different from each other, in an order that depends on their content alone.
    weights : ndarray of shape (M,)
        How many pictures each stands for.
    """

    keys: Floats
    weights: NDArray[np.float64]

    @classmethod
    def build(cls, features: Floats, weights: NDArray[np.float64], cache: ImageCache) -> tuple[Pool | None, Integers]:
        """Make a pool of M' pictures; those that the image cache holds with a label teach nothing and stay out.

        Parameters
        ----------
        features : ndarray of shape (M', D), L2-normalised
        weights : ndarray of shape (M',)
            Pictures of weight 0 are not kept.
        cache : ImageCache

        Returns
        -------
        pool : Pool or None
            None where nothing is left.
        position : ndarray of shape (M',)
            Which key each picture became; -1 for those that were not kept.
        """
        labelled = {row.tobytes() for row in cache.embeddings + np.float32(0)}
        fresh = np.array([row.tobytes() not in labelled for row in features + np.float32(0)], dtype=bool)
        weights = np.where(fresh, weights, 0.0)
        if not weights.any():
            return None, np.full(len(features), -1, dtype=np.intp)
        merged, position = ImageCache.build(features, np.zeros(len(features), dtype=np.intp), 1, weights)
        return cls(merged.keys, merged.weights.astype(np.float64) * merged.weight_unit), position

    def thinned(self, most: int) -> Pool:
        """The pool itself, or `most` of it that stand for all: evenly spaced in its order, which follows no class."""
        if len(self.keys) <= most:
            return self
        chosen = np.linspace(0, len(self.keys) - 1, most).round().astype(np.intp)
        weights = self.weights[chosen]
        return Pool(self.keys[chosen], weights * (self.weights.sum() / weights.sum()))
