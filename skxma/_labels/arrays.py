"""Labels of any container as arrays that hold each exactly, with those that stand for no label told apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d

from skxma._runtime.warning import warn
from skxma.embeddings import host_array

# Types of pandas and numpy whose only value stands for a missing one; skxma does not depend on pandas.
MISSING_TYPES = frozenset({"NAType", "NaTType", "MaskedConstant"})


def split_unlabeled(
    y: Any, marker: Any = None, placeholder: Any = None, parameter: str = "y"
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Check labels from any container, and tell samples without a label from the others.

    Every label that a caller gives passes through here.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    marker : str, number or None
        Stands in `y` for no label; NaN for any missing value (None, NaN, pandas' NA). None for nothing.
    placeholder : optional
        A label for those without one; by default the first of the others.
    parameter : str, default="y"
        The name of `y` in messages.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Labels of one kind, none of them missing; a string that occurs in two Unicode forms is in NFC. Integers keep
        their type.
    unlabeled : bool ndarray of shape (n_samples,), or None where the marker is None

    Raises
    ------
    ValueError
        A label that is missing, labels of several kinds or of a type that cannot be a label, or no label at all.
    TypeError
        Labels of bytes.
    """
    array, dtype = _column(y, parameter)
    if marker is None and array.dtype.kind in "biu":
        return array, None
    values = _python_values(array)
    unlabeled = None
    if marker is not None:
        unlabeled = np.array([is_marker(value, marker) for value in values], dtype=bool)
    labels = values if unlabeled is None else [v for v, none in zip(values, unlabeled, strict=True) if not none]
    _refuse_missing_labels(values, unlabeled, marker, parameter)
    _refuse_odd_kinds(labels, parameter)
    if unlabeled is not None:
        if placeholder is None:
            if not labels:
                raise ValueError(f"every sample is marked {marker!r}, without a label; label some of each class.")
            placeholder = labels[0]
        placeholder = as_python(placeholder)
        _refuse_written_marker(labels, marker, parameter)
        _refuse_other_kind(labels, [placeholder], parameter)
        values = [placeholder if none else value for value, none in zip(values, unlabeled, strict=True)]
    return one_form(exact_array(values, dtype, parameter), parameter), unlabeled


def is_missing(value: Any) -> bool:
    """Return whether a value stands for no label: None, NaN, NaT, pandas' NA, a masked value."""
    if value is None or type(value).__name__ in MISSING_TYPES:
        return True
    return isinstance(value, (float, np.floating, np.datetime64)) and bool(value != value)


def composed(label: Any) -> Any:
    """Return a string in Unicode's composed form, by which two spellings of it are equal; anything else as it is."""
    return unicodedata.normalize("NFC", label) if isinstance(label, str) and not label.isascii() else label


def one_form(labels: NDArray[Any], parameter: str = "y") -> NDArray[Any]:
    """Return labels in which a string that occurs in two Unicode forms, which look the same, is in NFC."""
    if labels.dtype.kind not in "UO" or all(not isinstance(v, str) or v.isascii() for v in labels.tolist()):
        return labels
    forms: dict[str, set[str]] = {}
    for label in labels.tolist():
        forms.setdefault(composed(label), set()).add(label)
    twofold = sorted(composed for composed, found in forms.items() if len(found) > 1)
    if not twofold:
        return labels
    warn(
        f"{parameter} holds {listed(twofold)} in two Unicode forms, composed (NFC) and decomposed (NFD), as file names "
        "of macOS are; they are one class, whose label is the composed form.",
        advice="Normalize labels with unicodedata.normalize('NFC', label) to compare them with predictions.",
    )
    merged = set(twofold)
    values = [composed(label) if composed(label) in merged else label for label in labels.tolist()]
    return exact_array(values, labels.dtype, parameter)


def members(labels: NDArray[Any], among: Iterable[Any]) -> NDArray[np.bool_]:
    """Return whether each label (n,) is among others; unlike `np.isin`, large integers are compared to the last digit.

    Parameters
    ----------
    labels : ndarray of shape (n,)
    among : iterable of labels
        Two Unicode forms of a string are equal.
    """
    known = {composed(as_python(label)) for label in among}
    return np.array([composed(label) in known for label in _python_values(labels)], dtype=bool)


def join_labels(known: NDArray[Any], fresh: NDArray[Any]) -> NDArray[Any]:
    """Return labels of a fitted model (n,) and further ones (m,) in one array (n + m,) that holds each exactly.

    Raises
    ------
    ValueError
        Labels of another kind than those of the model.
    """
    if known.dtype == fresh.dtype or not len(fresh):
        return np.concatenate([known, fresh.astype(known.dtype)])
    before, after = known.tolist(), fresh.tolist()
    _refuse_other_kind(after, before, "y")
    dtype = np.result_type(known, fresh)
    # numpy joins signed and unsigned integers of 64 bits to floats
    lossy = dtype.kind == "f" and known.dtype.kind != "f" and fresh.dtype.kind != "f"
    return exact_array(before + after, known.dtype if lossy else dtype, "y")


