"""A source becomes a loaded, frozen model on its device, whichever library builds it."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from skxma._runtime.device import PRECISIONS
from skxma.encoder._built_model import BuiltModel
from skxma.encoder._loaded_model import LoadedModel
from skxma.encoder._offline import hub_offline
from skxma.encoder._open_clip import build_open_clip
from skxma.encoder._sentence_transformers import build_sentence_transformers
from skxma.encoder._source import Source
from skxma.encoder._timm import build_timm
from skxma.encoder._transformers import build_transformers

_N_SAMPLED = 1024
_N_STEM_CONVOLUTIONS = 4
_FIRST_BATCH = {"cuda": 256, "mps": 64}
_BUILDERS = {
    None: build_open_clip,
    "timm": build_timm,
    "transformers": build_transformers,
    "sentence-transformers": build_sentence_transformers,
}


def prepare(
    source: Source, device: torch.device, precision: str, cache_dir: str | None, local_files_only: bool
) -> LoadedModel:
    """Build a model, take its fingerprint and move it.

    Parameters
    ----------
    source : Source
        Where its weights come from.
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
    cache_dir : str or None
        The hub's cache folder.
    local_files_only : bool
        Whether to refuse to download.

    Returns
    -------
    loaded : LoadedModel

    Raises
    ------
    WeightsError
        If the weights can't be had or don't fit.
    MissingDependencyError
        If its library is not installed.
    """
    offline: AbstractContextManager[None] = hub_offline() if local_files_only else nullcontext()
    with offline:
        built = _BUILDERS[source.library](source, cache_dir, local_files_only)
    model = built.model.eval().requires_grad_(False)
    # read before the weights lose digits, so that it is one and the same for every device and precision
    fingerprint = _fingerprint(built)
    channels_last = _is_convolutional(model.visual)
    dtype = PRECISIONS[precision]
    model.to(device=device, dtype=dtype)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.float()  # its running statistics need their digits
    if channels_last:
        model.visual.to(memory_format=torch.channels_last)
    loaded = LoadedModel(
        model=model,
        geometry=built.make_geometry(dtype == torch.float32),
        tokenizer=built.tokenizer,
        image_size=built.image_size,
        mean=torch.tensor(built.mean, device=device).reshape(1, 3, 1, 1),
        std=torch.tensor(built.std, device=device).reshape(1, 3, 1, 1),
        preprocessing=built.preprocessing,
        fingerprint=fingerprint,
        logit_scale=built.logit_scale,
        logit_bias=built.logit_bias,
        n_features=0,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        max_batch=_FIRST_BATCH.get(device.type, 32),
    )
    if loaded.has_text:
        loaded.n_features = loaded.embed_texts(["a"]).shape[1]
    else:
        black = torch.zeros(1, 3, *built.image_size, dtype=torch.uint8)
        loaded.n_features = np.asarray(loaded.embed_images(black)).shape[1]
    return loaded


def _is_convolutional(visual: nn.Module) -> bool:
    """Tell a convolutional trunk from a transformer, whose only convolutions are the few of its stem."""
    return sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > _N_STEM_CONVOLUTIONS


def _fingerprint(built: BuiltModel) -> str:
    """Digest what decides the embeddings: the family, the weights (a sample of each), preprocessing and tokenizer."""
    model, tokenizer = built.model, built.tokenizer
    name_of_tokenizer = getattr(tokenizer, "fingerprint_name", type(tokenizer).__name__)
    about = {
        "family": type(model).__name__,
        "quick_gelu": any(type(module).__name__ == "QuickGELU" for module in model.modules()),
        "preprocessing": built.preprocessing,
        "tokenizer": [name_of_tokenizer, getattr(tokenizer, "context_length", None)],
    }
    if built.recipe:
        about["recipe"] = list(built.recipe)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(model.state_dict().items()):
        flat = values.reshape(-1)
        sample = flat[:: max(1, flat.numel() // _N_SAMPLED)][:_N_SAMPLED]
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(sample.to(torch.float32).numpy().astype("<f4").tobytes())
    return f"clip-{digest.hexdigest()[:32]}"
