"""Models of sentence-transformers that encode images and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skxma._runtime.optional import require
from skxma.encoder._built_model import BuiltModel
from skxma.encoder._checkpoints import fetch_file
from skxma.encoder._offline import load_cached_first, loading_error, require_file
from skxma.encoder._source import Source
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.encoder._transformers import assemble_model, longer_than, quiet
from skxma.errors import WeightsError

_MODULES = "modules.json"


class Tokens(dict[str, Any]):
    """Inputs of a text tower that move to a device together."""

    def to(self, device: torch.device) -> Tokens:
        """Return them on a device."""
        return Tokens({key: value.to(device) if isinstance(value, Tensor) else value for key, value in self.items()})


class SentenceTransformersTokenizer:
    """Tokenizer of a model of sentence-transformers, with the interface of open_clip's tokenizers.

    Parameters
    ----------
    pipeline : SentenceTransformer
    """

    # in the fingerprint, by which embeddings in stores and model files know their encoder: it stays
    fingerprint_name = "Tokenizer"

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.context_length: int | None = pipeline.max_seq_length

    def __call__(self, texts: list[str]) -> Tokens:
        """Return the inputs of the text tower."""
        return Tokens(self._pipeline.preprocess(texts))

    def find_cut(self, texts: list[str]) -> tuple[int, list[str]]:
        """Return the context, and the texts that are longer."""
        if self.context_length is None:
            return 0, []
        return self.context_length, longer_than(self.context_length, self._pipeline.tokenizer, texts)


class SentenceTransformerModel(nn.Module):
    """A model of sentence-transformers with the interface of open_clip's models.

    Parameters
    ----------
    pipeline : SentenceTransformer
        One that takes images.
    """

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.pipeline = pipeline

    @property
    def visual(self) -> nn.Module:
        """The network with the image tower."""
        network = self.pipeline[0].auto_model
        tower: nn.Module = getattr(network, "vision_model", network)
        return tower

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return image embeddings of shape (b, d) of pixels (b, 3, height, width)."""
        rows: Tensor = self.pipeline({"pixel_values": pixels, "modality": "image"})["sentence_embedding"]
        return rows

    def encode_text(self, tokens: Tokens) -> Tensor:
        """Return text embeddings of shape (b, d) of what the tokenizer gives."""
        rows: Tensor = self.pipeline(dict(tokens))["sentence_embedding"]
        return rows


def build_sentence_transformers(source: Source, cache_dir: str | None, local_files_only: bool) -> BuiltModel:
    """Build a model of sentence-transformers; code that comes with a repository is not run.

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
        If the weights can't be had or don't fit, or the model encodes no images.
    """
    ensure_importable()
    library = require("sentence_transformers", what=f"The encoder {source.name!r}", extra="sentence-transformers")
    transformers = require("transformers", what=f"The encoder {source.name!r}", extra="sentence-transformers")

    def load(place: str, offline: bool) -> Any:
        return library.SentenceTransformer(
            place, device="cpu", cache_folder=cache_dir, local_files_only=offline, trust_remote_code=False
        )

    with quiet(transformers):
        try:
            if source.identity is not None:
                modules = require_file(Path(source.identity.folder), _MODULES, source.name)
                _refuse_own_modules(modules, source.name)
                pipeline = load(source.identity.folder, True)
            else:
                assert source.repo is not None
                repo, copied_as = source.repo, "sentence-transformers:DIR"
                modules = fetch_file(
                    repo, (_MODULES,), cache_dir=cache_dir, local_files_only=local_files_only, copied_as=copied_as
                )
                _refuse_own_modules(modules, source.name)
                pipeline = load_cached_first(
                    lambda offline: load(repo, offline),
                    repo,
                    _MODULES,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    copied_as=copied_as,
                )
        except WeightsError:
            raise
        except Exception as error:  # unlike shapes, a damaged file, a configuration that builds no model
            raise loading_error(source.name, error) from error
        _require_images(pipeline, source.name)
        network = pipeline[0].auto_model
        processor = pipeline[0].processor.image_processor
        text = SentenceTransformersTokenizer(pipeline) if "text" in pipeline[0].modality_config else None
        return assemble_model(source.name, SentenceTransformerModel(pipeline), network, processor, text)


def _refuse_own_modules(modules: Path, name: str) -> None:
    """Refuse modules of a repository's own: the library runs those of a folder without being asked."""
    try:
        types = [str(module["type"]) for module in json.loads(modules.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        raise loading_error(name, error) from error
    own = [one for one in types if not one.startswith("sentence_transformers.")]
    if own:
        raise WeightsError(f"The encoder {name!r} asks to run code that comes with it ({own[0]}); skxma runs none.")


def _require_images(pipeline: Any, name: str) -> None:
    """Refuse a model of texts alone, or one whose first module is none of transformers."""
    modalities = getattr(pipeline[0], "modality_config", {})
    if "image" not in modalities or not hasattr(getattr(pipeline[0], "processor", None), "image_processor"):
        raise WeightsError(
            f"The encoder {name!r} encodes no images (it takes {', '.join(map(str, modalities)) or 'texts'}); name a "
            "model of images and texts, such as sentence-transformers:sentence-transformers/clip-ViT-B-32."
        )
