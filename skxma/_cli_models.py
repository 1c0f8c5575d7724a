"""`skxma fit | predict | explain | prompts`: from folders of pictures to a saved model and its answers."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ._benchmark_problem import DEFAULT_ENCODER
from .benchmark import positive_count

FORMATS = ("table", "csv", "json")


def add_parsers(commands: Any) -> None:
    """Add the commands to the subparsers of the command line."""
    fit = commands.add_parser(
        "fit",
        help="fit a classifier on a folder of pictures and save it",
        description="Fit on a folder with a folder of pictures for each class, or on a CSV file with the columns path "
        "and label. The names of the folders, or the labels, are the class names.",
        epilog="example: skxma fit birds/ --model birds.joblib --unlabeled camera/",
    )
    fit.add_argument("data", metavar="DIR", help="folder with a folder a class, or CSV file")
    fit.add_argument(
        "--unlabeled", nargs="+", metavar="DIR", help="pictures without labels, or folders of them, to learn from too"
    )
    fit.add_argument("--model", required=True, metavar="FILE", help="where to save the model")
    fit.add_argument("--encoder", default=DEFAULT_ENCODER, metavar="NAME", help="(default: %(default)s)")
    fit.add_argument("--templates", default="simple", metavar="NAME", help="prompt templates (default: %(default)s)")
    fit.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    fit.add_argument("--device", default="auto", metavar="NAME", help="(default: %(default)s)")
    fit.set_defaults(run=run_fit)

    predict = commands.add_parser(
        "predict",
        help="classify pictures with a saved model",
        description="Print the most probable classes of each picture. Pictures that cannot be read are named on stderr "
        "and the others answered; the status is 1. Only open models that you trust: they are pickles.",
        epilog="example: skxma predict birds.joblib new/*.jpg --top 3 --format csv    "
        "find new -name '*.jpg' | skxma predict birds.joblib -",
    )
    predict.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures, folders of them, or - for a list on stdin"
    )
    predict.add_argument("--top", type=positive_count, default=1, metavar="N", help="classes a picture (default: 1)")
    predict.add_argument("--format", choices=FORMATS, default="table", help="(default: %(default)s)")
    predict.set_defaults(run=run_predict)

    explain = commands.add_parser(
        "explain",
        help="show the evidence for an answer",
        description="Print what the text alone says of a picture, and which support images were retrieved for it.",
        epilog="example: skxma explain birds.joblib new/1.jpg --support birds/",
    )
    explain.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    explain.add_argument("image", metavar="IMAGE")
    explain.add_argument("--support", metavar="DIR", help="the data of the fit, to name its pictures")
    explain.add_argument("--top", type=positive_count, default=5, metavar="N", help="support images (default: 5)")
    explain.set_defaults(run=run_explain)

    prompts = commands.add_parser(
        "prompts",
        help="show the prompts that are sent for class names",
        description="Print the prompts of each class: of the names given, or of the folders of a data set.",
        epilog="example: skxma prompts heron egret --templates imagenet    skxma prompts birds/",
    )
    prompts.add_argument("names", nargs="+", metavar="NAME", help="class names, or one folder or CSV file of pictures")
    prompts.add_argument("--templates", default="simple", metavar="NAME", help="(default: %(default)s)")
    prompts.set_defaults(run=run_prompts)


def run_fit(arguments: argparse.Namespace) -> None:
    """Fit on a folder or table and save the model."""
    target = Path(arguments.model)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder to save {target.name} in; make it first.")
    from .classifier import XMAdapterClassifier
    from .datasets import load_image_folder
    from .inspection import labels_in_question

    data = load_image_folder(arguments.data)
    unlabelled = list(pictures(arguments.unlabeled or ()))
    if arguments.unlabeled and not unlabelled:
        raise FileNotFoundError(f"{' '.join(arguments.unlabeled)}: no pictures there to learn from without labels.")
    clf = XMAdapterClassifier(
        arguments.encoder,
        templates=arguments.templates,
        memory=arguments.memory,
        device=arguments.device,
        random_state=0,
        verbose=int(sys.stderr.isatty()),
        unlabeled_label=math.nan if unlabelled else None,
    )
    clf.fit([*data.paths, *unlabelled], [*data.target, *[None] * len(unlabelled)])
    save(clf.set_params(verbose=0), target)
    print(f"{len(data.paths)} pictures of {len(clf.classes_)} classes; saved {target}", file=sys.stderr)
    if unlabelled:
        print(f"learned from {clf.n_unlabeled_used_} of {len(unlabelled)} pictures without labels", file=sys.stderr)
    for found in labels_in_question(clf):
        where = f"{data.paths[found.sample]}, rather {found.suggested}"
        print(f"label in question ({found.probability:.2f}): {where}", file=sys.stderr)


def save(clf: Any, target: Path) -> None:
    """Write a model beside its place and move it there, so that no half of one is ever found."""
    import joblib

    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as part:
        try:
            joblib.dump(clf, part)
            part.flush()
            os.fsync(part.fileno())
            part.close()
            Path(part.name).replace(target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def load(path: str) -> Any:
    """A saved classifier."""
    import joblib

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no model {path}; `skxma fit DIR --model {path}` makes one.")
    try:
        clf = joblib.load(path)
    except Exception as error:
        raise ValueError(f"{path} is no model of skxma, or a damaged one ({type(error).__name__}: {error}).") from error
    if not hasattr(clf, "predict_proba") or not hasattr(clf, "classes_"):
        raise ValueError(f"{path} holds a {type(clf).__name__}, not a fitted classifier.")
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
        width = max((len(path) for path, _, _ in rows), default=0)
        for path, label, p in rows:
            print(f"{path:{width}s}  {100 * p:5.1f} %  {label}")


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
    print(f"{'class':24s}  answer  zero-shot")
    for c in probabilities.argsort()[::-1][:3]:
        print(f"{clf.classes_[c]!s:24s}  {100 * probabilities[c]:4.1f} %     {100 * zero_shot[c]:4.1f} %")
    labels = support_labels(clf)
    print(f"\n{'support image':24s}  {'its class':16s}  image affinity  text affinity")
    image, text, found = (part[0] for part in clf.kneighbors(query, arguments.top))
    for i, a, b in zip(found, image, text, strict=True):
        name = f"number {i}" if paths is None else paths[i]
        print(f"{name:24s}  {labels[i]!s:16s}  {a:+14.2f}  {b:+13.2f}")


def run_prompts(arguments: argparse.Namespace) -> None:
    """Print the prompts of class names, or of the classes of a data set."""
    from .datasets import load_image_folder
    from .prompts import clean_name, make_prompts

    names = arguments.names
    if len(names) == 1 and Path(names[0]).exists():
        names = load_image_folder(names[0]).target_names.tolist()
    for name in names:
        print(name)
        for prompt in make_prompts(clean_name(name), arguments.templates):
            print(f"  {prompt}")
