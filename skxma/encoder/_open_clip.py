"""The one module that speaks to open_clip: a model's name becomes a model with its preprocessing and tokenizer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from skxma._runtime.optional import require
from skxma.encoder._built_model import BuiltModel, bias_of, scale_of
from skxma.encoder._checkpoints import CONFIG_NAME, fetch_checkpoint, fetch_file, fetch_folder
from skxma.encoder._loaded_model import LOGIT_SCALE
from skxma.encoder._offline import loading_error
from skxma.encoder._photo import make_photo
from skxma.encoder._preprocessing import make_geometry
from skxma.encoder._source import Source
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.errors import MissingDependencyError, WeightsError


def build_open_clip(source: Source, cache_dir: str | None, local_files_only: bool) -> BuiltModel:
    """Build a CLIP of open_clip, or one with its interface.

    Parameters
    ----------
    source : Source
    cache_dir : str or None
        The hub's cache folder.
    local_files_only : bool
        Whether to refuse to download.

    Returns
    -------
    built : BuiltModel

    Raises
    ------
    WeightsError
        If the weights can't be had or don't fit.
    """
    with _quiet_root_logger():
        model, tokenizer = _create(source, cache_dir, local_files_only)
        transforms = _open_clip().transform
        preprocessing = dict(model.visual.preprocess_cfg)
        transform = transforms.image_transform_v2(transforms.PreprocessCfg(**preprocessing), is_train=False)
    size = preprocessing["size"]
    return BuiltModel(
        model=model,
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        mean=tuple(preprocessing["mean"]),
        std=tuple(preprocessing["std"]),
        make_geometry=partial(make_geometry, transform),
        logit_scale=scale_of(model, LOGIT_SCALE),
        logit_bias=bias_of(model),
        recipe=getattr(model, "recipe", ()),
    )


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
            _refuse_remote_code(config, source.name)
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
        raise loading_error(source.name, error) from error
    return model, tokenizer


def _refuse_remote_code(config: Any, model: str) -> None:
    """Refuse a configuration that would have transformers run a repository's own code; open_clip passes that on."""
    if isinstance(config, dict) and config.get("trust_remote_code"):
        raise WeightsError(
            f"The encoder {model!r} asks to run code that comes with it (trust_remote_code); skxma runs none."
        )
    for inner in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        _refuse_remote_code(inner, model)


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


def _open_clip() -> Any:
    ensure_importable()
    import open_clip

    return open_clip
