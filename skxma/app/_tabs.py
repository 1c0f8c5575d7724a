"""The sessions of the page's tabs: so many at most, and each for as long as it is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from skxma.app._encoding import Encoders
from skxma.app._session import Session

MAX_TABS = 16
HOUR = 3600.0
# a tab may lie open overnight
IDLE_SECONDS = 12 * HOUR
# a closed tab may be opened again; one that crashed never says that it was closed
CLOSED_SECONDS, CROWDED_SECONDS = HOUR / 4, HOUR
MAX_ENDED = 1000


def make_tabs(encoder: str | list[str], device: str = "auto") -> Tabs:
    """Tabs whose sessions start with two empty classes.

    Parameters
    ----------
    encoder : str or list of str
        As in :class:`~skxma.XMAdapterClassifier`.
    device : str, default="auto"
    """
    encoders = Encoders()

    def make() -> Session:
        session = Session(encoder, device, encoders)
        for _ in range(2):
            session.gallery.add_column()
        return session

    return Tabs(make)


class TabGoneError(LookupError):
    """The tab has no session (any more); says why."""


class TooManyTabsError(RuntimeError):
    """Every session is in use."""


@dataclass
class Tab:
    """A session, when it was last used, and whether its tab was closed since."""

    session: Session
    used: float
    closed: bool = False


class Tabs:
    """A session per tab, under the token that the tab made.

    Parameters
    ----------
    make : callable
        Makes a session.
    clock : callable, default=time.monotonic
        Gives the time in seconds.
    """

    def __init__(self, make: Callable[[], Session], clock: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._tabs: dict[UUID, Tab] = {}
        # tokens of sessions that were ended, and why; the oldest first
        self._ended: dict[UUID, str] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._tabs)

    def open(self, token: UUID) -> Session:
        """The session of a tab, made where it has none.

        Raises
        ------
        TooManyTabsError
            All sessions are in use.
        """
        with self._lock:
            self._end_unused()
            if token not in self._tabs:
                if len(self._tabs) >= MAX_TABS:
                    self._make_room()
                self._tabs[token] = Tab(self._make(), self._clock())
            return self._use(token)

    def get(self, token: UUID) -> Session:
        """The session of a tab.

        Raises
        ------
        TabGoneError
            It has none.
        """
        with self._lock:
            self._end_unused()
            if token not in self._tabs:
                why = self._ended.get(token, "skxma app was started again since")
                raise TabGoneError(f"The images and the model of this tab are gone: {why}. The page starts anew.")
            return self._use(token)

    def leave(self, token: UUID) -> None:
        """Note that a tab was closed; if it was only loaded again, its next request keeps the session."""
        with self._lock:
            if token in self._tabs:
                self._tabs[token].closed = True

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            for token in list(self._tabs):
                self._end(token, "skxma app has ended")

    def _use(self, token: UUID) -> Session:
        tab = self._tabs[token]
        tab.used, tab.closed = self._clock(), False
        return tab.session

    def _end_unused(self) -> None:
        now = self._clock()
        for token, tab in list(self._tabs.items()):
            allowed = CLOSED_SECONDS if tab.closed else IDLE_SECONDS
            if now - tab.used > allowed and not tab.session.is_busy:
                words = f"it was closed for {CLOSED_SECONDS / 60:.0f} minutes" if tab.closed else ""
                self._end(token, words or f"it was not used for {IDLE_SECONDS / HOUR:.0f} hours")

    def _make_room(self) -> None:
        """End the session that was used the longest ago of those that nobody needs."""
        now = self._clock()
        unneeded = [
            token
            for token, tab in self._tabs.items()
            if (tab.closed or tab.session.is_empty or now - tab.used > CROWDED_SECONDS) and not tab.session.is_busy
        ]
        if not unneeded:
            raise TooManyTabsError(
                f"{MAX_TABS} tabs of this page are in use, which is as many as skxma app serves. Close one of them and "
                "load this page again."
            )
        self._end(min(unneeded, key=lambda token: self._tabs[token].used), "another tab needed the place")

    def _end(self, token: UUID, why: str) -> None:
        self._tabs.pop(token).session.close()
        self._ended[token] = why
        while len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]
