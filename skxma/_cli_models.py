"""`skxma fit | predict | explain | prompts`: from folders of pictures to a saved model and its answers."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import combining, east_asian_width

from ._atomic import check_place, replacing
from ._benchmark_problem import DEFAULT_ENCODER
from .benchmark import positive_count

FORMATS = ("table", "csv", "json")
OURS, PICKLES = ".skxma", (".joblib", ".pkl", ".pickle")


def add_parsers(commands: Any) -> None:
    """Add the commands to the subparsers of the command line."""
    fit = commands.add_parser(
        "fit",
        help="fit a classifier on a folder of pictures and save it",
        description="Fit on a folder with a folder of pictures for each class, or on a CSV file with the columns path "
        "and label. The names of the folders, or the labels, are the class names.",
        epilog="example: skxma fit birds/ --model birds.skxma --unlabeled camera/",
    )
    fit.add_argument("data", metavar="DIR", help="folder with a folder a class, or CSV file")
    fit.add_argument(
        "--unlabeled", nargs="+", metavar="DIR", help="pictures without labels, or folders of them, to learn from too"
    )
    fit.add_argument(
        "--model", required=True, metavar="FILE", help="where to save the model: NAME.skxma, or NAME.joblib"
    )
    fit.add_argument("--encoder", default=DEFAULT_ENCODER, metavar="NAME", help="(default: %(default)s)")
    add_words(fit)
    fit.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    fit.add_argument("--device", default="auto", metavar="NAME", help="(default: %(default)s)")
    fit.set_defaults(run=run_fit)

    predict = commands.add_parser(
        "predict",
        help="classify pictures with a saved model",
        description="Print the most probable classes of each picture. Pictures that cannot be read are named on stderr "
        "and the others answered; the status is 1. A model in .joblib is a pickle: open only those you trust.",
        epilog="example: skxma predict birds.skxma new/*.jpg --top 3 --format csv    "
        "find new -name '*.jpg' | skxma predict birds.skxma -",
    )
    predict.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures, folders of them, or - for a list on stdin"
    )
    predict.add_argument("--top", type=positive_count, default=1, metavar="N", help="classes a picture (default: 1)")
    predict.add_argument("--format", choices=FORMATS, default="table", help="(default: %(default)s)")
    predict.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    predict.set_defaults(run=run_predict)

    explain = commands.add_parser(
        "explain",
        help="show the evidence for an answer",
        description="Print what the text alone says of a picture, and which support images were retrieved for it.",
        epilog="example: skxma explain birds.skxma new/1.jpg --support birds/",
    )
    explain.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    explain.add_argument("image", metavar="IMAGE")
    explain.add_argument("--support", metavar="DIR", help="the data of the fit, to name its pictures")
    explain.add_argument("--top", type=positive_count, default=5, metavar="N", help="support images (default: 5)")
    explain.set_defaults(run=run_explain)

    prompts = commands.add_parser(
        "prompts",
        help="show the prompts that are sent for class names",
        description="Print the prompts of each class: of the names given, of a data set's classes, or of a model's.",
        epilog="examples: skxma prompts heron 'a white egret' --templates imagenet    "
        "skxma prompts birds/ --names names.json    skxma prompts birds.skxma    "
        "skxma prompts Reiher --templates 'ein Foto von {}' --templates 'eine Zeichnung von {}'",
    )
    prompts.add_argument(
        "classes", nargs="+", metavar="NAME", help="class names, or one folder or CSV file of pictures, or one model"
    )
    add_words(prompts)
    prompts.set_defaults(run=run_prompts)


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add what the classes are called and described by."""
    parser.add_argument(
        "--templates",
        action="append",
        metavar="NAME",
        help="simple, imagenet, photo, bare, or a text with {} for the name; may be repeated (default: simple)",
    )
    parser.add_argument(
        "--names",
        metavar="JSON",
        help='what classes are called: {"heron": ["grey heron", "a tall grey bird"], "empty": null, ...}; several '
        "names and descriptions, or none; others keep their label, further ones are known from their text alone",
    )