def with_spelling_of(labels: Any, classes: NDArray[Any]) -> NDArray[Any]:
    """Return labels (n,), such as a test's, with strings in the Unicode form that `classes` has them in."""
    array = np.asarray(host_array(labels))
    if array.dtype.kind not in "UO" or array.ndim != 1:
        return array
    forms = {composed(label): label for label in classes.tolist()}
    values = [forms.get(composed(label), label) if isinstance(label, str) else label for label in array.tolist()]
    return np.array(values, dtype=None if array.dtype.kind == "U" else object)


def check_unknown(unknown: Any, classes: NDArray[Any]) -> None:
    """Refuse a label for the unknown that is a class, of another kind, or that no type holds with the classes.

    Parameters
    ----------
    unknown : str or number
    classes : ndarray of shape (C,)
    """
    if members(classes, [unknown]).any():
        raise ValueError(f"unknown_label={unknown!r} is one of the classes; name another.")
    if isinstance(unknown, str) != isinstance(classes.tolist()[0], str):
        raise ValueError(
            f"unknown_label={unknown!r} is of another kind than the labels ({classes.tolist()[0]!r}, ...); "
            "both must be strings, or both numbers."
        )
    with_unknown(classes[:0], np.zeros(0, dtype=bool), unknown, classes)


def with_unknown(labels: NDArray[Any], refused: NDArray[np.bool_], unknown: Any, classes: NDArray[Any]) -> NDArray[Any]:
    """Return predicted labels (n,) with `unknown` where they are refused (n,).

    The type is one that holds `unknown` and all of the `classes` (C,) exactly, whether or not anything is refused.

    Raises
    ------
    ValueError
        There is no such type.
    """
    unknown = as_python(unknown)
    try:
        dtype = exact_array([*classes.tolist(), unknown], classes.dtype, "unknown_label").dtype
    except ValueError as error:
        raise ValueError(
            f"unknown_label={unknown!r} and the classes ({listed(classes.tolist(), 2)}) fit no integer type together; "
            "name a number that is not negative, or make the labels str."
        ) from error
    answers = labels.astype(dtype)
    answers[refused] = unknown
    return answers


