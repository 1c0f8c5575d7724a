"""The architecture, and its export to the two files that open_clip's `local-dir:` reads."""

import json
from pathlib import Path

import numpy as np
import torch

from skxma.encoder._torchvision_compat import ensure_importable

ensure_importable()
from open_clip import CLIP, SimpleTokenizer, create_model_from_pretrained, get_tokenizer  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "avg"},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 2},
}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
_MAX_SCALE = 100.0


def build() -> tuple[CLIP, SimpleTokenizer]:
    """Return a model with random weights, and its tokenizer."""
    return CLIP(**MODEL), SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])


def encode_captions(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Do what `encode_text` does for tokens cut to the longest caption, which it refuses; a fifth of the time."""
    length = tokens.shape[1]
    hidden = model.token_embedding(tokens) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    return hidden[torch.arange(len(tokens)), tokens.argmax(-1)] @ model.text_projection


def export(model: CLIP, folder: Path) -> None:
    """Write the configuration and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    state["logit_scale"] = state["logit_scale"].clamp(max=float(np.log(_MAX_SCALE)))
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
    weights = folder / "open_clip_model.safetensors"
    save_file(half, str(weights))
    weights.chmod(0o644)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path):
    """Return the exported model in eval mode, its image transform and its tokenizer, as a user would load them."""
    name = f"local-dir:{folder}"
    model, preprocess = create_model_from_pretrained(name)
    return model.eval(), preprocess, get_tokenizer(name)


@torch.inference_mode()
def encode_images(model: CLIP, preprocess, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Return unit features of (n, h, w, 3) uint8 images."""
    from PIL import Image

    pixels = torch.stack([preprocess(Image.fromarray(image)) for image in images])
    return torch.cat([model.encode_image(p, normalize=True) for p in pixels.split(batch_size)]).numpy()


@torch.inference_mode()
def encode_names(model: CLIP, tokenizer, names: list[str], templates) -> np.ndarray:
    """Return one unit feature a name: the mean over its prompts."""
    prompts = [t.replace("{}", name) for name in names for t in templates]
    features = torch.cat([model.encode_text(t, normalize=True) for t in tokenizer(prompts).split(1024)])
    mean = features.view(len(names), len(templates), -1).mean(1)
    return torch.nn.functional.normalize(mean, dim=-1).numpy()
