"""Labels, class names and text features: which class is which row, settled before any long work."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from skxma.prompts import clean_name

Name = str | Sequence[str]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a fit.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Sorted labels, including classes that have a text but no picture.
    indices : ndarray of shape (n_samples,)
        Position of each sample's label in `classes`.
    names : list of (str, sequence of str or None), or None
        What the prompts say of each class; None where nothing is known of any.
    text : ndarray of shape (C, n_features), float64, or None
        The caller's text features in the order of `classes`; a zero row is a class without text.
    """

    classes: NDArray[Any]
    indices: NDArray[np.intp]
    names: list[Name | None] | None
    text: NDArray[np.float64] | None

    def without(self, dropped: NDArray[Any]) -> ClassTable:
        """The table without some classes, of which no sample may be."""
        stay = ~np.isin(self.classes, dropped)
        position = np.cumsum(stay) - 1
        return ClassTable(
            self.classes[stay],
            position[self.indices],
            None if self.names is None else [name for name, kept in zip(self.names, stay, strict=True) if kept],
            None if self.text is None else self.text[stay],
        )


def split_unlabelled(y: Any, marker: Any, instead: Any = None) -> tuple[Any, NDArray[np.bool_] | None]:
    """Tell samples without a label from the others.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    marker : str, number or None
        What stands in `y` for no label; NaN for whatever is missing there (None, NaN, pandas' NA). None for nothing.
    instead : optional
        A label for those without one; by default the first of the others.

    Returns
    -------
    y : array-like of shape (n_samples,)
        With a label in every place, so that no marker is taken for a class; as it was where the marker is None.
    unlabelled : bool ndarray of shape (n_samples,), or None where the marker is None

    Raises
    ------
    ValueError
        No sample has a label.
    """
    if marker is None:
        return y, None
    values = np.asarray(y, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values.ravel()
    if values.ndim != 1:
        return y, None
    unlabelled = np.array([_is_marker(value, marker) for value in values], dtype=bool)
    if instead is None:
        if unlabelled.all():
            raise ValueError(
                f"every sample is marked {marker!r}, without a label; some of each class must have theirs."
            )
        instead = values[~unlabelled][0]
    return np.array(np.where(unlabelled, instead, values).tolist()), unlabelled


def _is_marker(value: Any, marker: Any) -> bool:
    """Whether a value says that there is no label."""
    if isinstance(marker, str) or isinstance(value, str):
        return isinstance(marker, str) and isinstance(value, str) and value == marker
    if marker != marker:
        # pandas' NA is no number, and equal to nothing
        return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
    return value is not None and bool(value == marker)


def resolve_classes(
    y: Any, class_names: Any = None, text_features: Any = None, kept: NDArray[np.bool_] | None = None
) -> ClassTable:
    """Settle the classes of `y`, their names and their rows of text.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    class_names : mapping label -> name, sequence of names, or None
        A sequence is indexed by integer labels; string labels must be among it. Values may be several names, or None
        for a class without text.
    text_features : mapping label -> vector, array-like of shape (C, n_features), or None
        Rows follow `class_names` where that is given, else integer labels index them and other labels sort.
    kept : bool ndarray of shape (n_samples,), optional
        Samples that count; labels of others make no class.

    Raises
    ------
    ValueError
        A label without a name or a row, one that is missing or of another kind, fewer than two classes, or no sample
        that counts.
    TypeError
        Labels of bytes.
    """
    y = column_or_1d(y, warn=True)
    refuse_odd_labels(y)
    with warnings.catch_warnings():
        # few shots of many classes look like a regression to scikit-learn
        warnings.filterwarnings("ignore", message="The number of unique classes")
        check_classification_targets(y)
    seen = np.unique(y if kept is None else y[kept])
    if not len(seen):
        raise ValueError("y holds no sample of positive weight.")
    named = None if class_names is None else _by_label(class_names, seen, "class_names")
    rows = None if text_features is None else _text_by_label(text_features, seen, named)
    classes = seen
    for table, parameter in ((named, "class_names"), (rows, "text_features")):
        if table is not None:
            classes = _union(seen, table, parameter)
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class, {seen.tolist()[0]!r}; a classifier needs at least two. Add pictures of another class, "
            "or name further classes in class_names."
        )
    keys = classes.tolist()
    if named is None and classes.dtype.kind in "USO" and all(isinstance(key, str) for key in keys):
        # a label of signs alone is better than no name
        named = {key: clean_name(key) or key for key in keys}
    indices = np.searchsorted(classes, y)
    if kept is not None:
        indices = np.where(kept, indices, 0)
    return ClassTable(
        classes,
        indices.astype(np.intp),
        None if named is None else [named.get(key) for key in keys],
        None if rows is None else _stack(rows, keys),
    )


