"""Warnings that point at the caller's line, however deep in the package they are raised."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# Packages whose frames lie between the caller and skxma: wrappers of methods, pipelines, searches, thread pools.
_NOT_THE_CALLER = frozenset(
    {"skxma", "sklearn", "joblib", "torch", "dask", "contextlib", "functools", "threading", "concurrent", "pickle"}
)


class AdvisingWarning(UserWarning):
    """Warning whose advice is for those who write Python.

    Parameters
    ----------
    fact : str
        What is wrong.
    advice : str
        What to write instead.
    """

    def __init__(self, fact: str, advice: str) -> None:
        super().__init__(fact, advice)
        self.fact = fact

    def __str__(self) -> str:
        return " ".join(self.args)


def text_outside_python(warning: Warning | str) -> str:
    """Text of a warning where no Python is written: on the command line, on the page."""
    return warning.fact if isinstance(warning, AdvisingWarning) else str(warning)


def warn(message: str, category: type[Warning] = UserWarning, *, advice: str = "") -> None:
    """Warn at the first frame of the stack that belongs neither to skxma nor to a library that wraps its methods.

    `warnings.warn` counts frames, and their number differs between a fit, a pipeline and a search.

    Parameters
    ----------
    message : str
        What is wrong and what to do about it.
    category : type of Warning, default=UserWarning
    advice : str, default=""
        What to do about it in Python, if that is of no use on the command line and on the page; a UserWarning then.
    """
    frame = _caller(sys._getframe(1))
    names = frame.f_globals
    warnings.warn_explicit(
        AdvisingWarning(message, advice) if advice else message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=names.get("__name__") or "<unknown>",
        # Python records in it the warnings that this module has already shown
        registry=names.setdefault("__warningregistry__", {}),
    )


def _caller(frame: FrameType) -> FrameType:
    """Return the innermost frame outside of those packages, or the outermost frame of all."""
    while str(frame.f_globals.get("__name__", "")).partition(".")[0] in _NOT_THE_CALLER:
        if frame.f_back is None:
            break
        frame = frame.f_back
    return frame
