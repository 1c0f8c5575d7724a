"""Labels, class names and text features: which class is which row, settled before any long work."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from skxma._runtime.warning import warn
from skxma.embeddings import host_array
from skxma.prompts import check_names, clean_name

Name = str | Sequence[str]


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


# Types of pandas and numpy whose only value stands for a missing one; skxma does not depend on pandas.
MISSING_TYPES = frozenset({"NAType", "NaTType", "MaskedConstant"})
# Strings that numpy and pandas write for a missing value
WRITTEN_MISSING = ("nan", "None", "<NA>", "NaT")


def split_unlabeled(
    y: Any, marker: Any = None, instead: Any = None, parameter: str = "y"
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Check labels from any container, and tell samples without a label from the others.

    Every label that a caller gives passes through here.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
    marker : str, number or None
        Stands in `y` for no label; NaN for any missing value (None, NaN, pandas' NA). None for nothing.
    instead : optional
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
    values = _plain(array)
    unlabeled = None
    if marker is not None:
        unlabeled = np.array([_is_marker(value, marker) for value in values], dtype=bool)
    labels = values if unlabeled is None else [v for v, none in zip(values, unlabeled, strict=True) if not none]
    _refuse_missing_labels(values, unlabeled, marker, parameter)
    _refuse_odd_kinds(labels, parameter)
    if unlabeled is not None:
        if instead is None:
            if not labels:
                raise ValueError(f"every sample is marked {marker!r}, without a label; label some of each class.")
            instead = labels[0]
        instead = _scalar(instead)
        _refuse_written_marker(labels, marker, parameter)
        _refuse_other_kind(labels, [instead], parameter)
        values = [instead if none else value for value, none in zip(values, unlabeled, strict=True)]
    return one_form(_fitting(values, dtype, parameter), parameter), unlabeled


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
        f"{parameter} holds {some(twofold)} in two Unicode forms, composed (NFC) and decomposed (NFD), as file names "
        "of macOS are; they are one class, whose label is the composed form. Normalize labels with "
        "unicodedata.normalize('NFC', label) to compare them with predictions."
    )
    merged = set(twofold)
    values = [composed(label) if composed(label) in merged else label for label in labels.tolist()]
    return _fitting(values, labels.dtype, parameter)


def members(labels: NDArray[Any], among: Iterable[Any]) -> NDArray[np.bool_]:
    """Return whether each label (n,) is among others; unlike `np.isin`, large integers are compared to the last digit.

    Parameters
    ----------
    labels : ndarray of shape (n,)
    among : iterable of labels
        Two Unicode forms of a string are equal.
    """
    known = {composed(_scalar(label)) for label in among}
    return np.array([composed(label) in known for label in _plain(labels)], dtype=bool)


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
    return _fitting(before + after, known.dtype if lossy else dtype, "y")


def with_spelling_of(labels: Any, classes: NDArray[Any]) -> NDArray[Any]:
    """Return labels (n,), such as a test's, with strings in the Unicode form that `classes` has them in."""
    array = np.asarray(host_array(labels))
    if array.dtype.kind not in "UO" or array.ndim != 1:
        return array
    forms = {composed(label): label for label in classes.tolist()}
    values = [forms.get(composed(label), label) if isinstance(label, str) else label for label in array.tolist()]
    return np.array(values, dtype=None if array.dtype.kind == "U" else object)


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
                f"classes is not the same as on the last call to partial_fit: it lacks {some(forgotten)}. List every "
                "member of classes_ in it, or leave it out; drop() forgets classes."
            )
    labels = y if unlabeled is None else y[~unlabeled]
    outside = _distinct(labels[~members(labels, wanted.tolist())].tolist())
    if outside:
        raise ValueError(
            f"y holds {some(outside)}, which is not among classes ({some(wanted.tolist())}). "
            "List every label in classes, or leave it out: classes then join as they come."
        )
    return list(wanted.tolist())


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
    return dict(zip([_scalar(value) for value in given.index.tolist()], rows, strict=True))


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
    unknown = _scalar(unknown)
    try:
        dtype = _fitting([*classes.tolist(), unknown], classes.dtype, "unknown_label").dtype
    except ValueError as error:
        raise ValueError(
            f"unknown_label={unknown!r} and the classes ({some(classes.tolist(), 2)}) fit no integer type together; "
            "name a number that is not negative, or make the labels str."
        ) from error
    answers = labels.astype(dtype)
    answers[refused] = unknown
    return answers


