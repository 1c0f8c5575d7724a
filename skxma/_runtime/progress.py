"""A progress line on standard error, for work that is worth watching."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from skxma._runtime.optional import find

_WORTH_WATCHING_SECONDS = 2.0
_REDRAW_SECONDS = 0.2
_LOG_SECONDS = 5.0
_IN_LOGS: ContextVar[bool] = ContextVar("_IN_LOGS", default=False)
_ENVIRONMENT, _OFF = "SKXMA_PROGRESS", frozenset({"0", "off", "no", "false"})


class Progress:
    """Count finished items; shown if asked for, or once the rest is estimated to take over 2 s and somebody watches.

    That is on a terminal and in a notebook, and with `progress_in_logs` elsewhere. ``SKXMA_PROGRESS=0`` in the
    environment turns it off everywhere. With rich, on a terminal, it is rich's bar, else one line that rewrites itself;
    in a log, a line every few seconds. Nothing is ever written to standard output.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        The number of items.
    verbose : int
        Over 0 shows it from the start, wherever standard error leads.
    """

    def __init__(self, title: str, total: int, verbose: int = 0) -> None:
        self._title = title
        self._total = total
        self._never = os.environ.get(_ENVIRONMENT, "").lower() in _OFF
        self._always = verbose > 0 and not self._never
        self._done = 0
        self._bar: Any = None
        self._task: Any = None
        self._shown = False
        self._drawn_at = float("-inf")

    def __enter__(self) -> "Progress":
        self._started_at = time.monotonic()
        if self._always and self._total:
            self._show()
        return self

    def advance(self, n: int) -> None:
        """Count n more items as finished.

        Parameters
        ----------
        n : int
            How many.
        """
        self._done += n
        if not self._shown and self._is_worth_watching():
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif self._shown:
            self._draw()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown:
            self._draw(last=True)

    def _is_worth_watching(self) -> bool:
        if self._never or self._done == 0 or not (_is_watched() or _IN_LOGS.get()):
            return False
        elapsed = time.monotonic() - self._started_at
        least = _WORTH_WATCHING_SECONDS if _is_watched() else _LOG_SECONDS
        return elapsed / self._done * (self._total - self._done) > least

    def _show(self) -> None:
        self._shown = True
        rich = find("rich.console"), find("rich.progress")
        if None in rich:
            return
        if sys.stderr is None:
            return
        console = rich[0].Console(file=sys.stderr)
        if not console.is_terminal:
            return
        self._bar = rich[1].Progress(console=console, transient=True)
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)

    def _draw(self, last: bool = False) -> None:
        now = time.monotonic()
        rewrites = _is_watched()
        if not last and now - self._drawn_at < (_REDRAW_SECONDS if rewrites else _LOG_SECONDS):
            return
        self._drawn_at = now
        line = f"{self._title} {self._done}/{self._total}"
        # standard error may be closed, or lead to a full disk; the work goes on
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"\r{line}" + "\n" * last if rewrites else f"{line}\n")
            sys.stderr.flush()


@contextmanager
def progress_in_logs() -> Iterator[None]:
    """Let long work write a line every few seconds where standard error is no terminal."""
    token = _IN_LOGS.set(True)
    try:
        yield
    finally:
        _IN_LOGS.reset(token)


def _is_watched() -> bool:
    """Return whether somebody reads standard error as it comes."""
    # it is None in a process that was started without it
    if sys.stderr is None:
        return False
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
