"""Print the encoder's accuracy on what its training never saw: `python examples/train_tiny_clip/evaluate.py`."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from concepts import draw_sample
from data import Split, load_split, thumbnails
from model import build, encode_images, encode_names, load

from skxma.prompts import TEMPLATES

TINY = Path(__file__).resolve().parents[2] / "skxma" / "encoder" / "tiny"
N_CLASSES = 40
N_DRAWS = 100


def zero_shot(images: np.ndarray, target: np.ndarray, texts: np.ndarray, classes: np.ndarray) -> float:
    """Return the share of images of these classes whose nearest name, among these classes, is right."""
    rows = np.isin(target, classes)
    predicted = classes[np.argmax(images[rows] @ texts[classes].T, 1)]
    return float(np.mean(predicted == target[rows]))


def mean_over_draws(images: np.ndarray, target: np.ndarray, texts: np.ndarray) -> float:
    """Return zero-shot accuracy among 40 random classes, over many draws of the classes."""
    rng, every = np.random.default_rng(0), np.unique(target)
    draws = [rng.choice(every, N_CLASSES, replace=False) for _ in range(N_DRAWS)]
    return float(np.mean([zero_shot(images, target, texts, classes) for classes in draws]))


def few_shot(images: np.ndarray, target: np.ndarray, sets: np.ndarray, shots: int) -> float:
    """Return nearest-mean accuracy among 40 classes: some sets are the shots, every other set is the test."""
    rng, every, names = np.random.default_rng(0), np.unique(target), np.unique(sets)
    scores = []
    for _ in range(N_DRAWS):
        classes = rng.choice(every, N_CLASSES, replace=False)
        support = np.isin(sets, rng.choice(names, shots, replace=False))
        means = np.stack([images[support & (target == c)].mean(0) for c in classes])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        query = ~support & np.isin(target, classes)
        scores.append(np.mean(classes[np.argmax(images[query] @ means.T, 1)] == target[query]))
    return float(np.mean(scores))


def measure(split: Split, model, preprocess, tokenizer, templates) -> dict[str, float]:
    """Return every figure of one encoder."""
    names = [concept.label for concept in split.concepts]
    texts = encode_names(model, tokenizer, names, templates)
    style, fresh = split.new_style, split.new_concepts
    style_images = encode_images(model, preprocess, style.on_white())
    images = encode_images(model, preprocess, fresh.on_white())
    bundled = np.array([names.index(name) for name in draw_sample(split.concepts, split.held_out)])
    figures = {
        "zero-shot, held-out style, 40 classes": mean_over_draws(style_images, style.concept, texts),
        f"zero-shot, held-out style, {len(np.unique(style.concept))} classes": zero_shot(
            style_images, style.concept, texts, np.unique(style.concept)
        ),
        "zero-shot, held-out concepts, 40 classes": mean_over_draws(images, fresh.concept, texts),
        "zero-shot, held-out concepts, 150 classes": zero_shot(images, fresh.concept, texts, np.unique(fresh.concept)),
        "zero-shot, the bundled 40": zero_shot(images, fresh.concept, texts, bundled),
    }
    return figures | few_shot_figures(split, images)


def few_shot_figures(split: Split, features: np.ndarray) -> dict[str, float]:
    """Return nearest-mean accuracy on the held-out concepts, by number of shots."""
    fresh = split.new_concepts
    return {
        f"nearest mean, held-out concepts, 40 classes, {shots}-shot": few_shot(
            features, fresh.concept, fresh.set_name, shots
        )
        for shots in (1, 2, 4)
    }


def report(split: Split, folder: Path) -> None:
    """Print the figures of the exported files beside those of the same network untrained."""
    model, preprocess, tokenizer = load(folder)
    torch.manual_seed(0)
    untrained = build()[0].eval()
    size = sum(path.stat().st_size for path in folder.glob("open_clip_*"))
    everything = sum(len(concept.icons) for concept in split.concepts)
    print(f"{everything} images of {len(split.concepts)} concepts", end="; ")
    print(f"trained on {len(split.train)} of {len(np.unique(split.train.concept))}", end="; ")
    print(f"held out: {len(split.new_style)} of the new style, {len(split.new_concepts)} of new concepts")
    print(f"{folder.name}: {size / 1e6:.2f} MB, logit scale {model.logit_scale.exp().item():.1f}")
    photo = measure(split, model, preprocess, tokenizer, TEMPLATES["photo"])
    many = measure(split, model, preprocess, tokenizer, TEMPLATES["imagenet"])
    chance = measure(split, untrained, preprocess, tokenizer, TEMPLATES["photo"])
    pixels = thumbnails(split.new_concepts)
    plain = few_shot_figures(split, pixels / np.linalg.norm(pixels, axis=1, keepdims=True))
    print("accuracy, % | 'a photo of a {}.' | 80 templates | same network untrained | 16 x 16 pixels")
    for name in photo:
        row = [figures.get(name) for figures in (photo, many, chance, plain)]
        print(" | ".join([name, *("-" if value is None else f"{100 * value:.1f}" for value in row)]))


def main() -> None:
    """Evaluate the bundled encoder, or another folder's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tiny_clip")
    parser.add_argument("--folder", type=Path, default=TINY)
    arguments = parser.parse_args()
    report(load_split(arguments.work), arguments.folder)


if __name__ == "__main__":
    main()
