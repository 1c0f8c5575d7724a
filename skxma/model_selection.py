"""Few-shot splits, and the choice of hyper-parameters on validation images that are neither support nor test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.utils import check_consistent_length, check_random_state

from skxma._labels.arrays import split_unlabeled, with_spelling_of
from skxma._labels.groups import group_numbers
from skxma._sklearn_compat import Interval, StrOptions, num_samples

__all__ = ["Draw", "FewShotSplit", "Tuned", "UnlabeledInTraining", "tune", "validation_score"]

Indices = NDArray[np.intp]
FEW_VALIDATION_SHOTS = 4


class Draw(NamedTuple):
    """Positions of the samples of one split; no image is in two of them."""

    train: Indices
    validation: Indices
    test: Indices


class FewShotSplit(BaseEstimator):
    """Splits of `n_shots` images per class to learn from and the rest to test on, for scikit-learn's ``cv=``.

    With one `random_state` the images of fewer shots are among those of more.

    Parameters
    ----------
    n_shots : int, default=1
        Images of each class to learn from. With groups, a shot is a group: all views of one image.

    n_splits : int, default=5
        Number of random splits.

    validation : {"few", "full"}, int or None, default=None
        Images that are neither trained nor tested on, to choose hyper-parameters with: None keeps none apart (the
        validation-free protocol), "few" min(n_shots, 4) a class, "full" half of what the shots leave of each class, an
        int as many a class.

    random_state : int, RandomState instance or None, default=None
        Decides the splits; an int makes them the same in each call.

    unlabeled_label : str, number or None, default=None
        Value of `y` that marks an image without a label, as :class:`~skxma.XMAdapterClassifier` takes it. Such
        images are trained on in every split and never tested on; one whose group is held out is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from skxma.model_selection import FewShotSplit
    >>> y = np.repeat(["cat", "dog"], 4)
    >>> for train, test in FewShotSplit(n_shots=1, n_splits=2, random_state=0).split(y, y):
    ...     print(y[train], len(test))
    ['cat' 'dog'] 6
    ['cat' 'dog'] 6
    """

    # views of one image may be given as groups wherever scikit-learn routes metadata
    __metadata_request__split: ClassVar[dict[str, Any]] = {"groups": True}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_shots": [Interval(Integral, 1, None, closed="left")],
        "n_splits": [Interval(Integral, 1, None, closed="left")],
        "validation": [StrOptions({"few", "full"}), Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "unlabeled_label": [str, Integral, Real, None],
    }

    def __init__(
        self,
        n_shots: int = 1,
        n_splits: int = 5,
        *,
        validation: str | int | None = None,
        random_state: Any = None,
        unlabeled_label: Any = None,
    ) -> None:
        self.n_shots = n_shots
        self.n_splits = n_splits
        self.validation = validation
        self.random_state = random_state
        self.unlabeled_label = unlabeled_label

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of splits.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[Indices, Indices]]:
        """Yield the positions of the images to learn from and to test on.

        Parameters
        ----------
        X : sequence of length n_samples
            Only its length counts.
        y : array-like of shape (n_samples,)
            Labels.
        groups : array-like of shape (n_samples,), optional
            What belongs together, as the views of one image do; a group is never on both sides. A missing name is a
            group of one, as in a fit.

        Yields
        ------
        train, test : ndarray of int
            Ascending positions. Validation images are in neither.
        """
        for draw in self.draw(X, y, groups):
            yield draw.train, draw.test

    def draw(self, X: Any, y: Any, groups: Any = None) -> Iterator[Draw]:
        """Yield the positions of the images to learn from, to validate on and to test on.

        Parameters
        ----------
        X, y, groups
            As in `split`.

        Yields
        ------
        draw : Draw
            With ``train``, ``validation`` (empty without `validation`) and ``test``, ascending positions.

        Raises
        ------
        ValueError
            A class has too few images.
        """
        self._validate_params()
        if y is None:
            raise ValueError("FewShotSplit needs y: a shot is an image of a class.")
        check_consistent_length(X, y, groups)
        y, unlabeled = split_unlabeled(y, self.unlabeled_label)
        rows = np.arange(num_samples(y)) if unlabeled is None else np.flatnonzero(~unlabeled)
        belongs = None if groups is None else group_numbers(groups, num_samples(y))
        labels, members = self._check(y[rows], None if belongs is None else belongs[rows])
        rng = check_random_state(self.random_state)
        shots = self._validation_shots()
        for _ in range(self.n_splits):
            order = rng.permutation(int(members.max()) + 1 if len(members) else 0)
            sides = assign(labels, members, order, self.n_shots, shots)[members]
            draw = Draw(*(rows[sides == side] for side in range(3)))
            yield draw if unlabeled is None else joined_by(draw, np.flatnonzero(unlabeled), belongs)

    def _validation_shots(self) -> int | None:
        """Validation images per class; None stands for half of the rest."""
        if self.validation == "full":
            return None
        if self.validation == "few":
            return min(self.n_shots, FEW_VALIDATION_SHOTS)
        return 0 if self.validation is None else int(self.validation)

    def _check(self, y: NDArray[Any], groups: Any) -> tuple[Indices, Indices]:
        """Class and group of each sample as numbers from 0; refuse classes that are too small."""
        names, labels = np.unique(y, return_inverse=True)
        members = np.arange(num_samples(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        shots = self._validation_shots()
        needed = self.n_shots + (1 if shots is None else shots) + 1
        held = np.unique(np.c_[labels, members], axis=0)[:, 0]
        for name, count in zip(names.tolist(), np.bincount(held, minlength=len(names)), strict=True):
            if count < needed:
                one, several = ("image", "images") if groups is None else ("group of images", "groups of images")
                raise ValueError(
                    f"class {name!r} has {count} {one if count == 1 else several}, but n_shots={self.n_shots} with "
                    f"validation={self.validation!r} and one to test on needs {needed}. Lower n_shots, add images, "
                    "or leave the class out."
                )
        return labels, members


def joined_by(draw: Draw, unlabeled: Indices, groups: NDArray[Any] | None) -> Draw:
    """A draw with the samples without a label to train on, but for those whose group is validated or tested on."""
    if groups is not None:
        held_out = groups[np.concatenate([draw.validation, draw.test])]
        unlabeled = unlabeled[~np.isin(groups[unlabeled], held_out)]
    return draw._replace(train=np.sort(np.concatenate([draw.train, unlabeled])))


class UnlabeledInTraining(BaseEstimator):
    """Any splitter over the labeled samples; those without a label are trained on in each fold and never tested on.

    Parameters
    ----------
    cv : int, cross-validation splitter or iterable, default=5
        As in `GridSearchCV`; an int makes stratified folds. It sees the labeled samples alone.

    unlabeled_label : str or number, default=-1
        What stands in `y` for a sample without a label, as :class:`~skxma.XMAdapterClassifier` takes it.

    Examples
    --------
    >>> from skxma.model_selection import UnlabeledInTraining
    >>> y = [0, 0, 1, 1, -1, -1]
    >>> for train, test in UnlabeledInTraining(cv=2).split(y, y):
    ...     print(train, test)
    [1 3 4 5] [0 2]
    [0 2 4 5] [1 3]
    """

    __metadata_request__split: ClassVar[dict[str, Any]] = {"groups": True}

    def __init__(self, cv: Any = 5, unlabeled_label: Any = -1) -> None:
        self.cv = cv
        self.unlabeled_label = unlabeled_label

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds.

        Parameters
        ----------
        X, y, groups : object
            As the splitter takes them.

        Returns
        -------
        n_splits : int
        """
        if y is None:
            return int(check_cv(self.cv, classifier=True).get_n_splits(None, None, groups))
        rows, labels, _, of_all = self._labeled_part(y, groups)
        belongs = None if of_all is None else of_all[rows]
        return int(check_cv(self.cv, labels, classifier=True).get_n_splits(rows, labels, belongs))

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[Indices, Indices]]:
        """Yield the positions of the samples to learn from and to test on.

        Parameters
        ----------
        X : sequence of length n_samples
            Only its length counts.
        y : array-like of shape (n_samples,)
        groups : array-like of shape (n_samples,), optional
            Samples without a label whose group is tested on are left out.

        Yields
        ------
        train, test : ndarray of int
        """
        check_consistent_length(X, y, groups)
        rows, labels, unlabeled, of_all = self._labeled_part(y, groups)
        belongs = None if of_all is None else of_all[rows]
        nothing = np.empty(0, dtype=np.intp)
        for train, test in check_cv(self.cv, labels, classifier=True).split(rows, labels, belongs):
            draw = joined_by(Draw(rows[train], nothing, rows[test]), unlabeled, of_all)
            yield draw.train, draw.test

    def _labeled_part(self, y: Any, groups: Any) -> tuple[Indices, NDArray[Any], Indices, NDArray[Any] | None]:
        """Positions and labels of the labeled samples, positions of the others, groups of all."""
        y, marked = split_unlabeled(y, self.unlabeled_label)
        marked = np.zeros(num_samples(y), dtype=bool) if marked is None else marked
        rows = np.flatnonzero(~marked)
        of_all = None if groups is None else group_numbers(groups, num_samples(y))
        return rows, y[rows], np.flatnonzero(marked), of_all


