"""Image files as a browser uploads them."""

import numpy as np

from skxma.datasets import load_emoji

EMOJI = load_emoji(as_paths=True)
LONG_NAME = "a fox that sits on a hill and looks at the moon " * 4


def files(label, shots):
    """Paths of the bundled images of a class."""
    return [EMOJI.images[i] for i in np.flatnonzero(EMOJI.target == label)[shots]]
