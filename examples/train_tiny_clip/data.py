"""The pictures as one array, cut into what training sees, the held-out style and the held-out concepts."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from concepts import HELD_OUT_SET, LARGE_SETS, Concept, draw_held_out, load_concepts
from sources import SETS, SIZE, package, rasterise, read_json

# Mean absolute difference, of 255, under which two drawings are one: sets reuse art.
SAME_DRAWING = 4.0


@dataclass
class Pictures:
    """Pictures with their concept and set, one row each."""

    rgba: np.ndarray
    concept: np.ndarray
    set_name: np.ndarray

    def __len__(self) -> int:
        return len(self.concept)

    def where(self, mask: np.ndarray) -> "Pictures":
        """Keep the rows of a mask."""
        return Pictures(self.rgba[mask], self.concept[mask], self.set_name[mask])

    def on_white(self) -> np.ndarray:
        """Flatten on white, as the bundled sample is: (n, SIZE, SIZE, 3) uint8."""
        alpha = self.rgba[..., 3:].astype(np.float32) / 255
        return np.round(self.rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


@dataclass
class Split:
    """What training sees, and the two kinds of pictures that it doesn't."""

    concepts: list[Concept]
    held_out: list[str]
    train: Pictures
    new_style: Pictures
    new_concepts: Pictures


def load_pictures(concepts: list[Concept], work: Path) -> Pictures:
    """Draw every icon once, and keep them in `work`."""
    cache = work / f"pictures-{SIZE}.npz"
    if not cache.exists():
        rgba, concept, set_name = [], [], []
        with ProcessPoolExecutor() as pool:
            for name in SETS:
                rows = [(i, c.icons[name]) for i, c in enumerate(concepts) if name in c.icons]
                draw = partial(rasterise, read_json(package(name, work) / "icons.json"))
                rgba.extend(pool.map(draw, [icon for _, icon in rows], chunksize=100))
                concept.extend(i for i, _ in rows)
                set_name.extend([name] * len(rows))
        np.savez(cache, rgba=np.stack(rgba), concept=np.array(concept), set_name=np.array(set_name))
    stored = np.load(cache)
    return Pictures(stored["rgba"], stored["concept"], stored["set_name"])


def load_split(work: Path) -> Split:
    """Download, draw and split; the held-out concepts' near-copies leave training too."""
    concepts = load_concepts(work)
    held_out = draw_held_out(concepts)
    pictures = load_pictures(concepts, work)
    secret = np.isin(pictures.concept, [i for i, c in enumerate(concepts) if c.label in set(held_out)])
    style = pictures.set_name == HELD_OUT_SET
    few_shot = pictures.where(secret & np.isin(pictures.set_name, LARGE_SETS))
    seen = pictures.where(~secret & ~style)
    seen = seen.where(nearest_difference(seen, few_shot) > SAME_DRAWING)
    known = np.isin(pictures.concept, seen.concept)
    return Split(concepts, held_out, seen, pictures.where(style & ~secret & known), few_shot)


def nearest_difference(pictures: Pictures, others: Pictures) -> np.ndarray:
    """Return each picture's mean absolute difference to the nearest of the others, at a quarter of the size."""
    ours, theirs = thumbnails(pictures), thumbnails(others)
    nearest = np.full(len(ours), np.inf, dtype=np.float32)
    for thumbnail in theirs:
        np.minimum(nearest, np.abs(ours - thumbnail).mean(1), out=nearest)
    return nearest


def thumbnails(pictures: Pictures) -> np.ndarray:
    """Return the pixels of each picture at a quarter of its size, as one row."""
    white = pictures.on_white().astype(np.float32)
    return white.reshape(len(white), SIZE // 4, 4, SIZE // 4, 4, 3).mean((2, 4)).reshape(len(white), -1)