def assign(labels: Indices, members: Indices, order: Indices, n_shots: int, n_validation: int | None) -> Indices:
    """Side of each group (n_groups,): 0 train, 1 validation, 2 test.

    Parameters
    ----------
    labels, members : ndarray of shape (n_samples,)
        Class and group of each sample.
    order : ndarray of shape (n_groups,)
        Groups, those to be taken first first.
    n_shots : int
        Groups of each class to train on. A group of several classes counts for all of them.
    n_validation : int or None
        Groups of each class to validate on; None takes half of those that are left.
    """
    sides = np.full(len(order), 2, dtype=np.intp)
    place = np.argsort(order)
    by_class = [np.unique(members[labels == label]) for label in range(int(labels.max()) + 1)]
    for side, wanted in ((0, n_shots), (1, n_validation)):
        for groups in by_class:
            free = groups[sides[groups] == 2]
            n_taken = np.count_nonzero(sides[groups] == side)
            target = (len(free) + n_taken) // 2 if wanted is None else wanted
            # at least one group of each class is left to test on
            n_more = min(max(0, target - n_taken), len(free) - 1)
            sides[free[np.argsort(place[free])][:n_more]] = side
    return sides


@dataclass(frozen=True)
class Tuned:
    """Result of :func:`tune`.

    Attributes
    ----------
    estimator : object
        The best candidate, fitted on the support images alone.
    parameters : dict
        What was set for it; empty where the estimator's own parameters were the best.
    score : float
        Its accuracy on the validation images.
    n_candidates : int
    """

    estimator: Any
    parameters: dict[str, Any]
    score: float
    n_candidates: int


