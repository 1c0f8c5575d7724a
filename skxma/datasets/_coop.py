"""The eleven data sets of CoOp and the four shifts of ImageNet, in the layout in which everyone keeps them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from skxma.datasets._bunch import bunch
from skxma.datasets._listing import list_images

if TYPE_CHECKING:
    from sklearn.utils import Bunch

Row = tuple[str, int, str]
INSTALL = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md explains what to download and where to put it."


@dataclass(frozen=True)
class DatasetLayout:
    """Place of a data set under the root and the template that CoOp and its followers use for it."""

    folder: str
    images: str
    template: str
    split: str | None = None


PHOTO = "a photo of a {}."
SPLIT = {
    "caltech101": DatasetLayout("caltech-101", "101_ObjectCategories", PHOTO, "Caltech101"),
    "dtd": DatasetLayout("dtd", "images", "{} texture.", "DescribableTextures"),
    "eurosat": DatasetLayout("eurosat", "2750", "a centered satellite photo of {}.", "EuroSAT"),
    "flowers102": DatasetLayout("oxford_flowers", "jpg", "a photo of a {}, a type of flower.", "OxfordFlowers"),
    "food101": DatasetLayout("food-101", "images", "a photo of {}, a type of food.", "Food101"),
    "oxford_pets": DatasetLayout("oxford_pets", "images", "a photo of a {}, a type of pet.", "OxfordPets"),
    "stanford_cars": DatasetLayout("stanford_cars", "", PHOTO, "StanfordCars"),
    "sun397": DatasetLayout("sun397", "SUN397", PHOTO, "SUN397"),
    "ucf101": DatasetLayout("ucf101", "UCF-101-midframes", "a photo of a person doing {}.", "UCF101"),
}
AIRCRAFT = {"fgvc_aircraft": DatasetLayout("fgvc_aircraft", "images", "a photo of a {}, a type of aircraft.")}
IMAGENET_LAYOUT = {"imagenet": DatasetLayout("imagenet", "images", PHOTO)}
SHIFTS = {
    "imagenet_v2": DatasetLayout("imagenetv2", "imagenetv2-matched-frequency-format-val", PHOTO),
    "imagenet_sketch": DatasetLayout("imagenet-sketch", "images", PHOTO),
    "imagenet_a": DatasetLayout("imagenet-adversarial", "imagenet-a", PHOTO),
    "imagenet_r": DatasetLayout("imagenet-rendition", "imagenet-r", PHOTO),
}
IMAGENET_SHIFTS = tuple(SHIFTS)


def load_coop(name: str, root: str | os.PathLike[str], *, classes: Literal["all", "base", "novel"] = "all") -> Bunch:
    """List the images of one of the data sets of CoOp [1]_; none is opened.

    Parameters
    ----------
    name : str
        "caltech101", "dtd", "eurosat", "fgvc_aircraft", "flowers102", "food101", "imagenet", "oxford_pets",
        "stanford_cars", "sun397", "ucf101", or a shift of ImageNet: "imagenet_v2", "imagenet_sketch", "imagenet_a",
        "imagenet_r".
    root : str or path-like
        The folder that holds the data sets, laid out as CoOp's ``DATASETS.md`` says.
    classes : {"all", "base", "novel"}, default="all"
        "base" is the first half of the labels, rounded up, and "novel" the rest.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        paths : list of str
            The images.
        target : ndarray of shape (n_samples,) of int
            Their labels, which index `class_names`. Those of a shift are ImageNet's.
        class_names : list of str
            All classes, also those left out by `classes`.
        fold : ndarray of shape (n_samples,) of str
            "train", "val" or "test". ImageNet has no "val" (its validation images are the test); a shift only has
            "test".
        template : str
            The prompt that CoOp and its followers use.
        name : str
            `name`, with "/base" or "/novel" after it where only those classes are taken.

    Raises
    ------
    FileNotFoundError
        The data set or one of its images is not there; says where it was looked for.
    ValueError
        An unknown name, or a split file that is none.

    References
    ----------
    .. [1] Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134.
    """
    known = {**SPLIT, **AIRCRAFT, **IMAGENET_LAYOUT, **SHIFTS}
    if name not in known:
        raise ValueError(f"there is no data set {name!r}; choose one of {', '.join(known)}.")
    if classes not in ("all", "base", "novel"):
        raise ValueError(f"classes={classes!r} must be 'all', 'base' or 'novel'.")
    layout = known[name]
    folder = _existing(Path(root) / layout.folder)
    names, folds = _read_folds(name, layout, folder)
    half = math.ceil(len(names) / 2)
    wanted = {"all": range(len(names)), "base": range(half), "novel": range(half, len(names))}[classes]
    rows = [(path, label, fold) for fold, held in folds.items() for path, label, _ in held if label in wanted]
    if not rows:
        raise ValueError(f"{folder} lists no images for {name}. {INSTALL}")
    _existing(Path(rows[0][0]))
    paths, labels, fold = zip(*rows, strict=True)
    return bunch(
        paths=list(paths),
        target=np.array(labels),
        class_names=names,
        fold=np.array(fold),
        template=layout.template,
        name=name if classes == "all" else f"{name}/{classes}",
    )


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there. {INSTALL}")
    return path


def _read_folds(name: str, layout: DatasetLayout, folder: Path) -> tuple[list[str], dict[str, list[Row]]]:
    """Class names by label, and the rows of each fold."""
    images = folder / layout.images
    if name in SPLIT:
        return _read_split(folder / f"split_zhou_{layout.split}.json", images)
    if name in AIRCRAFT:
        return _read_aircraft(folder, images)
    names = _read_imagenet_names(_existing(folder / "classnames.txt"))
    labels = {wnid: label for label, wnid in enumerate(names)}
    if name in IMAGENET_LAYOUT:
        folds = {
            "train": list(_class_folders(images / "train", labels)),
            "test": list(_class_folders(images / "val", labels)),
        }
    elif name == "imagenet_v2":
        folds = {"test": list(_class_folders(images, {str(label): label for label in range(len(names))}))}
    else:
        folds = {"test": list(_class_folders(images, labels))}
    return list(names.values()), folds


def _read_split(file: Path, images: Path) -> tuple[list[str], dict[str, list[Row]]]:
    """Read CoOp's own split: triples of path, label and class name in three folds."""
    try:
        held = json.loads(_existing(file).read_text(encoding="utf-8"))
        folds = {
            fold: [(str(images / path), int(label), str(word)) for path, label, word in held[fold]]
            for fold in ("train", "val", "test")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no split of CoOp's (train, val and test lists of path, label, class): {error}"
        ) from error
    words = {label: word for rows in folds.values() for _, label, word in rows}
    if sorted(words) != list(range(len(words))):
        raise ValueError(f"{file} numbers its {len(words)} classes otherwise than from 0 to {len(words) - 1}.")
    return [words[label] for label in range(len(words))], folds


