"""`skxma report`: one page about a saved model that can be acted on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skxma.cli._help import positive_count
from skxma.cli._info import opened
from skxma.cli._inputs import existing_files, image_paths
from skxma.cli._model_files import check_model, explained_for_command_line, load_model, own_classifier
from skxma.cli._parsers import add_memory, add_place_of_encoder
from skxma.cli._predict import skipping_unreadable
from skxma.cli._streams import escape_bytes, say


def add_parser(commands: Any) -> None:
    """Add ``skxma report`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "report",
        help="one page about a saved model: what to trust, mend and label next",
        description="Print what a model's own images tell of it: the accuracy to expect, its calibration, classes that "
        "are confused, labels that are probably wrong, near-duplicates, outliers, classes with too few images, and "
        "what to label next. Nothing is encoded without --pool. A model in .joblib is a pickle: open only those you "
        "trust.",
        epilog="examples: skxma report birds.skxma    skxma report birds.skxma --out birds.html --pool camera/",
    )
    parser.add_argument("model", metavar="MODEL", help="what `skxma fit` or `clf.save` wrote")
    parser.add_argument("--out", metavar="FILE", help="write it there: a page with the images for NAME.html, else text")
    parser.add_argument(
        "--pool", nargs="+", metavar="DIR", help="images without labels, or folders of them, to choose the next from"
    )
    parser.add_argument(
        "-n", dest="n_samples", type=positive_count, default=10, metavar="N", help="of them so many (default: 10)"
    )
    add_memory(parser)
    add_place_of_encoder(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or write the page; 1 where an image of the pool could not be read."""
    if arguments.out:
        from skxma._runtime.atomic import check_writable

        check_writable(arguments.out)
    if not arguments.pool:
        write_report(opened(Path(arguments.model)).report(), arguments.out)
        return 0
    check_model(arguments.model)
    asked = image_paths(arguments.pool)
    if not asked:
        raise ValueError(f"no images in {' '.join(arguments.pool)}.")
    there = existing_files(asked)
    from skxma.active import suggest

    clf = own_classifier(
        load_model(arguments.model, encoder=arguments.encoder, device=arguments.device, memory=arguments.memory),
        arguments.model,
    )
    with explained_for_command_line(arguments.model):
        readable, rows = skipping_unreadable(
            lambda paths: suggest(clf, paths, arguments.n_samples, random_state=0), there
        )
    write_report(clf.report(suggested=[readable[row] for row in rows]), arguments.out)
    return int(len(readable) < len(asked))


def write_report(report: Any, out: str | None) -> None:
    """Print a report, or write it to a file."""
    if out is None:
        print(escape_bytes(str(report)))
        return
    report.save(out)
    say(f"saved {out}")
