"""Class names and prompt templates on the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skxma.cli._inputs import read_labeled_images


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add what the classes are called and described by."""
    parser.add_argument(
        "--templates",
        action="append",
        metavar="NAME",
        help="simple, imagenet, photo, bare, or a text with {} for the name; may be repeated (default: simple)",
    )
    parser.add_argument(
        "--names",
        metavar="JSON",
        help='what classes are called: {"heron": ["gray heron", "a tall gray bird"], "empty": null, ...}; several '
        "names and descriptions, or none; others keep their label, further ones are known from their text alone",
    )


def templates_of(arguments: argparse.Namespace) -> Any:
    """The templates that were asked for: None, one, which may be a name, or several."""
    chosen = arguments.templates
    return chosen[0] if chosen is not None and len(chosen) == 1 else chosen


def labels_of(given: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """The classes that the command line names, or those of the one data set that it names."""
    if len(given) == 1 and Path(given[0]).exists():
        return [str(label) for label in read_labeled_images(given[0], arguments).target_names]
    return list(given)


def read_names(path: str | None) -> dict[str, Any] | None:
    """Read the names of classes from a JSON file; None for no file."""
    if path is None:
        return None
    given = read_object(path, "names by class", '{"heron": ["gray heron", "a gray bird"], ...}')
    for label, name in given.items():
        is_list = isinstance(name, list) and name and all(isinstance(one, str) for one in name)
        if not (name is None or isinstance(name, str) or is_list):
            raise ValueError(f"{path}: {label!r} must be called by a text, a list of texts, or null; not {name!r}.")
        if any(not one.strip() for one in ([name] if isinstance(name, str) else name or ())):
            raise ValueError(f"{path}: {label!r} has a blank name; write null for a class without one.")
    return given


def complete_names(given: dict[str, Any] | None, labels: Sequence[str]) -> dict[str, Any] | None:
    """Add the classes that the names leave out, which keep their labels; None where none are given.

    Raises
    ------
    ValueError
        A class without images that has no name either.
    """
    if given is None:
        return None
    from skxma._labels.arrays import composed
    from skxma.prompts import clean_name

    # folders from a Mac and a file from elsewhere spell a label in two Unicode forms
    spelled: dict[str, str] = {composed(label): label for label in labels}
    for label, name in given.items():
        if name is None and composed(label) not in spelled:
            raise ValueError(
                f"--names says null for {label!r}, which is none of the classes: nothing would be known of it. Give it "
                "a name, or leave it out."
            )
    return {label: clean_name(label) for label in labels} | {
        spelled.get(composed(k), str(k)): v for k, v in given.items()
    }


def read_object(path: str, what: str, example: str) -> dict[str, Any]:
    """Read a JSON file that must hold an object; errors say of what, and show an example."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path} with {what}.")
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON that can be read ({error}).") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} is no object of {what}: {example}.")
    return given
