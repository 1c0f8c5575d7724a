"""Texts in a line: names of files and classes that users gave, and numbers with their nouns."""

from __future__ import annotations

import re


def one_line(text: str) -> str:
    """A text without control characters, such as a file name's newline or the commands that a terminal obeys."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
