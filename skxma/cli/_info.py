"""`skxma info`: describe a saved model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skxma._runtime.lines import one_line
from skxma.cli._model_files import is_pickle, load_model
from skxma.cli._streams import escape_bytes
from skxma.cli._tables import print_columns

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

INFO_FORMATS = ("table", "json")
SCALARS = ("alpha", "beta", "fusion_ratio")
# the center of a wider one would be read as a promise: with a second image of few classes it is that of these alone
WIDE_INTERVAL = 0.5


def add_parser(commands: Any) -> None:
    """Add ``skxma info`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "info",
        help="show what a saved model knows",
        description="Print a model's classes with their names and shots, its encoder, templates and evidence, its "
        "accuracy on support images that were left out, labels that are probably wrong, and the file's size and "
        "version. No image is encoded and no weights are loaded. A model in .joblib is a pickle: open only those you "
        "trust.",
        epilog="examples: skxma info birds.skxma    skxma info birds.skxma --format json",
    )
    parser.add_argument("model", metavar="MODEL", help="what `skxma fit` or `clf.save` wrote")
    parser.add_argument("--format", choices=INFO_FORMATS, default="table", help="(default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print what a model knows."""
    path = Path(arguments.model)
    clf = opened(path)
    described = {"file": str(path), **about_file(path), **about_classifier(clf)}
    if arguments.format == "json":
        print(escape_bytes(json.dumps(described, ensure_ascii=False, indent=1)))
    else:
        write_description(described)


def left_out_line(clf: BaseFewShotClassifier) -> str:
    """Accuracy to expect on new images with its interval, in a line; empty where no sample could be left out."""
    from skxma._evidence.fitted import CONFIDENCE_LEVEL
    from skxma.inspection._left_out import expected_accuracy

    found = expected_accuracy(clf)
    if found is None:
        return ""
    if found.high - found.low > WIDE_INTERVAL:
        return (
            f"left-out accuracy between {found.low:.1%} and {found.high:.1%} ({CONFIDENCE_LEVEL:.0%} interval): "
            "too few classes have a second image to say more"
        )
    return (
        f"left-out accuracy {found.value:.1%} ({CONFIDENCE_LEVEL:.0%} interval {found.low:.1%} to {found.high:.1%}): "
        "what to expect on new images of the same kind"
    )


def opened(path: Path) -> BaseFewShotClassifier:
    """The classifier of a file; of a search or a pipeline, the one that it ends in."""
    if not path.is_file() or is_pickle(path):
        clf = load_model(str(path))
    else:
        from skxma.persistence import load as load_ours

        # a model of embeddings is described too, though it cannot answer for images
        clf = load_ours(path)
    clf = getattr(clf, "best_estimator_", clf)
    clf = clf[-1] if hasattr(clf, "steps") else clf
    if not hasattr(clf, "image_cache_"):
        raise ValueError(f"{path} holds a {type(clf).__name__}; `skxma info` describes the classifiers of skxma.")
    return clf


def about_file(path: Path) -> dict[str, Any]:
    """Size and version of a file; the version is None for a pickle, which does not say."""
    version = None
    if not is_pickle(path):
        from skxma._persistence.model_file import read_metadata

        version = read_metadata(path).get("written_by")
    return {"bytes": path.stat().st_size, "written_by": version}


def about_classifier(clf: BaseFewShotClassifier) -> dict[str, Any]:
    """A fitted classifier as JSON has it."""
    import numpy as np

    from skxma._evidence.fitted import CONFIDENCE_LEVEL
    from skxma._persistence.model_card import name_encoder
    from skxma.inspection import labels_in_question, support_labels
    from skxma.inspection._evaluation import labeled_samples
    from skxma.inspection._left_out import expected_accuracy
    from skxma.inspection._support import support_names

    paths = support_names(clf)
    given = support_labels(clf)[labeled_samples(clf)]
    names = clf.class_names_ or [None] * len(clf.classes_)
    evidence, expected = getattr(clf, "evidence", None), expected_accuracy(clf)
    doubts = labels_in_question(clf) if evidence == "calibrated" else []
    return {
        "classifier": type(clf).__name__,
        "encoder": name_encoder(clf.encoder),
        "encoder_fingerprint": clf.encoder_fingerprint_,
        "n_features": int(clf.n_features_in_),
        "templates": clf.templates if isinstance(clf.templates, str) else list(clf.templates),
        "evidence": evidence,
        **{name: float(getattr(clf, f"{name}_")) for name in SCALARS if hasattr(clf, f"{name}_")},
        "n_support_images": len(given),
        "n_unlabeled_used": getattr(clf, "n_unlabeled_used_", None),
        "left_out_accuracy": None
        if expected is None
        else {
            "value": float(expected.value),
            "interval": [float(expected.low), float(expected.high)],
            "confidence_level": CONFIDENCE_LEVEL,
        },
        "classes": [
            {"class": str(label), "names": as_list(name), "shots": int(np.sum(given == label))}
            for label, name in zip(clf.classes_, names, strict=True)
        ],
        "doubtful_labels": [
            {
                "sample": one.sample,
                "path": paths[one.sample],
                "class": str(one.label),
                "probability_wrong": one.probability,
                "suggested": str(one.suggested),
            }
            for one in doubts
        ],
        "left_out_line": left_out_line(clf),
    }


def as_list(name: Any) -> list[str]:
    """The names of a class: none, one, or several."""
    return [] if name is None else [name] if isinstance(name, str) else [str(one) for one in name]


def write_description(described: dict[str, Any]) -> None:
    """Print it for a reader."""
    rows = list(head_rows(described))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {one_line(value)}")
    print()
    classes = [(one["class"], " | ".join(one["names"]) or "–", str(one["shots"])) for one in described["classes"]]
    print_columns(("class", "names", "shots"), classes, n_words=2)
    for one in described["doubtful_labels"]:
        name = one["path"] or f"image number {one['sample']} of the fit"
        doubt = f"{one['probability_wrong']:.2f}"
        print(one_line(f"label in question ({doubt}): {name}, {one['class']}, rather {one['suggested']}"))


def head_rows(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what stands above the classes, a name and a value each."""
    size = f"{described['bytes'] / 1e6:.2f} MB, {described['written_by'] or 'a pickle, which names no version'}"
    yield "file", f"{described['file']} ({size})"
    yield "classifier", described["classifier"]
    yield "encoder", f"{described['encoder']} ({described['encoder_fingerprint'] or 'no fingerprint'})"
    templates = described["templates"]
    yield "templates", templates if isinstance(templates, str) else " | ".join(templates)
    if described["evidence"] is not None:
        scalars = ", ".join(f"{name} {described[name]:.3g}" for name in SCALARS if name in described)
        yield "evidence", f"{described['evidence']}: {scalars}"
    images = f"{described['n_support_images']} of {len(described['classes'])} classes"
    if described["n_unlabeled_used"] is not None:
        images += f", and {described['n_unlabeled_used']} without labels"
    yield "images", images
    if described["left_out_line"]:
        yield "left out", described["left_out_line"].removeprefix("left-out accuracy ")
    if described["evidence"] == "calibrated":
        yield "doubtful labels", str(len(described["doubtful_labels"]))
