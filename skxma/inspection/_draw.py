"""What the displays draw with."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from skxma._runtime.optional import require
from skxma.images._reading import load_image

# Okabe and Ito's palette, told apart with every kind of colour vision
RIGHT, WRONG, TEXT, QUIET = "#0072B2", "#D55E00", "#009E73", "#5f5f5f"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TILE = 160


def pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    return require("matplotlib.pyplot", what="A display", extra="plot")


def thumbnail(image: Any) -> np.ndarray:
    """A square RGB array of a picture, its sides kept in proportion on white."""
    picture = ImageOps.contain(load_image(image).convert("RGB"), (TILE, TILE))
    square = Image.new("RGB", (TILE, TILE), "white")
    square.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return np.asarray(square)


def show(ax: Any, image: Any, title: str, colour: str = "black") -> None:
    """Draw a picture, or where it is not at hand an empty frame, below its title."""
    if image is None:
        ax.set_facecolor("#f0f0f0")
        ax.set_box_aspect(1)
    else:
        ax.imshow(thumbnail(image))
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color(colour)
        side.set_linewidth(1.5)
    ax.set_title(title, fontsize=8, color=colour)


def short(text: Any, length: int = 22) -> str:
    """A label that fits below a thumbnail."""
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"
