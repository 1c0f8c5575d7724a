"""`skxma suggest`: the images of a folder that are most worth a label."""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from skxma.active._names import NEED_MODEL, STRATEGIES
from skxma.benchmark._names import DEFAULT_ENCODER
from skxma.cli._help import positive_count
from skxma.cli._inputs import existing_files, image_paths, without_copies
from skxma.cli._model_files import (
    check_model,
    explained_for_command_line,
    load_model,
    memory_of,
    named_encoders,
    own_classifier,
)
from skxma.cli._parsers import add_memory
from skxma.cli._predict import answers, skipping_unreadable
from skxma.cli._streams import escape_bytes, say

SUGGEST_FORMATS = ("paths", "csv", "json")
DEFAULT_N_SAMPLES = 20


def add_parser(commands: Any) -> None:
    """Add ``skxma suggest`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "suggest",
        help="name the images that are most worth a label",
        description="Print the images of an unsorted folder that are most worth a label, the most useful first. "
        "Without a model they are the most central image of each of N clusters; with one, the least certain images of "
        "the classes that have the fewest labels, and images of its fit are left out. Images that cannot be read are "
        "named on stderr; the status is then 1.",
        epilog="examples: skxma suggest camera/ -n 40 --copy-to birds/    "
        "skxma suggest camera/ --model birds.skxma -n 40 --copy-to birds/",
    )
    parser.add_argument("pool", nargs="+", metavar="DIR", help="folders of images, images, or - for a list on stdin")
    parser.add_argument("--model", metavar="FILE", help="what `skxma fit` saved on the labels so far")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="without --model: the classes; as many images as classes are suggested unless -n says otherwise, and with "
        "--copy-to each class gets an empty folder to sort into",
    )
    parser.add_argument(
        "-n",
        dest="n_samples",
        type=positive_count,
        metavar="N",
        help=f"images (default: as many as --classes, else {DEFAULT_N_SAMPLES})",
    )
    parser.add_argument(
        "--encoder",
        action="append",
        metavar="NAME",
        help="with --model, where its encoder is now; else what encodes the images; given again, several at once "
        f"(default: {DEFAULT_ENCODER})",
    )
    parser.add_argument("--strategy", choices=STRATEGIES, default="auto", help="(default: %(default)s)")
    parser.add_argument(
        "--random-share", type=float, default=0.0, metavar="SHARE", help="share to draw at random (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--format", choices=SUGGEST_FORMATS, default="paths", help="(default: %(default)s)")
    parser.add_argument(
        "--copy-to",
        metavar="DIR",
        help="copy them to a folder, to be sorted there: a new one, or the one with the folders of the classes so far",
    )
    add_memory(parser)
    parser.add_argument("--device", metavar="NAME", help="(default: that of the fit, or auto)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print, and copy, what is suggested; 1 where an image could not be read."""
    if arguments.strategy in NEED_MODEL and not arguments.model:
        raise ValueError(f"--strategy {arguments.strategy} asks a model; give one with --model, or leave it out.")
    if not 0 <= arguments.random_share <= 1:
        raise ValueError(f"--random-share {arguments.random_share}: give a share from 0 to 1.")
    folder = None if arguments.copy_to is None else folder_to_sort_in(arguments.copy_to)
    classes = checked_classes(arguments)
    n_samples = arguments.n_samples or len(classes) or DEFAULT_N_SAMPLES
    if arguments.model:
        check_model(arguments.model)
    asked = image_paths(arguments.pool)
    if not asked:
        raise ValueError(f"no images in {' '.join(arguments.pool)}.")
    there = existing_files(asked)
    fresh = there if folder is None else not_in(folder, there)
    from skxma.active import suggest

    clf = classifier(arguments, classes)
    how = {"strategy": arguments.strategy, "random_share": arguments.random_share, "random_state": arguments.seed}
    with explained_for_command_line(arguments.model) if arguments.model else nullcontext():
        readable, rows = skipping_unreadable(lambda paths: suggest(clf, paths, n_samples, **how), fresh)
        paths = [readable[row] for row in rows]
        found = [{"path": path} for path in paths]
        if arguments.model and arguments.format != "paths" and paths:
            for one, p in zip(found, answers(clf, paths)[1], strict=True):
                one |= {"class": str(clf.classes_[p.argmax()]), "probability": round(float(p.max()), 6)}
    write_suggestions(found, arguments.format, with_answers=bool(arguments.model))
    if folder is not None:
        copy(paths, folder, classes)
    return int(len(readable) < len(fresh) or len(there) < len(asked))


