"""Captions of an image: its name or a search word in the sentences that users of CLIP write."""

import numpy as np
from concepts import Concept

from skxma.prompts import TEMPLATES

PLAIN = (
    "{}",
    "{}.",
    "a photo of a {}.",
    "a picture of a {}.",
    "an emoji of a {}.",
    "a drawing of a {}.",
    "an icon of a {}.",
    "a cartoon {}.",
)
# The long lists are long for averaging; the plain ones are what people type.
_P_PLAIN = 0.6
_P_TAG = 0.3


def draw_caption(concept: Concept, rng: np.random.Generator) -> str:
    """Draw one sentence about a concept."""
    name = concept.label.removeprefix("flag: ") + " flag" if concept.label.startswith("flag: ") else concept.label
    if concept.tags and rng.random() < _P_TAG:
        name = concept.tags[rng.integers(len(concept.tags))]
    family = PLAIN if rng.random() < _P_PLAIN else TEMPLATES["simple" if rng.random() < 0.25 else "imagenet"]
    return family[rng.integers(len(family))].replace("{}", name)
