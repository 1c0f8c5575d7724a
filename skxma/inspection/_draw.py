"""Shared drawing helpers of the displays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from skxma._runtime.optional import require
from skxma.errors import ImageError
from skxma.images._reading import load_image

# Okabe and Ito's palette, told apart with every kind of color vision
RIGHT, WRONG, TEXT, QUIET = "#0072B2", "#D55E00", "#009E73", "#5f5f5f"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TILE = 160


def pyplot() -> Any:
    """matplotlib.pyplot, or an error that explains how to install it."""
    return require("matplotlib.pyplot", what="A display", extra="plot")


def thumbnail(image: Any) -> np.ndarray:
    """A square RGB array of an image, its sides kept in proportion on white."""
    image = ImageOps.contain(load_image(image).convert("RGB"), (TILE, TILE))
    square = Image.new("RGB", (TILE, TILE), "white")
    square.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return np.asarray(square)


def show(ax: Any, image: Any, title: str, color: str = "black", stand_in: str = "no image") -> None:
    """Draw an image below its title; where it is not at hand, the words that stand for it.

    Parameters
    ----------
    ax : Axes
    image : image or None
    title : str
    color : str
        Of the title and the frame.
    stand_in : str
        Lines to show in place of an image.
    """
    pixels = None if image is None else _pixels_at_hand(image)
    if pixels is None:
        ax.set_facecolor("#f0f0f0")
        ax.set_box_aspect(1)
        lines = "\n".join(wrapped for line in stand_in.splitlines() for wrapped in wrap(line, 16, max_lines=4))
        ax.text(0.5, 0.5, lines, fontsize=7, color=QUIET, ha="center", va="center", transform=ax.transAxes)
    else:
        ax.imshow(pixels)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color(color)
        side.set_linewidth(1.5)
    ax.set_title(title, fontsize=8, color=color)


def _pixels_at_hand(image: Any) -> np.ndarray | None:
    """The thumbnail of an image, None for a path without an image by now."""
    try:
        return thumbnail(image)
    except ImageError:
        if isinstance(image, (str, os.PathLike)):
            return None
        raise


def legend(figure: Any, colors: Mapping[str, str], note: str | None = None) -> None:
    """Explain the colors of a figure below it.

    Parameters
    ----------
    figure : Figure
        With a constrained layout.
    colors : mapping from str to str
        Colors by their meaning.
    note : str, optional
        A line on the numbers that the figure shows.
    """
    handles = [pyplot().Rectangle((0, 0), 1, 1, color=color, label=meaning) for meaning, color in colors.items()]
    drawn = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handlelength=1,
        title=note,
        title_fontsize=7,
    )
    drawn.get_title().set_color(QUIET)


def short(text: Any, length: int = 22) -> str:
    """A label that fits below a thumbnail."""
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"
