"""The support images of a fitted classifier: their names, and where they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skxma.errors import ImageError

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

RE_ENCODED = 1e-3
"""Cosine distance that an image keeps below where it is encoded again, on another device or in another precision."""


def support_names(clf: BaseFewShotClassifier) -> list[str | None]:
    """Return the paths of the samples given to `fit`, None for one without a path or where none were kept.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted.

    Returns
    -------
    names : list of length n_samples
    """
    names = getattr(clf, "sample_names_", None)
    return [None] * len(clf.sample_position_) if names is None else list(names)


def image_at(name: str | None) -> str | None:
    """Return a sample's path if there is a file, else None."""
    return name if name is not None and Path(name).is_file() else None


def describe_sample(row: int, name: str | None) -> str:
    """Return the number of a sample and, on a line of its own, the name of its file."""
    return f"sample {row}" if name is None else f"sample {row}\n{Path(name).name}"


def find_support_images(clf: BaseFewShotClassifier, rows: Sequence[int], paths: Sequence[str]) -> list[str | None]:
    """Find which of some files are images that a classifier was fitted on, whatever they are called now.

    A file with the name of the sample is looked at first, then all files. A file is the image if it has its embedding;
    where the fit averaged views of an image, only the names can tell.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted, with an encoder.
    rows : sequence of int
        Which of the samples given to `fit`.
    paths : sequence of str
        Image files.

    Returns
    -------
    found : list of length len(rows)
        The path of each sample, None for a sample that is not among the files.
    """
    names = support_names(clf)
    found = [_namesake(names[row], paths) for row in rows]
    if getattr(clf, "n_views", 1) > 1:
        return found
    wanted = clf.image_cache_.embeddings[clf.sample_position_[list(rows)]]
    _, named = _encode_readable(clf, list(dict.fromkeys(path for path in found if path is not None)))
    for i, path in enumerate(found):
        if path not in named or named[path] @ wanted[i] < 1 - RE_ENCODED:
            found[i] = None
    if None not in found:
        return found
    readable, by_path = _encode_readable(clf, paths)
    if readable:
        cosines = np.stack([by_path[path] for path in readable]) @ wanted.T
        for i, best in enumerate(cosines.argmax(axis=0)):
            if found[i] is None and cosines[best, i] >= 1 - RE_ENCODED:
                found[i] = readable[best]
    return found


def _namesake(name: str | None, paths: Sequence[str]) -> str | None:
    """The path that ends like a name, in as many folders as any; None if no file is called so."""
    if name is None:
        return None
    best = max(paths, key=lambda path: _n_common_parts(name, path), default=None)
    return best if best is not None and _n_common_parts(name, best) else None


def _n_common_parts(name: str, path: str) -> int:
    ends = zip(reversed(Path(name).parts), reversed(Path(path).parts), strict=False)
    return next((i for i, (a, b) in enumerate(ends) if a != b), min(len(Path(name).parts), len(Path(path).parts)))


def _encode_readable(
    clf: BaseFewShotClassifier, paths: Sequence[str]
) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """The files that can be read, and their embeddings."""
    readable = list(paths)
    while readable:
        try:
            return readable, dict(zip(readable, clf.encode(readable), strict=True))
        except ImageError as error:
            if error.index is None:
                raise
            del readable[error.index]
    return [], {}