def no_names_message(classes: NDArray[Any]) -> str:
    """Return the warning that labels (C,) name no class, so that there is no text to learn from."""
    labels = classes.tolist()
    message = (
        f"y holds labels that are no names ({some(labels, 2)}), so the text has no part in this fit. "
        "Pass class_names={label: name} for an accurate one."
    )
    if labels != list(range(len(labels))):
        return message
    return (
        f"{message} If y held names and a tool numbered them, as cross_val_predict(method='predict_proba') and "
        "StackingClassifier do, pass class_names=sorted(set(y)), the names in the order of the numbers."
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
        raise ValueError("y has no sample of positive weight.")
    forms = {composed(label): label for label in seen.tolist()}
    named = None if class_names is None else _names_by_label(class_names, seen, forms)
    rows = None if text_features is None else _text_by_label(text_features, seen, named, forms)
    tables = [
        (table, parameter)
        for table, parameter in ((named, "class_names"), (rows, "text_features"))
        if table is not None
    ]
    further: list[Any] = []
    for table, parameter in tables:
        _refuse_strangers(seen.tolist(), table, parameter, "y holds")
        _refuse_strangers(list(announced or []), table, parameter, "classes announces")
        if any(_is_marker(key, marker) for key in table):
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
        None if rows is None else _stack(rows, keys),
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
        values = [_scalar(value) for value in given] if isinstance(given, Iterable) else given
        array = np.asarray(values, dtype=object)
    if array.ndim == 2 and array.shape[1] > 1:
        raise ValueError(
            f"{parameter} has the shape {array.shape}, several labels per image; y should be a 1d array, one label per "
            "image. For multi-label problems fit one classifier per label, as "
            "sklearn.multioutput.MultiOutputClassifier does on embeddings."
        )
    array = column_or_1d(array, warn=True)
    return array.astype(object) if array.dtype.kind == "T" else array, dtype


def _plain(array: NDArray[Any]) -> list[Any]:
    """Return the values of an array as Python's own; times stay numpy's, for which Python has no exact type."""
    if array.dtype.kind in "mM":
        return list(array)
    return [_scalar(value) for value in array.tolist()]


def _scalar(value: Any) -> Any:
    """Return a scalar of numpy or torch as Python's own, and a masked value as None."""
    if type(value).__name__ in MISSING_TYPES or isinstance(value, (np.datetime64, np.timedelta64)):
        return None if value is np.ma.masked else value
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _is_marker(value: Any, marker: Any) -> bool:
    """Return whether a value says that there is no label."""
    if marker is None:
        return False
    if isinstance(marker, str) or isinstance(value, str):
        return isinstance(marker, str) and isinstance(value, str) and composed(value) == composed(marker)
    return is_missing(value) if is_missing(marker) else not is_missing(value) and bool(value == marker)


def _kind(label: Any) -> str:
    """Return what labels must have in common to be compared."""
    if isinstance(label, str):
        return "str"
    return "number" if isinstance(label, (bool, int, float)) else type(label).__name__


def _distinct(labels: list[Any]) -> list[Any]:
    return list(dict.fromkeys(labels))


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
        firsts.setdefault(_kind(label), label)
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
    if labels and known and _kind(labels[0]) != _kind(known[0]):
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


def _fitting(values: list[Any], dtype: np.dtype[Any] | None, parameter: str) -> NDArray[Any]:
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


def _with_further(seen: NDArray[Any], further: list[Any]) -> NDArray[Any]:
    """Return the sorted labels that samples have (S,) and further ones, in a type that holds all."""
    known = set(seen.tolist())
    new = [label for label in _distinct(further) if label not in known]
    if not new:
        return seen
    if seen.dtype.kind in "iu":
        new = [_as_integer(label, seen.tolist()[0]) for label in new]
    return np.unique(_fitting(seen.tolist() + new, seen.dtype, "y"))


def _as_integer(label: Any, other: Any) -> Any:
    if isinstance(label, float):
        if not label.is_integer():
            raise ValueError(
                f"{label!r} cannot be a class beside integers such as {other!r}; make all labels integers."
            )
        return int(label)
    return label


def _names_by_label(given: Any, seen: NDArray[Any], forms: dict[Any, Any]) -> dict[Any, Any]:
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


def _name_as_label(item: Any, position: int) -> Any:
    """Return the label that an item of a sequence of names stands for among string labels."""
    names = [item] if isinstance(item, str) else list(item) if isinstance(item, Iterable) else []
    if is_missing(item) or not names or is_missing(names[0]):
        raise ValueError(
            f"class_names[{position}] is {item!r}, but string labels must be among the names. For a class without "
            "text pass a mapping, class_names={label: None, ...}."
        )
    return names[0]


def _text_by_label(
    given: Any, seen: NDArray[Any], named: dict[Any, Any] | None, forms: dict[Any, Any]
) -> dict[Any, Any]:
    """Return a table label -> vector; plain rows follow the class names where there are any."""
    labels = seen.tolist()
    keys: list[Any] | None = None
    rows: Any = None
    if isinstance(given, Mapping):
        keys, rows = [_scalar(key) for key in given], list(given.values())
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
                f"text_features has {len(rows)} rows for {len(keys)} classes ({some(keys)}). "
                "Pass a mapping {label: vector}, or class_names in the order of the rows."
            )
    return _with_clean_keys(dict(zip(keys, rows, strict=True)), labels, "text_features", forms)


