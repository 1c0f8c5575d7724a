"""Encoding for the page: weights loaded once for all tabs, progress reported, a stop between two images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._estimators.encoder_parameter import is_several
from skxma.app._job import Job

TEXTS_PER_STEP = 32
WATCH_SECONDS = 0.2


class Encoders:
    """State that all tabs share: one of them encodes or fits at a time, and weights are loaded once."""

    def __init__(self) -> None:
        self._at_work = Lock()
        self._lock = Lock()
        self._loading: dict[tuple[str, ...], Future[None]] = {}

    @contextmanager
    def turn(self, job: Job) -> Iterator[None]:
        """Wait for the work of other tabs to end, and keep them waiting."""
        while not self._at_work.acquire(timeout=WATCH_SECONDS):
            job.report("Waiting for other work to end")
        try:
            yield
        finally:
            self._at_work.release()

    def load(self, encoder: Any, job: Job) -> None:
        """Load an encoder's weights, fetched where this machine lacks them; a stop ends the waiting.

        Parameters
        ----------
        encoder : CLIPEncoder
        job : Job
            Is told how many bytes have come where the hub's cache tells.

        Raises
        ------
        EncoderNotFoundError, WeightsError
            As by the encoder.
        StoppedError
            The job was stopped; the weights go on loading.
        """
        started = time.time()
        future = self._loaded(encoder)
        while not wait([future], timeout=WATCH_SECONDS).done:
            fetched = bytes_fetched(started)
            came = f": {fetched / 1e6:,.0f} MB so far" if fetched else ""
            job.report(f"{'Fetching the weights of' if fetched else 'Loading'} the encoder {encoder.name}{came}")
        future.result()

    def _loaded(self, encoder: Any) -> Future[None]:
        key = (type(encoder).__name__, encoder.model, str(encoder.device), encoder.precision)
        with self._lock:
            future = self._loading.get(key)
            if future is None or future.done():
                future = self._loading[key] = Future()
                Thread(target=_load, args=(encoder, future), name="skxma-load", daemon=True).start()
            return future


def _load(encoder: Any, future: Future[None]) -> None:
    try:
        encoder.fingerprint  # noqa: B018 - the first look at it loads the weights
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)


def bytes_fetched(since: float) -> int:
    """Bytes of the files that the hub's cache has been receiving since a time; 0 where nothing comes."""
    from huggingface_hub import constants

    total = 0
    for file in Path(constants.HF_HUB_CACHE).glob("*/blobs/*.incomplete"):
        try:
            found = file.stat()
        except OSError:  # finished in between
            continue
        total += found.st_size if found.st_mtime >= since else 0
    return total


def make_encoders(encoder: Any, **settings: Any) -> list[Any]:
    """Make the encoders that an `encoder` parameter stands for.

    Parameters
    ----------
    encoder : str, CLIPEncoder or list of these
        As in :class:`~skxma.XMAdapterClassifier`.
    **settings : object
        Parameters of each CLIPEncoder that is made of a name.
    """
    from skxma import CLIPEncoder

    given = encoder if is_several(encoder) else [encoder]
    return [CLIPEncoder(one, **settings) if isinstance(one, str) else one for one in given]


def watch_encoders(encoders: Sequence[Any], job: Job, class_names: Sequence[str] = ()) -> Any:
    """Wrap each encoder in a `WatchedEncoder`; the result is an `encoder` parameter."""
    if len(encoders) == 1:
        return WatchedEncoder(encoders[0], job, class_names)
    return [WatchedEncoder(one, job, class_names, suffix=f" by {one.name}") for one in encoders]


class WatchedEncoder:
    """A CLIPEncoder that tells a job of its progress and ends when the job is stopped.

    Parameters
    ----------
    encoder : CLIPEncoder
    job : Job
    class_names : sequence of str
        Their texts are encoded each time: one that was remembered would raise no warning of a name that is too long.
    suffix : str, default=""
        Ends each message of its progress on images, to tell several encoders apart.
    """

    def __init__(self, encoder: Any, job: Job, class_names: Sequence[str] = (), suffix: str = "") -> None:
        self._encoder = encoder
        self._job = job
        self._suffix = suffix
        self._class_names = frozenset(class_names)

    @property
    def fingerprint(self) -> str:
        """The encoder's."""
        return str(self._encoder.fingerprint)

    @property
    def has_text(self) -> bool:
        """The encoder's."""
        return bool(self._encoder.has_text)

    @property
    def text_shapes_metric(self) -> bool:
        """The encoder's."""
        return bool(self._encoder.text_shapes_metric)

    @property
    def logit_scale(self) -> float:
        """The encoder's."""
        return float(self._encoder.logit_scale)

    def encode_image(self, X: Sequence[Any]) -> NDArray[np.float32]:
        """Encode images one by one; the encoder's memory keeps those that were finished before a stop."""
        rows = []
        for i, image in enumerate(X):
            self._job.report(f"Encoding image {i + 1} of {len(X)}{self._suffix}", i, len(X))
            rows.append(np.asarray(self._encoder.encode_image([image])))
        self._job.report("Learning")
        return np.concatenate(rows)

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Encode prompts."""
        return np.asarray(self._encoder.encode_text(prompts))

    def zero_shot_weights(self, class_names: Sequence[Any], templates: Any = "simple") -> NDArray[np.float32]:
        """Encode names of classes or words, a few at a time."""
        from skxma._estimators.vocabulary import common_words
        from skxma.encoder._kept_texts import kept_class_weights

        if tuple(class_names) == common_words():
            return kept_class_weights(
                self._encoder, class_names, templates, lambda: self._weights_in_steps(class_names, templates)
            )
        return self._weights_in_steps(class_names, templates)

    def _weights_in_steps(self, class_names: Sequence[Any], templates: Any) -> NDArray[np.float32]:
        encoder, n = self._encoder, len(class_names)
        if self._class_names.issuperset(class_names):
            encoder = type(encoder)(**{**encoder.get_params(), "memory": False})
        rows = []
        for start in range(0, n, TEXTS_PER_STEP):
            self._job.report(f"Encoding words: {start} of {n}", start, n)
            rows.append(np.asarray(encoder.zero_shot_weights(class_names[start : start + TEXTS_PER_STEP], templates)))
        self._job.report("Learning")
        return np.concatenate(rows)
