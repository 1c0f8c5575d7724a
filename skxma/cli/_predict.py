"""`skxma predict`: print the answers of a saved model."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from skxma.cli._inputs import image_paths
from skxma.cli._model_files import explained_for_command_line, load
from skxma.cli._streams import say
from skxma.cli._tables import padded, width_of


def run_predict(arguments: argparse.Namespace) -> int:
    """Print the answers of a saved model; 1 where an image could not be read."""
    clf = load(arguments.model, encoder=arguments.encoder, device=arguments.device, memory=arguments.memory)
    asked = image_paths(arguments.images)
    if not asked:
        raise ValueError(f"no images in {' '.join(arguments.images)}.")
    with explained_for_command_line(arguments.model):
        readable, probabilities = answers(clf, asked)
    rows = [
        (path, str(clf.classes_[c]), float(row[c]))
        for path, row in zip(readable, probabilities, strict=True)
        for c in row.argsort()[::-1][: arguments.top]
    ]
    write(rows, arguments.format)
    return int(len(readable) < len(asked))


def answers(clf: Any, asked: Sequence[str]) -> tuple[list[str], Any]:
    """The images that can be read and their probabilities; the others are named on stderr."""
    from skxma.errors import ImageError

    readable = list(asked)
    while readable:
        try:
            return readable, clf.predict_proba(readable)
        except ImageError as error:
            if error.index is None:
                raise
            say(f"skxma: {readable[error.index]}: {error.reason}")
            # what was encoded before it is in memory
            del readable[error.index]
    return [], []


def write(rows: Sequence[tuple[str, str, float]], form: str) -> None:
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
        width = max((width_of(path) for path, _, _ in rows), default=0)
        for path, label, p in rows:
            print(f"{padded(path, width)}  {100 * p:5.1f} %  {label}")


def escape_bytes(text: str) -> str:
    """Return JSON in which bytes of file names that are no text are escaped, so that it is text that can be read."""
    return re.sub("[\udc80-\udcff]", lambda found: f"\\u{ord(found[0]):04x}", text)
