"""The command line, `skxma`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from skxma import __version__
from skxma.cli import _app, _benchmark, _cache, _evaluate, _info, _parsers
from skxma.cli._help import Parser
from skxma.errors import ImageError, SkxmaError


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="skxma",
        description="Accurate image classifiers from a handful of labelled pictures.",
        epilog="examples: skxma demo    skxma fit birds/ --model birds.skxma    "
        "skxma predict birds.skxma new/*.jpg --top 3 --format csv    skxma COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"skxma {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="try everything on bundled pictures, without a network",
        description="Fit on the bundled emoji with the bundled encoder, compare with zero-shot, save a model, draw "
        "what it retrieves. Takes under a minute and no network.",
        epilog="example: skxma demo --out /tmp/demo",
    )
    demo.add_argument("--out", default="skxma-demo", metavar="DIR", help="where to write (default: %(default)s)")
    demo.set_defaults(run=_demo)
    _parsers.add_parsers(commands)
    _evaluate.add_parser(commands)
    _info.add_parser(commands)
    _app.add_parser(commands)
    _cache.add_parser(commands)
    _benchmark.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    status : int
        0, or 1 after an error that was the input's, in whole or in part; its message is on stderr.
    """
    arguments = build_parser().parse_args(argv)
    if isinstance(sys.stdout, TextIOWrapper):
        # a file's name goes out as the bytes that it is
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has gone, as in `skxma benchmark | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ImageError as error:
        print(f"skxma: {error if error.path is None else f'{error.path}: {error.reason}'}", file=sys.stderr)
        return 1
    except (SkxmaError, OSError, ValueError) as error:
        print(f"skxma: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("skxma: interrupted", file=sys.stderr)
        return 130
    return status or 0


def _demo(arguments: argparse.Namespace) -> None:
    from skxma.cli._demo import run_demo

    run_demo(arguments.out)
