"""The command line, `skxma`."""

from __future__ import annotations

import argparse
import atexit
import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from skxma import __version__
from skxma._runtime.progress import progress_in_logs
from skxma._runtime.warning import text_outside_python
from skxma.cli import _app, _benchmark, _cache, _completion, _evaluate, _export, _info, _parsers, _report, _suggest
from skxma.cli._help import Parser
from skxma.cli._streams import drop_unwritten, flush_output, replace_missing_streams, say, write_any_text
from skxma.errors import ImageError, SkxmaError

# Objects that are made before the garbage collector looks at them; Python's own number is 700 to 2000.
COLLECT_EVERY = 200_000


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="skxma",
        description="Accurate image classifiers from a handful of labeled images.",
        epilog="examples: skxma demo    skxma fit birds/ --model birds.skxma    "
        "skxma predict birds.skxma new/*.jpg --top 3 --format csv    skxma COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"skxma {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="try everything on bundled images, without a network",
        description="Fit on the bundled emoji with the bundled encoder, compare with zero-shot, save a model, draw "
        "what it retrieves. Takes under a minute and no network.",
        epilog="example: skxma demo --out /tmp/demo",
    )
    demo.add_argument("--out", default="skxma-demo", metavar="DIR", help="where to write (default: %(default)s)")
    demo.set_defaults(run=_demo)
    _parsers.add_parsers(commands)
    _evaluate.add_parser(commands)
    _info.add_parser(commands)
    _report.add_parser(commands)
    _suggest.add_parser(commands)
    _export.add_parser(commands)
    _app.add_parser(commands)
    _cache.add_parser(commands)
    _benchmark.add_parser(commands)
    _completion.add_parser(commands)
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
    replace_missing_streams()
    arguments = build_parser().parse_args(argv)
    write_any_text()
    # the interpreter would walk through all that the libraries made once more before it ends, which takes a second
    atexit.register(gc.freeze)
    try:
        with rare_collections(), progress_in_logs(), plain_warnings():
            return _run(arguments)
    finally:
        drop_unwritten()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show a warning as one line, as an error is: the line of code that Python adds is not the user's."""

    def as_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
        # Pillow's, of a large image that it reads all the same; the error about one that it refuses is ours
        if category.__name__ == "DecompressionBombWarning":
            return ""
        return f"skxma: warning: {text_outside_python(message)}\n"

    before = warnings.formatwarning
    warnings.formatwarning = as_line
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector run seldom: torch and open_clip make a million objects that stay.

    It walked through them again and again, in a fifth of the time of a prediction of one image.
    """
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_EVERY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(arguments: argparse.Namespace) -> int:
    """Run a command; an error of the input is a line on standard error."""
    try:
        status = arguments.run(arguments)
        flush_output()
    except BrokenPipeError:
        # the reader of our output has gone, as in `skxma benchmark | head`
        return 1
    except ImageError as error:
        say(f"skxma: {error if error.path is None else f'{error.path}: {error.reason}'}")
        return 1
    except (SkxmaError, OSError, ValueError) as error:
        say(f"skxma: {error}")
        return 1
    except KeyboardInterrupt:
        say("skxma: interrupted")
        return 130
    return status or 0


def _demo(arguments: argparse.Namespace) -> None:
    from skxma.cli._demo import run_demo

    run_demo(arguments.out)
