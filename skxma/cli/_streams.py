"""Standard streams that are closed, full or hold bytes that are no text."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from contextlib import suppress
from io import TextIOWrapper

# the name under which our handling of what an encoding lacks is registered
ERRORS = "skxma"


class MissingOutput(io.TextIOBase):
    """Stands for an output stream that is closed, and notes whether anything was written to it."""

    lost = False

    def writable(self) -> bool:
        """Return True, so that writers go on."""
        return True

    def write(self, text: str) -> int:
        """Drop the text."""
        self.lost = self.lost or bool(text)
        return len(text)


def replace_missing_streams() -> None:
    """Give a process whose standard streams are closed, as some services start one, streams to write to.

    Their numbers are taken by the null device. Otherwise the next file that is opened gets one of them, and what native
    code prints ends in that file.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = MissingOutput()
    if sys.stderr is None:
        sys.stderr = MissingOutput()


def write_any_text() -> None:
    """Let standard output take what its encoding lacks: a file name's bytes as they are, other signs escaped."""
    codecs.register_error(ERRORS, _escape)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=ERRORS)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def say(message: object) -> None:
    """Print a line on standard error; where that takes none, go on without.

    Parameters
    ----------
    message : object
    """
    with suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def escape_bytes(text: str) -> str:
    """Return JSON in which bytes of file names that are no text are escaped, so that it is text that can be read."""
    return re.sub("[\udc80-\udcff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def flush_output() -> None:
    """Write out what was printed.

    Raises
    ------
    OSError
        Standard output is closed or takes no more, so that something is lost.
    """
    if isinstance(sys.stdout, MissingOutput) and sys.stdout.lost:
        raise OSError("Standard output is closed, so the answers are lost. Redirect it to a file.")
    sys.stdout.flush()


def drop_unwritten() -> None:
    """Drop what standard output and standard error do not take, so that the interpreter ends with our own status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def paths_on_stdin() -> list[str]:
    """Return the paths on standard input: one per line, or one per NUL as ``find -print0`` writes them.

    They are read as bytes, as file names need not be text.

    Raises
    ------
    ValueError
        Standard input is closed.
    """
    if sys.stdin is None:
        raise ValueError("- stands for paths on standard input, which is closed. Name images or folders instead.")
    stream = getattr(sys.stdin, "buffer", None)
    content = os.fsencode(sys.stdin.read()) if stream is None else stream.read()
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\0" if b"\0" in content else b"\n")
    return [os.fsdecode(line.removesuffix(b"\r")) for line in lines if line.strip()]
