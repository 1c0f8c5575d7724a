"""Encoders of other libraries than open_clip, with the interface of `CLIPEncoder`, which does the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from skxma._runtime.doc_links import DocumentedMixin
from skxma.embeddings import Embeddings
from skxma.encoder._clip_encoder import CLIPEncoder


class LibraryEncoder(DocumentedMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of the encoders that name their library by their class; a `CLIPEncoder` made for each call does the work.

    Attributes
    ----------
    library : str
        The prefix of its models' names in `CLIPEncoder`.
    """

    library: ClassVar[str]
    _parameter_constraints: ClassVar[dict[str, Any]] = CLIPEncoder._parameter_constraints
    skipped_: list[tuple[int, str | None, str]]

    def __init__(
        self,
        model: str,
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

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Validate the parameters; there is nothing to learn.

        Parameters
        ----------
        X, y : ignored
            For the sake of pipelines.

        Returns
        -------
        self : object
        """
        self.by_name().fit(X)
        return self

    def transform(self, X: Any) -> Embeddings:
        """Encode images; the same as `encode_image`.

        Parameters
        ----------
        X : sequence of images
            As in `CLIPEncoder.encode_image`.

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
            As in `CLIPEncoder.encode_image`.
        n_views : int, default=1
            With more than 1 the mean of that many random crops and flips of each image.
        random_state : int, RandomState or None, default=None
            Seeds the views.

        Returns
        -------
        embeddings : Embeddings of shape (n_samples, n_features)
            Float32 rows of length 1; NaN for an image that was skipped.

        Raises
        ------
        ImageError
            If an image can't be read, and ``on_error="raise"``.
        EncoderNotFoundError, WeightsError
            If the model is unknown or its weights can't be had.
        MissingDependencyError
            If the library is not installed.
        """
        encoder = self.by_name()
        rows = encoder.encode_image(X, n_views=n_views, random_state=random_state)
        if self.on_error == "skip":
            self.skipped_ = encoder.skipped_
        return rows

    def check_images(self, X: Any) -> None:
        """Find what is no image, by the headers of files, without loading or fetching the model.

        Parameters
        ----------
        X : sequence of images
            As in `CLIPEncoder.encode_image`.

        Raises
        ------
        ImageError
            If an image can't be read, and ``on_error="raise"``.
        """
        self.by_name().check_images(X)

    def encode_text(self, prompts: Sequence[str]) -> Embeddings:
        """Encode prompts as they are, without a template.

        Parameters
        ----------
        prompts : sequence of str of length n_prompts
            Each is cut at the model's context.

        Returns
        -------
        embeddings : Embeddings of shape (n_prompts, n_features)
            Float32 rows of length 1.

        Raises
        ------
        ValueError
            If the model encodes images alone.
        """
        return self.by_name().encode_text(prompts)

    def zero_shot_weights(self, class_names: Sequence[Any], templates: str | Sequence[str] = "simple") -> Embeddings:
        """Encode each class as the mean of its prompts' unit embeddings, made a unit vector again.

        Parameters
        ----------
        class_names : sequence of str or of sequences of str, of length n_classes
            A class's name, or several names of it.
        templates : str or sequence of str, default="simple"
            As in `CLIPEncoder.zero_shot_weights`.

        Returns
        -------
        weights : Embeddings of shape (n_classes, n_features)
            Float32 rows of length 1.

        Raises
        ------
        ValueError
            If the model encodes images alone, or a name or a template is wrong.
        """
        return self.by_name().zero_shot_weights(class_names, templates)

    @property
    def fingerprint(self) -> str:
        """Identifier of the encoder: equal for equal weights and preprocessing, on any device, in any precision."""
        return self.by_name().fingerprint

    @property
    def has_text(self) -> bool:
        """True if the model encodes texts too."""
        return self.by_name().has_text

    @property
    def logit_scale(self) -> float:
        """The factor with which the model was trained to multiply cosines; 100 for a model of images alone."""
        return self.by_name().logit_scale

    @property
    def logit_bias(self) -> float:
        """Number that a sigmoid model adds to the scaled cosines; 0 for others."""
        return self.by_name().logit_bias

    @property
    def n_features(self) -> int:
        """The length of an embedding."""
        return self.by_name().n_features

    @property
    def _n_features_out(self) -> int:
        return self.n_features

    def by_name(self) -> CLIPEncoder:
        """Return the `CLIPEncoder` that knows this model by the library's prefix.

        Returns
        -------
        encoder : CLIPEncoder
            With the same settings, so with the same embeddings in the same store.
        """
        self._validate_params()
        return CLIPEncoder(**{**self.get_params(), "model": f"{self.library}:{self.model}"})

    def __sklearn_tags__(self) -> Any:
        return CLIPEncoder().__sklearn_tags__()


def named_encoder(encoder: Any) -> CLIPEncoder | None:
    """Return an encoder of ours as one that its model's name describes.

    Parameters
    ----------
    encoder : object

    Returns
    -------
    encoder : CLIPEncoder or None
        None for an object of the caller's own.
    """
    if isinstance(encoder, LibraryEncoder):
        return encoder.by_name()
    return encoder if isinstance(encoder, CLIPEncoder) else None


class TimmEncoder(LibraryEncoder):
    """Encode images with a frozen model of timm, such as DINOv2 or DINOv3; it knows no texts.

    A classifier with it learns from images alone. Its models need no extra, for timm is a dependency.

    Parameters
    ----------
    model : str
        A name of ``timm.list_models(pretrained=True)``, "organization/name" of the hub, or a folder with config.json
        and model.safetensors, as ``timm.models.save_for_hf`` writes it. As ``encoder="timm:NAME"`` a classifier and the
        command line take it too.
    device, precision, batch_size, n_threads, memory, on_error, rescale_16bit, local_files_only, cache_dir, verbose
        As in `CLIPEncoder`.

    Attributes
    ----------
    skipped_ : list of tuple (index, path, reason)
        The unreadable images of the last call, with ``on_error="skip"``.

    Examples
    --------
    >>> from skxma import TimmEncoder, XMAdapterClassifier
    >>> clf = XMAdapterClassifier(TimmEncoder("vit_small_patch14_dinov2.lvd142m"))
    """

    library = "timm"


class TransformersEncoder(LibraryEncoder):
    """Encode images with a frozen model of transformers, and prompts where it is a contrastive one.

    SigLIP, SigLIP 2, CLIP and MetaCLIP 2 encode both, DINOv2, DINOv3 and ViT images alone. Code that comes with a
    repository is never run. It needs ``pip install "skxma[transformers]"``.

    Parameters
    ----------
    model : str
        "organization/name" of the hub, or a folder as ``save_pretrained`` writes it. As ``encoder="transformers:NAME"``
        a classifier and the command line take it too.
    device, precision, batch_size, n_threads, memory, on_error, rescale_16bit, local_files_only, cache_dir, verbose
        As in `CLIPEncoder`.

    Attributes
    ----------
    skipped_ : list of tuple (index, path, reason)
        The unreadable images of the last call, with ``on_error="skip"``.

    Examples
    --------
    >>> from skxma import TransformersEncoder, XMAdapterClassifier
    >>> clf = XMAdapterClassifier(TransformersEncoder("google/siglip2-base-patch16-224"))
    """

    library = "transformers"


class SentenceTransformerEncoder(LibraryEncoder):
    """Encode images and prompts with a frozen model of sentence-transformers that knows both.

    Code that comes with a repository is never run. It needs ``pip install "skxma[sentence-transformers]"``.

    Parameters
    ----------
    model : str
        "organization/name" of the hub, or a folder as ``SentenceTransformer.save`` writes it. As
        ``encoder="sentence-transformers:NAME"`` a classifier and the command line take it too.
    device, precision, batch_size, n_threads, memory, on_error, rescale_16bit, local_files_only, cache_dir, verbose
        As in `CLIPEncoder`.

    Attributes
    ----------
    skipped_ : list of tuple (index, path, reason)
        The unreadable images of the last call, with ``on_error="skip"``.

    Examples
    --------
    >>> from skxma import SentenceTransformerEncoder, XMAdapterClassifier
    >>> clf = XMAdapterClassifier(SentenceTransformerEncoder("sentence-transformers/clip-ViT-B-32"))
    """

    library = "sentence-transformers"
