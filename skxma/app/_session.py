"""What the page works on: columns of pictures, the classifier fitted on them, and answers with their evidence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from skxma.datasets import load_emoji
from skxma.errors import ImageError
from skxma.images._reading import load_image
from skxma.inspection import labels_in_question

THUMBNAIL = 192
N_RETRIEVED = 5
# a picture more unlike its classes than all but this share of the support images gets a warning with its answer
UNLIKE_RATE = 0.05
SAMPLE_CLASSES, SAMPLE_SHOTS = ("bear", "cat face", "fox", "poodle"), 3


@dataclass(frozen=True)
class Picture:
    """A picture that was dropped: its number, the name of its file, where it is kept, and a small PNG of it."""

    number: int
    name: str
    file: Path
    thumbnail: bytes


@dataclass
class Column:
    """A class: its number, its name, and its pictures."""

    number: int
    name: str
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Doubt:
    """A picture whose label is probably wrong, and the class that the model would give it."""

    picture: int
    suggested: str
    probability: float


@dataclass(frozen=True)
class Fitted:
    """A classifier, the pictures that it was fitted on in their order, and what the fit found out."""

    classifier: Any
    pictures: tuple[Picture, ...]
    doubts: tuple[Doubt, ...]
    seconds: float


@dataclass(frozen=True)
class ClassScore:
    """What the text alone says of a class, and what it comes to with the pictures; probabilities."""

    label: str
    zero_shot: float
    final: float


@dataclass(frozen=True)
class Retrieved:
    """A support picture that was retrieved, with its affinity to the query in both modalities."""

    picture: int
    name: str
    label: str
    image_affinity: float
    text_affinity: float


@dataclass(frozen=True)
class Answer:
    """The classes of a query, the most probable first, and the evidence.

    Attributes
    ----------
    name : str
        Of the query's file.
    thumbnail : bytes
        PNG.
    unlike : bool
        Whether it is more unlike the classes than almost all of their own pictures.
    scores : list of ClassScore
    retrieved : list of Retrieved
    """

    name: str
    thumbnail: bytes
    unlike: bool
    scores: list[ClassScore]
    retrieved: list[Retrieved]


class Session:
    """Columns of pictures and the classifier fitted on them; the pictures are kept in a folder that goes with it.

    Parameters
    ----------
    encoder : str
        As in :class:`~skxma.XMAdapterClassifier`.
    device : str, default="auto"
    """

    def __init__(self, encoder: str, device: str = "auto") -> None:
        self.encoder = encoder
        self.device = device
        self.columns: list[Column] = []
        self.fitted: Fitted | None = None
        self._fitted_on: Any = None
        self._count = 0
        self._folder = TemporaryDirectory(prefix="skxma-app-", ignore_cleanup_errors=True)

    def close(self) -> None:
        """Remove the pictures."""
        self._folder.cleanup()

    @property
    def stale(self) -> bool:
        """Whether the columns have changed since the fit."""
        return self.fitted is not None and self._fitted_on != self._content()

    def add_column(self, name: str = "") -> Column:
        """Add an empty column."""
        column = Column(self._next(), name.strip())
        self.columns.append(column)
        return column

    def rename(self, number: int, name: str) -> None:
        """Name a column's class."""
        self._column(number).name = name.strip()

    def remove_column(self, number: int) -> None:
        """Remove a column with its pictures."""
        self.columns.remove(self._column(number))

    def add_picture(self, number: int, name: str, content: bytes) -> Picture:
        """Put a picture into a column.

        Parameters
        ----------
        number : int
            The column's.
        name : str
            The file's.
        content : bytes
            The file's.

        Raises
        ------
        ImageError
            It is no picture that can be read; names it.
        """
        column = self._column(number)
        picture = self._keep(name, content)
        column.pictures.append(picture)
        return picture

    def remove_picture(self, number: int) -> None:
        """Take a picture out of its column."""
        for column in self.columns:
            column.pictures = [picture for picture in column.pictures if picture.number != number]

    def thumbnail(self, number: int) -> bytes:
        """The small PNG of a picture that is in a column, or was at the time of the fit."""
        for picture in self._pictures():
            if picture.number == number:
                return picture.thumbnail
        raise ValueError(f"There is no picture {number} any more; load the page again.")

    def use_sample(self) -> None:
        """Replace the columns by a few classes of the bundled emoji."""
        emoji = load_emoji(as_paths=True)
        self.columns = []
        for label in SAMPLE_CLASSES:
            column = self.add_column(label)
            for i in np.flatnonzero(emoji.target == label)[:SAMPLE_SHOTS]:
                path = Path(emoji.images[i])
                self.add_picture(column.number, path.name, path.read_bytes())

    def fit(self) -> Fitted:
        """Fit on the columns; a named one without pictures is known from its name alone.

        Raises
        ------
        ValueError
            Names or pictures that are missing; says which.
        SkxmaError
            As :meth:`XMAdapterClassifier.fit`.
        """
        from skxma._estimators.xmadapter import XMAdapterClassifier

        columns = [column for column in self.columns if column.name or column.pictures]
        check_columns(columns)
        pictures = tuple(picture for column in columns for picture in column.pictures)
        labels = [column.name for column in columns for _ in column.pictures]
        start = time.perf_counter()
        clf = XMAdapterClassifier(
            self.encoder,
            class_names=[column.name for column in columns],
            false_rejection_rate=UNLIKE_RATE,
            unknown_label="",
            device=self.device,
            random_state=0,
        )
        clf.fit([picture.file for picture in pictures], labels)
        doubts = tuple(
            Doubt(pictures[found.sample].number, str(found.suggested), found.probability)
            for found in labels_in_question(clf)
        )
        self._fitted_on = self._content()
        self.fitted = Fitted(clf, pictures, doubts, time.perf_counter() - start)
        return self.fitted

    def ask(self, name: str, content: bytes) -> Answer:
        """Classify a picture, with the evidence.

        Parameters
        ----------
        name, content
            The file's.

        Raises
        ------
        ImageError
            It is no picture that can be read.
        ValueError
            Nothing was fitted yet.
        """
        if self.fitted is None:
            raise ValueError("Fit first: there is no classifier yet that could answer.")
        query = self._keep(name, content)
        try:
            return explain(self.fitted, query)
        finally:
            query.file.unlink()

    def model(self) -> bytes:
        """The classifier as `skxma predict` and `skxma.load` read it; it always answers a class.

        Raises
        ------
        ValueError
            Nothing was fitted yet.
        """
        if self.fitted is None:
            raise ValueError("Fit first: there is no classifier yet to save.")
        file = Path(self._folder.name) / "model.skxma"
        copy(self.fitted.classifier).set_params(false_rejection_rate=None, unknown_label=None).save(file)
        return file.read_bytes()

    def _keep(self, name: str, content: bytes) -> Picture:
        """Write a file into the session's folder and read it."""
        number = self._next()
        # Pillow goes by the content; what a browser calls the file never becomes a path
        file = Path(self._folder.name) / str(number)
        file.write_bytes(content)
        try:
            small = load_image(file)
        except ImageError as error:
            file.unlink()
            raise ImageError(f"{name}: {error.reason}", path=name, reason=error.reason) from error
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return Picture(number, name, file, as_png(small))

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _column(self, number: int) -> Column:
        for column in self.columns:
            if column.number == number:
                return column
        raise ValueError(f"There is no class {number} any more; load the page again.")

    def _pictures(self) -> Iterator[Picture]:
        for column in self.columns:
            yield from column.pictures
        if self.fitted is not None:
            yield from self.fitted.pictures

    def _content(self) -> list[tuple[str, list[int]]]:
        """Names and pictures of the columns that count, to tell whether they have changed."""
        return [(c.name, [p.number for p in c.pictures]) for c in self.columns if c.name or c.pictures]


