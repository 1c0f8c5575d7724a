"""Long work in a thread of its own: it reports its progress, and can be stopped."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from threading import Event, RLock, Thread
from typing import Any, Self

from skxma.app._wording import is_expected, words_of


class StoppedError(Exception):
    """The work was stopped by the user of the page."""


class Job:
    """Work in a thread of its own.

    A stopped job ends for its user at once. Its thread ends at the next report, and its result is thrown away.

    Parameters
    ----------
    kind : str
        "fit", "ask" or "suggest".
    work : callable
        Takes the job and returns a result; calls `report` between its steps.
    keep : callable
        Takes the result, under the lock, unless the job was stopped.
    lock : RLock
        Guards what `keep` changes.

    Attributes
    ----------
    state : {"running", "finished", "failed", "stopped"}
    words : str
        The current step, in words.
    done, total : int
        Finished and all items of the current step; 0 where they can't be counted.
    error : str or None
        What went wrong, in words for the page.
    result : object
        What `work` returned.
    """

    def __init__(
        self, kind: str, work: Callable[[Job], Any], keep: Callable[[Any], None], lock: RLock | None = None
    ) -> None:
        self.kind = kind
        self.state = "running"
        self.words = "Starting"
        self.done = self.total = 0
        self.error: str | None = None
        self.result: Any = None
        self._work = work
        self._keep = keep
        self._lock = lock or RLock()
        self._stop = Event()
        self._ended = Event()
        # a download that does not end must not keep the process alive
        self._thread = Thread(target=self._run, name=f"skxma-{kind}", daemon=True)

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def report(self, words: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done.

        Raises
        ------
        StoppedError
            The job was stopped.
        """
        if self._stop.is_set():
            raise StoppedError
        self.words, self.done, self.total = words, done, total

    def stop(self) -> None:
        """End the job for its user; a job that has ended stays as it is."""
        with self._lock:
            self._stop.set()
            if self.state == "running":
                self._end("stopped")

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the job has ended."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"The {self.kind} has not ended within {timeout} s.")
        return self

    def _run(self) -> None:
        try:
            result = self._work(self)
            with self._lock:
                if self.state == "running":
                    self._keep(result)
                    self.result = result
                    self._end("finished")
        except StoppedError:
            self.stop()
        except Exception as error:
            if not is_expected(error):
                traceback.print_exception(error)
            with self._lock:
                if self.state == "running":
                    self.error = words_of(error)
                    self._end("failed")

    def _end(self, state: str) -> None:
        self.state = state
        self._ended.set()
