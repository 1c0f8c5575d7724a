"""`skxma export`: a saved model as a file of ONNX."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skxma.cli._info import opened
from skxma.cli._inputs import image_paths
from skxma.cli._model_files import check_model, explained_for_command_line, load_model, place_for_file
from skxma.cli._parsers import add_place_of_encoder


def add_parser(commands: Any) -> None:
    """Add ``skxma export`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "export",
        help="write a saved model as a file of ONNX",
        description="Write a saved model to a file of ONNX, for programs that have onnxruntime and neither torch nor "
        "skxma. It is compared with the model first, and not written if it gives another answer. Needs skxma[onnx]. A "
        "model in .joblib is a pickle: open only those you trust.",
        epilog="examples: skxma export birds.skxma birds.onnx --images birds/    "
        "skxma export birds.skxma birds-head.onnx --part head",
    )
    parser.add_argument("model", metavar="MODEL", help="what `skxma fit` saved")
    parser.add_argument("out", metavar="FILE", help="where to write: NAME.onnx")
    parser.add_argument(
        "--part", choices=("model", "head"), default="model", help="pixels or embeddings as input (default: model)"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="images to compare with, or folders of them (default: those of the fit)",
    )
    parser.add_argument("--half", action="store_true", help="store the numbers in half precision: half the size")
    parser.add_argument("--opset", type=int, default=20, metavar="N", help="ONNX's operators (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    add_place_of_encoder(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the file and print how exact it is."""
    target = place_for_file(arguments.out, arguments.force)
    check_model(arguments.model)
    images = image_paths(arguments.images) if arguments.images else None
    from skxma.export import to_onnx

    if arguments.part == "head":
        # embeddings need no encoder, so that a model without one will do
        clf = opened(Path(arguments.model))
    else:
        clf = load_model(arguments.model, encoder=arguments.encoder, device=arguments.device)
        clf = getattr(clf, "best_estimator_", clf)
    with explained_for_command_line(arguments.model), naming_options():
        difference = to_onnx(clf, target, arguments.part, opset=arguments.opset, half=arguments.half, images=images)
    size = target.stat().st_size / 1e6
    print(f"{target}: {size:.1f} MB; probabilities differ from the model's by {difference:.1g} at most")


@contextmanager
def naming_options() -> Iterator[None]:
    """Name the options of the command in an error of `to_onnx`, in the place of its parameters."""
    from skxma.errors import ExportError

    try:
        yield
    except (ExportError, ValueError) as error:
        message = re.sub(r"\bpart='(\w+)'", r"--part \1", str(error)).replace("half=True", "--half")
        if message == str(error):
            raise
        raise type(error)(message) from error
