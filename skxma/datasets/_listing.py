"""The images of a folder: one rule for which of its files count, wherever a folder is listed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from skxma._runtime.lines import counted

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jfif", ".avif"})
# What systems, network drives and archives add to a folder, beside names that begin with a dot.
SERVICE_NAMES = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
# Images that Pillow does not read without a plug-in.
UNREAD_IMAGE_ENDINGS = frozenset(
    {".heic", ".heif", ".jxl", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".psd", ".svg"}
)
_N_NAMED = 5


@dataclass
class Listing:
    """The images of a folder, and the number of other entries.

    Attributes
    ----------
    paths : list of str
        The images.
    n_hidden : int
        Hidden and service files and folders; a folder counts once.
    n_links : int
        Links to folders, which are not followed.
    other_types : Counter of str to int
        The number of files that are no images, by their ending in lower case.
    """

    paths: list[str] = field(default_factory=list)
    n_hidden: int = 0
    n_links: int = 0
    other_types: Counter[str] = field(default_factory=Counter)

    @classmethod
    def joined(cls, parts: Iterable[Listing]) -> Listing:
        """Return several listings as one."""
        whole = cls()
        for part in parts:
            whole.paths.extend(part.paths)
            whole.n_hidden += part.n_hidden
            whole.n_links += part.n_links
            whole.other_types.update(part.other_types)
        return whole

    @property
    def n_skipped(self) -> int:
        """The number of entries that were skipped."""
        return self.n_hidden + self.n_links + self.other_types.total()

    def describe_skipped(self) -> str | None:
        """Return a phrase that counts what was skipped, None if nothing was."""
        parts = []
        if self.n_hidden:
            parts.append(f"{counted(self.n_hidden, 'hidden or service file')} (a folder counts once)")
        if self.n_links:
            parts.append(f"{counted(self.n_links, 'link')} to folders")
        if n_other := self.other_types.total():
            parts.append(f"{counted(n_other, 'file')} of other types ({count_endings(self.other_types)})")
        return f"skipped {' and '.join(parts)}" if parts else None


def list_images(folder: str | os.PathLike[str], *, recursive: bool = True) -> Listing:
    """List the images of a folder; none is opened.

    An image is a file with one of `IMAGE_ENDINGS`. Hidden files and folders, and those that systems leave behind
    (``._*``, ``__MACOSX``, ``.ipynb_checkpoints``, ``@eaDir``, ``Thumbs.db``, ``desktop.ini``), are skipped.

    Parameters
    ----------
    folder : str or path-like
    recursive : bool, default=True
        Whether to list the folders inside it too.

    Returns
    -------
    listing : Listing
        Its paths begin with `folder` and are sorted by their parts.
    """
    listing = Listing()
    _visit(Path(folder), recursive, listing)
    return listing


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without those that are hidden or of service."""
    return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name) and entry.is_dir())


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is none of the user's data."""
    return name.startswith(".") or name.lower() in SERVICE_NAMES


def count_endings(endings: Counter[str]) -> str:
    """Return the most frequent endings with their counts, in words."""
    named = [f"{n} {ending or 'without ending'}" for ending, n in endings.most_common(_N_NAMED)]
    rest = endings.total() - sum(n for _, n in endings.most_common(_N_NAMED))
    return ", ".join([*named, f"{rest} more"] if rest else named)


def _visit(folder: Path, recursive: bool, listing: Listing) -> None:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if is_hidden(entry.name):
            listing.n_hidden += 1
        elif _is_folder(entry):
            if entry.is_symlink():
                listing.n_links += 1
            elif recursive:
                _visit(folder / entry.name, recursive, listing)
        elif (ending := Path(entry.name).suffix.lower()) in IMAGE_ENDINGS:
            listing.paths.append(str(folder / entry.name))
        else:
            listing.other_types[ending] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # a link to itself, for one
        return False
