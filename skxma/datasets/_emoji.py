"""The bundled sample: forty things drawn by five emoji sets, none of which the bundled encoder was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from PIL import Image

from skxma.datasets._bunch import bunch

if TYPE_CHECKING:
    from sklearn.utils import Bunch

_HERE = Path(__file__).resolve().parent
_PICTURES = _HERE / "emoji"
EMOJI_SETS = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "noto-v1")


@overload
def load_emoji(
    *, return_X_y: Literal[False] = False, as_paths: bool = False, sets: str | Sequence[str] | None = None
) -> Bunch: ...


@overload
def load_emoji(
    *, return_X_y: Literal[True], as_paths: bool = False, sets: str | Sequence[str] | None = None
) -> tuple[Any, np.ndarray]: ...


def load_emoji(
    *, return_X_y: bool = False, as_paths: bool = False, sets: str | Sequence[str] | None = None
) -> Bunch | tuple[Any, np.ndarray]:
    """Load forty things as five emoji sets draw them (classification); nothing is downloaded.

    =================   ==============
    Classes                         40
    Samples per class                5
    Samples total                  200
    Image               64 × 64, RGB
    =================   ==============

    The things were drawn at random among those kept out of the training of the bundled encoder, "tiny".

    Parameters
    ----------
    return_X_y : bool, default=False
        If True, return ``(images, target)`` instead of a Bunch.
    as_paths : bool, default=False
        If True, `images` is a list of the files' paths instead of an array.
    sets : str or sequence of str, default=None
        Which emoji sets to load: "noto", "twemoji", "fluent-emoji-flat", "emojione", "noto-v1"; None for all five.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : ndarray of shape (n_samples, 64, 64, 3) of uint8, or list of pathlib.Path
            The images on white, class by class and within a class set by set.
        target : ndarray of shape (n_samples,) of str
            Each image's class, in words: "hatching chick".
        target_names : ndarray of shape (40,) of str
            The classes, sorted.
        sets : ndarray of shape (n_samples,) of str
            The emoji set that each image is from.
        filenames : ndarray of shape (n_samples,) of str
            Each image's path.
        DESCR : str
            Where the images come from and under which licenses.

    (images, target) : tuple if `return_X_y` is True

    Raises
    ------
    ValueError
        If `sets` is empty or names an unknown set.

    Examples
    --------
    >>> from skxma.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> emoji.images.shape
    (200, 64, 64, 3)
    >>> len(emoji.target_names)
    40
    >>> X, y = load_emoji(sets="noto", return_X_y=True)
    >>> X.shape, y.shape
    ((40, 64, 64, 3), (40,))
    """
    chosen = _check_sets(sets)
    folders = sorted(folder for folder in _PICTURES.iterdir() if folder.is_dir())
    paths = [folder / f"{name}.png" for folder in folders for name in chosen]
    target = np.array([path.parent.name.replace("-", " ") for path in paths])
    images = paths if as_paths else np.stack([_read_rgb(path) for path in paths])
    if return_X_y:
        return images, target
    return bunch(
        images=images,
        target=target,
        target_names=np.unique(target),
        sets=np.array([path.stem for path in paths]),
        filenames=np.array([str(path) for path in paths]),
        DESCR=(_HERE / "descr" / "emoji.rst").read_text(encoding="utf-8"),
    )


def _check_sets(sets: str | Sequence[str] | None) -> list[str]:
    """Return the named sets in their fixed order, whatever order they were asked in."""
    asked = set(EMOJI_SETS if sets is None else [sets] if isinstance(sets, str) else sets)
    unknown = asked - set(EMOJI_SETS)
    if unknown or not asked:
        wrong = f"unknown set {', '.join(map(repr, sorted(map(str, unknown))))}" if unknown else "sets is empty"
        raise ValueError(f"{wrong}; the sample has {', '.join(map(repr, EMOJI_SETS))}")
    return [name for name in EMOJI_SETS if name in asked]


def _read_rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
