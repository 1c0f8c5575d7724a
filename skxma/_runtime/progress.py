"""A progress line on standard error, for work that is worth watching."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from types import TracebackType
from typing import Any

_WORTH_WATCHING_SECONDS = 2.0
_LOG_SECONDS = 5.0
_IN_LOGS: ContextVar[bool] = ContextVar("_IN_LOGS", default=False)
_HIDDEN: ContextVar[bool] = ContextVar("_HIDDEN", default=False)
_ENVIRONMENT, _OFF = "SKXMA_PROGRESS", frozenset({"0", "off", "no", "false"})


@cache
def _bar_type() -> Any:
    """A bar that leaves the process as it was: it starts no thread and does not fix multiprocessing's start method."""
    # imported when one is shown: it takes half of the start of the command line
    from tqdm.auto import tqdm

    class Bar(tqdm):
        monitor_interval = 0

    # tqdm's own lock is also multiprocessing's, and making that one fixes the start method
    Bar.set_lock(threading.RLock())
    return Bar


class _Lossy:
    """A stream that drops what it cannot write: standard error may be closed, or lead to a full disk."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with suppress(AttributeError, OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(AttributeError, OSError, ValueError):
            self._stream.flush()


class Progress:
    """Count finished items; shown if asked for, or once the rest is estimated to take over 2 s and somebody watches.

    That is on a terminal and in a notebook, and with `progress_in_logs` elsewhere. ``SKXMA_PROGRESS=0`` in the
    environment turns it off everywhere. On a terminal and in a notebook it is a bar of tqdm that is removed at the end,
    elsewhere a line every few seconds. Nothing is written to standard output.

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
        self._never = _HIDDEN.get() or os.environ.get(_ENVIRONMENT, "").lower() in _OFF
        self._always = verbose > 0 and not self._never
        self._done = 0
        self._bar: Any = None
        self._shown = False
        self._logged_at, self._logged = float("-inf"), -1

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
        if self._bar is not None:
            self._bar.update(n)
            return
        if not self._shown and self._is_worth_watching():
            self._show()
        if self._shown and self._bar is None:
            self._log()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            self._log(last=True)

    def _is_worth_watching(self) -> bool:
        if self._never or self._done == 0 or not (_is_watched() or _IN_LOGS.get()):
            return False
        elapsed = time.monotonic() - self._started_at
        least = _WORTH_WATCHING_SECONDS if _is_watched() else _LOG_SECONDS
        return elapsed / self._done * (self._total - self._done) > least

    def _show(self) -> None:
        self._shown = True
        if not _is_watched():
            return
        self._bar = _bar_type()(
            desc=self._title,
            total=self._total,
            initial=self._done,
            leave=False,
            file=_Lossy(sys.stderr),
            dynamic_ncols=True,
            # looks at the clock whenever a batch is done: batches are few, and they may slow down
            miniters=1,
        )

    def _log(self, last: bool = False) -> None:
        now = time.monotonic()
        if self._logged == self._done or (not last and now - self._logged_at < _LOG_SECONDS):
            return
        self._logged_at, self._logged = now, self._done
        stream = _Lossy(sys.stderr)
        stream.write(f"{self._title} {self._done}/{self._total}\n")
        stream.flush()


def progress_in_logs() -> AbstractContextManager[None]:
    """Let long work write a line every few seconds where standard error is no terminal."""
    return _switched_on(_IN_LOGS)


def no_progress() -> AbstractContextManager[None]:
    """Show no progress, however long work takes."""
    return _switched_on(_HIDDEN)


@contextmanager
def _switched_on(variable: ContextVar[bool]) -> Iterator[None]:
    token = variable.set(True)
    try:
        yield
    finally:
        variable.reset(token)


def _is_watched() -> bool:
    """Return whether somebody reads standard error as it comes."""
    try:
        return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
    # it is None in a process that was started without it, and may be closed
    except (AttributeError, OSError, ValueError):
        return False
