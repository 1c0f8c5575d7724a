"""Calibration of prediction sets: cross-fitting of any classifier, full conformal prediction of one that refits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skxma._estimators.task import Task
from skxma._evidence.fitted import FitReport, LeftOutPredictions
from skxma._sampling import stratified_folds
from skxma._statistics import (
    P_VALUE_ROUNDING,
    Calibration,
    Doubles,
    Masks,
    frequency_ratio,
    full_p_value,
    kept_log_proba,
    nonconformity,
    samples_needed,
    simulated_nonconformity,
)
from skxma.caches import Floats, ImageCache

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

CROSS_FOLDS = 5
"""Folds of ``conformal="cross"``, each of which costs a fit: the usual number, not tuned. A model without a fold knows
four of five samples."""
# of a fold's fit, what no prediction reads
UNREAD = ("sample_names_", "soft_labels_", "unlabeled_cache_", "unlabeled_position_")


def cross_fit(clf: BaseFewShotClassifier, task: Task) -> dict[str, Any]:
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
        The attributes `calibration_` and `fold_fits_`; none where there is one fold, without which nothing is left.
    """
    cache = task.cache
    folds = np.unique(stratified_folds(cache.labels, CROSS_FOLDS, cache.groups), return_inverse=True)[1]
    if folds.max() == 0:
        return {}
    scores, log_proba, fits = np.empty(len(folds)), np.empty((len(folds), cache.n_classes), dtype=np.float16), []
    for fold in range(folds.max() + 1):
        out = folds == fold
        part = task.without(out)
        fitted = {**part.fitted, **clf._fit_support(part)}
        model = clf._fitted_as(fitted)
        found = scores_by(model, cache.embeddings[out])
        scores[out], log_proba[out] = found[np.arange(out.sum()), cache.labels[out]], kept_log_proba(-found)
        fits.append({name: value for name, value in fitted.items() if name not in UNREAD})
    calibration = Calibration(scores, cache.labels, calibration_weights(cache), folds, log_proba)
    return {"calibration_": calibration, "fold_fits_": fits}


def scores_by(model: BaseFewShotClassifier, features: Floats, prior: Doubles | None = None) -> Doubles:
    """Nonconformity (n, C) of each class for embeddings (n, D), by a fitted classifier.

    A class of which a fold has neither image nor text conforms to nothing.

    Parameters
    ----------
    model : BaseFewShotClassifier
    features : ndarray of shape (n, D)
    prior : ndarray of shape (C,), optional
        Class frequencies of the images, in place of those for which the logits hold.
    """
    logits = model._score_embeddings(features, model._scorer)
    known = model.image_cache_.known_classes(model.text_features_)
    return nonconformity(np.where(known, logits if prior is None else logits + shift_to(prior, model), -np.inf))


def shift_to(prior: Doubles, model: BaseFewShotClassifier) -> Doubles:
    """Shift (C,) of a fitted classifier's logits under class frequencies (C,)."""
    with np.errstate(divide="ignore"):
        shift: Doubles = np.log(prior / model._base_frequencies())
    return shift


def p_values(
    calibration: Calibration,
    models: Sequence[BaseFewShotClassifier],
    features: Floats,
    by_class: bool,
    prior: Doubles | None,
) -> Doubles:
    """P-values (n, C) of embeddings (n, D).

    Parameters
    ----------
    calibration : Calibration
    models : sequence of BaseFewShotClassifier
        Those that made its scores.
    features : ndarray of shape (n, D)
        L2-normalized.
    by_class : bool
        See `Calibration.p_values`.
    prior : ndarray of shape (C,) or None
        Class frequencies of the images; None for those of the labeled images.
    """
    scores = [scores_by(model, features, prior) for model in models]
    if prior is None:
        return calibration.p_values(scores, by_class)
    ratio = frequency_ratio(prior, calibration.labels, calibration.weights)
    shifted = calibration.at_frequencies(np.stack([shift_to(prior, model) for model in models]), ratio)
    return shifted.p_values(scores, by_class, ratio)


