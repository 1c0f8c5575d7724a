"""Tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from unicodedata import combining, east_asian_width

from skxma._runtime.lines import one_line

TABLE_FORMATS = ("table", "csv", "json")
"""Forms in which a command prints a row per image or class."""
WIDEST_NAME = 40


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], n_words: int, n_paths: int = 0) -> None:
    """Print a table whose first columns are words, the others numbers.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequence of str
    n_words, n_paths : int
        Columns of words, and how many of these hold paths. Words lose their middle on a terminal, where one long name
        would wrap every line; in a file, and in a path that is to be copied, they are whole.
    """
    whole = not sys.stdout.isatty()
    lines = [
        [one_line(cell) if whole or i < n_paths else without_middle(one_line(cell)) for i, cell in enumerate(row)]
        for row in (head, *rows)
    ]
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = [padded(cell, widths[i], right=i >= n_words) for i, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def aligned(texts: Sequence[str]) -> list[str]:
    """Texts of one line each, filled up to the width of the widest."""
    lines = [one_line(text) for text in texts]
    width = max(map(width_of, lines), default=0)
    return [padded(line, width) for line in lines]


def without_middle(text: str) -> str:
    """A text of so many columns at most as a name may take, its middle left out: names differ at both ends."""
    if width_of(text) <= WIDEST_NAME:
        return text
    start, end = text, text
    while width_of(start) > WIDEST_NAME // 2 - 1:
        start = start[:-1]
    while width_of(end) > WIDEST_NAME // 2:
        end = end[1:]
    return f"{start}…{end}"


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian letters two, accents that combine none."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """A text at the left, or right, of so many columns of a terminal."""
    blank = " " * (width - width_of(text))
    return blank + text if right else text + blank