def _read_aircraft(folder: Path, images: Path) -> tuple[list[str], dict[str, list[Row]]]:
    """Read the lists that FGVC-Aircraft itself comes with."""
    names = [line.strip() for line in _existing(folder / "variants.txt").read_text(encoding="utf-8").splitlines()]
    labels = {word: label for label, word in enumerate(names)}
    folds: dict[str, list[Row]] = {}
    for fold in ("train", "val", "test"):
        file = _existing(folder / f"images_variant_{fold}.txt")
        pairs = [line.split(" ", 1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        unknown = [pair for pair in pairs if len(pair) != 2 or pair[1].strip() not in labels]
        if unknown:
            raise ValueError(f"{file} has a line {' '.join(unknown[0])!r} whose variant is not in variants.txt.")
        folds[fold] = [(str(images / f"{image}.jpg"), labels[word.strip()], word.strip()) for image, word in pairs]
    return names, folds


def _read_imagenet_names(file: Path) -> dict[str, str]:
    """WordNet id to class name, in the order of the labels."""
    pairs = [line.strip().split(" ", 1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    bare = [pair[0] for pair in pairs if len(pair) != 2]
    if bare:
        raise ValueError(f"{file} has a line {bare[0]!r} without a class name; lines are 'n01440764 tench'.")
    return dict(sorted((wnid, word) for wnid, word in pairs))


def _class_folders(images: Path, labels: dict[str, int]) -> Iterator[Row]:
    """Images of the folders whose names are known, class by class."""
    for entry in sorted(_existing(images).iterdir()):
        if entry.is_dir() and entry.name in labels:
            for path in list_images(entry, recursive=False).paths:
                yield path, labels[entry.name], entry.name
