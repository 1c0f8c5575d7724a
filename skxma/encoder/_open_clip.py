"""The one module that speaks to open_clip: a model's name becomes a loaded, frozen, cached model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skxma._runtime.device import PRECISIONS
from skxma._runtime.optional import require
from skxma.encoder._checkpoints import CONFIG_NAME, fetch_checkpoint, fetch_file, fetch_folder
from skxma.encoder._loaded_model import LoadedModel
from skxma.encoder._photo import make_photo
from skxma.encoder._preprocessing import make_geometry
from skxma.encoder._source import Source
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.errors import MissingDependencyError, WeightsError

_N_SAMPLED = 1024
_N_STEM_CONVOLUTIONS = 4
_FIRST_BATCH = {"cuda": 256, "mps": 64}


def _prepare(
    source: Source, device: torch.device, precision: str, cache_dir: str | None, local_files_only: bool
) -> LoadedModel:
    with _quiet_root_logger(), _hub_offline(local_files_only):
        model, tokenizer = _create(source, cache_dir, local_files_only)
        transforms = _open_clip().transform
        preprocessing = dict(model.visual.preprocess_cfg)
        transform = transforms.image_transform_v2(transforms.PreprocessCfg(**preprocessing), is_train=False)
    model.eval().requires_grad_(False)
    # read before the weights lose digits, so that it is one and the same for every device and precision
    fingerprint = _fingerprint(model, preprocessing, tokenizer)
    logit_scale = float(model.logit_scale.exp().reshape(-1)[0])
    channels_last = _is_convolutional(model.visual)
    dtype = PRECISIONS[precision]
    model.to(device=device, dtype=dtype)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.float()  # its running statistics need their digits
    if channels_last:
        model.visual.to(memory_format=torch.channels_last)
    size = preprocessing["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    loaded = LoadedModel(
        model=model,
        geometry=make_geometry(transform, exact=dtype == torch.float32),
        tokenizer=tokenizer,
        image_size=(height, width),
        mean=torch.tensor(preprocessing["mean"], device=device).reshape(1, 3, 1, 1),
        std=torch.tensor(preprocessing["std"], device=device).reshape(1, 3, 1, 1),
        preprocessing=preprocessing,
        fingerprint=fingerprint,
        logit_scale=logit_scale,
        n_features=0,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        max_batch=_FIRST_BATCH.get(device.type, 32),
    )
    loaded.n_features = loaded.embed_texts(["a"]).shape[1]
    return loaded


def _create(source: Source, cache_dir: str | None, local_files_only: bool) -> tuple[Any, Callable[[list[str]], Tensor]]:
    """Build the model in fp32 on the CPU with its weights, and its tokenizer."""
    open_clip = _open_clip()
    if source.is_photo:
        return make_photo(open_clip.IMAGENET_CLASSNAMES)
    if source.architecture is not None:
        _check_tokenizer(open_clip.get_model_config(source.architecture), source.name)
        tag = open_clip.pretrained.get_pretrained_cfg(source.architecture, source.tag)
        # given a file, open_clip forgets the tag's mean, deviation and activation
        options = {
            "pretrained": str(fetch_checkpoint(tag["hf_hub"], cache_dir=cache_dir, local_files_only=local_files_only)),
            "force_quick_gelu": tag.get("quick_gelu", False),
            "force_preprocess_cfg": {key: value for key, value in tag.items() if key not in {"url", "hf_hub"}},
        }
        name = tokenizer_name = source.architecture
    else:
        if source.repo is not None:
            config_file = fetch_file(
                source.repo, (CONFIG_NAME,), cache_dir=cache_dir, local_files_only=local_files_only
            )
            _check_tokenizer(_read_json(config_file), source.name)
            folder = str(fetch_folder(source.repo, cache_dir=cache_dir, local_files_only=local_files_only))
        else:
            assert source.identity is not None
            folder = source.identity.folder
        options = {}
        name = tokenizer_name = f"local-dir:{folder}"
    try:
        if source.architecture is None:
            config = open_clip.get_model_config(name) or {}
            _refuse_code(config, source.name)
            _check_tokenizer(config, source.name)
            if source.repo is not None and config.get("text_cfg", {}).get("hf_tokenizer_name"):
                tokenizer_name = source.name  # the tokenizer's own files are not in the folder yet
        model = open_clip.create_model(name, device="cpu", require_pretrained=True, weights_only=True, **options)
        tokenizer = open_clip.get_tokenizer(tokenizer_name, cache_dir=cache_dir)
    except (WeightsError, MissingDependencyError):
        raise
    except Exception as error:  # unlike keys or shapes, a damaged file, a configuration that builds no model
        if "transformers" in str(error):
            require("transformers", what=f"The encoder {source.name!r}")
        raise WeightsError(
            f"The encoder {source.name!r} could not be loaded: its weights are damaged or don't fit its configuration "
            f"({type(error).__name__}: {error!s:.600}). Delete the files and fetch them anew, or correct the "
            "configuration."
        ) from error
    return model, tokenizer


def _refuse_code(config: Any, model: str) -> None:
    """Refuse a configuration that would have transformers run a repository's own code; open_clip passes that on."""
    if isinstance(config, dict) and config.get("trust_remote_code"):
        raise WeightsError(
            f"The encoder {model!r} asks to run code that comes with it (trust_remote_code); skxma runs none."
        )
    for inner in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        _refuse_code(inner, model)


def _check_tokenizer(config: Any, model: str) -> None:
    """Ask for transformers before weights are fetched, where a configuration names a text tower or tokenizer of its."""
    parts = [config, *(config.values() if isinstance(config, dict) else ())]
    texts = [part.get("text_cfg") for part in parts if isinstance(part, dict)]
    names = ("hf_tokenizer_name", "hf_model_name")
    if any(text.get(name) for text in texts if isinstance(text, dict) for name in names):
        require("transformers", what=f"model={model!r}")


def _read_json(path: Path) -> Any:
    """A configuration; nothing of one that is damaged, which open_clip then names."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip's `logging.info` from installing a handler on the caller's root logger, as the first call does."""
    guard = logging.NullHandler()
    logging.root.addHandler(guard)
    try:
        yield
    finally:
        logging.root.removeHandler(guard)


@contextmanager
def _hub_offline(local_files_only: bool) -> Iterator[None]:
    """Keep open_clip's own look-ups (a text tower's configuration, a tokenizer) off the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or local_files_only
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_convolutional(visual: nn.Module) -> bool:
    """Tell a convolutional trunk from a transformer, whose only convolutions are the few of its stem."""
    return sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > _N_STEM_CONVOLUTIONS


def _fingerprint(model: nn.Module, preprocessing: dict[str, Any], tokenizer: object) -> str:
    """Digest what decides the embeddings: the family, the weights (a sample of each), preprocessing and tokenizer."""
    about = {
        "family": type(model).__name__,
        "quick_gelu": any(type(module).__name__ == "QuickGELU" for module in model.modules()),
        "preprocessing": {key: _plain(value) for key, value in preprocessing.items()},
        "tokenizer": [type(tokenizer).__name__, getattr(tokenizer, "context_length", None)],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(model.state_dict().items()):
        flat = values.reshape(-1)
        sample = flat[:: max(1, flat.numel() // _N_SAMPLED)][:_N_SAMPLED]
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(sample.to(torch.float32).numpy().astype("<f4").tobytes())
    return f"clip-{digest.hexdigest()[:32]}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value


def _open_clip() -> Any:
    ensure_importable()
    import open_clip

    return open_clip