def run_fit(arguments: argparse.Namespace) -> None:
    """Fit on a folder or table and save the model."""
    target = place_for(arguments.model)
    from .classifier import XMAdapterClassifier
    from .datasets import load_image_folder
    from .inspection import labels_in_question

    data = load_image_folder(arguments.data)
    names = read_names(arguments.names, data.target_names.tolist())
    unlabelled = list(pictures(arguments.unlabeled or ()))
    if arguments.unlabeled and not unlabelled:
        raise FileNotFoundError(f"{' '.join(arguments.unlabeled)}: no pictures there to learn from without labels.")
    clf = XMAdapterClassifier(
        arguments.encoder,
        class_names=names,
        templates=templates_of(arguments) or "simple",
        memory=arguments.memory,
        device=arguments.device,
        random_state=0,
        verbose=int(sys.stderr.isatty()),
        unlabeled_label=math.nan if unlabelled else None,
    )
    clf.fit([*data.paths, *unlabelled], [*data.target, *[None] * len(unlabelled)])
    save(clf.set_params(verbose=0), target)
    print(f"{len(data.paths)} pictures of {len(clf.classes_)} classes; saved {target}", file=sys.stderr)
    unseen = sorted(set(names or ()) - set(data.target))
    if unseen:
        print(f"known from their text alone, without pictures: {', '.join(unseen)}", file=sys.stderr)
    if unlabelled:
        print(f"learned from {clf.n_unlabeled_used_} of {len(unlabelled)} pictures without labels", file=sys.stderr)
    for found in labels_in_question(clf):
        where = f"{data.paths[found.sample]}, rather {found.suggested}"
        print(f"label in question ({found.probability:.2f}): {where}", file=sys.stderr)


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
        from .persistence import load as load_ours

        return taking_pictures(load_ours(path), path)
    import joblib

    try:
        clf = joblib.load(path)
    except Exception as error:
        raise ValueError(f"{path} is no model of skxma, or a damaged one ({type(error).__name__}: {error}).") from error
    return taking_pictures(clf, path)


def taking_pictures(clf: Any, path: str) -> Any:
    """The classifier, if it is fitted, of skxma or made with one of skxma, and encodes pictures itself."""
    from .base import FewShotClassifier

    parts = clf.get_params().values() if hasattr(clf, "get_params") else ()
    ours = [part for part in (clf, *parts) if isinstance(part, FewShotClassifier)]
    if not ours or not hasattr(clf, "classes_"):
        raise ValueError(f"{path} holds a {type(clf).__name__}, not a fitted classifier of skxma.")
    if all(part._is_precomputed() for part in ours):
        raise ValueError(f"{path} was fitted on embeddings and knows no encoder, so it cannot answer for pictures.")
    return clf


def pictures(given: Sequence[str]) -> Iterator[str]:
    """Yield the pictures that the command line names: files as they are, folders' pictures, and stdin's lines for -."""
    from .datasets.folders import IMAGE_ENDINGS

    for name in given:
        if name == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        elif Path(name).is_dir():
            yield from (str(f) for f in sorted(Path(name).rglob("*")) if f.suffix.lower() in IMAGE_ENDINGS)
        else:
            yield name


def run_predict(arguments: argparse.Namespace) -> int:
    """Print the answers of a saved model; 1 where a picture could not be read."""
    clf = load(arguments.model)
    if arguments.memory:
        clf.set_params(memory=arguments.memory)
    asked = list(pictures(arguments.images))
    if not asked:
        raise ValueError(f"no pictures in {' '.join(arguments.images)}.")
    readable, probabilities = answers(clf, asked)
    rows = [
        (path, str(clf.classes_[c]), float(row[c]))
        for path, row in zip(readable, probabilities, strict=True)
        for c in row.argsort()[::-1][: arguments.top]
    ]
    write(rows, arguments.format)
    return int(len(readable) < len(asked))


def answers(clf: Any, asked: Sequence[str]) -> tuple[list[str], Any]:
    """The pictures that can be read and their probabilities; the others are named on stderr."""
    from .errors import ImageError

    readable = list(asked)
    while readable:
        try:
            return readable, clf.predict_proba(readable)
        except ImageError as error:
            if error.index is None:
                raise
            print(f"skxma: {readable[error.index]}: {error.reason}", file=sys.stderr)
            # what was encoded before it is in memory
            del readable[error.index]
    return [], []


