"""Warnings for the page: those raised while a request or a job of a tab is at work."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skxma._runtime.warning import text_outside_python

# what these say of themselves is not for the page's user
FOREIGN = frozenset(
    {"PIL", "huggingface_hub", "open_clip", "safetensors", "scipy", "timm", "torch", "torchvision", "transformers"}
)

_lock = threading.Lock()
# by thread; None stands for every thread that has no list of its own
_listeners: dict[int | None, list[str]] = {}
_before: Any = None


@contextmanager
def collected_warnings(every_thread: bool = False) -> Iterator[list[str]]:
    """Collect the text of each UserWarning, which goes to standard error too.

    `warnings.catch_warnings` serves one thread at a time; here several may collect at once, each what is its own.

    Parameters
    ----------
    every_thread : bool, default=False
        Whether to collect from all threads that don't collect on their own, such as those that read images for a fit.
        One caller at a time may do so.

    Yields
    ------
    texts : list of str
        Each once, in order.
    """
    texts: list[str] = []
    key = None if every_thread else threading.get_ident()
    with _lock:
        if not _listeners:
            _listen()
        _listeners[key] = texts
    try:
        yield texts
    finally:
        with _lock:
            del _listeners[key]
            if not _listeners:
                _before.__exit__(None, None, None)


def _listen() -> None:
    """Have every warning of skxma shown each time it is raised, and heard by the listeners."""
    global _before
    _before = warnings.catch_warnings()
    _before.__enter__()
    # by default a text is shown once per process, so that a second tab would not learn of it
    warnings.filterwarnings("always", category=UserWarning)
    show = warnings.showwarning

    def show_and_keep(message: Any, category: type[Warning], filename: str, *rest: Any, **options: Any) -> None:
        texts = _listeners.get(threading.get_ident(), _listeners.get(None))
        text = text_outside_python(message)
        if texts is not None and _is_ours(category, filename) and text not in texts:
            texts.append(text)
        show(message, category, filename, *rest, **options)

    warnings.showwarning = show_and_keep


def _is_ours(category: type[Warning], filename: str) -> bool:
    """Tell skxma's own warnings from those of the libraries under it."""
    is_plain = category is UserWarning or category.__module__.partition(".")[0] == "skxma"
    return is_plain and FOREIGN.isdisjoint(Path(filename).parts)