def listed(items: list[Any], most: int = 5) -> str:
    """Return the first items as text, and how many more there are."""
    shown = ", ".join(repr(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def as_python(value: Any) -> Any:
    """Return a scalar of numpy or torch as Python's own, and a masked value as None."""
    if type(value).__name__ in MISSING_TYPES or isinstance(value, (np.datetime64, np.timedelta64)):
        return None if value is np.ma.masked else value
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def is_marker(value: Any, marker: Any) -> bool:
    """Return whether a value says that there is no label."""
    if marker is None:
        return False
    if isinstance(marker, str) or isinstance(value, str):
        return isinstance(marker, str) and isinstance(value, str) and composed(value) == composed(marker)
    return is_missing(value) if is_missing(marker) else not is_missing(value) and bool(value == marker)


def kind_of(label: Any) -> str:
    """Return what labels must have in common to be compared."""
    if isinstance(label, str):
        return "str"
    return "number" if isinstance(label, (bool, int, float)) else type(label).__name__


def distinct(labels: list[Any]) -> list[Any]:
    return list(dict.fromkeys(labels))


def exact_array(values: list[Any], dtype: np.dtype[Any] | None, parameter: str) -> NDArray[Any]:
    """Return labels of one kind as an array that holds each exactly, of type `dtype` where that does.

    Raises
    ------
    ValueError
        Numbers that no type holds.
    """
    if not values:
        return np.array(values, dtype=dtype)
    if isinstance(values[0], str):
        return np.array(values, dtype=None if dtype is None or dtype.kind != "O" else object)
    if not isinstance(values[0], Number):
        return np.array(values, dtype=dtype)
    types = [np.dtype(t) for t in (bool, np.int64, np.uint64)]
    if any(isinstance(value, float) for value in values):
        types.append(np.dtype(np.float64))
    if dtype is not None and dtype.kind in "biuf":
        types.insert(0, dtype)
    for candidate in types:
        if _holds(candidate, values):
            return np.array(values, dtype=candidate)
    raise ValueError(
        f"{parameter} holds numbers beyond 64 bits, or integers that floats beside them cannot hold exactly, such as "
        f"{max(values, key=abs)!r}. Make all labels str, for instance with [str(label) for label in {parameter}]."
    )


def _column(given: Any, parameter: str) -> tuple[NDArray[Any], np.dtype[Any] | None]:
    """Return values as an array (n,), and the type that the caller gave them; None for those of a list."""
    if hasattr(given, "detach") and hasattr(given, "cpu"):
        given = given.detach().cpu()
    dtype = None
    if isinstance(given, np.ma.MaskedArray):
        array = np.asarray(given.data)
        hidden = np.ma.getmaskarray(given)
        dtype = array.dtype
        if hidden.any():
            array = array.astype(object)
            array[hidden] = None
    elif hasattr(given, "__array__") or isinstance(given, str):
        array = np.asarray(given)
        dtype = array.dtype
    else:
        # without dtype=object, numpy would make strings of all that stands beside a string
        values = [as_python(value) for value in given] if isinstance(given, Iterable) else given
        array = np.asarray(values, dtype=object)
    if array.ndim == 2 and array.shape[1] > 1:
        raise ValueError(
            f"{parameter} has the shape {array.shape}, several labels per image; y should be a 1d array, one label per "
            "image. For multi-label problems fit one classifier per label, as "
            "sklearn.multioutput.MultiOutputClassifier does on embeddings."
        )
    array = column_or_1d(array, warn=True)
    return array.astype(object) if array.dtype.kind == "T" else array, dtype


def _python_values(array: NDArray[Any]) -> list[Any]:
    """Return the values of an array as Python's own; times stay numpy's, for which Python has no exact type."""
    if array.dtype.kind in "mM":
        return list(array)
    return [as_python(value) for value in array.tolist()]


def _refuse_missing_labels(values: list[Any], unlabeled: NDArray[np.bool_] | None, marker: Any, parameter: str) -> None:
    missing = [i for i, value in enumerate(values) if is_missing(value)]
    if unlabeled is not None:
        missing = [i for i in missing if not unlabeled[i]]
    if not missing:
        return
    first = f"{parameter}[{missing[0]}] is {values[missing[0]]!r}"
    if parameter == "classes":
        raise ValueError(f"{first}, which is no label. Remove it.")
    more = f", and {len(missing) - 1} more have none" if len(missing) > 1 else ""
    remedy = "Remove it."
    if parameter == "y" and marker is None:
        remedy = "Remove it, or pass unlabeled_label=float('nan') to a classifier that learns from unlabeled images."
    elif parameter == "y":
        remedy = f"Remove it, or mark it with {marker!r}, which unlabeled_label says is no label."
    raise ValueError(f"{first}: sample {missing[0]} has no label{more}. {remedy}")


def _refuse_odd_kinds(labels: list[Any], parameter: str) -> None:
    """Refuse labels of several kinds, which have no order, and those of a type that cannot be a label."""
    firsts: dict[str, Any] = {}
    for label in labels:
        firsts.setdefault(kind_of(label), label)
    if "bytes" in firsts:
        raise TypeError(f"{parameter} holds bytes, such as {firsts['bytes']!r}; decode them to str.")
    if len(firsts) > 1:
        kinds = sorted({type(label).__name__ for label in firsts.values()})
        raise ValueError(
            f"{parameter} holds labels of several kinds ({', '.join(kinds)}): "
            f"{' and '.join(map(repr, firsts.values()))}. Make them of one kind, for instance with "
            f"[str(label) for label in {parameter}]."
        )
    for kind, label in firsts.items():
        if kind not in ("str", "number", "datetime64", "timedelta64"):
            raise ValueError(
                f"{parameter} holds labels of type {kind}, such as {label!r:.80}; labels are str, int, float or bool."
            )


def _refuse_other_kind(labels: list[Any], known: list[Any], parameter: str) -> None:
    """Refuse labels of another kind than those of a model."""
    if labels and known and kind_of(labels[0]) != kind_of(known[0]):
        raise ValueError(
            f"{parameter} holds {labels[0]!r} ({type(labels[0]).__name__}), but the model's classes are of another "
            f"kind: {known[0]!r} ({type(known[0]).__name__}). Give labels of that kind."
        )


def _refuse_written_marker(labels: list[Any], marker: Any, parameter: str) -> None:
    """Refuse a marker that numpy has made a string, as it does with numbers among strings."""
    if not isinstance(marker, str) and str(marker) in labels:
        raise ValueError(
            f"unlabeled_label={marker!r} is no string, and {parameter} holds the string {str(marker)!r}, which numpy "
            f"makes of it among strings. Pass unlabeled_label={str(marker)!r}, or {parameter} as a list."
        )


def _holds(dtype: np.dtype[Any], values: list[Any]) -> bool:
    """Return whether a type of numpy holds numbers exactly, each as what it is."""
    if dtype.kind == "b":
        return all(isinstance(value, bool) for value in values)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return all(isinstance(value, int) and limits.min <= value <= limits.max for value in values)
    try:
        with np.errstate(over="ignore"):
            # as Python's numbers, which compare integers with floats to the last digit
            return all(value != value or dtype.type(value).item() == value for value in values)
    except OverflowError:
        return False