def refuse_odd_labels(y: NDArray[Any]) -> None:
    """Refuse labels that are missing or of several kinds, which have no order, and bytes."""
    as_bytes = [label for label in y.tolist() if isinstance(label, bytes)]
    if as_bytes:
        raise TypeError(f"y holds bytes, such as {as_bytes[0]!r}; decode them to str.")
    try:
        np.unique(y)
    except TypeError as error:
        missing = [i for i, label in enumerate(y.tolist()) if label is None or label != label]
        if missing:
            raise ValueError(f"y holds no label for sample {missing[0]}, but {y[missing[0]]!r}.") from error
        kinds = sorted({type(label).__name__ for label in y.tolist()})
        raise ValueError(
            f"y holds labels of several kinds ({', '.join(kinds)}); make all of them str, or int."
        ) from error


def _by_label(given: Any, seen: NDArray[Any], parameter: str) -> dict[Any, Any]:
    """A table label -> item from a mapping, or from a sequence that integers index and strings are members of."""
    if isinstance(given, str):
        raise ValueError(f"{parameter} is the string {given!r}; pass one item a class, as a list or a mapping.")
    if isinstance(given, Mapping):
        return dict(given)
    items = list(given)
    labels = seen.tolist()
    if all(isinstance(label, str) for label in labels):
        table = {item if isinstance(item, str) else item[0]: item for item in items}
        _refuse_missing(labels, table, parameter)
        return table
    if all(float(label).is_integer() and 0 <= label < len(items) for label in labels):
        return {seen.dtype.type(i).item(): item for i, item in enumerate(items)}
    raise ValueError(
        f"{parameter} has {len(items)} items, which integer labels index from 0, but y holds {_some(labels)}. "
        f"Pass a mapping {{label: item}} instead."
    )


def _text_by_label(given: Any, seen: NDArray[Any], named: dict[Any, Any] | None) -> dict[Any, Any]:
    """The same for text features, whose rows follow the class names where there are any."""
    if isinstance(given, Mapping):
        return dict(given)
    # float64 stays: what overflows float32 has a direction all the same
    array = check_array(given, dtype=[np.float64, np.float32], input_name="text_features")
    labels = seen.tolist()
    order = labels
    if named is not None:
        order = list(named)
    elif all(not isinstance(label, str) for label in labels):
        return _by_label(array, seen, "text_features")
    if len(order) != len(array):
        raise ValueError(
            f"text_features has {len(array)} rows for {len(order)} classes ({_some(order)}). "
            "Pass a mapping {label: vector}, or class_names in the order of the rows."
        )
    return dict(zip(order, array, strict=True))


def _union(seen: NDArray[Any], table: dict[Any, Any], parameter: str) -> NDArray[Any]:
    _refuse_missing(seen.tolist(), table, parameter)
    extra = np.array(list(table), dtype=object if seen.dtype == object else None)
    joined = np.union1d(seen, extra)
    return joined if seen.dtype.kind in "US" else joined.astype(seen.dtype)


def _refuse_missing(labels: list[Any], table: dict[Any, Any], parameter: str) -> None:
    missing = [label for label in labels if label not in table]
    if missing:
        raise ValueError(f"{parameter} says nothing of {_some(missing)}, which y holds; it knows {_some(list(table))}.")


def _stack(rows: dict[Any, Any], keys: list[Any]) -> NDArray[np.float64]:
    known = {key: np.asarray(row, dtype=np.float64) for key, row in rows.items() if row is not None}
    if not known:
        raise ValueError("text_features holds no vector; leave the parameter out instead.")
    shapes = {row.shape for row in known.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"text_features must hold vectors of one length, not of shapes {sorted(shapes)}.")
    for key, row in known.items():
        if not np.isfinite(row).all():
            raise ValueError(f"text_features of {key!r} contains NaN or infinity; pass None for a class without text.")
    empty = np.zeros(next(iter(shapes)))
    return np.stack([known.get(key, empty) for key in keys])


def _some(items: list[Any], most: int = 5) -> str:
    shown = ", ".join(repr(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
