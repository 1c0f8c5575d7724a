"""Write the sample that skxma.datasets.load_emoji reads: 40 held-out concepts by five sets."""

import shutil
from pathlib import Path

from concepts import LARGE_SETS, draw_sample, slug
from data import Split

SAMPLE = Path(__file__).resolve().parents[2] / "skxma" / "datasets" / "emoji"


def write_sample(split: Split, folder: Path = SAMPLE) -> None:
    """Replace the sample's images."""
    from PIL import Image

    index = {concept.label: i for i, concept in enumerate(split.concepts)}
    images = split.new_concepts.on_white()
    shutil.rmtree(folder, ignore_errors=True)
    for name in draw_sample(split.concepts, split.held_out):
        target = folder / slug(name)
        target.mkdir(parents=True)
        for set_name in LARGE_SETS:
            rows = (split.new_concepts.concept == index[name]) & (split.new_concepts.set_name == set_name)
            Image.fromarray(images[rows][0]).save(target / f"{set_name}.png", optimize=True)
