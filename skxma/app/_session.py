"""The work of one tab of the page: classes with their images, a model fitted on them or opened, and its answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from skxma._estimators.encoder_parameter import is_several
from skxma.app._answer import Answer, classify
from skxma.app._encoding import Encoders, make_encoders, watch_encoders
from skxma.app._gallery import ChangedError, Column, Gallery, StoredImage
from skxma.app._job import Job
from skxma.app._warnings import collected_warnings
from skxma.app._wording import shortened, words_of_warning
from skxma.errors import ModelFileError
from skxma.inspection import labels_in_question

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

# an image more unlike the classes than all but this share of the support images is like none of them
UNKNOWN_RATE = 0.05
N_SUGGESTED = 12


@dataclass(frozen=True)
class Doubt:
    """An image whose label is probably wrong, and the class that the model would give it."""

    image: int
    suggested: str
    probability: float


@dataclass(frozen=True)
class Model:
    """A model that answers.

    Attributes
    ----------
    number : int
        Tells it from the other models of the tab.
    classifier : BaseFewShotClassifier
        Fitted.
    file : str or None
        Name of the model file that it was opened from, None for one fitted here.
    images : tuple of StoredImage
        The images of the fit in their order; none of one that was opened.
    doubts : tuple of Doubt
    warnings : tuple of str
        Raised during the fit, in words for the page.
    seconds : float
        Duration of the fit.
    """

    number: int
    classifier: BaseFewShotClassifier
    file: str | None = None
    images: tuple[StoredImage, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A query and its answer.

    Attributes
    ----------
    query : StoredImage
    answer : Answer
    model : Model
        The one that answered.
    known_as : str or None
        The class of the query where it is one of the images of the fit.
    warnings : tuple of str
    """

    query: StoredImage
    answer: Answer
    model: Model
    known_as: str | None
    warnings: tuple[str, ...]


