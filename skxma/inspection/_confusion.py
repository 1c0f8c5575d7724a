"""The confusion matrix as a figure."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma.inspection._draw import short
from skxma.inspection._figure_file import new_figure, save_figure

# a larger matrix has cells too small for numbers, or lines too close for names
MOST_NUMBERED, MOST_TICKS = 50, 100
LARGEST_INCHES = 24.0


def draw_confusion(
    confusion: NDArray[np.int64], labels: NDArray[Any], path: str | os.PathLike[str], *, title: str
) -> None:
    """Write a confusion matrix as a figure: color by the share of the row, and as numbers the images.

    Parameters
    ----------
    confusion : ndarray of shape (m, m)
        Images by their label (row) and the answer (column).
    labels : ndarray of shape (m,)
    path : path-like
        Its ending names the format.
    title : str
    """
    m = len(labels)
    side = min(LARGEST_INCHES, 3.0 + 0.4 * m)
    figure = new_figure((side + 1.0, side), what="The confusion matrix")
    ax = figure.subplots()
    rows = np.maximum(confusion.sum(1, keepdims=True), 1)
    shares = confusion / rows
    drawn = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=ax, label="share of the label's images", fraction=0.03, pad=0.02)
    if m <= MOST_NUMBERED:
        for i, j in np.argwhere(confusion):
            dark = shares[i, j] > 0.5
            ax.text(j, i, str(confusion[i, j]), ha="center", va="center", color="white" if dark else "black")
    # every k-th name where there is no room for all
    shown = np.arange(0, m, -(-m // MOST_TICKS))
    names = [short(labels[i]) for i in shown]
    ax.set_xticks(shown, names, rotation=90)
    ax.set_yticks(shown, names)
    ax.set(xlabel="predicted class", ylabel="label")
    ax.set_title(title, fontsize=10)
    save_figure(figure, path)
