"""The table of the classes of a fit: which class is which row, settled before any long work."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from skxma._labels.arrays import (
    composed,
    distinct,
    exact_array,
    is_marker,
    is_missing,
    listed,
    members,
    split_unlabeled,
)
from skxma._labels.by_label import Name, names_by_label, text_by_label
from skxma._runtime.warning import warn
from skxma.embeddings import host_array
from skxma.prompts import clean_name

# Strings that numpy and pandas write for a missing value
WRITTEN_MISSING = ("nan", "None", "<NA>", "NaT")


@dataclass(frozen=True)
class ClassTable:
    """The classes of a fit.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Sorted labels, including classes that have a text but no image.
    indices : ndarray of shape (n_samples,)
        Position of each sample's label in `classes`.
    names : list of (str, sequence of str or None), or None
        The name of each class in the prompts; None where no class has one.
    text : ndarray of shape (C, n_features) or (C, n_prompts, n_features), float64, or None
        The caller's text features in the order of `classes`, of each class or of its prompts; a zero row is a class
        without text, or no prompt.
    """

    classes: NDArray[Any]
    indices: NDArray[np.intp]
    names: list[Name | None] | None
    text: NDArray[np.float64] | None

    def without(self, dropped: NDArray[Any]) -> ClassTable:
        """Return the table without some classes, to which no sample may belong."""
        stay = ~members(self.classes, dropped)
        position = np.cumsum(stay) - 1
        return ClassTable(
            self.classes[stay],
            position[self.indices],
            None if self.names is None else [name for name, kept in zip(self.names, stay, strict=True) if kept],
            None if self.text is None else self.text[stay],
        )


def resolve_classes(
    y: Any,
    class_names: Any = None,
    text_features: Any = None,
    kept: NDArray[np.bool_] | None = None,
    *,
    announced: Sequence[Any] | None = None,
    known: NDArray[Any] | None = None,
    marker: Any = None,
) -> ClassTable:
    """Settle the classes of `y`, their names and their rows of text.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    class_names : mapping label -> name, sequence of names, or None
        A sequence is indexed by integer labels; string labels must be among it. A pandas Series is a mapping from its
        index where that holds the labels. Values may be several names, or None for a class without text.
    text_features : mapping label -> vector, array-like of shape (C, n_features), or None
        A vector may be those of several prompts (n_prompts, n_features). Rows follow `class_names` where that is given,
        else integer labels index them and other labels sort. A pandas frame is aligned by its index, which holds labels
        or names.
    kept : bool ndarray of shape (n_samples,), optional
        Samples that count; labels of others make no class.
    announced : sequence of labels, optional
        Further classes, with or without samples.
    known : ndarray of labels, optional
        Classes that stay where neither `class_names` nor `text_features` lists the classes.
    marker : str, number or None
        The marker of no label, which is no class.

    Raises
    ------
    ValueError
        A label without a name or a row, one that is missing or of another kind, fewer than two classes, or no sample
        that counts.
    TypeError
        Labels of bytes.
    """
    y = split_unlabeled(y)[0]
    with warnings.catch_warnings():
        # few shots of many classes look like a regression to scikit-learn
        warnings.filterwarnings("ignore", message="The number of unique classes")
        check_classification_targets(y)
    seen = np.unique(y if kept is None else y[kept])
    if not len(seen):
        raise ValueError("y has no sample of positive weight." if len(y) else "y is empty; give some labeled images.")
    forms = {composed(label): label for label in seen.tolist()}
    named = None if class_names is None else names_by_label(class_names, seen, forms)
    rows = None if text_features is None else text_by_label(text_features, seen, named, forms)
    tables = [
        (table, parameter)
        for table, parameter in ((named, "class_names"), (rows, "text_features"))
        if table is not None
    ]
    further: list[Any] = []
    for table, parameter in tables:
        _refuse_strangers(seen.tolist(), table, parameter, "y holds")
        _refuse_strangers(list(announced or []), table, parameter, "classes announces")
        if any(is_marker(key, marker) for key in table):
            raise ValueError(
                f"{parameter} names {marker!r}, which unlabeled_label says is no class; leave it out of {parameter}."
            )
        further += table
    further += announced or []
    if known is not None and not tables:
        further += known.tolist()
    classes = _with_further(seen, [forms.setdefault(composed(label), label) for label in further])
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class, {seen.tolist()[0]!r}; a classifier needs at least two. Add images of another class, "
            "or name further classes in class_names."
        )
    keys = classes.tolist()
    strings = isinstance(keys[0], str)
    if strings and named is None:
        # a label of signs alone is better than no name
        named = {key: clean_name(key) or key for key in keys}
        _warn_of_namesakes(named)
    if strings and class_names is None:
        _warn_of_written_missing(seen.tolist())
    indices = np.searchsorted(classes, y.astype(classes.dtype))
    if kept is not None:
        indices = np.where(kept, indices, 0)
    return ClassTable(
        classes,
        indices.astype(np.intp),
        None if named is None else [named.get(key) for key in keys],
        None if rows is None else _stacked_text(rows, keys),
    )


def announced_classes(
    classes: Any, y: NDArray[Any], unlabeled: NDArray[np.bool_] | None, marker: Any, known: NDArray[Any] | None = None
) -> list[Any] | None:
    """Return the labels that ``partial_fit(classes=...)`` announces, or None.

    Parameters
    ----------
    classes : array-like of labels, or None
        May hold the marker of no label, as ``np.unique(y)`` does.
    y : ndarray of shape (n_samples,)
        Labels of the samples at hand.
    unlabeled : bool ndarray of shape (n_samples,), or None
    marker : str, number or None
        The marker of no label.
    known : ndarray of shape (C,), optional
        The classes of the fitted model.

    Raises
    ------
    ValueError
        A label of `y` that is not announced, or a class of the model that is not.
    """
    if classes is None:
        return None
    wanted, unmarked = split_unlabeled(classes, marker, parameter="classes")
    if unmarked is not None:
        wanted = wanted[~unmarked]
    if known is not None:
        forgotten = known[~members(known, wanted.tolist())].tolist()
        if forgotten:
            raise ValueError(
                f"classes is not the same as on the last call to partial_fit: it lacks {listed(forgotten)}. List every "
                "member of classes_ in it, or leave it out; drop() forgets classes."
            )
    labels = y if unlabeled is None else y[~unlabeled]
    outside = distinct(labels[~members(labels, wanted.tolist())].tolist())
    if outside:
        raise ValueError(
            f"y holds {listed(outside)}, which is not among classes ({listed(wanted.tolist())}). "
            "List every label in classes, or leave it out: classes then join as they come."
        )
    return list(wanted.tolist())


def members_to_drop(given: Any, classes: NDArray[Any]) -> NDArray[Any]:
    """Return the members of `classes` that a caller wants dropped.

    Parameters
    ----------
    given : label or array-like of labels
    classes : ndarray of shape (C,)

    Raises
    ------
    ValueError
        A label that is missing, or none of the classes.
    """
    alone = isinstance(given, str) or is_missing(given) or np.ndim(given) == 0
    wanted = split_unlabeled([given] if alone else given, parameter="classes")[0]
    unknown = wanted[~members(wanted, classes.tolist())].tolist()
    if unknown:
        raise ValueError(f"drop got {unknown}, which the model does not know; its classes are in classes_.")
    return classes[members(classes, wanted.tolist())]


def no_names_message(classes: NDArray[Any]) -> str:
    """Return the warning that labels (C,) name no class, so that there is no text to learn from."""
    labels = classes.tolist()
    message = (
        f"y holds labels that are no names ({listed(labels, 2)}), so the text has no part in this fit. "
        "Pass class_names={label: name} for an accurate one."
    )
    if labels != list(range(len(labels))):
        return message
    return (
        f"{message} If y held names and a tool numbered them, as cross_val_predict(method='predict_proba') and "
        "StackingClassifier do, pass class_names=sorted(set(y)), the names in the order of the numbers."
    )


def _with_further(seen: NDArray[Any], further: list[Any]) -> NDArray[Any]:
    """Return the sorted labels that samples have (S,) and further ones, in a type that holds all."""
    known = set(seen.tolist())
    new = [label for label in distinct(further) if label not in known]
    if not new:
        return seen
    if seen.dtype.kind in "iu":
        new = [_as_integer(label, seen.tolist()[0]) for label in new]
    return np.unique(exact_array(seen.tolist() + new, seen.dtype, "y"))


def _as_integer(label: Any, other: Any) -> Any:
    if isinstance(label, float):
        if not label.is_integer():
            raise ValueError(
                f"{label!r} cannot be a class beside integers such as {other!r}; make all labels integers."
            )
        return int(label)
    return label


def _refuse_strangers(labels: list[Any], table: dict[Any, Any], parameter: str, source: str) -> None:
    """Refuse labels that a table does not know."""
    known = {composed(key) for key in table}
    missing = [label for label in labels if composed(label) not in known]
    if not missing:
        return
    hint = ""
    numbers = all(isinstance(n, int) and 0 <= n < len(table) for n in labels)
    if numbers and all(isinstance(key, str) for key in table):
        hint = (
            " If a tool numbered the labels, as cross_val_predict(method='predict_proba') and StackingClassifier do, "
            f"pass a list in the order of the numbers: {parameter}=[{parameter}[label] for label in sorted(set(y))]."
        )
    raise ValueError(
        f"{parameter} has no entry for {listed(missing)}, which {source}; it has {listed(list(table))}.{hint}"
    )


def _warn_of_namesakes(names: dict[str, str]) -> None:
    """Warn of string labels that are the same words."""
    by_name: dict[str, list[str]] = {}
    for label, name in names.items():
        by_name.setdefault(name, []).append(label)
    for labels in by_name.values():
        if len(labels) > 1:
            warn(
                f"The labels {' and '.join(map(repr, labels))} differ in white space or underscores alone; they are "
                "two classes with the same text. If they are one class, give it one label."
            )


def _warn_of_written_missing(labels: list[str]) -> None:
    """Warn of strings that stood for a missing label before something made strings of all labels."""
    written = [label for label in labels if label in WRITTEN_MISSING]
    if written:
        warn(
            f"The labels hold the text {listed(written)}, which numpy and pandas write for a missing label; it is "
            "taken for the name of a class. If it is none, leave its images out.",
            advice="If it is one, name it in class_names.",
        )


def _stacked_text(rows: dict[Any, Any], keys: list[Any]) -> NDArray[np.float64]:
    known = {key: np.asarray(host_array(row), dtype=np.float64) for key, row in rows.items() if row is not None}
    if not known:
        raise ValueError("text_features has no vector; leave the parameter out instead.")
    shapes = {row.shape for row in known.values()}
    if len({(len(shape), shape[-1:]) for shape in shapes}) > 1 or len(next(iter(shapes))) not in (1, 2):
        raise ValueError(
            f"text_features must hold vectors of one length, or of each class an array of them, not arrays of shapes "
            f"{sorted(shapes)}."
        )
    for key, row in known.items():
        if not np.isfinite(row).all():
            raise ValueError(f"text_features of {key!r} contains NaN or infinity; pass None for a class without text.")
    stacked = np.zeros((len(keys), *max(shapes)))
    for place, key in zip(stacked, keys, strict=True):
        if key in known:
            place[: len(known[key])] = known[key]
    return stacked
