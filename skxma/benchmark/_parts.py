"""Data sets in parts: learned on one and tested on another, or learned from labels that are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma.benchmark._asked import asked
from skxma.benchmark._corruptions import CORRUPTIONS
from skxma.benchmark._names import (
    ACTIVE,
    BASE_TO_NOVEL,
    DEFAULT_ENCODER,
    DOMAIN,
    EMOJI,
    EMOJI_ENCODER,
    HALVES,
    SAME,
)
from skxma.benchmark._problem import Problem, load_problem, make_encoder
from skxma.encoder._class_weights import has_text

IMAGENET_NAME, CLEAN = "imagenet", "clean"


def load_parts(
    source: str | os.PathLike[str] | Problem,
    protocol: str,
    *,
    encoder: Any = None,
    root: str | os.PathLike[str] | None = None,
    memory: Any = None,
    verbose: int = 0,
) -> list[Problem]:
    """Open a data set for a protocol.

    With "domain" there is a part for each domain that is tested: of the emoji each style, with what was learned on the
    others; of a folder of domains, which are folders of class folders, the same; of a feature file with ``images`` each
    corruption of them, with what was learned on clean images, and other clean ones ("same"); of CoOp's "imagenet" those
    of its shifts that are there, and its own test ("same"). With "base-to-novel", the first half of the sorted classes
    is learned. It is tested itself ("base"), as are the others, known by their text alone, among themselves ("novel"),
    and all classes together ("all"). With "active" there is a part for each way to choose labels. With other protocols
    the data set is its only part.

    Parameters
    ----------
    source : str, path-like or Problem
        As in `load_problem`; a Problem needs `domains` for "domain".
    protocol : str
    encoder : str or object, optional
        As in `load_problem`; "tiny" for the images of a feature file unless given.
    root, memory, verbose
        As in `load_problem`.

    Raises
    ------
    ValueError
        A data set without domains, or without text for novel classes.
    """
    how = {"encoder": encoder, "root": root, "memory": memory, "verbose": verbose}
    if protocol == DOMAIN:
        return list(_by_domain(source, how))
    if protocol == BASE_TO_NOVEL:
        return list(_by_half(source, how))
    if protocol == ACTIVE:
        return list(asked(load_problem(source, **how)))
    return [load_problem(source, **how)]


def _by_domain(source: Any, how: dict[str, Any]) -> Iterator[Problem]:
    text = "" if isinstance(source, Problem) else os.fspath(source)
    if text.endswith(".npz"):
        made = make_encoder(how["encoder"] or EMOJI_ENCODER, how["memory"], how["verbose"])
        return domains(corrupted(text, made))
    if text and text != EMOJI and Path(text).is_dir():
        made = make_encoder(how["encoder"] or DEFAULT_ENCODER, how["memory"], how["verbose"])
        return domains(of_domain_folders(text, made))
    if text == IMAGENET_NAME and how["root"] is not None:
        return imagenet_and_shifts(how)
    return domains(load_problem(source, **how))


def _by_half(source: Any, how: dict[str, Any]) -> Iterator[Problem]:
    text = "" if isinstance(source, Problem) else os.fspath(source)
    is_coop = text not in ("", EMOJI) and how["root"] is not None and not Path(text).exists()
    if is_coop:
        return (load_problem(f"{text}/{half}", **how) for half in HALVES)
    return halves(load_problem(source, **how))


def domains(problem: Problem) -> Iterator[Problem]:
    """A part for each domain that is tested; its name follows that of the problem, "same" for the source."""
    if problem.domains is None or len(np.unique(problem.domains)) < 2:
        raise ValueError(
            f"{problem.name} has no domains. Protocol {DOMAIN!r} takes {EMOJI}, feature files with images, folders of "
            f"domains (each a folder of class folders), and {IMAGENET_NAME} with its shifts where root says where they "
            "lie."
        )
    for domain in np.unique(problem.domains).tolist():
        tested = problem.domains == domain
        learned = ~tested if problem.source is None else problem.domains == problem.source
        name = f"{problem.name}/{SAME if domain == problem.source else domain}"
        yield replace(problem, name=name, learned=learned, tested=tested)


def halves(problem: Problem) -> Iterator[Problem]:
    """Base, novel and all classes; text of novel classes is known where it counts."""
    labels = np.unique(problem.y)
    base = labels[: math.ceil(len(labels) / 2)].tolist()
    names, text = (_by_label(table, labels) for table in (problem.class_names, problem.text_features))
    if names is None and labels.dtype.kind in "UO":
        names = {label: str(label) for label in labels.tolist()}
    if text is None and (names is None or not has_text(problem.encoder)):
        raise ValueError(f"{problem.name} has no text, by which alone novel classes are known.")
    is_base = np.isin(problem.y, base)
    for half, tested in zip(HALVES, (is_base, ~is_base, np.ones_like(is_base)), strict=True):
        kept = base if half == "base" else labels.tolist()
        yield replace(
            problem,
            name=f"{problem.name}/{half}",
            class_names=None if names is None else {label: names[label] for label in kept},
            text_features=None if text is None else {label: text[label] for label in kept},
            learned=is_base,
            tested=tested,
        )


def _by_label(table: Any, labels: NDArray[Any]) -> dict[Any, Any] | None:
    """Names or rows of text by label, from a mapping or a sequence that integer labels index."""
    if table is None or isinstance(table, Mapping):
        return table if table is None else dict(table)
    return {label: table[int(label)] for label in labels.tolist()}


def corrupted(path: str, encoder: Any) -> Problem:
    """The images of a feature file as they are, the source, and in each corruption.

    Parameters
    ----------
    path : str
        A feature file with ``images``.
    encoder : object
    """
    from skxma.datasets._features import load_features

    data = load_features(path)
    if data.images is None:
        raise ValueError(f"{path} lacks images to corrupt, which protocol {DOMAIN!r} needs of a feature file.")
    if data.class_names is None:
        raise ValueError(f"{path} lacks class_names, whose text the encoder of its images would need.")
    kinds = {CLEAN: lambda images: images, **CORRUPTIONS}
    n, groups = len(data.target), data.groups
    return Problem(
        data.name,
        [image for corrupt in kinds.values() for image in corrupt(data.images)],
        np.tile(data.target, len(kinds)),
        encoder,
        class_names=[str(name) for name in data.class_names],
        groups=np.tile(np.arange(n) if groups is None else groups, len(kinds)),
        domains=np.repeat(list(kinds), n),
        source=CLEAN,
    )


def of_domain_folders(path: str, encoder: Any) -> Problem:
    """The images of a folder of domains; labels are those of the classes that all of them have.

    Parameters
    ----------
    path : str
    encoder : object
    """
    from skxma.datasets._folders import read_image_folder

    folders = sorted(folder for folder in Path(path).iterdir() if folder.is_dir() and not folder.name.startswith("."))
    held = [read_image_folder(folder) for folder in folders]
    common = set.intersection(*(set(data.target.tolist()) for data in held)) if held else set()
    if len(common) < 2:
        raise ValueError(f"the folders in {path} share {len(common)} classes, so they are no domains of one task.")
    rows = [
        (image, label, folder.name)
        for folder, data in zip(folders, held, strict=True)
        for image, label in zip(data.paths, data.target.tolist(), strict=True)
        if label in common
    ]
    paths, labels, names = zip(*rows, strict=True)
    return Problem(Path(path).absolute().name, list(paths), np.array(labels), encoder, domains=np.array(names))


def imagenet_and_shifts(how: dict[str, Any]) -> Iterator[Problem]:
    """ImageNet's own test and those of its shifts whose folders are there, learned on ImageNet.

    Parameters
    ----------
    how : dict
        Parameters of `load_problem`.
    """
    from skxma.datasets._coop import IMAGENET_SHIFTS, SHIFTS

    yield replace(load_problem(IMAGENET_NAME, **how), name=f"{IMAGENET_NAME}/{SAME}")
    for name in IMAGENET_SHIFTS:
        if (Path(how["root"]) / SHIFTS[name].folder).exists():
            yield replace(load_problem(name, **how), name=f"{IMAGENET_NAME}/{name.removeprefix('imagenet_')}")