class Session:
    """Classes with their images, and the model fitted on them; the images are kept in a folder that goes with it.

    Parameters
    ----------
    encoder : str or list of str
        As in :class:`~skxma.XMAdapterClassifier`.
    device : str, default="auto"
    encoders : Encoders, optional
        Shared with the sessions of other tabs.
    """

    def __init__(self, encoder: str | list[str], device: str = "auto", encoders: Encoders | None = None) -> None:
        self.encoder = encoder
        self.device = device
        self.lock = RLock()
        self.gallery = Gallery()
        self.fitted: Model | None = None
        self.opened: Model | None = None
        self.job: Job | None = None
        self._suggested: tuple[int, ...] = ()
        self._encoders = encoders or Encoders()
        self._fitted_on: list[tuple[str, list[int]]] = []

    def close(self) -> None:
        """Stop what is at work and remove the images."""
        if self.job is not None:
            self.job.stop()
        self.gallery.close()

    @property
    def model(self) -> Model | None:
        """The model that answers: the opened one, else the fitted one."""
        return self.opened or self.fitted

    @property
    def is_busy(self) -> bool:
        """True while a job is running."""
        return self.job is not None and self.job.state == "running"

    @property
    def is_empty(self) -> bool:
        """True if nothing would be lost with it."""
        return not (self.is_busy or self.model or self.gallery.undoable or self.gallery.content or self.gallery.pool)

    @property
    def change(self) -> str | None:
        """Part that changed since the fit, "images" or "classes"; None for neither."""
        if self.opened is not None or self.fitted is None or self._fitted_on == self.gallery.content:
            return None
        fitted, shown = ({name for name, _ in content} for content in (self._fitted_on, self.gallery.content))
        return "images" if fitted == shown else "classes"

    @property
    def suggested(self) -> list[StoredImage]:
        """Images to label next, the most useful first, without those that have been labeled since."""
        pool = {image.number: image for image in self.gallery.unlabeled}
        return [pool[number] for number in self._suggested if number in pool]

    def fit(self) -> Job:
        """Start a fit on the classes; one with a name and no images is known from its name alone.

        Returns
        -------
        job : Job
            When it is finished, `fitted` is its result.

        Raises
        ------
        ValueError
            Names or images that are missing; says which.
        """
        self._refuse_if_busy()
        columns, content = self.gallery.used_columns, self.gallery.content
        check_columns(columns, self.gallery.title)
        names = [column.name for column in columns]
        images = tuple(image for column in columns for image in column.images)
        labels = [column.name for column in columns for _ in column.images]

        # a fit that fails or is stopped leaves the model before
        self.gallery.hold((*images, *(self.fitted.images if self.fitted else ())))

        number = self.gallery.next_number()

        def work(job: Job) -> Model:
            return self._fit(job, number, names, images, labels)

        def keep(model: Model) -> None:
            self.fitted, self.opened, self._fitted_on = model, None, content
            self.gallery.hold(model.images)

        return self._start(Job("fit", work, keep, self.lock))

    def ask(self, name: str, content: bytes, model: int | None = None) -> Job:
        """Start to classify an image, once it is read whole; the job's result is an `Asked`.

        Parameters
        ----------
        name, content
            The file's.
        model : int, optional
            Number of the model whose classes the page shows.

        Raises
        ------
        ImageError
            It is no image that can be read.
        ValueError
            There is no model, or its classes are not those that the page shows.
        """
        self._refuse_if_busy()
        answering = self.model
        if answering is None:
            raise ValueError("Fit first, or open a saved model: there is no model yet that could answer.")
        if model is not None and model != answering.number:
            raise ChangedError("The model is no longer the one that the page shows; load the page again.")
        if self.change == "classes":
            raise ValueError("The classes have changed since the fit. Fit again, then ask.")
        with collected_warnings() as heard:
            query = self.gallery.store(name, content)

        def work(job: Job) -> Asked:
            try:
                return self._ask(job, answering, query, heard)
            finally:
                query.file.unlink(missing_ok=True)

        return self._start(Job("ask", work, lambda asked: None, self.lock))

    def suggest(self) -> Job:
        """Start to choose the images without a class that are most worth a label; see `suggested`.

        Raises
        ------
        ValueError
            There are none.
        """
        self._refuse_if_busy()
        pool = tuple(self.gallery.unlabeled)
        if not pool:
            raise ValueError("There are no images without a label. Drop some first.")
        # a model of other classes would ask about those
        fitted = None if self.fitted is None or self.change == "classes" else self.fitted.classifier
        names = list(dict.fromkeys(column.name for column in self.gallery.columns if column.name))

        def work(job: Job) -> tuple[int, ...]:
            return self._suggest(job, fitted, names, pool)

        def keep(suggested: tuple[int, ...]) -> None:
            self._suggested = suggested

        return self._start(Job("suggest", work, keep, self.lock))

    def stop(self) -> None:
        """Stop the job that is running; what was before it stays."""
        if self.job is not None:
            self.job.stop()

    def open_model(self, name: str, file: Path) -> Model:
        """Open a saved model; it answers in the place of the fitted one until `close_model`.

        Parameters
        ----------
        name : str
            What the browser calls the file.
        file : Path

        Raises
        ------
        ModelFileError
            It is no model, or one that can't classify images.
        """
        from skxma import load
        from skxma.encoder._clip_encoder import CLIPEncoder

        self._refuse_if_busy()
        try:
            clf = load(file)
        except (ModelFileError, OSError) as error:
            raise ModelFileError(str(error).replace(str(file), name)) from error
        if clf.encoder == "precomputed":
            raise ModelFileError(f"{name} was fitted on embeddings, and can't classify images.")
        encoders = clf.encoder if is_several(clf.encoder) else [clf.encoder]
        # the machine of the fit may have had other devices
        clf.set_params(device=self.device)
        for one in encoders:
            if isinstance(one, CLIPEncoder):
                one.set_params(device=self.device)
            elif not isinstance(one, str):
                raise ModelFileError(f"{name} was fitted with an encoder of its own, which is not in the file.")
        self.opened = Model(self.gallery.next_number(), clf, file=name)
        return self.opened

    def close_model(self) -> None:
        """Go back from the opened model to the classes and the model fitted on them."""
        self._refuse_if_busy()
        self.opened = None

    def saved_model(self) -> bytes:
        """The fitted model as `skxma predict` and `skxma.load` read it; it always answers a class.

        Raises
        ------
        ValueError
            Nothing was fitted yet.
        """
        if self.fitted is None:
            raise ValueError("Fit first: there is no model yet to save.")
        file = self.gallery.folder / "model.skxma"
        copy(self.fitted.classifier).set_params(false_rejection_rate=None, unknown_label=None).save(file)
        return file.read_bytes()

    def upload_path(self) -> Path:
        """A free place in the session's folder."""
        return self.gallery.folder / f"upload-{self.gallery.next_number()}"

    def _fit(
        self, job: Job, number: int, names: list[str], images: tuple[StoredImage, ...], labels: list[str]
    ) -> Model:
        from skxma import XMAdapterClassifier
        from skxma._estimators.sample_names import as_names

        clf = XMAdapterClassifier(
            watch_encoders(self._load(self.encoder, job, device=self.device), job, names),
            class_names=names,
            # of few images the least rate that they give
            false_rejection_rate=max(UNKNOWN_RATE, 1 / (1 + len({image.digest for image in images}))),
            unknown_label="",
            device=self.device,
            random_state=0,
        )
        with self._encoders.turn(job), collected_warnings(every_thread=True) as heard:
            start = time.perf_counter()
            clf.fit([image.file for image in images], labels)
            seconds = time.perf_counter() - start
        # what is saved names the encoder, carries no job, and calls images as their files were called when uploaded
        clf.set_params(encoder=self.encoder)
        clf.sample_names_ = as_names([image.name for image in images])
        doubts = tuple(
            Doubt(images[found.sample].number, str(found.suggested), found.probability)
            for found in labels_in_question(clf)
        )
        # the page chose the rate, and its user cannot raise it
        relevant = [self.gallery.with_names(text) for text in heard if not text.startswith("false_rejection_rate=")]
        warnings = tuple(dict.fromkeys(words_of_warning(text, names) for text in relevant))
        return Model(number, clf, images=images, doubts=doubts, warnings=warnings, seconds=seconds)

    def _ask(self, job: Job, model: Model, query: StoredImage, heard_before: list[str]) -> Asked:
        clf = model.classifier
        self._load(clf.encoder, job, device=clf.device, precision=clf.precision)
        with self._encoders.turn(job), collected_warnings(every_thread=True) as heard:
            job.report(f"Encoding {query.name}")
            answer = classify(clf, query.file)
        known = next((i for i, image in enumerate(model.images) if image.digest == query.digest), None)
        known_as = None
        if known is not None:
            known_as = str(clf.classes_[clf.image_cache_.labels[clf.sample_position_[known]]])
        return Asked(query, answer, model, known_as, tuple(map(words_of_warning, [*heard_before, *heard])))

    def _suggest(self, job: Job, fitted: Any, names: list[str], pool: tuple[StoredImage, ...]) -> tuple[int, ...]:
        from skxma import XMAdapterClassifier
        from skxma.active import suggest

        encoder = watch_encoders(self._load(self.encoder, job, device=self.device), job, names)
        if fitted is None:
            clf = XMAdapterClassifier(encoder, class_names=names or None, device=self.device)
        else:
            clf = copy(fitted).set_params(encoder=encoder)
        with self._encoders.turn(job):
            rows = suggest(clf, [image.file for image in pool], N_SUGGESTED, random_state=0)
        return tuple(pool[row].number for row in rows)

    def _load(self, encoder: Any, job: Job, **settings: Any) -> list[Any]:
        """Make the encoders of an `encoder` parameter, and load their weights."""
        encoders = make_encoders(encoder, **settings)
        for one in encoders:
            self._encoders.load(one, job)
        return encoders

    def _start(self, job: Job) -> Job:
        self.job = job
        return job.start()

    def _refuse_if_busy(self) -> None:
        if self.is_busy:
            raise ChangedError("Something is being computed for this tab already; stop it or wait for its end.")


def check_columns(columns: list[Column], title: Callable[[Column], str]) -> None:
    """Say in plain words what is missing before a fit."""
    for column in columns:
        if not column.name:
            raise ValueError(f"The class {title(column)} has images and no name. Name it: the name is what CLIP reads.")
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Two classes are called “{shortened(twice[0])}”. Put their images into one, or rename one.")
    if len(columns) < 2:
        raise ValueError("It takes two classes to tell apart. Name another one; images of it are better still.")
    if not any(column.images for column in columns):
        raise ValueError("There are no images yet. Drop one or more into a class.")
