"""Texts of users, such as names of files and classes, in a line."""

from __future__ import annotations

import re


def one_line(text: str) -> str:
    """A text without control characters, such as a file name's newline or the commands that a terminal obeys."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)
