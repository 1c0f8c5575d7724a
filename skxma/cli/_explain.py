"""`skxma explain`: print the evidence for an answer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skxma.cli._inputs import check_files, image_paths, read_labeled_images
from skxma.cli._model_files import check_model, explained_for_command_line, load_model
from skxma.cli._streams import say
from skxma.cli._tables import print_columns

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier


def run_explain(arguments: argparse.Namespace) -> None:
    """Print zero-shot, the answer, and the support images retrieved with both affinities."""
    check_model(arguments.model)
    if Path(arguments.image).is_dir():
        raise IsADirectoryError(f"{arguments.image} is a folder; name one image.")
    check_files([arguments.image])
    paths = _files_in(arguments.support, arguments) if arguments.support else None
    from skxma.inspection import support_labels

    clf = load_model(arguments.model, encoder=arguments.encoder, device=arguments.device)
    if not hasattr(clf, "kneighbors"):
        raise ValueError(f"{arguments.model} holds a {type(clf).__name__}, which retrieves no images to explain by.")
    query = [arguments.image]
    with explained_for_command_line(arguments.model):
        probabilities, zero_shot = clf.predict_proba(query)[0], clf.zero_shot(query)[0]
    image, text, found = (part[0] for part in clf.kneighbors(query, arguments.top))
    names = names_of_samples(clf, found.tolist(), paths, arguments.support)
    best = probabilities.argsort()[::-1][:3]
    answers = [(str(clf.classes_[c]), f"{probabilities[c]:.1%}", f"{zero_shot[c]:.1%}") for c in best]
    print_columns(("class", "answer", "zero-shot"), answers, n_words=1)
    print()
    labels = support_labels(clf)
    retrieved = [
        (name, str(labels[i]), f"{a:+.2f}", f"{b:+.2f}")
        for name, i, a, b in zip(names, found, image, text, strict=True)
    ]
    print_columns(("support image", "its class", "image affinity", "text affinity"), retrieved, n_words=2, n_paths=1)


def _files_in(support: str, arguments: argparse.Namespace) -> list[str]:
    """The images in a folder, however it is laid out, or in a table."""
    if Path(support).is_dir():
        return image_paths([support])
    return list(read_labeled_images(support, arguments).paths)


def names_of_samples(
    clf: BaseFewShotClassifier, rows: Sequence[int], paths: Sequence[str] | None, folder: str | None
) -> list[str]:
    """Return what to call samples of the fit: where they are, else the path that the model kept, else their number.

    Parameters
    ----------
    clf : BaseFewShotClassifier
    rows : sequence of int
    paths : sequence of str, optional
        The images of a folder, in which the samples are sought by name and content.
    folder : str or None
        Its name.

    Raises
    ------
    ValueError
        None of the samples is in the folder.
    """
    from skxma.inspection._support import find_support_images, support_names

    kept = support_names(clf)
    if paths is None:
        return [kept[row] or f"number {row}" for row in rows]
    found = find_support_images(clf, rows, paths)
    n_missing = found.count(None)
    if n_missing == len(rows):
        raise ValueError(
            f"{folder} holds none of the {len(rows)} images that were retrieved. Give the folder or table of the "
            "fit, or leave out --support."
        )
    if n_missing:
        say(f"skxma: {folder} does not hold {n_missing} of the {len(rows)} images that were retrieved, marked with ?")
    return [path or f"? {kept[row] or f'number {row}'}" for path, row in zip(found, rows, strict=True)]