def write(rows: Sequence[tuple[str, str, float]], form: str) -> None:
    """Print (path, class, probability) as a table, CSV or JSON."""
    if form == "json":
        found: dict[str, list[dict[str, Any]]] = {}
        for path, label, p in rows:
            found.setdefault(path, []).append({"class": label, "probability": round(p, 6)})
        print(
            json.dumps([{"path": path, "answers": best} for path, best in found.items()], ensure_ascii=False, indent=1)
        )
    elif form == "csv":
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["path", "class", "probability"])
        table.writerows((path, label, f"{p:.6f}") for path, label, p in rows)
    else:
        width = max((width_of(path) for path, _, _ in rows), default=0)
        for path, label, p in rows:
            print(f"{padded(path, width)}  {100 * p:5.1f} %  {label}")


def run_explain(arguments: argparse.Namespace) -> None:
    """Print zero-shot, the answer, and the support images retrieved with both affinities."""
    from .datasets import load_image_folder
    from .inspection import support_labels

    clf = load(arguments.model)
    paths = load_image_folder(arguments.support).paths if arguments.support else None
    # those without labels were given last
    n_samples = len(clf.sample_position_) - len(getattr(clf, "unlabeled_position_", ()))
    if paths is not None and len(paths) != n_samples:
        raise ValueError(f"{arguments.support} has {len(paths)} pictures, the model was fitted on {n_samples}.")
    query = [arguments.image]
    probabilities, zero_shot = clf.predict_proba(query)[0], clf.zero_shot(query)[0]
    best = probabilities.argsort()[::-1][:3]
    answers = [(str(clf.classes_[c]), f"{probabilities[c]:.1%}", f"{zero_shot[c]:.1%}") for c in best]
    print_columns(("class", "answer", "zero-shot"), answers, n_words=1)
    print()
    labels = support_labels(clf)
    image, text, found = (part[0] for part in clf.kneighbors(query, arguments.top))
    retrieved = [
        (f"number {i}" if paths is None else paths[i], str(labels[i]), f"{a:+.2f}", f"{b:+.2f}")
        for i, a, b in zip(found, image, text, strict=True)
    ]
    print_columns(("support image", "its class", "image affinity", "text affinity"), retrieved, n_words=2)


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], n_words: int) -> None:
    """Print a table whose first columns are words, the others numbers."""
    widths = [max(map(width_of, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [padded(cell, widths[i], right=i >= n_words) for i, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian letters two, accents that combine none."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """A text at the left, or right, of so many columns of a terminal."""
    blank = " " * (width - width_of(text))
    return blank + text if right else text + blank


def run_prompts(arguments: argparse.Namespace) -> None:
    """Print the prompts of class names, or of the classes of a data set or a model."""
    from .prompts import clean_name, make_prompts

    given, templates = arguments.classes, templates_of(arguments)
    place = Path(given[0])
    if len(given) == 1 and place.is_file() and place.suffix.lower() != ".csv":
        clf = load(given[0])
        names = dict(zip(clf.classes_.tolist(), clf.class_names_ or [None] * len(clf.classes_), strict=True))
        templates = templates or clf.templates
    else:
        labels = labels_of(given)
        names = read_names(arguments.names, labels) or {label: clean_name(label) for label in labels}
    sent = {label: [] if name is None else make_prompts(name, templates or "simple") for label, name in names.items()}
    for label, prompts in sent.items():
        print(label)
        for prompt in prompts or ["(nothing)"]:
            print(f"  {prompt}")


def templates_of(arguments: argparse.Namespace) -> Any:
    """The templates that were asked for: None, one, which may be a name, or several."""
    chosen = arguments.templates
    return chosen[0] if chosen is not None and len(chosen) == 1 else chosen


def labels_of(given: Sequence[str]) -> list[str]:
    """The classes that the command line names, or those of the one data set that it names."""
    from .datasets import load_image_folder

    if len(given) == 1 and Path(given[0]).exists():
        return [str(label) for label in load_image_folder(given[0]).target_names]
    return list(given)


def read_names(path: str | None, labels: Sequence[str]) -> dict[str, Any] | None:
    """What a JSON file calls the classes; those that it leaves out are called by their labels. None for no file."""
    from .prompts import clean_name

    if path is None:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path} with names of classes.")
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON that can be read ({error}).") from error
    if not isinstance(given, dict):
        raise ValueError(f'{path} holds no names by class: {{"heron": ["grey heron", "a tall grey bird"], ...}}.')
    for label, name in given.items():
        if not (name is None or isinstance(name, str) or (isinstance(name, list) and name)):
            raise ValueError(f"{path}: {label!r} must be called by a text, a list of texts, or null; not {name!r}.")
    return {label: clean_name(label) for label in labels} | given
