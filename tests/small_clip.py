"""A small random CLIP on disk, images for it, and what open_clip itself makes of them."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skxma.images import load_image

MODEL_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "custom_text": True,
    },
    "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"},
}


def make_model_folder(folder: Path, seed: int, config: dict = MODEL_CONFIG) -> Path:
    """Write a CLIP with random weights; its batch statistics are random too, so that train and eval mode differ."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.factory.create_model(f"local-dir:{folder}", load_weights=False)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def make_pixels(seed: int, height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Draw a smooth random image: noise alone looks the same to every encoder."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(6, 8, channels), dtype=np.uint8)
    layers = [
        Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)
    ]
    return np.stack([np.asarray(layer) for layer in layers], axis=-1)


def reference(model: str, images) -> np.ndarray:
    """What open_clip itself gives, when used as its traps demand."""
    import open_clip

    clip, transform = open_clip.create_model_from_pretrained(model)
    clip.eval()
    with torch.inference_mode():
        batch = torch.stack([transform(load_image(image)) for image in images])
        return torch.nn.functional.normalize(clip.encode_image(batch), dim=-1).numpy()
