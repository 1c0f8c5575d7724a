"""Fixtures that tests share: real image files of many kinds, and a small random CLIP on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skxma import CLIPEncoder
from skxma._torchvision import ensure_importable
from skxma.images import load_image
from skxma.store import MemoryStore

# Models this small gain nothing from threads, and lose seconds to them on a busy machine.
torch.set_num_threads(1)
# Tests import open_clip themselves, to compare with it.
ensure_importable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what hypothesis drives, so that it can be run as a kind; note the kinds in reports, to be counted."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")
        kinds = [kind for kind in ("property", "bad_input", "fault") if item.get_closest_marker(kind)]
        item.user_properties.append(("kinds", " ".join(kinds)))


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


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> str:
    """The name of a random convolutional CLIP of 64 pixels and 32 features."""
    return f"local-dir:{make_model_folder(tmp_path_factory.mktemp('random_clip'), seed=0)}"


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> str:
    """The name of another one, of the same architecture."""
    return f"local-dir:{make_model_folder(tmp_path_factory.mktemp('other_clip'), seed=1)}"


def make_pixels(seed: int, height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Draw a smooth random picture: noise alone looks the same to every encoder."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(6, 8, channels), dtype=np.uint8)
    layers = [
        Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)
    ]
    return np.stack([np.asarray(layer) for layer in layers], axis=-1)


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(0)


@pytest.fixture
def image_files(tmp_path) -> list[str]:
    """Twelve PNG files of different pictures."""
    paths = []
    for seed in range(12):
        path = tmp_path / f"picture_{seed}.png"
        Image.fromarray(make_pixels(seed)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def mode_files(tmp_path, pixels) -> dict[str, Path]:
    """One picture as a file in every mode that users bring."""
    rgb = Image.fromarray(pixels)
    alpha = Image.fromarray(np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)[None].repeat(len(pixels), 0))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    grey = rgb.convert("L")
    palette = rgb.quantize(32)
    pictures = {
        "rgb.png": rgb,
        "grey.png": grey,
        "rgba.png": rgba,
        "la.png": rgba.convert("LA"),
        "palette.png": palette,
        "one_bit.png": rgb.convert("1"),
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tif": rgb.convert("CMYK"),
        "ycbcr.jpg": rgb,
        "grey_16.png": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "webp.webp": rgb,
        "bmp.bmp": rgb,
        "gif.gif": palette,
    }
    files = {}
    for name, picture in pictures.items():
        files[name] = tmp_path / "modes" / name
        files[name].parent.mkdir(exist_ok=True)
        picture.save(files[name])
    files["palette_alpha.png"] = tmp_path / "modes" / "palette_alpha.png"
    palette.save(files["palette_alpha.png"], transparency=palette.getpixel((0, 0)))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif_{orientation}.png"] = tmp_path / "modes" / f"exif_{orientation}.png"
        rgb.save(files[f"exif_{orientation}.png"], exif=exif)
    return files


@pytest.fixture
def encoder(random_model) -> CLIPEncoder:
    """In fp32, with a memory of its own."""
    return CLIPEncoder(random_model, precision="fp32", memory=MemoryStore())


@pytest.fixture
def forwarded(monkeypatch) -> list[int]:
    """The number of images of every batch that passes a model."""
    counts: list[int] = []
    forward = CLIPEncoder._forward_images

    def count(self, batch):
        counts.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(CLIPEncoder, "_forward_images", count)
    return counts


def reference(model: str, images) -> np.ndarray:
    """What open_clip itself gives, when used as its traps demand."""
    import open_clip

    clip, transform = open_clip.create_model_from_pretrained(model)
    clip.eval()
    with torch.inference_mode():
        batch = torch.stack([transform(load_image(image)) for image in images])
        return torch.nn.functional.normalize(clip.encode_image(batch), dim=-1).numpy()
