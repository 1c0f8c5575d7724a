"""Two encoders at once against each alone, on the images of a feature file.

    python benchmarks/encoders.py FEATURES.npz [--draws 10] [--shots 1 2 4 8 16] [--others photo tiny]

FEATURES.npz holds `images` (n, height, width, 3) of uint8, `labels` (n,), and embeddings of the images and of the names
of the classes, `image_features` (n, d) and `text_features` (n_classes, d), by the first encoder, of images and texts.
The others encode the images here, and of them images alone are used. Prints the accuracy of `XMAdapterClassifier`, with
the text and without, on all images that are not in the support set, as the mean over draws that all columns share: of
the first encoder alone, of the other alone, of both, and of the first beside the other's embeddings as they would be
with no knowledge of the images: replaced by noise, and in a random order. Then the largest losses against the better
encoder alone.
"""

import argparse

import numpy as np

from skxma import CLIPEncoder, XMAdapterClassifier


def draw(labels, n_shots, rng):
    """Draw a support set, `n_shots` of each class."""
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n_shots] for c in np.unique(labels)])


def accuracies(X, labels, text, n_shots, n_draws):
    """Accuracies in % of embeddings X, one array per encoder, on the images outside each support set."""
    scores = []
    for seed in range(n_draws):
        support = draw(labels, n_shots, np.random.default_rng(seed))
        rest = np.setdiff1d(np.arange(len(labels)), support)
        clf = XMAdapterClassifier("precomputed", text_features=text)
        clf.fit([part[support] for part in X], labels[support], groups=np.arange(len(support)))
        scores.append(100 * clf.score([part[rest] for part in X], labels[rest]))
    return np.mean(scores)


def compare(first, other, labels, text, shots, n_draws):
    """Print a row per number of shots; return the losses of both and of noise, against the better encoder alone."""
    rng = np.random.default_rng(0)
    useless = {"noise": rng.standard_normal(other.shape), "shuffled": rng.permutation(other)}
    print(f"{'shots':>9}", *(f"{name:>9}" for name in ("first", "other", "both", "gain", *useless)))
    losses = {"both": [], **{name: [] for name in useless}}
    for n_shots in shots:
        alone = accuracies([first], labels, text, n_shots, n_draws)
        # the texts are of the first encoder
        of_other = accuracies([other], labels, None, n_shots, n_draws)
        both = accuracies([first, other], labels, text, n_shots, n_draws)
        row = [alone, of_other, both, both - max(alone, of_other)]
        losses["both"].append(-row[-1])
        for name, part in useless.items():
            row.append(accuracies([first, part], labels, text, n_shots, n_draws))
            losses[name].append(alone - row[-1])
        print(f"{n_shots:9}", *(f"{value:9.1f}" for value in row), flush=True)
    return losses


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("features")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--others", nargs="+", default=["photo", "tiny"])
    arguments = parser.parse_args()
    with np.load(arguments.features) as file:
        names = ("images", "labels", "image_features", "text_features")
        images, labels, first, text = (file[name] for name in names)
    first, text = (part.astype(np.float32) for part in (first, text))
    print(f"{len(labels)} images, {len(text)} classes; accuracy in %, {arguments.draws} draws")
    for name in arguments.others:
        other = np.asarray(CLIPEncoder(name).encode_image(list(images)))
        for used in (text, None):
            print(f"\nthe other is {name!r}, {'with' if used is not None else 'without'} text")
            losses = compare(first, other, labels, used, arguments.shots, arguments.draws)
            print("largest loss:", ", ".join(f"{which} {max(values):.2f}" for which, values in losses.items()))


if __name__ == "__main__":
    main()
