"""From logits to probabilities and decisions."""

from __future__ import annotations

import numpy as np
import scipy.special
from numpy.typing import NDArray

TIE = 1e-12


def settle_ties(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits (n, C) where what falls short of the row's best by less than its probability shows is the best too.

    Otherwise the most probable class could be another one for the logits than for the probabilities.
    """
    best = logits.max(axis=1, keepdims=True)
    return np.where(logits > best - TIE, best, logits)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (n, C) of logits (n, C)."""
    probabilities: NDArray[np.float64] = scipy.special.softmax(logits, axis=1)
    return probabilities