def has_index(given: Any) -> bool:
    """Return whether this is a Series or a frame of pandas, whose rows have labels of their own."""
    return hasattr(given, "iloc") and hasattr(given, "index") and hasattr(given, "shape")


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
    index = [_scalar(value) for value in given.index.tolist()]
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
                f"({some(list(named))}). Pass {parameter}.to_numpy() for rows in the order of class_names, or a "
                "mapping {label: vector}."
            )
        return index
    if counts:
        return None
    by_name = None if named is None else _labels_by_name(index, named)
    if by_name is None:
        values = "tolist()" if len(given.shape) == 1 else "to_numpy()"
        raise ValueError(
            f"{parameter} is indexed by {some(index)}, which lacks {some(lacking)} of y. Index it by the labels, or "
            f"pass {parameter}.{values} to go by the order of the rows."
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
        f"{parameter} has {len(items)} items, which integer labels index from 0, but y holds {some(labels)}. "
        f"Pass a mapping {{label: item}} instead."
    )


def _with_clean_keys(table: dict[Any, Any], labels: list[Any], parameter: str, forms: dict[Any, Any]) -> dict[Any, Any]:
    """Return a table whose keys are the labels of `y`, where that has them, in their Unicode form."""
    keys = [_scalar(key) for key in table]
    for key in keys:
        if is_missing(key):
            raise ValueError(f"{parameter} has a key that is missing ({key!r}); remove it.")
    other = [key for key in keys if _kind(key) != _kind(labels[0])]
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
    raise ValueError(f"{parameter} has no entry for {some(missing)}, which {source}; it has {some(list(table))}.{hint}")


def _warn_of_namesakes(names: dict[str, str]) -> None:
    """Warn of string labels that are the same words."""
    by_name: dict[str, list[str]] = {}
    for label, name in names.items():
        by_name.setdefault(name, []).append(label)
    for labels in by_name.values():
        if len(labels) > 1:
            warn(
                f"y holds {' and '.join(map(repr, labels))}, which differ in white space or underscores alone; they "
                "are two classes with the same text. If they are one class, give it one label."
            )


def _warn_of_written_missing(labels: list[str]) -> None:
    """Warn of strings that stood for a missing label before something made strings of all labels."""
    written = [label for label in labels if label in WRITTEN_MISSING]
    if written:
        warn(
            f"y holds the string {some(written)}, which numpy and pandas write for a missing label; it is taken for "
            "a class. Remove these samples, or name the class in class_names if it is one."
        )


def _stack(rows: dict[Any, Any], keys: list[Any]) -> NDArray[np.float64]:
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


def some(items: list[Any], most: int = 5) -> str:
    shown = ", ".join(repr(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
