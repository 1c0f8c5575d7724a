"""The one module that speaks to open_clip: a model's name becomes a loaded, frozen, cached model."""

import hashlib
import json
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from skxma._device import PRECISIONS
from skxma._geometry import make_geometry
from skxma._torchvision import ensure_importable
from skxma._weights import TINY_FOLDER, FolderIdentity, fetch_checkpoint, fetch_folder, identify_folder
from skxma.errors import EncoderNotFoundError, WeightsError

# Bounded, for each may take gigabytes: two hold a model and the one it is compared with.
MAX_LOADED = 2
# JPEGs decoded at three times the model's size or more move embeddings less than bf16 does.
DRAFT_GAP = 3
_N_SAMPLED = 1024
_N_STEM_CONVOLUTIONS = 4
_FIRST_BATCH = {"cuda": 256, "mps": 64}

_loaded: "OrderedDict[tuple[Any, ...], LoadedModel]" = OrderedDict()
_loading = threading.RLock()


@dataclass
class LoadedModel:
    """A frozen CLIP on its device, with all that is needed to feed it."""

    model: Any
    geometry: Callable[[Image.Image], NDArray[np.uint8]]
    tokenizer: Callable[[list[str]], Tensor]
    image_size: tuple[int, int]
    mean: Tensor
    std: Tensor
    fingerprint: str
    logit_scale: float
    n_features: int
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    # Shrinks when the device runs out of memory, and stays so for whoever uses this model next.
    max_batch: int

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
    def enough_pixels(self) -> int | None:
        """Short side at which it is no matter how a picture was shrunk so far; None where every digit counts."""
        return None if self.dtype == torch.float32 else DRAFT_GAP * max(self.image_size)

    @torch.inference_mode()
    def embed_images(self, pixels: Tensor) -> NDArray[np.float32]:
        """Return the L2-normalised features of a batch.

        Parameters
        ----------
        pixels : Tensor of shape (b, 3, height, width) of uint8
            RGB, already of the model's size.

        Returns
        -------
        features : ndarray of shape (b, n_features)
        """
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        batch = pixels.to(self.device, non_blocking=True).to(torch.float32, memory_format=layout)
        # as torchvision's ToTensor and Normalize, a batch at a time and on the device
        batch = batch.div_(255).sub_(self.mean).div_(self.std).to(self.dtype)
        return _to_unit_rows(self.model.encode_image(batch))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the L2-normalised features of some prompts.

        Parameters
        ----------
        texts : sequence of str of length b
            Prompts; one that is longer than the model's context is cut off, with a warning.

        Returns
        -------
        features : ndarray of shape (b, n_features)
        """
        tokens = self.tokenizer(list(texts))
        self._warn_of_cuts(texts, tokens)
        return _to_unit_rows(self.model.encode_text(tokens.to(self.device)))

    def _warn_of_cuts(self, texts: Sequence[str], tokens: Tensor) -> None:
        """Warn of prompts that CLIP's own tokenizer cut; others pad in ways of their own."""
        end = getattr(self.tokenizer, "eot_token_id", None)
        encode = getattr(self.tokenizer, "encode", None)
        if end is None or encode is None:
            return
        limit = tokens.shape[1]
        full = (tokens[:, -1] == end).nonzero().flatten().tolist()
        cut = [texts[i] for i in full if len(encode(texts[i])) + 2 > limit]
        if cut:
            warnings.warn(
                f"{len(cut)} prompts are longer than the {limit} tokens that the model reads; the rest of each is "
                f"ignored, e.g. of {cut[0]!r:.200}. Shorten it, or pass several prompts.",
                UserWarning,
                stacklevel=2,
            )