def sets_of_one_model(
    calibration: Calibration, model: BaseFewShotClassifier, features: Floats, levels: Sequence[float]
) -> Masks:
    """Sets (n, C, n_levels) of embeddings (n, D), where one model has made all scores of the calibration.

    They are those of the p-values (`prediction_sets`), and take less time: one comparison for each class and level.
    """
    return scores_by(model, features)[:, :, None] <= calibration.largest_scores(levels)


def calibration_weights(cache: ImageCache) -> NDArray[np.float64]:
    """Weights (N,) of the keys, in the unit of a new image, which has the mean weight; a group counts as one."""
    return cache.weights / cache.weights.mean() * cache.independence


def left_out_calibration(cache: ImageCache, left_out: LeftOutPredictions, all_classes: bool) -> Calibration:
    """Calibrate on the left-out predictions of a fit, which is one model for all samples of its cache.

    Parameters
    ----------
    cache : ImageCache
    left_out : LeftOutPredictions
    all_classes : bool
        Whether the probabilities of all classes are kept, which other class frequencies need.
    """
    rows = np.arange(len(cache.labels)) if left_out.rows is None else left_out.rows
    labels, weights = cache.labels[rows], calibration_weights(cache)[rows]
    scores = nonconformity(left_out.logits)
    kept = kept_log_proba(-scores) if all_classes else None
    own = scores[np.arange(len(rows)), labels]
    simulated = None if left_out.own is None else simulated_nonconformity(left_out.logits, left_out.own, labels)
    return Calibration(own, labels, weights, np.zeros_like(labels), kept, simulated)


def keeps_all_classes(cache: ImageCache) -> bool:
    """Tell whether a fit keeps the left-out probabilities of all classes: where a model file grows by half at most.

    They are of half precision, and of each sample the file holds embedding and key in single precision.
    """
    return cache.n_classes <= 2 * cache.keys.shape[1]


