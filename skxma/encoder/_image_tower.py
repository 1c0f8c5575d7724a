"""The image side of a CLIP as a module, for export: pixels in, embeddings out."""

from __future__ import annotations

import copy
from typing import Any

from sklearn.base import clone
from torch import Tensor, nn

from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.encoder._loaded_model import standardize


class ImageTower(nn.Module):
    """A frozen CLIP from pixels to L2-normalized embeddings.

    Parameters
    ----------
    encoder : CLIPEncoder
        Its weights are copied, because they serve the whole process and must stay where they are.

    Attributes
    ----------
    loaded : LoadedModel
        What feeds them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: CLIPEncoder) -> None:
        super().__init__()
        self.loaded = loaded = encoder._load()
        self.clip = copy.deepcopy(loaded.model)
        self.register_buffer("mean", loaded.mean.clone(), persistent=False)
        self.register_buffer("std", loaded.std.clone(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels (n, height, width, 3) of uint8, RGB and of the model's size; returns (n, D)."""
        batch = standardize(pixels.permute(0, 3, 1, 2).to(self.mean.dtype), self.mean, self.std)
        return nn.functional.normalize(self.clip.encode_image(batch), dim=-1)


def exact_encoder(encoder: CLIPEncoder) -> CLIPEncoder:
    """Return the encoder in single precision on the CPU, which keeps no embeddings."""
    exact: Any = clone(encoder)
    return exact.set_params(device="cpu", precision="fp32", memory=False)
