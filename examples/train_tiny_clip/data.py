"""The images as one array, cut into what training sees, the held-out style and the held-out concepts."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from concepts import HELD_OUT_SET, LARGE_SETS, Concept, draw_held_out, load_concepts
from sources import SETS, SIZE, package, rasterize, read_json

# Mean absolute difference, of 255, under which two drawings are one: sets reuse art.
SAME_DRAWING = 4.0


@dataclass
class EmojiImages:
    """Images with their concept and set, one row each."""

    rgba: np.ndarray
    concept: np.ndarray
    set_name: np.ndarray

    def __len__(self) -> int:
        return len(self.concept)

    def where(self, mask: np.ndarray) -> "EmojiImages":
        """Keep the rows of a mask."""
        return EmojiImages(self.rgba[mask], self.concept[mask], self.set_name[mask])

    def on_white(self) -> np.ndarray:
        """Flatten on white, as the bundled sample is: (n, SIZE, SIZE, 3) uint8."""
        alpha = self.rgba[..., 3:].astype(np.float32) / 255
        return np.round(self.rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


@dataclass
class Split:
    """The training images, and the two kinds of images held out from it."""

    concepts: list[Concept]
    held_out: list[str]
    train: EmojiImages
    new_style: EmojiImages
    new_concepts: EmojiImages


def load_images(concepts: list[Concept], work: Path) -> EmojiImages:
    """Draw every icon once, and keep them in `work`."""
    cache = work / f"images-{SIZE}.npz"
    if not cache.exists():
        rgba, concept, set_name = [], [], []
        with ProcessPoolExecutor() as pool:
            for name in SETS:
                rows = [(i, c.icons[name]) for i, c in enumerate(concepts) if name in c.icons]
                draw = partial(rasterize, read_json(package(name, work) / "icons.json"))
                rgba.extend(pool.map(draw, [icon for _, icon in rows], chunksize=100))
                concept.extend(i for i, _ in rows)
                set_name.extend([name] * len(rows))
        np.savez(cache, rgba=np.stack(rgba), concept=np.array(concept), set_name=np.array(set_name))
    stored = np.load(cache)
    return EmojiImages(stored["rgba"], stored["concept"], stored["set_name"])


def load_split(work: Path) -> Split:
    """Download, draw and split; the held-out concepts' near-copies leave training too."""
    concepts = load_concepts(work)
    held_out = draw_held_out(concepts)
    images = load_images(concepts, work)
    secret = np.isin(images.concept, [i for i, c in enumerate(concepts) if c.label in set(held_out)])
    style = images.set_name == HELD_OUT_SET
    few_shot = images.where(secret & np.isin(images.set_name, LARGE_SETS))
    seen = images.where(~secret & ~style)
    seen = seen.where(nearest_difference(seen, few_shot) > SAME_DRAWING)
    known = np.isin(images.concept, seen.concept)
    return Split(concepts, held_out, seen, images.where(style & ~secret & known), few_shot)


def nearest_difference(images: EmojiImages, others: EmojiImages) -> np.ndarray:
    """Return each image's mean absolute difference to the nearest of the others, at a quarter of the size."""
    ours, theirs = thumbnails(images), thumbnails(others)
    nearest = np.full(len(ours), np.inf, dtype=np.float32)
    for thumbnail in theirs:
        np.minimum(nearest, np.abs(ours - thumbnail).mean(1), out=nearest)
    return nearest


def thumbnails(images: EmojiImages) -> np.ndarray:
    """Return the pixels of each image at a quarter of its size, as one row."""
    white = images.on_white().astype(np.float32)
    return white.reshape(len(white), SIZE // 4, 4, SIZE // 4, 4, 3).mean((2, 4)).reshape(len(white), -1)
