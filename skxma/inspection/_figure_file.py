"""Figures on disk: asked for before work begins, there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skxma._runtime.atomic import atomic_write, check_writable
from skxma._runtime.optional import require


def check_figure_file(path: str | os.PathLike[str], *, what: str) -> Path:
    """Refuse a figure that could not be drawn or written in the end.

    Parameters
    ----------
    path : str or path-like
    what : str
        The option or function that asks for the figure, for the message.

    Returns
    -------
    target : pathlib.Path

    Raises
    ------
    skxma.errors.MissingDependencyError
        matplotlib cannot be imported.
    ValueError
        The file's ending names no format that matplotlib writes.
    OSError
        The path names a folder, or its folder is missing or cannot be written.
    """
    formats = sorted(_canvas(what).get_supported_filetypes())
    target = Path(path)
    if target.suffix.lower().removeprefix(".") not in formats:
        raise ValueError(f"{what} {path}: its ending names no format of a figure; use one of .{', .'.join(formats)}.")
    check_writable(path)
    return target


def new_figure(size: tuple[float, float], *, what: str) -> Any:
    """An empty matplotlib figure of so many inches that needs no display."""
    _canvas(what)
    figure = require("matplotlib.figure", what=what, extra="plot").Figure(figsize=size, layout="constrained")
    _canvas(what)(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the path's ending names."""
    with atomic_write(path) as stream:
        figure.savefig(stream, dpi=150, format=Path(path).suffix.lower().removeprefix("."))


def _canvas(what: str) -> Any:
    return require("matplotlib.backends.backend_agg", what=what, extra="plot").FigureCanvasAgg