def _to_unit_rows(features: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return rows


def load(
    model: str, device: torch.device, precision: str, *, cache_dir: str | None = None, local_files_only: bool = False
) -> LoadedModel:
    """Return a model, loaded once a process for each device and precision.

    Parameters
    ----------
    model : str
        "name/tag" of open_clip's registry, "hf-hub:org/name", "local-dir:/path" or "tiny".
    device : torch.device
        Where it is to run.
    precision : {"fp32", "bf16", "fp16"}
        The number format of its weights and activations.
    cache_dir : str, optional
        The hub's cache folder.
    local_files_only : bool, default=False
        Whether to refuse to download.

    Returns
    -------
    loaded : LoadedModel
        In evaluation mode, without gradients; shared, so not to be changed.

    Raises
    ------
    EncoderNotFoundError
        If the name is unknown.
    WeightsError
        If the weights can't be had or don't fit.
    """
    source = find_source(model)
    key = (source.identity or source.name, str(device), precision, cache_dir)
    with _loading:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
        made = _prepare(source, device, precision, cache_dir, local_files_only)
        _loaded[key] = made
        while len(_loaded) > MAX_LOADED:
            _loaded.popitem(last=False)
        return made


def clear_models() -> None:
    """Let go of every loaded model."""
    with _loading:
        _loaded.clear()


@dataclass(frozen=True)
class Source:
    """What a model's name stands for: exactly one of a tag, a hub repository and a folder."""

    name: str
    architecture: str | None = None
    tag: str | None = None
    repo: str | None = None
    identity: FolderIdentity | None = None


def find_source(model: str) -> Source:
    """Parse a model's name, without loading or fetching anything.

    Parameters
    ----------
    model : str
        As in `load`.

    Returns
    -------
    source : Source
        What it stands for.

    Raises
    ------
    EncoderNotFoundError
        If the name is unknown; suggests close ones.
    WeightsError
        If it names a folder that holds no model.
    """
    if model == "tiny":
        return Source(model, identity=identify_folder(TINY_FOLDER, model))
    if model.startswith("local-dir:"):
        return Source(model, identity=identify_folder(Path(model.removeprefix("local-dir:")), model))
    if model.startswith("hf-hub:"):
        return Source(model, repo=model.removeprefix("hf-hub:"))
    architecture, _, tag = model.partition("/")
    pretrained = _open_clip().pretrained
    if pretrained.get_pretrained_cfg(architecture, tag):
        return Source(model, architecture=architecture, tag=tag)
    raise EncoderNotFoundError(_suggest(model, architecture, tag))


def _suggest(model: str, architecture: str, tag: str) -> str:
    pretrained = _open_clip().pretrained
    tags = pretrained.list_pretrained_tags_by_model(architecture)
    if tags:
        close = get_close_matches(tag.lower(), tags, n=1)
        start = f"model={model!r} names no weights." if not tag else f"model={model!r}: {architecture} has no {tag!r}."
        hint = f" Did you mean {architecture}/{close[0]!s}?" if close else ""
        return f"{start}{hint} Write {architecture}/<tag>, with one of the tags: {', '.join(tags)}."
    names = sorted({name for name, _ in pretrained.list_pretrained()})
    lower = {name.lower(): name for name in names}
    close = [lower[match] for match in get_close_matches(architecture.lower(), lower, n=3, cutoff=0.5)]
    if get_close_matches(model.lower(), ["tiny"], n=1):
        return f"model={model!r} is unknown: did you mean 'tiny'?"
    known = [(name, pretrained.list_pretrained_tags_by_model(name)) for name in close]
    meant = [f"{name}/{tag}" for name, its in known if tag in its] or [f"{name}/<tag>" for name in close]
    hint = f": did you mean {' or '.join(meant)}?" if close else "."
    where = f"local-dir:{model}" if Path(model).is_dir() else "local-dir:/path/to/folder"
    repo = f"hf-hub:{model}" if tag else "hf-hub:organisation/name"
    return (
        f"model={model!r} is unknown{hint} Other names: 'architecture/tag' of open_clip.list_pretrained(), {repo!r}, "
        f"{where!r}, 'tiny'."
    )


def _open_clip() -> Any:
    ensure_importable()
    import open_clip

    return open_clip


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
    if source.architecture is not None:
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
            if source.repo is not None and config.get("text_cfg", {}).get("hf_tokenizer_name"):
                tokenizer_name = source.name  # the tokenizer's own files are not in the folder yet
        model = open_clip.create_model(name, device="cpu", require_pretrained=True, weights_only=True, **options)
        tokenizer = open_clip.get_tokenizer(tokenizer_name, cache_dir=cache_dir)
    except WeightsError:
        raise
    except Exception as error:  # unlike keys or shapes, a damaged file, a configuration that builds no model
        if "transformers" in str(error) and find_spec("transformers") is None:
            raise ImportError(f"model={source.name!r} needs transformers: pip install transformers") from error
        raise WeightsError(
            f"model={source.name!r} could not be loaded: its weights are damaged or don't fit its configuration "
            f"({type(error).__name__}: {error!s:.600}). Delete the files and fetch them anew, or correct the "
            "configuration."
        ) from error
    return model, tokenizer


def _refuse_code(config: Any, model: str) -> None:
    """Refuse a configuration that would have transformers run a repository's own code; open_clip passes that on."""
    if isinstance(config, dict) and config.get("trust_remote_code"):
        raise WeightsError(f"model={model!r} asks to run code that comes with it (trust_remote_code); skxma runs none.")
    for inner in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        _refuse_code(inner, model)


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
