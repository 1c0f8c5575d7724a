"""Accuracy and time of the default estimator on embeddings.

    python benchmarks/main_job.py FEATURES [--seeds 5] [--words FILE]

FEATURES is a folder of .npz files with ``image_features`` (N, D), ``labels`` (N,) and ``text_features`` (C, D); the
environment variable SKXMA_FEATURES stands in for it. For each file the support set is drawn per class and the rest is
the test. The texts of FILE, by default the file with the most classes, are the vocabulary of files of the same encoder,
which is what the last two parts of their names say. The speed figures are on made-up embeddings.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from skxma import XMAdapterClassifier

SHOTS = (1, 2, 4, 8, 16)
MANY_CLASSES = 500


def load(path):
    """Unit image features, labels, unit text features."""
    with np.load(path, allow_pickle=True) as data:
        image, labels, text = (data[name] for name in ("image_features", "labels", "text_features"))
    unit = [a.astype("f4") / np.linalg.norm(a.astype("f4"), axis=1, keepdims=True) for a in (image, text)]
    return unit[0], labels.astype(int), unit[1]


def trial(X, y, text, words, shots, seed):
    """Accuracy, zero-shot accuracy, calibration error (%) and seconds of the fit."""
    rng = np.random.default_rng(seed)
    train = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:shots] for c in np.unique(y)])
    test = np.setdiff1d(np.arange(len(y)), train)
    start = time.perf_counter()
    clf = XMAdapterClassifier("precomputed", text_features=text, vocabulary=words, random_state=seed)
    clf.fit(X[train], y[train])
    seconds = time.perf_counter() - start
    proba = clf.predict_proba(X[test])
    correct = clf.classes_[proba.argmax(1)] == y[test]
    zero_shot = clf.zero_shot(X[test]).argmax(1) == y[test]
    return 100 * correct.mean(), 100 * zero_shot.mean(), 100 * calibration_error(proba.max(1), correct), seconds


def calibration_error(confidence, correct, bins=15):
    """Expected calibration error over equal bins of confidence."""
    cell = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[cell == b].sum() - correct[cell == b].sum()) for b in range(bins)]
    return sum(gaps) / len(correct)


def accuracy(folder, seeds, words_file):
    """Print a line for each file and number of shots, and the mean over the files of few classes."""
    print(f"{'file':32s} shots  accuracy  zero-shot  calibration error  fit")
    files = {path: load(path) for path in sorted(folder.glob("*.npz"))}
    words_file = words_file or max(files, key=lambda path: len(files[path][2]))
    means = {shots: [] for shots in SHOTS}
    for path, (X, y, text) in files.items():
        words = load(words_file)[2] if encoder_of(path) == encoder_of(words_file) else None
        many, most = len(text) >= MANY_CLASSES, np.bincount(y).min()
        for shots in (s for s in SHOTS if s < most):
            trials = [trial(X, y, text, words, shots, seed) for seed in range(1 if many else seeds)]
            reached, zero_shot, error, seconds = np.mean(trials, axis=0)
            print(
                f"{path.stem:32s} {shots:5d}  {reached:7.1f}%  {zero_shot:8.1f}%  {error:16.1f}%  {seconds:.2f} s",
                flush=True,
            )
            if not many:
                means[shots].append(reached)
    for shots in (s for s in SHOTS if means[s]):
        print(f"{f'mean of {len(means[shots])} files of few classes':32s} {shots:5d}  {np.mean(means[shots]):7.1f}%")


def encoder_of(path):
    """The last two parts of a feature file's name."""
    return path.stem.split("_")[-2:]


def speed():
    """Time a 4-shot fit of 100 classes and 10 000 predictions."""
    rng = np.random.default_rng(0)
    classes = rng.standard_normal((100, 512))
    y = np.arange(100).repeat(4)
    X, queries = (classes[labels] + rng.standard_normal((len(labels), 512)) for labels in (y, np.arange(10_000) % 100))
    text = classes + rng.standard_normal((100, 512))
    clf = XMAdapterClassifier("precomputed", text_features=text)
    start = time.perf_counter()
    clf.fit(X, y)
    fitted = time.perf_counter()
    clf.predict(queries)
    done = time.perf_counter()
    print(f"\n100 classes x 4 shots x 512: fit {fitted - start:.2f} s, 10 000 predictions {done - fitted:.2f} s")


def main():
    """Read the command line and print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="?", default=os.environ.get("SKXMA_FEATURES"), type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--words", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.features is None or not Path(arguments.features).is_dir():
        print("no folder of feature files was given: accuracy is left out", file=sys.stderr)
    else:
        accuracy(Path(arguments.features), arguments.seeds, arguments.words)
    speed()


if __name__ == "__main__":
    main()
