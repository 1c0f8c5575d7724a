"""`skxma predict`: print the answers of a saved model."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skxma._runtime.lines import one_line
from skxma.cli._inputs import existing_files, image_paths
from skxma.cli._model_files import check_model, explained_for_command_line, load_model
from skxma.cli._streams import escape_bytes, say
from skxma.cli._tables import aligned
from skxma.cli._words import read_object

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier


def run_predict(arguments: argparse.Namespace) -> int:
    """Print the answers of a saved model; 1 where an image could not be read."""
    check_model(arguments.model)
    shares = None if arguments.class_prior is None else read_shares(arguments.class_prior)
    asked = image_paths(arguments.images)
    if not asked:
        raise ValueError(f"no images in {' '.join(arguments.images)}.")
    there = existing_files(asked)
    if not there:
        write_nothing(arguments)
        return 1
    clf = load_model(arguments.model, encoder=arguments.encoder, device=arguments.device, memory=arguments.memory)
    how = {} if shares is None else {"class_prior": class_prior(shares, clf, arguments.model)}
    if arguments.confidence_level is not None:
        check_sets(arguments, clf)
        return int(print_sets(arguments, clf, there, **how) < len(asked))
    with explained_for_command_line(arguments.model):
        readable, probabilities = answers(clf, there, **how)
    rows = [
        (path, str(clf.classes_[c]), float(row[c]))
        for path, row in zip(readable, probabilities, strict=True)
        for c in row.argsort()[::-1][: arguments.top]
    ]
    write_predictions(rows, arguments.format)
    return int(len(readable) < len(asked))


def write_nothing(arguments: argparse.Namespace) -> None:
    """Print the answers of no image in the format that was asked for."""
    if arguments.confidence_level is None:
        write_predictions([], arguments.format)
    else:
        write_sets([], arguments.format, arguments.confidence_level)


@dataclass(frozen=True)
class SetOfClasses:
    """The set of an image: labels and their probabilities, the most probable first."""

    path: str
    answers: list[tuple[str, float]]

    @property
    def words(self) -> str:
        """The set as a reader would say it."""
        return " or ".join(label for label, _ in self.answers)


def check_sets(arguments: argparse.Namespace, clf: Any) -> None:
    """Refuse --set where the model has no sets, as a pipeline or a search of a pickle, or none of the level."""
    from skxma._estimators.conformal import as_levels, check_support

    if not hasattr(clf, "predict_set"):
        raise ValueError(f"{arguments.model} holds a {type(clf).__name__}, which takes no --set.")
    levels = as_levels(arguments.confidence_level)
    if arguments.class_prior is None:
        check_support(clf, levels, class_conditional=False)


def print_sets(arguments: argparse.Namespace, clf: BaseFewShotClassifier, asked: Sequence[str], **how: Any) -> int:
    """Print the set of each image that can be read, and return their number."""

    def compute(paths: list[str]) -> tuple[Any, Any]:
        features = clf.encode(paths)
        return clf.predict_set(features, arguments.confidence_level, **how), clf.predict_proba(features, **how)

    with explained_for_command_line(arguments.model):
        readable, found = skipping_unreadable(compute, asked)
    rows = [
        SetOfClasses(path, [(str(clf.classes_[c]), float(p[c])) for c in p.argsort()[::-1] if held[c]])
        for path, held, p in zip(readable, *(found or ([], [])), strict=True)
    ]
    write_sets(rows, arguments.format, arguments.confidence_level)
    return len(readable)


def write_sets(rows: Sequence[SetOfClasses], form: str, level: float) -> None:
    """Print sets as a table with a line per image, CSV with a row per class, or JSON."""
    if form == "json":
        content = [
            {
                "path": row.path,
                "confidence_level": level,
                "set": [{"class": c, "probability": round(p, 6)} for c, p in row.answers],
            }
            for row in rows
        ]
        print(escape_bytes(json.dumps(content, ensure_ascii=False, indent=1)))
    elif form == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["path", "class", "probability", "confidence_level"])
        table.writerows((row.path, c, f"{p:.6f}", level) for row in rows for c, p in row.answers)
    else:
        for path, row in zip(aligned([row.path for row in rows]), rows, strict=True):
            print(f"{path}  {one_line(row.words)}")


def read_shares(given: str) -> str | dict[str, Any]:
    """The class frequencies that the command line names: "batch", or shares by class, in place or in a JSON file."""
    if given == "batch":
        return given
    if "=" in given and not Path(given).is_file():
        pairs = [part.rpartition("=") for part in given.split(",")]
        labels = [label.strip() for label, _, _ in pairs]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"--class-prior {given!r} names {twice!r} twice; give each class one share.")
        return {label: share for label, (_, _, share) in zip(labels, pairs, strict=True)}
    return read_object(given, "shares by class", '{"heron": 0.9, "egret": 0.1}')


def class_prior(shares: str | dict[str, Any], clf: Any, model: str) -> Any:
    """The class frequencies by the classes of a model; refused for a pipeline or a search of a pickle."""
    from skxma._estimators.base import BaseFewShotClassifier
    from skxma._labels.arrays import composed

    if not isinstance(clf, BaseFewShotClassifier):
        raise ValueError(f"{model} holds a {type(clf).__name__}, which takes no --class-prior.")
    if isinstance(shares, str):
        return shares
    by_text = {composed(str(label)): label for label in clf.classes_.tolist()}
    return {by_text.get(composed(label), label): share for label, share in shares.items()}


def answers(clf: Any, asked: Sequence[str], **how: Any) -> tuple[list[str], Any]:
    """The images that can be read and their probabilities; the others are named on stderr.

    Parameters
    ----------
    clf : classifier
        Fitted; of a pickle, a pipeline or a search too.
    asked : sequence of str
        Paths.
    **how : object
        Parameters of `predict_proba`.
    """
    return skipping_unreadable(lambda paths: clf.predict_proba(paths, **how), asked)


def skipping_unreadable(compute: Callable[[list[str]], Any], asked: Sequence[str]) -> tuple[list[str], Any]:
    """The images that can be read and what is computed from them; the others are named on stderr.

    Parameters
    ----------
    compute : callable
        From paths; raises an `ImageError` for the first that cannot be read.
    asked : sequence of str
        Paths.
    """
    from skxma.errors import ImageError

    readable = list(asked)
    while readable:
        try:
            return readable, compute(readable)
        except ImageError as error:
            if error.index is None:
                raise
            say(f"skxma: {readable[error.index]}: {error.reason}")
            # what was encoded before it is in memory
            del readable[error.index]
    return [], []


def write_predictions(rows: Sequence[tuple[str, str, float]], form: str) -> None:
    """Print (path, class, probability) as a table, CSV or JSON."""
    if form == "json":
        found: dict[str, list[dict[str, Any]]] = {}
        for path, label, p in rows:
            found.setdefault(path, []).append({"class": label, "probability": round(p, 6)})
        answered = [{"path": path, "answers": best} for path, best in found.items()]
        print(escape_bytes(json.dumps(answered, ensure_ascii=False, indent=1)))
    elif form == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["path", "class", "probability"])
        table.writerows((path, label, f"{p:.6f}") for path, label, p in rows)
    else:
        for path, (_, label, p) in zip(aligned([path for path, _, _ in rows]), rows, strict=True):
            print(f"{path}  {100 * p:5.1f} %  {one_line(label)}")
