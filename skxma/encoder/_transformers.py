"""Models of transformers: images and texts of contrastive models, images alone of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from skxma._runtime.optional import require
from skxma.encoder._augmentation import crop_long_strip
from skxma.encoder._built_model import BuiltModel, Geometry, bias_of, scale_of
from skxma.encoder._loaded_model import LOGIT_SCALE, standardize
from skxma.encoder._offline import load_cached_first, loading_error, require_file
from skxma.encoder._source import Source
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.errors import WeightsError

_CONFIG = "config.json"
_SETTINGS = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad", "pad_size")
# Sigmoid models read the padding too, as in their training (Zhai et al., 2023, https://arxiv.org/abs/2303.15343).
_READS_PADDING = ("siglip", "siglip2")
# Of 255: what rounding and the number format may move a standardized pixel.
_TOLERANCE = 1.5 / 255


class TransformersTokenizer:
    """A tokenizer of transformers, with the interface of open_clip's.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    context_length : int
        Tokens that the model reads, those at the ends included.
    reads_padding : bool
        Whether every prompt is padded to the context, and the padding read.
    """

    # in the fingerprint, by which embeddings in stores and model files know their encoder: it stays
    fingerprint_name = "Tokenizer"

    def __init__(self, tokenizer: Any, context_length: int, reads_padding: bool) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length
        self._reads_padding = reads_padding

    def __call__(self, texts: list[str]) -> Any:
        """Return the inputs of the text tower, tensors of shape (b, length)."""
        padding = "max_length" if self._reads_padding else True
        tokens = self._tokenizer(
            texts, padding=padding, truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        if self._reads_padding:
            tokens.pop("attention_mask", None)
        return tokens

    def find_cut(self, texts: list[str]) -> tuple[int, list[str]]:
        """Return the context, and the texts that are longer."""
        return self.context_length, longer_than(self.context_length, self._tokenizer, texts)


def longer_than(limit: int, tokenizer: Any, texts: list[str]) -> list[str]:
    """Return the texts of more tokens than a limit.

    Parameters
    ----------
    limit : int
        Tokens, those at the ends included.
    tokenizer : PreTrainedTokenizerBase
    texts : list of str

    Returns
    -------
    longer : list of str
    """
    ids = tokenizer(list(texts), verbose=False)["input_ids"]
    return [text for text, its in zip(texts, ids, strict=True) if len(its) > limit]


class TransformersModel(nn.Module):
    """A model of transformers with the interface of open_clip's models.

    Parameters
    ----------
    network : PreTrainedModel
        A contrastive model, or an image tower.
    reads_pooler : bool
        Whether an image tower's own pooling is trained; else its first token is the embedding.
    """

    def __init__(self, network: Any, reads_pooler: bool) -> None:
        super().__init__()
        self.network = network
        self._reads_pooler = reads_pooler

    @property
    def recipe(self) -> tuple[str, ...]:
        """Step from an image tower's states to an embedding."""
        return () if is_contrastive(self.network) else ("pooler" if self._reads_pooler else "first token",)

    @property
    def visual(self) -> nn.Module:
        """The image tower."""
        tower: nn.Module = getattr(self.network, "vision_model", self.network)
        return tower

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return image embeddings of shape (b, d) of pixels (b, 3, height, width)."""
        if is_contrastive(self.network):
            return _pooled(self.network.get_image_features(pixel_values=pixels))
        output = self.network(pixel_values=pixels)
        if self._reads_pooler and getattr(output, "pooler_output", None) is not None:
            return _pooled(output)
        states: Tensor = output.last_hidden_state
        # maps of a convolutional tower, or tokens with that of the class in front
        return states.mean(dim=(2, 3)) if states.ndim == 4 else states[:, 0]

    def encode_text(self, tokens: Any) -> Tensor:
        """Return text embeddings of shape (b, d) of what the tokenizer gives."""
        return _pooled(self.network.get_text_features(**tokens))


def _pooled(output: Any) -> Tensor:
    """The embeddings (b, d) that a method returned: alone, or as a field since transformers 5."""
    rows: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return rows.flatten(1)


def is_contrastive(network: Any) -> bool:
    """Tell a model of images and texts by its methods.

    Parameters
    ----------
    network : PreTrainedModel

    Returns
    -------
    is_contrastive : bool
    """
    return hasattr(network, "get_image_features") and hasattr(network, "get_text_features")


def build_transformers(source: Source, cache_dir: str | None, local_files_only: bool) -> BuiltModel:
    """Build a model of transformers; code that comes with a repository is not run.

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
        If the weights can't be had or don't fit, or the model encodes no images of one size.
    """
    ensure_importable()
    transformers = require("transformers", what=f"The encoder {source.name!r}", extra="transformers")

    def load(place: str, **options: Any) -> tuple[Any, dict[str, Any], Any, Any]:
        options["trust_remote_code"] = False
        network, report = transformers.AutoModel.from_pretrained(place, output_loading_info=True, **options)
        processor = transformers.AutoImageProcessor.from_pretrained(place, **options)
        contrastive = is_contrastive(network)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options) if contrastive else None
        return network, report, processor, tokenizer

    with quiet(transformers):
        try:
            if source.identity is not None:
                require_file(Path(source.identity.folder), _CONFIG, source.name)
                found = load(source.identity.folder, local_files_only=True)
            else:
                assert source.repo is not None
                repo = source.repo
                found = load_cached_first(
                    lambda offline: load(repo, cache_dir=cache_dir, local_files_only=offline),
                    repo,
                    _CONFIG,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    copied_as="transformers:DIR",
                )
        except WeightsError:
            raise
        except Exception as error:  # unlike shapes, a damaged file, a configuration that builds no model
            raise loading_error(source.name, error) from error
        network, report, processor, tokenizer = found
        model = TransformersModel(network, _reads_pooler(source.name, network, report))
        text = None if tokenizer is None else _tokenizer(network, tokenizer)
        return assemble_model(source.name, model, network, processor, text)


def _tokenizer(network: Any, tokenizer: Any) -> TransformersTokenizer:
    config = getattr(network.config, "text_config", network.config)
    context = min(int(getattr(config, "max_position_embeddings", 77)), int(tokenizer.model_max_length))
    return TransformersTokenizer(tokenizer, context, network.config.model_type in _READS_PADDING)


def assemble_model(name: str, model: nn.Module, network: Any, processor: Any, tokenizer: Any) -> BuiltModel:
    """Put a model with its image processor and tokenizer into the form that is loaded.

    Parameters
    ----------
    name : str
        The encoder's name, as it was given.
    model : nn.Module
        With the interface of open_clip's models.
    network : PreTrainedModel
        The network in it, which knows the scale and the bias.
    processor : BaseImageProcessor
    tokenizer : callable or None
        With the interface of open_clip's.

    Returns
    -------
    built : BuiltModel

    Raises
    ------
    WeightsError
        If the processor makes images of different sizes, or in a way that is not known.
    """
    geometry, height, width = _geometry(name, processor)
    mean, std = _mean_and_std(processor)
    _check_pixels(name, processor, geometry, mean, std)
    return BuiltModel(
        model=model,
        tokenizer=tokenizer,
        preprocessing=_settings(processor, mean, std),
        image_size=(height, width),
        mean=mean,
        std=std,
        make_geometry=lambda exact: geometry,
        logit_scale=scale_of(network, LOGIT_SCALE),
        logit_bias=bias_of(network),
        recipe=(type(network).__name__, *_activations(network.config), *getattr(model, "recipe", ())),
    )


def _reads_pooler(name: str, network: Any, report: dict[str, Any]) -> bool:
    """Refuse a model that lacks weights, but for the pooling of an image tower that was trained without."""
    missing = sorted(report["missing_keys"])
    pooling = [key for key in missing if "pooler" in key.split(".")]
    if is_contrastive(network):
        pooling = []
    elif getattr(network, "main_input_name", None) != "pixel_values":
        raise WeightsError(
            f"The encoder {name!r} is a {type(network).__name__}, which encodes no images; name a model of images, or "
            "of images and texts."
        )
    lost = [key for key in missing if key not in pooling]
    if lost:
        raise WeightsError(
            f"The encoder {name!r}: its file lacks {len(lost)} weights of {type(network).__name__}, the first of them "
            f"{lost[0]!r}. Fetch the files anew, or correct the configuration."
        )
    return not pooling


def _geometry(name: str, processor: Any) -> tuple[Geometry, int, int]:
    """The processor's own resizing and cropping, and the one size (height, width) that it makes."""

    def apply(image: Image.Image) -> NDArray[np.uint8]:
        made = processor(images=crop_long_strip(image), do_rescale=False, do_normalize=False, return_tensors="np")
        pixels = np.asarray(made["pixel_values"][0])
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(1, 2, 0)

    try:
        shapes = {apply(Image.new("RGB", size)).shape for size in ((96, 64), (64, 80))}
    except Exception as error:  # a processor of another form: patches, several crops, no such options
        raise WeightsError(
            f"The encoder {name!r}: its {type(processor).__name__} makes no images of one size "
            f"({type(error).__name__}: {error!s:.200}); name a model with a fixed resolution."
        ) from error
    if len(shapes) != 1:
        raise WeightsError(
            f"The encoder {name!r}: its {type(processor).__name__} makes images of different sizes, {sorted(shapes)}; "
            "name a model with a fixed resolution."
        )
    height, width, _ = shapes.pop()
    return apply, height, width


