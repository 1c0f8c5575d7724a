"""The encoder "photo" against "tiny" on photographs, without a hub.

    python benchmarks/photo.py FEATURES.npz [--draws 3] [--shots 1 2 4 8 16]

FEATURES.npz holds `images` (n, height, width, 3) of uint8, `labels` (n,) and `class_names`. Prints the zero-shot
accuracy and that of `XMAdapterClassifier` at each number of shots, with and without the names of the classes, tested on
all images that are not in the support set, as the mean over draws that both encoders share. Then the sample images of
scikit-learn and scikit-image, where they are installed: the probability and the rank that each encoder's text
gives to the image's description among those of all.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import softmax

from skxma import CLIPEncoder, XMAdapterClassifier

ENCODERS = ("tiny", "photo")
SAMPLES = {
    "china.jpg": "Chinese temple",
    "flower.jpg": "flower",
    "astronaut": "astronaut",
    "camera": "man with a camera",
    "chelsea": "cat",
    "coffee": "cup of coffee",
    "coins": "coins",
    "rocket": "rocket",
}


def draw(labels, n_shots, rng):
    """Draw a support set, `n_shots` of each class."""
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n_shots] for c in np.unique(labels)])


def compare(images, labels, class_names, n_draws, shots):
    """Print accuracies in %, one row per number of shots and use of text."""
    X = {name: CLIPEncoder(name, precision="fp32").encode_image(list(images)) for name in ENCODERS}
    print(f"{len(images)} images, {len(class_names)} classes; accuracy in %, {n_draws} draws")
    print(f"{'shots':>9}  {'text':4}", *(f"{name:>6}" for name in ENCODERS))
    zero_shot = []
    for name in ENCODERS:
        weights = np.asarray(CLIPEncoder(name, precision="fp32").zero_shot_weights(list(class_names)))
        zero_shot.append(100 * np.mean((np.asarray(X[name]) @ weights.T).argmax(axis=1) == labels))
    print(f"{0:9}  {'yes':4}", *(f"{value:6.1f}" for value in zero_shot))
    for n_shots in shots:
        for text in (True, False):
            scores = {name: [] for name in ENCODERS}
            for seed in range(n_draws):
                support = draw(labels, n_shots, np.random.default_rng(seed))
                rest = np.setdiff1d(np.arange(len(labels)), support)
                for name in ENCODERS:
                    names = list(class_names) if text else [None] * len(class_names)
                    clf = XMAdapterClassifier(name, precision="fp32", class_names=names).fit(
                        X[name][support], labels[support]
                    )
                    scores[name].append(100 * clf.score(X[name][rest], labels[rest]))
            print(f"{n_shots:9}  {'yes' if text else 'no':4}", *(f"{np.mean(scores[name]):6.1f}" for name in ENCODERS))


def find_samples():
    """Return the sample images that are installed, by name."""
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    names = [Path(name).name for name in samples.filenames]
    found = dict(zip(names, samples.images, strict=True))
    try:
        from skimage import data
    except ImportError:
        return found
    for name in SAMPLES:
        try:
            found.setdefault(name, getattr(data, name)())
        except (AttributeError, OSError, ModuleNotFoundError):  # no such sample, or one that would be fetched
            continue
    return found


def describe(found):
    """Print how each encoder places the samples' descriptions."""
    phrases = list(SAMPLES.values())
    print(f"\n{'sample':>12}", *(f"{name + ' p (rank)':>18}" for name in ENCODERS))
    for file, image in found.items():
        if file not in SAMPLES:
            continue
        cells = []
        for name in ENCODERS:
            encoder = CLIPEncoder(name, precision="fp32")
            image_row = np.asarray(encoder.encode_image([image]))[0]
            probabilities = softmax(encoder.logit_scale * np.asarray(encoder.zero_shot_weights(phrases)) @ image_row)
            own = probabilities[phrases.index(SAMPLES[file])]
            cells.append(f"{own:.2f} ({1 + int((probabilities > own).sum())} of {len(phrases)})")
        print(f"{file:>12}", *(f"{cell:>18}" for cell in cells))


def main():
    """Read the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    args = parser.parse_args()
    with np.load(args.features, allow_pickle=False) as file:
        images, labels, class_names = file["images"], file["labels"], file["class_names"].tolist()
    compare(images, labels, class_names, args.draws, args.shots)
    describe(find_samples())


if __name__ == "__main__":
    main()