def check_columns(columns: list[Column]) -> None:
    """Say in plain words what is missing before a fit."""
    nameless = sum(not column.name for column in columns)
    if nameless:
        raise ValueError("A column with pictures has no name. Name it: the name is what CLIP reads.")
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two columns are called {twice[0]!r}. Put their pictures into one, or name one otherwise.")
    if len(columns) < 2:
        raise ValueError("It takes two classes to tell apart. Name another column; pictures for it are better still.")
    if not any(column.pictures for column in columns):
        raise ValueError("There are no pictures yet. Drop one or more into a column.")


def explain(fitted: Fitted, query: Picture) -> Answer:
    """Classify a query, and say from what."""
    clf = fitted.classifier
    # encoded once for all four questions
    features = clf.encode([query.file])
    final, zero_shot = clf.predict_proba(features)[0], clf.zero_shot(features)[0]
    image, text, found = (part[0] for part in clf.kneighbors(features, N_RETRIEVED))
    labels = clf.classes_[clf.image_cache_.labels[clf.sample_position_]]
    return Answer(
        query.name,
        query.thumbnail,
        bool(clf.open_set_score(features)[0] > clf.reject_threshold_),
        [ClassScore(str(clf.classes_[c]), float(zero_shot[c]), float(final[c])) for c in final.argsort()[::-1]],
        [
            Retrieved(fitted.pictures[i].number, fitted.pictures[i].name, str(labels[i]), float(a), float(b))
            for i, a, b in zip(found, image, text, strict=True)
        ],
    )


def as_png(picture: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
