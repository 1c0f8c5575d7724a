"""Class names and text features as tables by label, from the mappings, sequences and pandas objects that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skxma._labels.arrays import (
    as_python,
    composed,
    is_missing,
    kind_of,
    listed,
    members,
)
from skxma.embeddings import host_array
from skxma.prompts import check_names

Name = str | Sequence[str]


def names_by_label(given: Any, seen: NDArray[Any], forms: dict[Any, Any]) -> dict[Any, Any]:
    """Return a table label -> name from what the caller gave as `class_names`."""
    if isinstance(given, str):
        raise ValueError(f"class_names is the string {given!r}; pass one item per class, as a list or a mapping.")
    labels = seen.tolist()
    table: dict[Any, Any] | None = None
    if isinstance(given, Mapping):
        table = dict(given)
    elif has_index(given):
        if len(given.shape) == 2:
            if given.shape[1] != 1:
                raise ValueError(
                    f"class_names is a table of {given.shape[1]} columns; pass the one with the names, as a Series."
                )
            given = given.iloc[:, 0]
        keys = _labels_in_index(given, labels, None, "class_names")
        table = None if keys is None else dict(zip(keys, given.tolist(), strict=True))
    if table is None:
        items = list(given)
        if isinstance(labels[0], str):
            table = {_name_as_label(item, i): item for i, item in enumerate(items)}
        else:
            table = _by_position(items, labels, "class_names")
    table = {key: None if is_missing(name) else name for key, name in table.items()}
    for key, name in table.items():
        if name is not None:
            try:
                check_names(name)
            except (TypeError, ValueError) as error:
                raise type(error)(f"class_names[{key!r}]: {error}") from error
    return _with_clean_keys(table, labels, "class_names", forms)


def text_by_label(
    given: Any, seen: NDArray[Any], named: dict[Any, Any] | None, forms: dict[Any, Any]
) -> dict[Any, Any]:
    """Return a table label -> vector; plain rows follow the class names where there are any."""
    labels = seen.tolist()
    keys: list[Any] | None = None
    rows: Any = None
    if isinstance(given, Mapping):
        keys, rows = [as_python(key) for key in given], list(given.values())
        if named is not None and not members(seen, keys).all():
            keys = _labels_by_name(keys, named) or keys
    elif has_index(given):
        keys = _labels_in_index(given, labels, named, "text_features")
        rows = given.tolist() if len(given.shape) == 1 else None
    if rows is None:
        # float64 stays: what overflows float32 has a direction all the same
        rows = check_array(host_array(given), dtype=[np.float64, np.float32], input_name="text_features", allow_nd=True)
    if keys is None:
        if named is None and not isinstance(labels[0], str):
            return _by_position(list(rows), labels, "text_features")
        keys = labels if named is None else list(named)
        if len(keys) != len(rows):
            raise ValueError(
                f"text_features has {len(rows)} rows for {len(keys)} classes ({listed(keys)}). "
                "Pass a mapping {label: vector}, or class_names in the order of the rows."
            )
    return _with_clean_keys(dict(zip(keys, rows, strict=True)), labels, "text_features", forms)


def without_index(given: Any, classes: NDArray[Any], parameter: str) -> Any:
    """Return a Series or a frame as a mapping or an array that means the same, for a file without pandas objects.

    Parameters
    ----------
    given : object
        What a fit took as `class_names` or `text_features`; anything else than pandas' objects comes back as it is.
    classes : ndarray of shape (C,)
        The classes of that fit.
    parameter : {"class_names", "text_features"}
    """
    if not has_index(given):
        return given
    rows = list(given.to_numpy())
    if parameter == "class_names" and len(given.shape) == 2:
        rows = given.iloc[:, 0].tolist()
    if _index_counts(given) or _names_are_labels(given, classes.tolist(), parameter):
        return rows if len(given.shape) == 1 or parameter == "class_names" else given.to_numpy()
    return dict(zip([as_python(value) for value in given.index.tolist()], rows, strict=True))


def has_index(given: Any) -> bool:
    """Return whether this is a Series or a frame of pandas, whose rows have labels of their own."""
    return hasattr(given, "iloc") and hasattr(given, "index") and hasattr(given, "shape")


def _name_as_label(item: Any, position: int) -> Any:
    """Return the label that an item of a sequence of names stands for among string labels."""
    names = [item] if isinstance(item, str) else list(item) if isinstance(item, Iterable) else []
    if is_missing(item) or not names or is_missing(names[0]):
        raise ValueError(
            f"class_names[{position}] is {item!r}, but string labels must be among the names. For a class without "
            "text pass a mapping, class_names={label: None, ...}."
        )
    return names[0]


def _index_counts(given: Any) -> bool:
    """Return whether an index counts the rows from 0, as pandas makes it where none is given."""
    return type(given.index).__name__ == "RangeIndex" and given.index.tolist() == list(range(len(given)))


def _names_are_labels(given: Any, labels: list[Any], parameter: str) -> bool:
    """Return whether the values of `class_names` are the labels: strings, which no index of numbers can stand for."""
    numbers = not any(isinstance(value, str) for value in given.index.tolist())
    return parameter == "class_names" and isinstance(labels[0], str) and numbers


def _labels_in_index(given: Any, labels: list[Any], named: dict[Any, Any] | None, parameter: str) -> list[Any] | None:
    """Return the label of each row of a Series or a frame, from its index; None where that only counts the rows.

    Raises
    ------
    ValueError
        An index that holds neither the labels nor their names, or that could mean either of two things.
    """
    index = [as_python(value) for value in given.index.tolist()]
    counts = _index_counts(given)
    if _names_are_labels(given, labels, parameter) or (counts and isinstance(labels[0], str)):
        return None
    known = {composed(value) for value in index}
    if len(known) < len(index):
        raise ValueError(f"{parameter} has rows of one label in its index; keep one row per label.")
    lacking = [label for label in labels if composed(label) not in known]
    if not lacking:
        if counts and named is not None and list(named) != index:
            raise ValueError(
                f"{parameter} is a table whose index counts its rows, and class_names is in another order "
                f"({listed(list(named))}). Pass {parameter}.to_numpy() for rows in the order of class_names, or a "
                "mapping {label: vector}."
            )
        return index
    if counts:
        return None
    by_name = None if named is None else _labels_by_name(index, named)
    if by_name is None:
        values = "tolist()" if len(given.shape) == 1 else "to_numpy()"
        raise ValueError(
            f"{parameter} is indexed by {listed(index)}, which lacks {listed(lacking)} of y. Index it by the labels, "
            f"or pass {parameter}.{values} to go by the order of the rows."
        )
    return by_name


def _labels_by_name(keys: list[Any], named: dict[Any, Any]) -> list[Any] | None:
    """Return the label whose name each key is; None where a key is no name, or two labels share one."""
    firsts = {label: name if isinstance(name, str) else next(iter(name)) for label, name in named.items() if name}
    by_name = {composed(name): label for label, name in firsts.items()}
    found = [by_name.get(composed(key)) for key in keys]
    return None if len(by_name) < len(firsts) or any(label is None for label in found) else found


def _by_position(items: list[Any], labels: list[Any], parameter: str) -> dict[Any, Any]:
    """Return a table from items that integer labels index."""
    if all(isinstance(n, (bool, int, float)) and float(n).is_integer() and 0 <= n < len(items) for n in labels):
        return dict(enumerate(items))
    raise ValueError(
        f"{parameter} has {len(items)} items, which integer labels index from 0, but y holds {listed(labels)}. "
        f"Pass a mapping {{label: item}} instead."
    )


def _with_clean_keys(table: dict[Any, Any], labels: list[Any], parameter: str, forms: dict[Any, Any]) -> dict[Any, Any]:
    """Return a table whose keys are the labels of `y`, where that has them, in their Unicode form."""
    keys = [as_python(key) for key in table]
    for key in keys:
        if is_missing(key):
            raise ValueError(f"{parameter} has a key that is missing ({key!r}); remove it.")
    other = [key for key in keys if kind_of(key) != kind_of(labels[0])]
    # where all are of another kind, the labels of y are missing among them, which says more
    if other and len(other) < len(keys):
        raise ValueError(
            f"{parameter} has the key {other[0]!r} ({type(other[0]).__name__}), but y holds {labels[0]!r} "
            f"({type(labels[0]).__name__}): labels are of one kind."
        )
    clean: dict[Any, Any] = {}
    for key, item in zip(keys, table.values(), strict=True):
        if isinstance(labels[0], int) and isinstance(key, float) and not key.is_integer():
            raise ValueError(f"{parameter} has the key {key!r}, but y holds integers, such as {labels[0]!r}.")
        label = forms.setdefault(composed(key), key)
        if label in clean and (parameter == "text_features" or _composed_name(clean[label]) != _composed_name(item)):
            raise ValueError(f"{parameter} has the key {label!r} twice, in two Unicode forms; keep one.")
        clean[label] = item
    return clean


def _composed_name(name: Any) -> Any:
    """Return a name, or several, in Unicode's composed form."""
    return composed(name) if name is None or isinstance(name, str) else [composed(one) for one in name]
