"""A progress line on standard error, for work that is worth watching."""

import os
import sys
import time
from types import TracebackType
from typing import Any

from skxma._runtime.optional import find

_WORTH_WATCHING_SECONDS = 2.0
_REDRAW_SECONDS = 0.2
_ENVIRONMENT, _OFF = "SKXMA_PROGRESS", frozenset({"0", "off", "no", "false"})


class Progress:
    """Count finished items; shown if asked for, or once the rest is estimated to take over 2 s and somebody watches.

    That is on a terminal and in a notebook. ``SKXMA_PROGRESS=0`` in the environment turns it off everywhere. With rich,
    on a terminal, it is rich's bar, else one line that rewrites itself. Nothing is ever written to standard output.

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
        self._drawn_at = 0.0

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
        if self._never or self._done == 0 or not _is_watched():
            return False
        elapsed = time.monotonic() - self._started_at
        return elapsed / self._done * (self._total - self._done) > _WORTH_WATCHING_SECONDS

    def _show(self) -> None:
        self._shown = True
        rich = find("rich.console"), find("rich.progress")
        if None in rich:
            return
        console = rich[0].Console(file=sys.stderr)
        if not console.is_terminal:
            return
        self._bar = rich[1].Progress(console=console, transient=True)
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)

    def _draw(self, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._drawn_at < _REDRAW_SECONDS:
            return
        self._drawn_at = now
        sys.stderr.write(f"\r{self._title} {self._done}/{self._total}" + ("\n" if last else ""))
        sys.stderr.flush()


def _is_watched() -> bool:
    """Whether somebody reads standard error as it comes."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
