"""A CLIP model in memory, with its preprocessing, tokenizer and fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from skxma._runtime.warning import warn

# The factor of cosines for a model that states none: CLIP's.
LOGIT_SCALE = 100.0
# JPEGs decoded at three times the model's size or more move embeddings less than bf16 does.
DRAFT_GAP = 3


class PendingRows:
    """Rows that a CUDA device may still be computing; they become an array when one is asked for.

    Parameters
    ----------
    rows : Tensor of shape (n, D)
        On any device. A copy from CUDA is queued behind the computation at once, so that waiting for it does not mean
        waiting for what is queued later.
    """

    def __init__(self, rows: Tensor) -> None:
        self._done: Any = None
        self._rows = rows
        if rows.device.type == "cuda":
            self._rows = rows.to("cpu", non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(rows.device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Wait for the rows."""
        if self._done is not None:
            self._done.synchronize()
        return np.asarray(self._rows.cpu().numpy(), dtype=dtype)


@dataclass
class LoadedModel:
    """A frozen CLIP on its device, with all that is needed to feed it."""

    model: Any
    geometry: Callable[[Image.Image], NDArray[np.uint8]]
    # None for a model of images alone
    tokenizer: Callable[[list[str]], Any] | None
    image_size: tuple[int, int]
    mean: Tensor
    std: Tensor
    # of open_clip's models with its names: "resize_mode", "interpolation", "fill_color" and others
    preprocessing: dict[str, Any]
    fingerprint: str
    logit_scale: float
    logit_bias: float
    n_features: int
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    # Shrinks when the device runs out of memory, and stays so for whoever uses this model next.
    max_batch: int
    # The stream of CUDA in which batches are copied, made with the first of them.
    copies: Any = None

    def namespace(self, kind: str) -> str:
        """Return the store's namespace for one kind of this model's embeddings.

        Parameters
        ----------
        kind : str
            What was encoded, and how.

        Returns
        -------
        namespace : str
            With the fingerprint, which stands for preprocessing too, and the precision.
        """
        return f"{kind}|{self.fingerprint}|{str(self.dtype).removeprefix('torch.')}"

    @property
    def has_text(self) -> bool:
        """True if the model has a text tower."""
        return self.tokenizer is not None

    @property
    def min_short_side(self) -> int | None:
        """Short side at which it is no matter how an image was shrunk so far; None where every digit counts."""
        return None if self.dtype == torch.float32 else DRAFT_GAP * max(self.image_size)

    @torch.inference_mode()
    def embed_images(self, pixels: Tensor) -> PendingRows:
        """Return the L2-normalized features of a batch.

        A CUDA device computes them after the call: the caller may copy the next batch meanwhile.

        Parameters
        ----------
        pixels : Tensor of shape (b, 3, height, width) of uint8
            RGB, already of the model's size.

        Returns
        -------
        features : PendingRows of shape (b, n_features)
        """
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        batch = self._on_device(pixels).to(torch.float32, memory_format=layout)
        batch = standardize(batch, self.mean, self.std).to(self.dtype)
        return PendingRows(_unit_rows(self.model.encode_image(batch)))

    def _on_device(self, pixels: Tensor) -> Tensor:
        """Copy a batch to the device; to CUDA in a stream of its own, while the batch before is computed."""
        if self.device.type != "cuda":
            return pixels.to(self.device)
        if self.copies is None:
            self.copies = torch.cuda.Stream(self.device)
        computes = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.copies):
            batch = pixels.pin_memory().to(self.device, non_blocking=True)
        computes.wait_stream(self.copies)
        # its memory may be used anew only after the computation
        batch.record_stream(computes)
        return batch

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the L2-normalized features of some prompts.

        Parameters
        ----------
        texts : sequence of str of length b
            Prompts; one that is longer than the model's context is cut off, with a warning.

        Returns
        -------
        features : ndarray of shape (b, n_features)
        """
        assert self.tokenizer is not None
        tokens = self.tokenizer(list(texts))
        self._warn_of_cuts(texts, tokens)
        rows: NDArray[np.float32] = _unit_rows(self.model.encode_text(tokens.to(self.device))).cpu().numpy()
        return rows

    def _warn_of_cuts(self, texts: Sequence[str], tokens: Any) -> None:
        """Warn of prompts that are longer than the model's context, where the tokenizer tells."""
        find_cut = getattr(self.tokenizer, "find_cut", None)
        limit, cut = _clip_cuts(self.tokenizer, texts, tokens) if find_cut is None else find_cut(texts)
        if cut:
            warn(
                f"{len(cut)} prompts are longer than the {limit} tokens that the model reads; the rest of each is "
                f"ignored, e.g. of {cut[0]!r:.200}. Shorten it, or pass several prompts."
            )


def _clip_cuts(tokenizer: Any, texts: Sequence[str], tokens: Any) -> tuple[int, list[str]]:
    """The context and the prompts that CLIP's own tokenizer cut; others pad in ways of their own."""
    end = getattr(tokenizer, "eot_token_id", None)
    encode = getattr(tokenizer, "encode", None)
    if end is None or encode is None:
        return 0, []
    limit = tokens.shape[1]
    full = (tokens[:, -1] == end).nonzero().flatten().tolist()
    return limit, [texts[i] for i in full if len(encode(texts[i])) + 2 > limit]


def standardize(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Shift and scale pixels to a model's mean and deviation, in place.

    As torchvision's ToTensor and Normalize, a batch at a time and on the device.

    Parameters
    ----------
    batch : Tensor of shape (b, 3, height, width)
        From 0 to 255.
    mean, std : Tensor of shape (1, 3, 1, 1)
    """
    return batch.div_(255).sub_(mean).div_(std)


def _unit_rows(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.float(), dim=-1)
