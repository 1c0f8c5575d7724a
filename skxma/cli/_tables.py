"""Tables on a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import combining, east_asian_width

TABLE_FORMATS = ("table", "csv", "json")
"""Forms in which a command prints a row per image or class."""


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], n_words: int) -> None:
    """Print a table whose first columns are words, the others numbers."""
    lines = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        cells = [padded(cell, widths[i], right=i >= n_words) for i, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def aligned(texts: Sequence[str]) -> list[str]:
    """Texts of one line each, filled up to the width of the widest."""
    lines = [one_line(text) for text in texts]
    width = max(map(width_of, lines), default=0)
    return [padded(line, width) for line in lines]


def one_line(text: str) -> str:
    """A text without control characters, such as a file name's newline or the commands that a terminal obeys."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian letters two, accents that combine none."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """A text at the left, or right, of so many columns of a terminal."""
    blank = " " * (width - width_of(text))
    return blank + text if right else text + blank
