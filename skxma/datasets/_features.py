"""Feature files: a data set that was encoded once, in one ``.npz``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from skxma.datasets._bunch import bunch

if TYPE_CHECKING:
    from sklearn.utils import Bunch

OPTIONAL = ("text_features", "class_names", "groups", "vocabulary_features", "images")


def load_features(path: str | os.PathLike[str]) -> Bunch:
    """Load a feature file.

    Parameters
    ----------
    path : str or path-like
        An ``.npz`` with ``image_features`` (N, D) and ``labels`` (N,), and where known ``text_features`` (C, D) and
        ``class_names`` (C,), which integer labels index, ``groups`` (N,) (which image a view is of),
        ``vocabulary_features`` (M, D), and small ``images`` (N, H, W, 3) themselves, uint8.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        data : ndarray of shape (N, D), float32
            Image features.
        target : ndarray of shape (N,)
            Labels.
        text_features, class_names, groups, vocabulary_features, images : ndarray or None
            As in the file; None where it has none.
        name : str
            The file's name without its ending.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no feature file; the message names what is missing or does not match.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no feature file {path}.")
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in ("image_features", "labels", *OPTIONAL) if name in held.files}
    except (OSError, ValueError, AttributeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an .npz of plain arrays: {error}") from error
    missing = [name for name in ("image_features", "labels") if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {' and '.join(missing)}; a feature file needs image_features and labels.")
    _check_shapes(path, arrays)
    floats = {name: arrays[name].astype(np.float32) for name in arrays if name.endswith("_features")}
    return bunch(
        data=floats["image_features"],
        target=arrays["labels"],
        name=path.stem,
        **{name: floats.get(name, arrays.get(name)) for name in OPTIONAL},
    )


def save_features(
    path: str | os.PathLike[str],
    image_features: ArrayLike,
    labels: ArrayLike,
    **optional: ArrayLike | None,
) -> None:
    """Save a feature file for `load_features`.

    Parameters
    ----------
    path : str or path-like
        Where to; ends with ``.npz``.
    image_features : array-like of shape (N, D)
        Image features; kept in half precision.
    labels : array-like of shape (N,)
        Labels.
    **optional : array-like or None
        ``text_features``, ``class_names``, ``groups``, ``vocabulary_features`` and ``images``; None is left out.

    Raises
    ------
    ValueError
        An array of another name, or of a shape that does not fit.
    """
    unknown = sorted(set(optional) - set(OPTIONAL))
    if unknown:
        raise ValueError(f"a feature file has no {', '.join(unknown)}; it may have {', '.join(OPTIONAL)}.")
    given = {"image_features": image_features, "labels": labels, **optional}
    arrays = {name: np.asarray(value) for name, value in given.items() if value is not None}
    _check_shapes(Path(path), arrays)
    halves = {name: a.astype(np.float16) if name.endswith("_features") else a for name, a in arrays.items()}
    np.savez_compressed(path, **_without_objects(halves))


def _without_objects(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays of objects, as pandas makes of words, as arrays of words: a feature file contains no pickles."""
    return {name: a.astype(str) if a.dtype == object else a for name, a in arrays.items()}


def _check_shapes(path: Path, arrays: dict[str, Any]) -> None:
    images, labels = arrays["image_features"], arrays["labels"]
    if images.ndim != 2 or labels.shape != (len(images),):
        raise ValueError(
            f"{path} holds image_features of shape {images.shape} and labels of shape {labels.shape}; "
            "(N, D) and (N,) are needed."
        )
    for name in ("text_features", "vocabulary_features"):
        if name in arrays and (arrays[name].ndim != 2 or arrays[name].shape[1] != images.shape[1]):
            raise ValueError(
                f"{path} holds {name} of shape {arrays[name].shape} beside images of width {images.shape[1]}."
            )
    if "text_features" in arrays and len(arrays.get("class_names", arrays["text_features"])) != len(
        arrays["text_features"]
    ):
        raise ValueError(
            f"{path} holds {len(arrays['text_features'])} text_features for {len(arrays['class_names'])} class_names."
        )
    if "images" in arrays and not (
        arrays["images"].dtype == np.uint8 and arrays["images"].shape == (len(images), *arrays["images"].shape[1:3], 3)
    ):
        raise ValueError(
            f"{path} holds images of shape {arrays['images'].shape} and type {arrays['images'].dtype}; "
            f"({len(images)}, H, W, 3) and uint8 are needed."
        )
    if "groups" in arrays and arrays["groups"].shape != labels.shape:
        raise ValueError(f"{path} holds groups of shape {arrays['groups'].shape} for {len(labels)} images.")
