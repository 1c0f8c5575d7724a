"""Fixtures that tests share: real image files of many kinds, and a small random CLIP on disk."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_clip import make_model_folder, make_pixels

from skxma import CLIPEncoder
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.store._memory import MemoryStore

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
        if os.name != "posix" and item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="needs signals, limits, users or forks of POSIX"))
        kinds = [kind for kind in ("property", "bad_input", "fault") if item.get_closest_marker(kind)]
        item.user_properties.append(("kinds", " ".join(kinds)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what `memory=True` stores, as the command line does, out of the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKXMA_CACHE", str(tmp_path_factory.mktemp("cache") / "skxma"))
        yield


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> str:
    """The name of a random convolutional CLIP of 64 pixels and 32 features."""
    return f"local-dir:{make_model_folder(tmp_path_factory.mktemp('random_clip'), seed=0)}"


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> str:
    """The name of another one, of the same architecture."""
    return f"local-dir:{make_model_folder(tmp_path_factory.mktemp('other_clip'), seed=1)}"


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(0)


@pytest.fixture
def image_files(tmp_path) -> list[str]:
    """Twelve PNG files of different images."""
    paths = []
    for seed in range(12):
        path = tmp_path / f"image_{seed}.png"
        Image.fromarray(make_pixels(seed)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def mode_files(tmp_path, pixels) -> dict[str, Path]:
    """One image as a file in every mode that users bring."""
    rgb = Image.fromarray(pixels)
    alpha = Image.fromarray(np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)[None].repeat(len(pixels), 0))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    gray = rgb.convert("L")
    palette = rgb.quantize(32)
    pictures = {
        "rgb.png": rgb,
        "gray.png": gray,
        "rgba.png": rgba,
        "la.png": rgba.convert("LA"),
        "palette.png": palette,
        "one_bit.png": rgb.convert("1"),
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tif": rgb.convert("CMYK"),
        "ycbcr.jpg": rgb,
        "gray_16.png": Image.fromarray(np.asarray(gray).astype(np.uint16) * 257),
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
