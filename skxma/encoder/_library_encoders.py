"""Encoders of other libraries than open_clip, named by their classes instead of by a prefix of the model's name."""

from __future__ import annotations

import os
from typing import ClassVar

import torch

from skxma.encoder._clip_encoder import CLIPEncoder


class LibraryEncoder(CLIPEncoder):
    """Base of the encoders whose class names the library of their model.

    Attributes
    ----------
    library : str
        The prefix of its models' names in `CLIPEncoder`.
    """

    library: ClassVar[str]

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
        super().__init__(
            model,
            device=device,
            precision=precision,
            batch_size=batch_size,
            n_threads=n_threads,
            memory=memory,
            on_error=on_error,
            rescale_16bit=rescale_16bit,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
            verbose=verbose,
        )

    @property
    def name(self) -> str:
        """The model's name with the prefix of its library, as the parameter `encoder` of a classifier takes it."""
        return f"{self.library}:{self.model}"


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
