"""Models of timm: images alone."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from skxma._runtime.optional import require
from skxma.encoder._built_model import BuiltModel
from skxma.encoder._checkpoints import fetch_file
from skxma.encoder._loaded_model import LOGIT_SCALE
from skxma.encoder._offline import loading_error, require_file
from skxma.encoder._preprocessing import make_geometry
from skxma.encoder._source import Source
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.errors import EncoderNotFoundError, WeightsError

_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_N_NAMED = 3


class TimmModel(nn.Module):
    """An image tower with the interface of open_clip's models.

    Parameters
    ----------
    visual : nn.Module
        A model of timm without its classifier.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return pooled features of shape (b, d) of pixels (b, 3, height, width)."""
        features: Tensor = self.visual(pixels)
        return features.flatten(1)


def check_name(model: str, name: str) -> None:
    """Refuse a name that timm has no weights for, without loading anything.

    Parameters
    ----------
    model : str
        The encoder's name, as it was given.
    name : str
        "architecture" or "architecture.tag".

    Raises
    ------
    EncoderNotFoundError
        It suggests close names.
    """
    timm = _import_timm()
    architecture, _, tag = name.partition(".")
    known = timm.list_pretrained() if hasattr(timm, "list_pretrained") else timm.list_models(pretrained=True)
    if name in known or (not tag and timm.is_model(architecture) and timm.models.is_model_pretrained(architecture)):
        return
    if tag and timm.is_model(architecture):
        tags = [one.partition(".")[2] for one in known if one.partition(".")[0] == architecture]
        raise EncoderNotFoundError(
            f"The encoder {model!r}: {architecture} has no weights {tag!r}. Its tags: {', '.join(tags) or 'none'}."
        )
    close = get_close_matches(name, known, n=_N_NAMED, cutoff=0.5)
    hint = f": did you mean {' or '.join(f'timm:{one}' for one in close)}?" if close else "."
    raise EncoderNotFoundError(
        f"The encoder {model!r} is unknown{hint} Write timm:NAME with a name of timm.list_models(pretrained=True), "
        "timm:organization/name of the hub, or timm:FOLDER with config.json and model.safetensors."
    )


def build_timm(source: Source, cache_dir: str | None, local_files_only: bool) -> BuiltModel:
    """Build a model of timm without its classifier.

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
    timm = _import_timm()
    name, options = _locate(timm, source, cache_dir, local_files_only)
    try:
        visual = timm.create_model(name, pretrained=True, **options)
        visual.reset_classifier(0)
        data = timm.data.resolve_model_data_config(visual)
        transform = timm.data.create_transform(**data, is_training=False)
    except Exception as error:  # unlike keys or shapes, a damaged file, a configuration that builds no model
        raise loading_error(source.name, error) from error
    _, height, width = data["input_size"]
    return BuiltModel(
        model=TimmModel(visual),
        tokenizer=None,
        preprocessing=dict(data),
        image_size=(height, width),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        make_geometry=partial(make_geometry, transform),
        logit_scale=LOGIT_SCALE,
        recipe=(str(visual.pretrained_cfg.get("architecture")),),
    )


def _locate(
    timm: Any, source: Source, cache_dir: str | None, local_files_only: bool
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return timm's name of a model and its options, with the weights on this disk."""
    place: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only, "copied_as": "timm:DIR"}
    if source.identity is not None:
        folder = Path(source.identity.folder)
        require_file(folder, _CONFIG, source.name)
        if not any((folder / name).is_file() for name in _WEIGHTS):
            raise WeightsError(f"The encoder {source.name!r}: the folder {str(folder)!r} holds no {_WEIGHTS[0]}.")
        return f"local-dir:{folder}", {}
    if source.repo is not None:
        config = fetch_file(source.repo, (_CONFIG,), **place)
        # of one revision, so it lies beside the configuration
        fetch_file(source.repo, _WEIGHTS, **place)
        return f"local-dir:{config.parent}", {}
    assert source.architecture is not None
    about = timm.get_pretrained_cfg(source.architecture)
    if not about.hf_hub_id:
        raise WeightsError(f"The encoder {source.name!r}: timm names no hub repository of its weights; name another.")
    repo = about.hf_hub_id
    if repo.endswith("/"):
        repo = f"{repo}{about.architecture}.{about.tag}" if about.tag else f"{repo}{about.architecture}"
    names = (about.hf_hub_filename,) if about.hf_hub_filename else _WEIGHTS
    return source.architecture, {"pretrained_cfg_overlay": {"file": str(fetch_file(repo, names, **place))}}


def _import_timm() -> Any:
    ensure_importable()
    return require("timm", what="A model of timm")
