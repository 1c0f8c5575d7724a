"""Which folders of a data set stand for classes: the usual layouts are recognized, and what is left out is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skxma._runtime.lines import counted
from skxma.datasets._listing import (
    UNREAD_IMAGE_ENDINGS,
    Listing,
    count_endings,
    list_images,
    visible_folders,
)

# Names of the folders that data sets keep their parts in.
FOLDERS_OF_PARTS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train", "training", "trn", "train_set", "trainset", "training_set"}),
    "val": frozenset({"val", "valid", "validation", "dev", "val_set", "valset", "validation_set"}),
    "test": frozenset({"test", "testing", "tst", "test_set", "testset", "testing_set"}),
}


@dataclass(frozen=True)
class ClassFolders:
    """The images of each class, and how they were found.

    Attributes
    ----------
    images : dict of str to list of str
        Paths by class, for classes that have images.
    skipped : Listing
        Its counts are those of the files that were skipped in the folders of the classes.
    notes : list of str
        Sentences about the folders that were taken and those that were left out.
    """

    images: dict[str, list[str]]
    skipped: Listing
    notes: list[str]


def find_class_folders(folder: Path, part: str = "train") -> ClassFolders:
    """Find the folders of the classes.

    Each folder in `folder` that has images at any depth is a class, with these exceptions. Of ``train/`` and ``test/``
    or ``val/``, in `folder` or in each class, only one is taken. Where a single folder has images, none directly in
    it, the classes are sought in that.

    Parameters
    ----------
    folder : Path
    part : {"train", "val", "test"}, default="train"
        Which part to take of a data set that is divided into folders of these names.

    Returns
    -------
    found : ClassFolders

    Raises
    ------
    ValueError
        There are images, but not in one folder per class.
    """
    notes: list[str] = []
    while True:
        listings = {entry.name: list_images(entry) for entry in visible_folders(folder)}
        filled = {name: listing for name, listing in listings.items() if listing.paths}
        inner = _divided(folder, filled, part) or _only(folder, filled)
        if inner is None:
            break
        left_out = [_counted_images(name, listing) for name, listing in listings.items() if name != inner.name]
        notes.append(f"Took the classes of {inner}." + (f" Left out: {', '.join(left_out)}." if left_out else ""))
        folder = inner
    directly = list_images(folder, recursive=False)
    if directly.paths:
        notes.append(f"Left out {counted(len(directly.paths), 'image')} in {folder} itself, in no folder of a class.")
    notes += [f"Left out the class {name}: {_reason(part)}." for name, part in listings.items() if not part.paths]
    images, note = _divided_classes(folder, filled, part)
    skipped = Listing.joined([directly, *listings.values()])
    unread = sorted(UNREAD_IMAGE_ENDINGS & skipped.other_types.keys())
    if unread:
        notes.append(f"Files in {' and '.join(unread)} are not read; convert them to JPEG or PNG.")
    return ClassFolders(images, skipped, [*notes, *note])


def _divided(folder: Path, filled: Mapping[str, Listing], part: str) -> Path | None:
    """The folder of a part, where a folder is divided into parts; None where it is not."""
    known = {name: kind for name in filled if (kind := part_of(name)) is not None}
    if "train" not in known.values() or len(set(known.values())) < 2:
        return None
    chosen = next((name for name, kind in known.items() if kind == part), None)
    if chosen is None:
        raise ValueError(f"{folder} has {', '.join(known)}, but no folder of the {part} images.")
    if _has_classes(folder / chosen):
        return folder / chosen
    if len(known) == len(filled):
        raise ValueError(
            f"{folder} has {' and '.join(known)}, and {folder / chosen} has no folder per class. Put the images of "
            f"each class into a folder of their own, or give a table of paths and labels.{_name_tables(folder)}"
        )
    return None


def _only(folder: Path, filled: Mapping[str, Listing]) -> Path | None:
    """The only folder with images, if these lie in folders in turn."""
    if len(filled) != 1:
        return None
    inner = folder / next(iter(filled))
    has_images = list_images(inner, recursive=False).paths
    return inner if not has_images and _has_classes(inner) else None


def _divided_classes(folder: Path, filled: Mapping[str, Listing], part: str) -> tuple[dict[str, list[str]], list[str]]:
    """The images of each class, of one part where each class is divided into parts; and a note on that."""
    parts = {
        name: [part_of(Path(path).relative_to(folder / name).parts[0]) for path in listing.paths]
        for name, listing in filled.items()
    }
    every = {kind for kinds in parts.values() for kind in kinds}
    whole = {name: listing.paths for name, listing in filled.items()}
    if None in every or len(every) < 2 or not all(part in kinds for kinds in parts.values()):
        return whole, []
    taken = {
        name: [path for path, kind in zip(paths, parts[name], strict=True) if kind == part]
        for name, paths in whole.items()
    }
    n_left_out = sum(map(len, whole.values())) - sum(map(len, taken.values()))
    others = " and ".join(sorted(str(kind) for kind in every - {part}))
    return taken, [f"Took the {part} images of each class, and left out {counted(n_left_out, 'image')} of {others}."]


def part_of(name: str) -> str | None:
    """Return which part of a data set a folder of this name keeps, None for any other name."""
    return next((part for part, names in FOLDERS_OF_PARTS.items() if name.lower() in names), None)


def _has_classes(folder: Path) -> bool:
    return any(list_images(entry).paths for entry in visible_folders(folder))


def _counted_images(name: str, listing: Listing) -> str:
    return f"{name} ({counted(len(listing.paths), 'image')})"


def _reason(listing: Listing) -> str:
    """Reason why a folder has no images."""
    if not listing.n_skipped:
        return "its folder is empty"
    if not listing.other_types:
        return "its folder has only hidden or service files"
    return f"its folder has no images that are read, but {count_endings(listing.other_types)}"


def _name_tables(folder: Path) -> str:
    tables = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in (".csv", ".tsv"))
    return f" There is {' and '.join(tables)}." if tables else ""