def checked_classes(arguments: argparse.Namespace) -> list[str]:
    """The classes that were named, each once; they must be names that a folder can have."""
    named: list[str] = list(dict.fromkeys(arguments.classes or []))
    if named and arguments.model:
        raise ValueError("--classes is for the first round; with --model the classes are those of the model.")
    for name in named:
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(
                f"--classes: {name!r} is no name that a folder of images can have; name the class otherwise."
            )
    return named


def classifier(arguments: argparse.Namespace, classes: Sequence[str]) -> Any:
    """The classifier of the model, or one for the named classes that is not fitted."""
    named = arguments.encoder or []
    if arguments.model:
        if len(named) > 1:
            raise ValueError("a --model takes one --encoder, where its encoder is now; it knows its encoders itself.")
        clf = load_model(
            arguments.model, encoder=next(iter(named), None), device=arguments.device, memory=arguments.memory
        )
        return own_classifier(clf, arguments.model)
    from skxma._estimators.xmadapter import XMAdapterClassifier
    from skxma.prompts import clean_name

    return XMAdapterClassifier(
        named_encoders(named),
        class_names={name: clean_name(name) for name in classes} or None,
        memory=memory_of(arguments),
        device=arguments.device or "auto",
        verbose=int(sys.stderr.isatty()),
    )


def folder_to_sort_in(path: str) -> Path:
    """Return the folder to copy to, if it is new or empty, or holds nothing but the folders of the classes so far."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--copy-to {path}: it is a file. Name a folder.")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise PermissionError(f"--copy-to {path}: {there} is no folder that can be written. Name another folder.")
    unsorted = [] if not folder.exists() else sorted(one.name for one in folder.iterdir() if is_unsorted(one))
    if unsorted:
        raise FileExistsError(
            f"--copy-to {path}: {unsorted[0]} lies there, in no folder of a class. Sort what is there, or name another "
            "folder."
        )
    return folder


def not_in(folder: Path, paths: Sequence[str]) -> list[str]:
    """Return the images without a copy in the folder of the rounds before, and count the others on standard error."""
    from skxma.datasets._listing import list_images

    if not folder.exists():
        return list(paths)
    fresh = without_copies(paths, list_images(folder).paths)
    if len(fresh) < len(paths):
        say(f"skxma: {len(paths) - len(fresh)} of {len(paths)} images lie in {folder} already, left out")
    if paths and not fresh:
        raise ValueError(f"--copy-to {folder}: all images lie there already, so there is nothing to suggest.")
    return fresh


def is_unsorted(entry: Path) -> bool:
    """Return whether an entry of a folder is a file of the user's, in no folder of a class."""
    from skxma.datasets._listing import is_hidden

    return not entry.is_dir() and not is_hidden(entry.name)


def copy(paths: Sequence[str], folder: Path, classes: Sequence[str]) -> None:
    """Copy images to a folder; a number before the name keeps their order, and names that occur twice apart.

    The numbers go on from round to round, so that no image takes the place of another in the folder of its class.
    """
    for place in (folder, *(folder / name for name in classes)):
        place.mkdir(parents=True, exist_ok=True)
    numbered = (re.match(r"(\d+)-", name) for _, _, names in os.walk(folder) for name in names)
    first = 1 + max((int(found[1]) for found in numbered if found), default=0)
    width = len(str(first + len(paths) - 1))
    for i, path in enumerate(paths, start=first):
        shutil.copy2(path, folder / f"{i:0{width}d}-{Path(path).name}")
    sorting = "the folder of its class there" if classes else "a folder there that is named after its class"
    say(f"{len(paths)} images copied to {folder}; move each to {sorting}, and fit")


def write_suggestions(found: Sequence[dict[str, Any]], form: str, with_answers: bool) -> None:
    """Print paths, one per line, or with the answers of the model as CSV or JSON."""
    if form == "json":
        print(escape_bytes(json.dumps(list(found), ensure_ascii=False, indent=1)))
    elif form == "csv":
        columns = ["path", "class", "probability"] if with_answers else ["path"]
        table = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    else:
        for one in found:
            print(one["path"])