def _mean_and_std(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by which pixels from 0 to 1 are shifted and divided."""
    unit = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    return tuple(float(value) / unit for value in mean), tuple(float(value) / unit for value in std)


def _check_pixels(
    name: str, processor: Any, geometry: Geometry, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Refuse a processor that does more than resize, crop, scale and shift, by what it makes of an image."""
    ramp = np.arange(96 * 96 * 3, dtype=np.uint32).reshape(96, 96, 3) // 109 % 256
    image = Image.fromarray(ramp.astype(np.uint8))
    wanted = torch.as_tensor(np.asarray(processor(images=image, return_tensors="np")["pixel_values"]))
    pixels = torch.from_numpy(geometry(image).copy()).permute(2, 0, 1)[None].float()
    shift, scale = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    found = standardize(pixels, shift, scale)
    if found.shape != wanted.shape or bool(((found - wanted).abs() * scale).max() > _TOLERANCE):
        raise WeightsError(
            f"The encoder {name!r}: its {type(processor).__name__} does more to an image than to resize, crop, scale "
            "and shift it, which skxma cannot do in batches. Wrap the model: an object with encode_image(images) and "
            "encode_text(prompts) is an encoder."
        )


def _activations(config: Any) -> list[str]:
    """The activations of a network's towers, which are in no weights."""
    parts = [config, *(getattr(config, name, None) for name in ("vision_config", "text_config"))]
    return [str(part.hidden_act) for part in parts if hasattr(part, "hidden_act")]


def _settings(processor: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Settings that decide the pixels, by names that stay from release to release."""
    stated = processor.to_dict()
    return {
        "mean": mean,
        "std": std,
        **{name: _as_json(stated[name]) for name in _SETTINGS if stated.get(name) is not None},
    }


def _as_json(value: Any) -> Any:
    """A setting as JSON."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(inner) for key, inner in value.items() if inner is not None}
    return value if isinstance(value, (str, int, float, bool)) else str(value)


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from reporting to the terminal what its answers say as well.

    Parameters
    ----------
    transformers : module
    """
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
