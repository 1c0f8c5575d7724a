"""The classes of a tab with their images, and images without a class; whatever is removed can be put back."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from skxma.app._warnings import collected_warnings
from skxma.app._wording import shortened, words_of_warning
from skxma.datasets import load_emoji
from skxma.errors import ImageError
from skxma.images._reading import load_image

THUMBNAIL = 192
MAX_UNDO = 50
EXAMPLE_CLASSES, EXAMPLE_SHOTS = ("bear", "cat face", "fox", "poodle"), 3
# two of the example's classes, and one that is like none of them
EXAMPLE_QUERIES = ("bear", "cat face", "tornado")


class ChangedError(ValueError):
    """The page shows something other than the server holds."""


@dataclass(frozen=True)
class StoredImage:
    """An image of a tab: its number, the name of its file, the stored file, a small PNG, and a digest of its pixels."""

    number: int
    name: str
    file: Path
    thumbnail: bytes
    digest: bytes


@dataclass
class Column:
    """A class: its number, its name, and its images."""

    number: int
    name: str
    images: list[StoredImage] = field(default_factory=list)


@dataclass(frozen=True)
class Removal:
    """Something that was removed: what, in words; its images; and what puts it back."""

    words: str
    images: tuple[StoredImage, ...]
    restore: Callable[[], None]


@dataclass(frozen=True)
class Repeat:
    """An image that was added more than once: the numbers of its copies, and what that means, in words."""

    images: tuple[int, ...]
    words: str


class Gallery:
    """Classes with their images, and images without a class, which are kept in a folder that goes with them.

    Attributes
    ----------
    columns : list of Column
    pool : list of StoredImage
        Images without a class.
    held : tuple of StoredImage
        Images whose files something else needs, such as a model.
    """

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.pool: list[StoredImage] = []
        self.held: tuple[StoredImage, ...] = ()
        self._removals: deque[Removal] = deque(maxlen=MAX_UNDO)
        self._example: frozenset[int] = frozenset()
        self._images: dict[int, StoredImage] = {}
        self._count = 0
        self._folder = TemporaryDirectory(prefix="skxma-app-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove the images."""
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """The folder that goes with the gallery."""
        return Path(self._folder.name)

    @property
    def content(self) -> list[tuple[str, list[int]]]:
        """Names and images of the classes that count, to tell whether they have changed."""
        return [(column.name, [image.number for image in column.images]) for column in self.used_columns]

    @property
    def used_columns(self) -> list[Column]:
        """The classes that have a name or images."""
        return [column for column in self.columns if column.name or column.images]

    @property
    def unlabeled(self) -> list[StoredImage]:
        """Images of the pool that are in no class: the same image may have been brought to both."""
        labeled = {image.digest for column in self.columns for image in column.images}
        return [image for image in self.pool if image.digest not in labeled]

    @property
    def undoable(self) -> str | None:
        """The last removal in words; None if nothing was removed."""
        return self._removals[-1].words if self._removals else None

    @property
    def repeats(self) -> list[Repeat]:
        """Images that are in the classes more than once."""
        found: dict[bytes, list[tuple[Column, StoredImage]]] = {}
        for column in self.columns:
            for image in column.images:
                found.setdefault(image.digest, []).append((column, image))
        return [
            Repeat(tuple(image.number for _, image in copies), words_of_repeat(copies))
            for copies in found.values()
            if len(copies) > 1
        ]

    @property
    def example_queries(self) -> tuple[str, ...]:
        """Names of bundled images to ask about, as long as the example is there."""
        return EXAMPLE_QUERIES if any(column.number in self._example for column in self.columns) else ()

    def add_column(self, name: str = "") -> Column:
        """Add a class without images."""
        column = Column(self.next_number(), clean(name))
        self.columns.append(column)
        return column

    def rename(self, number: int, name: str) -> None:
        """Name a class."""
        self._column(number).name = clean(name)

    def remove_column(self, number: int) -> None:
        """Remove a class with its images; `undo` puts it back."""
        column = self._column(number)
        index = self.columns.index(column)
        n = len(column.images)
        images = f" with {n} image{'s' * (n > 1)}" if n else ""
        self._removed(
            f"The class {self.title(column)}{images} was removed.",
            tuple(column.images),
            lambda: self.columns.insert(index, column),
        )
        self.columns.remove(column)

    def add_image(self, number: int, name: str, content: bytes) -> tuple[StoredImage, list[str]]:
        """Put an image into a class, once it is read whole; no encoder is needed for that.

        Parameters
        ----------
        number : int
            The class's.
        name : str
            The file's.
        content : bytes
            The file's.

        Returns
        -------
        image : StoredImage
        warnings : list of str
            In words for the page.

        Raises
        ------
        ImageError
            It is no image that can be read; names it.
        """
        column = self._column(number)
        with collected_warnings() as heard:
            image = self.store(name, content)
        self._put(column.images, image)
        return image, [f"{name}: {words_of_warning(text)}" for text in heard]

    def add_to_pool(self, name: str, content: bytes) -> list[str]:
        """Add an image without a class, unless it is here already; returns warnings in words for the page.

        Raises
        ------
        ImageError
            It is no image that can be read; names it.
        """
        with collected_warnings() as heard:
            image = self.store(name, content)
        here = {known.digest for images in (self.pool, *(c.images for c in self.columns)) for known in images}
        if image.digest in here:
            image.file.unlink()
            return []
        self._put(self.pool, image)
        return [f"{name}: {words_of_warning(text)}" for text in heard]

    def label(self, number: int, column_number: int) -> None:
        """Put an image of the pool into a class; `undo` puts it back."""
        column = self._column(column_number)
        self._label(self._in_pool(number), column)

    def label_as(self, number: int, name: str) -> None:
        """Put an image of the pool into the class of a name; `undo` puts it back.

        Where there is no such class it is made, and `undo` takes it away, but for what it was given since.

        Raises
        ------
        ValueError
            The name is empty.
        """
        name = clean(name)
        if not name:
            raise ValueError("Type the name of the class first.")
        image = self._in_pool(number)
        same = next((column for column in self.columns if column.name == name), None)
        if same is not None:
            self._label(image, same)
            return
        unused = next((column for column in self.columns if not column.name and not column.images), None)
        column = unused or self.add_column()
        column.name = name

        def forget() -> None:
            # a name without images is a class too, of which a fit would take the text
            if column.name == name and not column.images:
                column.name = ""
                if unused is None:
                    self.columns.remove(column)

        self._label(image, column, forget)

    def clear_pool(self) -> None:
        """Remove the images without a class; `undo` puts them back."""
        images = tuple(self.pool)
        if not images:
            return
        several = len(images) > 1
        words = f"{len(images)} image{'s' * several} without a label {'were' if several else 'was'} removed."
        self._removed(words, images, lambda: self.pool.extend(images))
        self.pool.clear()

    def remove_image(self, number: int) -> None:
        """Take an image out of its class, or the pool; `undo` puts it back."""
        images, image, home = self._find(number)
        index = images.index(image)
        self._removed(
            f"{shortened(image.name)} was removed from {home}.", (image,), lambda: images.insert(index, image)
        )
        images.remove(image)

    def undo(self) -> None:
        """Put back what was removed last.

        Raises
        ------
        ValueError
            Nothing was removed.
        """
        if not self._removals:
            raise ChangedError("There is nothing to undo.")
        self._removals.pop().restore()
        self._forget_unused()

    def thumbnail(self, number: int) -> bytes:
        """The small PNG of an image of the classes, of the model, or of what can be undone."""
        if number not in self._images:
            raise ChangedError(f"There is no image {number} any more; load the page again.")
        return self._images[number].thumbnail

    def with_names(self, text: str) -> str:
        """Replace the paths of stored images in a text by the names of the files that were brought."""

        def name(found: re.Match[str]) -> str:
            image = self._images.get(int(found["number"]))
            return found[0] if image is None else shortened(image.name)

        return re.sub(rf"{re.escape(f'{self.folder}{os.sep}')}(?P<number>\d+)", name, text)

    def use_example(self) -> None:
        """Put a few classes of the bundled emoji in the place of the classes; `undo` brings those back."""
        before, lost = self.columns, self.used_columns
        emoji = load_emoji(as_paths=True)
        self.columns = []
        for label in EXAMPLE_CLASSES:
            column = self.add_column(label)
            for i in np.flatnonzero(emoji.target == label)[:EXAMPLE_SHOTS]:
                path = Path(emoji.images[i])
                self._put(column.images, self.store(f"{label} ({path.stem}).png", path.read_bytes()))
        example = self._example = frozenset(column.number for column in self.columns)
        bundled = {image.number for column in self.columns for image in column.images}

        def restore() -> None:
            # what was added to the example since stays
            added = [
                column
                for column in self.columns
                if (column.number not in example and (column.name or column.images))
                or any(image.number not in bundled for image in column.images)
            ]
            self.columns = before + added

        if lost:
            classes = f"{len(lost)} class{'es were' if len(lost) > 1 else ' was'}"
            images = tuple(image for column in lost for image in column.images)
            self._removed(f"Your {classes} replaced by the example.", images, restore)

    def example_query(self, index: int) -> tuple[str, bytes]:
        """Name and content of a bundled image to ask about."""
        if not 0 <= index < len(EXAMPLE_QUERIES):
            raise ChangedError(f"There is no example {index}; load the page again.")
        emoji = load_emoji(as_paths=True)
        label = EXAMPLE_QUERIES[index]
        path = Path(emoji.images[np.flatnonzero(emoji.target == label)[EXAMPLE_SHOTS + 1]])
        return f"{label} ({path.stem}).png", path.read_bytes()

    def store(self, name: str, content: bytes) -> StoredImage:
        """Write a file into the folder and read it whole, without putting it into a class.

        Raises
        ------
        ImageError
            It is no image that can be read; names it.
        """
        number = self.next_number()
        # Pillow goes by the content; what a browser calls the file never becomes a path
        file = self.folder / str(number)
        file.write_bytes(content)
        try:
            small = load_image(file)
        except ImageError as error:
            file.unlink()
            raise ImageError(f"{name}: {error.reason}", path=name, reason=error.reason) from error
        except MemoryError as error:
            file.unlink()
            raise MemoryError(f"{name}: too large for the memory that is left.") from error
        digest = hashlib.blake2b(f"{small.size}".encode() + small.tobytes(), digest_size=16).digest()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return StoredImage(number, name, file, as_png(small), digest)

    def _put(self, images: list[StoredImage], image: StoredImage) -> None:
        self._images[image.number] = image
        images.append(image)

    def _in_pool(self, number: int) -> StoredImage:
        image = next((image for image in self.pool if image.number == number), None)
        if image is None:
            raise ChangedError(f"There is no image {number} without a class any more; load the page again.")
        return image

    def _label(self, image: StoredImage, column: Column, forget: Callable[[], None] = lambda: None) -> None:
        """Put an image of the pool into a class; `forget` is called after it was put back."""
        index = self.pool.index(image)

        def restore() -> None:
            column.images.remove(image)
            self.pool.insert(index, image)
            forget()

        self.pool.remove(image)
        column.images.append(image)
        self._removed(f"{shortened(image.name)} was put into {self.title(column)}.", (image,), restore)

    def _removed(self, words: str, images: tuple[StoredImage, ...], restore: Callable[[], None]) -> None:
        self._removals.append(Removal(words, images, restore))
        self._forget_unused()

    def hold(self, images: tuple[StoredImage, ...]) -> None:
        """Keep the files of some images, whatever becomes of them here, and those that were held before no longer."""
        self.held = images
        self._forget_unused()

    def next_number(self) -> int:
        """A number that nothing has had yet."""
        self._count += 1
        return self._count

    def title(self, column: Column) -> str:
        """The name of a class, or its place."""
        return f"“{shortened(column.name)}”" if column.name else f"number {self.columns.index(column) + 1}"

    def _forget_unused(self) -> None:
        """Delete the files of images that are in no class, are not held, and can't come back."""
        used = {image.number for column in self.columns for image in column.images}
        used |= {image.number for image in self.pool}
        used |= {image.number for removal in self._removals for image in removal.images}
        used |= {image.number for image in self.held}
        for number in self._images.keys() - used:
            self._images.pop(number).file.unlink(missing_ok=True)

    def _column(self, number: int) -> Column:
        for column in self.columns:
            if column.number == number:
                return column
        raise ChangedError(f"There is no class {number} any more; load the page again.")

    def _find(self, number: int) -> tuple[list[StoredImage], StoredImage, str]:
        """An image with the list that holds it, and what that is called."""
        for images, home in (*((c.images, self.title(c)) for c in self.columns), (self.pool, "those without a label")):
            for image in images:
                if image.number == number:
                    return images, image, home
        raise ChangedError(f"There is no image {number} any more; load the page again.")


def clean(name: str) -> str:
    """A class name with single spaces and composed letters, so that equal names are equal.

    Raises
    ------
    ValueError
        It is no text.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError("This name holds characters that are no text; type it anew.") from error
    return " ".join(unicodedata.normalize("NFC", name).split())


def words_of_repeat(copies: list[tuple[Column, StoredImage]]) -> str:
    """The meaning of an image that was added more than once."""
    names = list(dict.fromkeys(shortened(image.name) for _, image in copies))
    classes = list(dict.fromkeys(shortened(column.name) or "a class without a name" for column, _ in copies))
    what = " and ".join(names) + (" are the same image" if len(names) > 1 else " was added more than once")
    if len({column.number for column, _ in copies}) > 1:
        return f"{what}, in {' and in '.join(classes)}. An image of two classes confuses the fit: leave it in one."
    return f"{what}, in {classes[0]}. It counts {len(copies)} times as much as others: leave one."


def as_png(image: Image.Image) -> bytes:
    """An image as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
