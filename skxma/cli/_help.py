"""Layout of the help of the command line."""

from __future__ import annotations

import argparse
import re
from typing import Any


class HelpFormatter(argparse.HelpFormatter):
    """Examples stand on lines of their own and are not wrapped, so that they can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        head, colon, examples = text.partition(": ")
        if not (colon and head in ("example", "examples")):
            return super()._fill_text(text, width, indent)
        return "\n".join([f"{head}:", *(f"  {line}" for line in re.split(r"\n| {4,}", examples))])


class Parser(argparse.ArgumentParser):
    """A parser with that formatter, as are those of its commands."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **settings)


class Once(argparse.Action):
    """Store a value, and refuse a second one, which would take the place of the first without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store it."""
        if getattr(namespace, self.dest) is not self.default:
            parser.error(f"{option} is given twice, and this command takes one")
        setattr(namespace, self.dest, values)


def positive_count(text: str) -> int:
    """A number of the command line that counts something.

    Parameters
    ----------
    text : str
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
