"""Model files on the command line: where they may be written, and loading them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from skxma._runtime.atomic import check_place, replacing

OURS, PICKLES = ".skxma", (".joblib", ".pkl", ".pickle")


def place_for(path: str) -> Path:
    """The file that is to be written, refused before long work where it cannot be."""
    if Path(path).suffix.lower() not in (OURS, *PICKLES):
        raise ValueError(f"--model {path}: name it {Path(path).name}{OURS}, or with {PICKLES[0]} for a pickle.")
    check_place(path)
    return Path(path)


def save(clf: Any, target: Path) -> None:
    """Write a model as the name says, whole or not at all."""
    if target.suffix.lower() not in PICKLES:
        clf.save(target)
        return
    import joblib

    with replacing(target) as stream:
        joblib.dump(clf, stream)


def load(path: str) -> Any:
    """A saved classifier that takes pictures. Only a name that says so is opened as a pickle."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no model {path}; `skxma fit DIR --model {path}` makes one.")
    if Path(path).suffix.lower() not in PICKLES:
        from skxma.persistence import load as load_ours

        return taking_pictures(load_ours(path), path)
    import joblib

    try:
        clf = joblib.load(path)
    except Exception as error:
        raise ValueError(f"{path} is no model of skxma, or a damaged one ({type(error).__name__}: {error}).") from error
    return taking_pictures(clf, path)


def taking_pictures(clf: Any, path: str) -> Any:
    """The classifier, if it is fitted, of skxma or made with one of skxma, and encodes pictures itself."""
    from skxma._estimators.base import FewShotClassifier

    parts = clf.get_params().values() if hasattr(clf, "get_params") else ()
    ours = [part for part in (clf, *parts) if isinstance(part, FewShotClassifier)]
    if not ours or not hasattr(clf, "classes_"):
        raise ValueError(f"{path} holds a {type(clf).__name__}, not a fitted classifier of skxma.")
    if all(part._is_precomputed() for part in ours):
        raise ValueError(f"{path} was fitted on embeddings and knows no encoder, so it cannot answer for pictures.")
    return clf


def pictures(given: Sequence[str]) -> Iterator[str]:
    """Yield the pictures that the command line names: files as they are, folders' pictures, and stdin's lines for -."""
    from skxma.datasets.folders import IMAGE_ENDINGS

    for name in given:
        if name == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        elif Path(name).is_dir():
            yield from (str(f) for f in sorted(Path(name).rglob("*")) if f.suffix.lower() in IMAGE_ENDINGS)
        else:
            yield name
