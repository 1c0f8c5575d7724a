"""Copies in the support set: log loss, accuracy and left-out score with and without groups.

    python benchmarks/groups.py FILE [--encoder tiny] [--shots 2 4] [--seeds 5]

FILE is a feature file that holds the `images`, see `skxma.datasets.load_features`; every support image is given again,
mirrored.
"""

import argparse
import warnings

import numpy as np

from skxma import XMAdapterClassifier
from skxma.model_selection import FewShotSplit

GROUPS = {
    "no copies": None,
    "copies alone": lambda n: np.arange(2 * n),
    "near-duplicates found": lambda n: None,
    "groups": lambda n: np.tile(np.arange(n), 2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    with np.load(arguments.file, allow_pickle=False) as data:
        images, y, names = data["images"], data["labels"].astype(int), [str(name) for name in data["class_names"]]
    some = XMAdapterClassifier(arguments.encoder, class_names=names).fit(list(images[:100]), y[:100])
    features, mirrored = some.encode(list(images)), some.encode(list(images[:, :, ::-1]))
    for shots in arguments.shots:
        split = FewShotSplit(shots, arguments.seeds, random_state=0)
        for name, make in GROUPS.items():
            found = [
                measure(features, mirrored, y, some.text_features_, train, test, make)
                for train, test in split.split(y, y)
            ]
            accuracy, loss, left_out = np.nanmean(found, axis=0)
            print(
                f"{shots} shots, {name:22} accuracy {accuracy:.3f}  log loss {loss:.3f}  left-out score {left_out:.3f}"
            )


def measure(features, mirrored, y, text, train, test, make):
    """Accuracy, log loss and left-out score of one draw."""
    X, labels, groups = features[train], y[train], None
    if make is not None:
        X, labels, groups = np.concatenate([X, mirrored[train]]), np.tile(labels, 2), make(len(train))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = XMAdapterClassifier("precomputed", text_features=text).fit(X, labels, groups=groups)
    proba = clf.predict_proba(features[test])
    right = proba[np.arange(len(test)), y[test]]
    return (proba.argmax(1) == y[test]).mean(), -np.log(right + 1e-12).mean(), clf.left_out_score_


if __name__ == "__main__":
    main()
