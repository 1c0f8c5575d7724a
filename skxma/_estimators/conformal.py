"""Calibration of prediction sets: cross-fitting of any classifier, full conformal prediction of one that refits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._estimators.task import Task, known_classes
from skxma._evidence.fitted import FitReport, LeftOutPredictions
from skxma._sampling import stratified_folds
from skxma._statistics import Calibration, full_p_value, nonconformity, own_nonconformity, samples_needed
from skxma.caches import Floats, ImageCache

N_FOLDS = 5
# of a fold's fit, what no prediction reads
UNREAD = ("sample_names_", "soft_labels_", "unlabeled_cache_", "unlabeled_position_")


def cross_fit(clf: Any, task: Task) -> dict[str, Any]:
    """Fit a classifier without each fold of a task, and score the fold.

    Everything that is learned or chosen is so without the fold.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Not fitted.
    task : Task

    Returns
    -------
    fitted : dict
        The attributes `calibration_` and `fold_fits_`.
    """
    cache = task.cache
    folds = np.unique(stratified_folds(cache.labels, N_FOLDS, cache.groups), return_inverse=True)[1]
    scores, fits = np.empty(len(folds)), []
    for fold in range(folds.max() + 1):
        out = folds == fold
        part = task.without(out)
        fitted = {**part.fitted, **clf._fit_support(part)}
        model = clf._fitted_as(fitted)
        scores[out] = scores_by(model, cache.embeddings[out])[np.arange(out.sum()), cache.labels[out]]
        fits.append({name: value for name, value in fitted.items() if name not in UNREAD})
    calibration = Calibration(scores, cache.labels, calibration_weights(cache), folds)
    return {"calibration_": calibration, "fold_fits_": fits}


def scores_by(model: Any, features: Floats) -> NDArray[np.float64]:
    """Nonconformity (n, C) of each class for embeddings (n, D), by a fitted classifier.

    A class of which a fold has neither image nor text conforms to nothing.
    """
    logits = model._score_embeddings(features, model._scorer)
    known = known_classes(model.image_cache_, model.text_features_)
    return nonconformity(np.where(known, logits, -np.inf))


def calibration_weights(cache: ImageCache) -> NDArray[np.float64]:
    """Weights (N,) of the keys, in the unit of a new image, which has the mean weight; a group counts as one."""
    return cache.weights / cache.weights.mean() * cache.independence


def left_out_calibration(cache: ImageCache, left_out: LeftOutPredictions) -> Calibration:
    """Calibrate on the left-out predictions of a fit, which is one model for all samples of its cache."""
    rows = np.arange(len(cache.labels)) if left_out.rows is None else left_out.rows
    labels, weights = cache.labels[rows], calibration_weights(cache)[rows]
    return Calibration(own_nonconformity(left_out.logits, labels), labels, weights, np.zeros_like(labels))


def full_p_values(
    task: Task, refit: Callable[[ImageCache], FitReport[Any]], features: Floats, by_class: bool
) -> NDArray[np.float64]:
    """P-values (n, C) of full conformal prediction, by C fits per image.

    Parameters
    ----------
    task : Task
    refit : callable
        Fits on a cache, and leaves each of its samples out in the same way.
    features : ndarray of shape (n, D)
        L2-normalized embeddings.
    by_class : bool
        See `Calibration.p_values`.
    """
    cache = task.cache
    n_classes = cache.n_classes
    text = None if task.text is None else task.text_features
    weights = np.append(cache.weights, cache.weights.mean())
    groups = None if cache.groups is None else np.append(cache.groups, cache.groups.max() + 1)
    p_values = np.empty((len(features), n_classes))
    for i, image in enumerate(features):
        rows = np.concatenate([cache.embeddings, image[None]])
        for c in range(n_classes):
            labels = np.append(cache.labels, c)
            extended, position = ImageCache.build(rows, labels, n_classes, weights, text, groups, cache.blocks)
            left_out = left_out_calibration(extended, refit(extended).left_out)
            counted = np.where(left_out.labels == c, left_out.weights, 0.0) if by_class else left_out.weights
            p_values[i, c] = full_p_value(left_out.scores, counted, position[-1])
    return p_values


def check_levels(given: Any) -> list[float]:
    """The levels that a caller asks for, as a list."""
    levels = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"confidence_level={given!r} is not one or several numbers between 0 and 1, such as 0.9.")
    found: list[float] = levels.tolist()
    return found


def check_calibrated(clf: Any) -> None:
    """Refuse a fitted classifier that keeps nothing to calibrate sets by."""
    if clf.conformal == "full" or hasattr(clf, "calibration_"):
        return
    name = type(clf).__name__
    if clf.conformal == "loo":
        raise ValueError(
            f"This {name} keeps no left-out scores for prediction sets: evidence='paper' sees every sample, and fits "
            "with conformal=None and models of earlier releases keep none. Fit it again; with evidence='paper' that "
            "needs conformal='cross'."
        )
    raise ValueError(f"This {name} was fitted with conformal=None; fit it with conformal='cross' for prediction sets.")


def can_give(clf: Any, level: float) -> bool:
    """Tell whether a fitted classifier has sets of a level at the cost of a prediction."""
    return hasattr(clf, "calibration_") and round(clf.calibration_.weights.sum()) >= samples_needed(level)


def check_support(clf: Any, levels: list[float], class_conditional: bool) -> None:
    """Refuse levels at which the labeled samples of a fitted classifier are too few to leave a class out."""
    check_calibrated(clf)
    shots = clf.image_cache_.independent_shots
    if hasattr(clf, "calibration_"):
        shots = np.bincount(clf.calibration_.labels, clf.calibration_.weights, minlength=len(clf.classes_))
    n = round(shots.sum())
    level = max(levels)
    needed = samples_needed(level)
    if not class_conditional:
        if n < needed:
            raise ValueError(
                f"Sets of confidence level {level:g} need {needed} different labeled images or more, and this model "
                f"has {n}: with fewer, every set holds every class. Label more images, or ask for a level of "
                f"at most {n / (n + 1):.3g}."
            )
        return
    shots = np.round(shots).astype(int)
    few = np.flatnonzero(shots < needed)
    if len(few):
        named = ", ".join(f"{clf.classes_[c]} ({shots[c]})" for c in few[:5]) + (", …" if len(few) > 5 else "")
        raise ValueError(
            f"Class-conditional sets of confidence level {level:g} need {needed} different labeled images or more in "
            f"every class; too few have: {named}. Label more of them, or leave class_conditional out."
        )