def full_p_values(
    task: Task,
    refit: Callable[[ImageCache], FitReport[Any]],
    features: Floats,
    by_class: bool,
    shift: Doubles | None = None,
    prior: Doubles | None = None,
) -> Doubles:
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
    shift, prior : ndarray of shape (C,), optional
        What the class frequencies of the images add to the logits, and the frequencies; both or neither.
    """
    cache = task.cache
    ratio = None if prior is None else frequency_ratio(prior, cache.labels, calibration_weights(cache))
    n_classes = cache.n_classes
    text = None if task.text is None else task.text_features
    weights = np.append(cache.weights, cache.weights.mean())
    groups = None if cache.groups is None else np.append(cache.groups, cache.groups.max() + 1)
    p_values = np.zeros((len(features), n_classes))
    possible = range(n_classes) if ratio is None else np.flatnonzero(ratio)
    for i, image in enumerate(features):
        rows = np.concatenate([cache.embeddings, image[None]])
        for c in possible:
            labels = np.append(cache.labels, c)
            extended, position = ImageCache.build(rows, labels, n_classes, weights, text, groups, cache.blocks)
            left_out = left_out_calibration(extended, refit(extended).left_out, shift is not None)
            if shift is not None and ratio is not None:
                left_out = left_out.at_frequencies(shift[None], ratio)
            counted = np.where(left_out.labels == c, left_out.weights, 0.0) if by_class else left_out.weights
            p_values[i, c] = full_p_value(left_out.equally_likely_scores, counted, position[-1])
    return p_values


def as_levels(given: Any) -> list[float]:
    """The levels that a caller asks for as a list; refused where they are none."""
    levels = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"confidence_level={given!r} is not one or several numbers between 0 and 1, such as 0.9.")
    found: list[float] = levels.tolist()
    return found


def check_calibrated(clf: BaseFewShotClassifier) -> None:
    """Refuse a fitted classifier that keeps nothing to calibrate sets by."""
    if clf.conformal == "full" or hasattr(clf, "calibration_"):
        return
    raise ValueError(
        f"This {type(clf).__name__} keeps no left-out scores for prediction sets: it was fitted with conformal=None, "
        "'full', or 'loo' and evidence='paper', on one labeled image or group alone, or by an earlier release. Fit it "
        "again with conformal='cross'."
    )


def can_give(clf: BaseFewShotClassifier, level: float) -> bool:
    """Tell whether a fitted classifier has sets of a level at the cost of a prediction."""
    return hasattr(clf, "calibration_") and round(clf.calibration_.weights.sum()) >= samples_needed(level)


def calibration_shots(clf: BaseFewShotClassifier) -> Doubles:
    """Number (C,) of independent labeled images of each class that calibrate the sets of a fitted classifier."""
    if not hasattr(clf, "calibration_"):
        return clf.image_cache_.independent_shots
    labels, weights = clf.calibration_.labels, clf.calibration_.weights
    shots: Doubles = np.bincount(labels, weights, clf.image_cache_.n_classes).astype(np.float64)
    return shots


def check_support(
    clf: BaseFewShotClassifier, levels: list[float], class_conditional: bool, prior: Doubles | None = None
) -> None:
    """Refuse levels at which the labeled samples of a fitted classifier are too few to leave a class out.

    Parameters
    ----------
    clf : BaseFewShotClassifier
    levels : list of float
    class_conditional : bool
    prior : ndarray of shape (C,), optional
        Class frequencies of the images.
    """
    check_calibrated(clf)
    level, shots = max(levels), calibration_shots(clf)
    needed = samples_needed(level)
    if class_conditional:
        few = np.flatnonzero((np.round(shots).astype(int) < needed) & (True if prior is None else prior > 0))
        if len(few):
            named = ", ".join(f"{clf.classes_[c]} ({shots[c]:.0f})" for c in few[:5]) + (", …" if len(few) > 5 else "")
            raise ValueError(
                f"Class-conditional sets of confidence level {level:g} need {needed} different labeled images or more "
                f"in every class; too few have: {named}. Label more of them, or leave class_conditional out."
            )
    elif prior is None:
        n = round(shots.sum())
        if n < needed:
            raise ValueError(
                f"Sets of confidence level {level:g} need {needed} different labeled images or more, and this model "
                f"has {n}: with fewer, every set holds every class. Label more images, or ask for a level of "
                f"at most {n / (n + 1):.3g}."
            )
    else:
        check_level_under_prior(clf, level, shots, prior)


def check_prior(clf: BaseFewShotClassifier, prior: Doubles | None) -> None:
    """Refuse a class prior where a fitted classifier has no scores for it.

    Parameters
    ----------
    clf : BaseFewShotClassifier
    prior : ndarray of shape (C,) or None
        None where it is yet to be estimated.
    """
    check_calibrated(clf)
    if hasattr(clf, "calibration_") and clf.calibration_.log_proba is None:
        raise ValueError(
            f"This {type(clf).__name__} keeps no left-out probabilities of all {len(clf.classes_)} classes, which sets "
            "with a class_prior need: models of earlier releases do not, nor does conformal='loo' with more than twice "
            "as many classes as features. Fit it with conformal='cross'."
        )
    if prior is not None and not prior[calibration_shots(clf) > 0].any():
        raise ValueError(
            "class_prior gives shares to classes without labeled images alone, so that nothing calibrates the sets. "
            "Label images of these classes."
        )


def check_level_under_prior(clf: BaseFewShotClassifier, level: float, shots: Doubles, prior: Doubles) -> None:
    """Refuse a level at which no class can be left out, from samples (C,) of classes of some frequencies (C,)."""
    held = (shots > 0) & (prior > 0)
    # the p-value of a class is at least its weight over that of all
    needed = np.ceil((1 / (1 - level) - 1) * prior / prior[held].sum() - P_VALUE_ROUNDING)
    missing = np.where(held, needed - np.round(shots), np.inf)
    c = int(missing.argmin())
    if missing[c] > 0:
        raise ValueError(
            f"Sets of confidence level {level:g} need {needed[c]:.0f} different labeled images or more of "
            f"{clf.classes_[c]} under this class_prior, and this model has {shots[c]:.0f}: with fewer, every set holds "
            "every class. Label more images, or ask for a lower level."
        )