def tune(
    estimator: Any,
    X: Any,
    y: Any,
    X_validation: Any,
    y_validation: Any,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> Tuned:
    """Choose hyper-parameters by the accuracy on validation images, as the papers' protocols do.

    The validation images choose and are not learned from. Of equal accuracies the one with the likelier labels wins,
    which the papers leave to the order of the grid. The estimator's own parameters are a candidate too.

    Parameters
    ----------
    estimator : classifier
        A few-shot classifier, or another with `predict_proba`, such as a pipeline.
    X, y
        Support images and their labels.
    X_validation, y_validation
        Validation images and their labels; see `FewShotSplit.draw`.
    grid : mapping from parameter to candidates, optional
        Defaults to the estimator's `search_grid`; without one nothing is searched.

    Returns
    -------
    tuned : Tuned

    Raises
    ------
    ValueError
        No validation images.
    """
    if not num_samples(y_validation):
        raise ValueError("there are no validation images; use FewShotSplit(validation='few') or 'full' to draw some.")
    split_unlabeled(y_validation, parameter="y_validation")
    grid = getattr(estimator, "search_grid", {}) if grid is None else grid
    candidates = [{}, *(ParameterGrid(dict(grid)) if grid else [])]
    best, best_score = None, (-1.0, 0.0)
    for parameters in candidates:
        fitted = clone(estimator).set_params(**parameters).fit(X, y)
        score = validation_score(fitted, X_validation, y_validation)
        if score > best_score:
            best, best_score = Tuned(fitted, parameters, score[0], len(candidates)), score
    assert best is not None
    return best


def validation_score(fitted: Any, X: Any, y: Any) -> tuple[float, float]:
    """Accuracy and mean log-probability of the labels.

    Parameters
    ----------
    fitted : classifier
        Any with `predict_proba`, a pipeline too, that knows all labels.
    X, y
        Images and their labels.

    Returns
    -------
    accuracy, log_probability : float
    """
    labels = with_spelling_of(split_unlabeled(y, parameter="y_validation")[0], fitted.classes_)
    probabilities = fitted.predict_proba(X)
    own = probabilities[np.arange(len(labels)), np.searchsorted(fitted.classes_, labels)]
    accuracy = np.mean(fitted.classes_[probabilities.argmax(1)] == labels)
    return float(accuracy), float(np.log(np.maximum(own, np.finfo(float).tiny)).mean())
