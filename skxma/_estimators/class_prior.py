"""Class frequencies of new images: what `class_prior` accepts, and what it makes of logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skxma import functional as F
from skxma._estimators.scoring import settle_ties
from skxma._labels.arrays import composed, listed
from skxma._labels.by_label import has_index
from skxma._statistics import ClassPriorEstimator, class_shares
from skxma.caches import ImageCache
from skxma.embeddings import host_array

FROM_BATCH = "batch"
SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class ClassPrior:
    """Class frequencies of the images that are to be predicted.

    Attributes
    ----------
    shares : ndarray of shape (C,) or None
        None where they are estimated from the images.
    """

    shares: NDArray[np.float64] | None

    @classmethod
    def of(cls, given: Any, classes: NDArray[Any]) -> ClassPrior:
        """The class frequencies of a `class_prior` other than None, for the classes of a model (C,).

        Raises
        ------
        ValueError
            Another word than "batch"; a label that is no class, a class without a share; another number of shares than
            of classes; shares that are no numbers, negative, or do not sum to 1 (within 0.01, for rounded ones).
        """
        if isinstance(given, str):
            if given != FROM_BATCH:
                raise ValueError(
                    f"class_prior={given!r} must be {FROM_BATCH!r}, a share for each of the {len(classes)} classes, or "
                    "a mapping {label: share}."
                )
            return cls(None)
        if has_index(given):
            given = given.to_dict()
        return cls(_checked(_of_mapping(given, classes) if isinstance(given, Mapping) else given, classes))

    def apply(self, logits: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits (n, C) under these frequencies, from those that hold for the frequencies `base` (C,)."""
        prior = self.frequencies(logits, base)
        return settle_ties(F.shift_class_prior(*map(torch.as_tensor, (logits, prior, base))).numpy())

    def frequencies(self, logits: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
        """The frequencies (C,): those given, or the estimate from logits (n, C) that hold for `base` (C,)."""
        if self.shares is not None:
            return self.shares
        found: NDArray[np.float64] = ClassPriorEstimator().estimate(*map(torch.as_tensor, (logits, base))).numpy()
        return found


def base_frequencies(cache: ImageCache, learned: bool) -> NDArray[np.float64]:
    """Class frequencies (C,) that logits assume: the shares of the support set where they are learned, else equal."""
    mass = np.bincount(cache.labels, cache.weights.astype(np.float64), cache.n_classes)
    shares: NDArray[np.float64] = class_shares(torch.as_tensor(mass if learned else np.ones_like(mass))).numpy()
    return shares


def _of_mapping(given: Mapping[Any, Any], classes: NDArray[Any]) -> list[Any]:
    """The shares of a mapping in the order of the classes."""
    labels = classes.tolist()
    held = {composed(label): share for label, share in given.items()}
    known = {composed(label) for label in labels}
    unknown = [label for label in held if label not in known]
    if unknown:
        raise ValueError(
            f"class_prior has shares of {listed(unknown)}, which the model does not know; its classes are "
            f"{listed(labels)}."
        )
    missing = [label for label in labels if composed(label) not in held]
    if missing:
        raise ValueError(
            f"class_prior has no share of {listed(missing)}. Give every class one; 0 for a class that cannot occur."
        )
    return [held[composed(label)] for label in labels]


def _checked(given: Any, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Shares (C,) that sum to 1."""
    try:
        shares = np.asarray(host_array(given), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"class_prior must hold numbers, one share for each class; got {given!r}.") from None
    if shares.shape != classes.shape:
        raise ValueError(
            f"class_prior has shape {shares.shape}; the model has {len(classes)} classes, and each needs a share, in "
            "the order of classes_."
        )
    wrong = ~(np.isfinite(shares) & (shares >= 0))
    if wrong.any():
        of = {label: float(share) for label, share in zip(classes[wrong].tolist(), shares[wrong], strict=True)}
        raise ValueError(f"class_prior must be finite and not negative; got {listed(list(of.items()))}.")
    if abs(shares.sum() - 1) > SUM_TOLERANCE:
        raise ValueError(f"class_prior sums to {shares.sum():.4g}; shares sum to 1. Divide counts by their sum.")
    return shares / shares.sum()
