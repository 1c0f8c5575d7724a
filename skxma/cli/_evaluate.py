"""`skxma evaluate`: measure a saved model on labeled images that it has not seen."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from skxma.cli._inputs import add_columns, read_labeled_images
from skxma.cli._model_files import check_model, explained_for_command_line, load_model
from skxma.cli._parsers import add_memory, add_place_of_encoder
from skxma.cli._predict import answers
from skxma.cli._streams import escape_bytes, say
from skxma.cli._tables import TABLE_FORMATS, print_columns

if TYPE_CHECKING:
    from skxma.inspection._evaluation import ClassifierEvaluation, Share

# wider matrices are listed by their entries, and longer lists of names are cut on stderr
WIDEST_MATRIX, MOST_CLASSES_NAMED = 12, 20


def add_parser(commands: Any) -> None:
    """Add ``skxma evaluate`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a saved model on labeled images",
        description="Print the accuracy of a saved model on labeled images with its 90 % interval (Wilson), recall and "
        "precision of each class, the confusion matrix and the calibration. Images of labels that the model does not "
        "know are named on stderr and left out. Images that cannot be read are named too; the status is then 1.",
        epilog="examples: skxma evaluate birds.skxma test/    "
        "skxma evaluate birds.skxma test.csv --plot confusion.png --format json",
    )
    parser.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    parser.add_argument("data", metavar="DIR", help="folder with a folder per class, or table of paths and labels")
    add_columns(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw the confusion matrix; needs matplotlib: skxma[plot]")
    parser.add_argument("--format", choices=TABLE_FORMATS, default="table", help="(default: %(default)s)")
    add_memory(parser)
    add_place_of_encoder(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate a saved model and print the figures; 1 where an image could not be read."""
    if arguments.plot:
        from skxma.inspection._figure_file import check_figure_file

        check_figure_file(arguments.plot, what="--plot")
    check_model(arguments.model)
    data = read_labeled_images(arguments.data, arguments, part="test")
    from skxma.inspection._evaluation import evaluation

    clf = load_model(arguments.model, encoder=arguments.encoder, device=arguments.device, memory=arguments.memory)
    known, unknown, untested = compare_labels(clf.classes_.tolist(), data.target.tolist(), arguments)
    kept = [row for row in zip(data.paths, data.target.tolist(), strict=True) if row[1] in known]
    with explained_for_command_line(arguments.model):
        readable, probabilities = answers(clf, [path for path, _ in kept])
        if not readable:
            raise ValueError(f"no image of {arguments.data} can be read, so there is nothing to evaluate.")
        predictions = predicted(clf, readable, probabilities)
    were_read = set(readable)
    labels = [known[label] for path, label in kept if path in were_read]
    found = evaluation(labels, predictions, probabilities, clf.classes_)
    writers = {"table": write_table, "csv": write_csv, "json": write_json}
    writers[arguments.format](found, unknown, untested)
    if arguments.plot:
        from skxma.inspection._confusion import draw_confusion

        met = found.met
        draw_confusion(
            found.confusion[met][:, met], found.labels[met], arguments.plot, title=f"accuracy {said(found.accuracy)}"
        )
    return int(len(readable) < len(kept))


def compare_labels(
    classes: Sequence[Any], labels: Sequence[Any], arguments: argparse.Namespace
) -> tuple[dict[Any, Any], dict[str, int], list[str]]:
    """Return the class of each label that the model knows, images by unknown label, and classes without test images.

    What does not match is named on stderr.
    """
    from skxma._labels.arrays import composed

    by_text = {composed(str(label)): label for label in classes}
    present = dict.fromkeys(labels)
    known = {label: by_text[composed(str(label))] for label in present if composed(str(label)) in by_text}
    unknown = {str(label): labels.count(label) for label in present if label not in known}
    untested = [str(label) for label in classes if label not in known.values()]
    if not known:
        raise ValueError(
            f"{arguments.data} has the labels {named(unknown)}, and none of them is a class of {arguments.model} "
            f"({named(by_text)}). Name the folders, or the labels of the table, like the classes."
        )
    if unknown:
        n = sum(unknown.values())
        say(f"skxma: labels that the model does not know, {n} images left out: {named(unknown)}")
    if untested:
        say(f"skxma: classes of the model without test images: {named(untested)}")
    return known, unknown, untested


def predicted(clf: Any, images: Sequence[str], probabilities: Any) -> Any:
    """Labels that the classifier predicts; only one that may answer "unknown" predicts anew.

    Parameters
    ----------
    clf : classifier
        Fitted; of a pickle, a pipeline or a search too.
    images : sequence of str
    probabilities : ndarray of shape (n, n_classes)
    """
    rates = [value for name, value in clf.get_params().items() if name.endswith("false_rejection_rate")]
    if any(rate is not None for rate in rates):
        return clf.predict(images)
    return clf.classes_[probabilities.argmax(1)]


def named(names: Iterable[Any]) -> str:
    """The first names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - MOST_CLASSES_NAMED} more" if len(names) > MOST_CLASSES_NAMED else ""
    return ", ".join(names[:MOST_CLASSES_NAMED]) + more


def said(share: Share) -> str:
    """A share with its interval in words."""
    return f"{share.value:.1%} ({share.level:.0%} interval {share.low:.1%} to {share.high:.1%})"


def write_table(found: ClassifierEvaluation, unknown: dict[str, int], untested: Sequence[str]) -> None:
    """Print the figures for a reader."""
    print(f"accuracy           {said(found.accuracy)}, {found.accuracy.n_right} of {found.accuracy.n} images")
    print(f"calibration error  {found.calibration_error:.1%}")
    print(f"log loss           {found.log_loss:.3f}")
    print()
    met = found.met
    labels = [str(label) for label in found.labels[met]]
    figures = zip(labels, found.n_images[met], found.recall[met], found.precision[met], strict=True)
    rows = [(label, str(n), percent(recall), percent(precision)) for label, n, recall, precision in figures]
    print_columns(("class", "images", "recall", "precision"), rows, n_words=1)
    print()
    if len(labels) <= WIDEST_MATRIX:
        matrix = found.confusion[met][:, met]
        cells = [(label, *map(str, row)) for label, row in zip(labels, matrix, strict=True)]
        print_columns(("label \\ predicted", *labels), cells, n_words=1)
        return
    wrong = sorted((entry for entry in confusions(found) if entry[0] != entry[1]), key=lambda entry: -entry[2])
    print_columns(("label", "predicted", "images"), [(a, b, str(n)) for a, b, n in wrong], n_words=2)


def write_csv(found: ClassifierEvaluation, unknown: dict[str, int], untested: Sequence[str]) -> None:
    """Print the figures as CSV, one to a line."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["figure", "class", "predicted", "value"])
    overall = {
        "images": found.accuracy.n,
        "accuracy": found.accuracy.value,
        "accuracy_low": found.accuracy.low,
        "accuracy_high": found.accuracy.high,
        "calibration_error": found.calibration_error,
        "log_loss": found.log_loss,
    }
    table.writerows([name, "", "", csv_figure(value)] for name, value in overall.items())
    for label, n, recall, precision in zip(found.labels, found.n_images, found.recall, found.precision, strict=True):
        table.writerow(["images", label, "", n])
        table.writerow(["recall", label, "", csv_figure(recall)])
        table.writerow(["precision", label, "", csv_figure(precision)])
    table.writerows(["confusion", label, answer, n] for label, answer, n in confusions(found))
    table.writerows(["unknown_label", label, "", n] for label, n in unknown.items())


def write_json(found: ClassifierEvaluation, unknown: dict[str, int], untested: Sequence[str]) -> None:
    """Print the figures as JSON; null where a figure has no images to go by."""
    share = found.accuracy
    per_class = zip(found.labels, found.n_images, found.recall, found.precision, strict=True)
    content = {
        "n_images": share.n,
        "accuracy": share.value,
        "accuracy_interval": [share.low, share.high],
        "confidence_level": share.level,
        "calibration_error": found.calibration_error,
        "log_loss": found.log_loss,
        "classes": [
            {"class": str(label), "images": int(n), "recall": finite(recall), "precision": finite(precision)}
            for label, n, recall, precision in per_class
        ],
        "confusion": [{"class": label, "predicted": answer, "images": n} for label, answer, n in confusions(found)],
        "unknown_labels": unknown,
        "classes_without_images": list(untested),
    }
    print(escape_bytes(json.dumps(content, ensure_ascii=False, indent=1)))


def confusions(found: ClassifierEvaluation) -> Iterator[tuple[str, str, int]]:
    """Yield label, answer and number of images for each entry of the confusion matrix that is not 0."""
    for i, j in zip(*found.confusion.nonzero(), strict=True):
        yield str(found.labels[i]), str(found.labels[j]), int(found.confusion[i, j])


def percent(share: float) -> str:
    """A share for a reader; a dash where there is none."""
    return "–" if math.isnan(share) else f"{share:.1%}"


def csv_figure(value: float) -> str:
    """A figure in CSV; empty where there is none."""
    return "" if math.isnan(value) else f"{value:.6g}"


def finite(value: float) -> float | None:
    """A figure in JSON."""
    return None if math.isnan(value) else float(value)
