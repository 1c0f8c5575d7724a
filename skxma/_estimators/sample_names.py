"""Names of the samples that a classifier was fitted on: the paths of their images, for those who look into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skxma._sklearn_compat import num_samples
from skxma.errors import ImageError
from skxma.images._sources import path_of
from skxma.images._validation import as_items

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

Names = NDArray[np.object_]


def names_of(X: Any) -> Names | None:
    """Return the paths of images (n_samples,) as they were given, None for an image that has none.

    Parameters
    ----------
    X : sequence of images, or array-like of shape (n_samples, n_features)

    Returns
    -------
    names : ndarray of shape (n_samples,) of str or None, or None
        None where no sample has a path, as with embeddings.
    """
    try:
        items = as_items(X)
    except ImageError:
        return None
    # a stack of pixels has no paths
    return None if isinstance(items, np.ndarray) else as_names([path_of(item) for item in items])


def names_with(clf: BaseFewShotClassifier, X: Any) -> Names | None:
    """Return the names of the samples that a fitted classifier remembers together with new ones.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted, before `partial_fit` changes it.
    X : sequence of images, or array-like of shape (n_samples, n_features)
        The new samples.
    """
    labeled, pool = _held(clf)
    fresh = names_of(X)
    return as_names([*labeled, *([None] * num_samples(X) if fresh is None else fresh), *pool])


def names_without(clf: BaseFewShotClassifier, kept: NDArray[np.bool_]) -> Names | None:
    """Return the names of the samples that a fitted classifier remembers, but for some of those with labels.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted, before `drop` changes it.
    kept : bool ndarray of shape (n_labeled + n_unlabeled,)
        Which samples with labels are kept; those without are kept anyway.
    """
    labeled, pool = _held(clf)
    return as_names([*(name for name, stays in zip(labeled, kept, strict=False) if stays), *pool])


def _held(clf: BaseFewShotClassifier) -> tuple[list[str | None], list[str | None]]:
    """Names of the samples with labels that a classifier remembers, and of those without, which it only summarizes."""
    held = np.flatnonzero(clf.sample_position_ >= 0)
    names = getattr(clf, "sample_names_", None)
    pool = getattr(clf, "unlabeled_cache_", None)
    labeled = [None] * len(held) if names is None else names[held].tolist()
    return labeled, [None] * (0 if pool is None else len(pool.keys))


def as_names(names: list[str | None]) -> Names | None:
    """Return names as an array, None where no sample has one."""
    if not any(names):
        return None
    array = np.empty(len(names), dtype=object)
    array[:] = names
    return array
