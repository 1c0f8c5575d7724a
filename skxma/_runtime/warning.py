"""Warn at the caller's line, however deep in the package the reason was found."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# Those that stand between a caller and us: wrappers of methods, pipelines and searches, pools of threads.
_NOT_THE_CALLER = frozenset(
    {"skxma", "sklearn", "joblib", "torch", "dask", "contextlib", "functools", "threading", "concurrent", "pickle"}
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line of the stack that belongs neither to skxma nor to a library that wraps its methods.

    `warnings.warn` counts frames, and their number differs between a fit, a pipeline and a search.

    Parameters
    ----------
    message : str
        What is wrong and what to do about it.
    category : type of Warning, default=UserWarning
    """
    frame = _caller(sys._getframe(1))
    names = frame.f_globals
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=names.get("__name__") or "<unknown>",
        # python keeps in it which warnings this module has shown already
        registry=names.setdefault("__warningregistry__", {}),
    )


def _caller(frame: FrameType) -> FrameType:
    """Return the innermost frame of somebody else, or the outermost of all where there is none."""
    while str(frame.f_globals.get("__name__", "")).partition(".")[0] in _NOT_THE_CALLER:
        if frame.f_back is None:
            break
        frame = frame.f_back
    return frame
