"""Batches that hold few of the classes: what methods that learn from the batch gain and lose there.

    python benchmarks/few_classes.py FOLDER [--shots 1 4] [--tasks 20] [--batch 64]

The protocol of StatA (arXiv:2501.03729): the batch to be classified is drawn from K of the classes, K at random in a
range, and is what the methods see without labels. FOLDER (or the environment variable SKXMA_FEATURES) holds feature
files as `load_features` describes them. The support set has the same number of images of every class; the default with
the batch as its pool is left out of files of more than 200 classes, for its time. Printed are mean accuracies in per
cent and, in brackets, the mean difference from zero-shot on the same batches, with its standard error.
"""

import argparse
import os

import numpy as np
from results_page import markdown, number, signed
from rivals import MANY_CLASSES, problems

from skxma import XMAdapterClassifier
from skxma.baselines import StatAClassifier, TransCLIPClassifier, ZeroShotClassifier
from skxma.model_selection import FewShotSplit

WHOLE_TASKS = 3
RANGES = ((1, 4), (2, 10), (5, 25), None)
ONCE = {"zero-shot": {}, "default": {}, "default, class_prior": {"class_prior": "batch"}}
POOLED = {"stat-a": StatAClassifier, "trans-clip": TransCLIPClassifier, "default, pool": XMAdapterClassifier}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tasks", type=int, default=20, help="batches of each range; of all images at most 3")
    parser.add_argument("--batch", type=int, default=64, help="images of a batch, where the classes have as many")
    arguments = parser.parse_args()
    print("\n".join(markdown(["file, shots, classes in the batch", *ONCE, *POOLED], [])))
    for problem in problems(arguments.folder, words=False):
        for shots in arguments.shots:
            if shots < np.unique(problem.y, return_counts=True)[1].min():
                print_rows(problem, shots, arguments)


def print_rows(problem, shots, arguments):
    """A row of the table for each range within the problem's classes, and for all images of all classes."""
    for bounds in RANGES:
        if bounds is not None and bounds[1] > problem.n_classes:
            continue
        tasks = arguments.tasks if bounds is not None else min(arguments.tasks, WHOLE_TASKS)
        found = [run(problem, shots, bounds, arguments.batch, seed) for seed in range(tasks)]
        means = {name: np.array([task[name] for task in found]) for name in found[0]}
        cells = [said(means.get(name), means["zero-shot"]) for name in (*ONCE, *POOLED)]
        classes = "all" if bounds is None else f"{bounds[0]} to {bounds[1]}"
        print("| " + " | ".join([f"{problem.name}, {shots}, {classes}", *cells]) + " |", flush=True)


def said(accuracy, zero_shot):
    """Mean accuracy, and what it is above zero-shot."""
    if accuracy is None:
        return "–"
    gain = 100 * (accuracy - zero_shot)
    error = f" ± {gain.std(ddof=1) / np.sqrt(len(gain)):.1f}" if len(gain) > 1 else ""
    return f"{number(100 * accuracy.mean())} ({signed(gain.mean())}{error})"


def run(problem, shots, bounds, size, seed):
    """Accuracies of all methods on one batch."""
    draw = next(FewShotSplit(shots, 1, random_state=seed).draw(problem.y, problem.y, problem.groups))
    batch = batch_of(problem.y, draw.test, bounds, size, np.random.default_rng(seed))
    X, y, train = problem.features(batch), problem.y[batch], problem.features(draw.train)
    y_train = problem.y[draw.train]
    plain = problem.settle(ZeroShotClassifier(), seed).fit(train, y_train)
    ours = problem.settle(XMAdapterClassifier(), seed).fit(train, y_train)
    found = {name: (plain if name == "zero-shot" else ours).predict(X, **how) for name, how in ONCE.items()}
    everything = np.concatenate([train, X]), np.concatenate([y_train.astype(object), np.full(len(X), None)])
    for name, kind in POOLED.items():
        if kind is not XMAdapterClassifier or problem.n_classes <= MANY_CLASSES:
            estimator = problem.settle(kind(unlabeled_label=float("nan")), seed)
            found[name] = estimator.fit(*everything).predict(X)
    return {name: (answers == y).mean() for name, answers in found.items()}


def batch_of(y, test, bounds, size, rng):
    """Test positions of some classes, at most `size`; of all classes without bounds."""
    labels = np.unique(y[test])
    if bounds is not None:
        labels = rng.choice(labels, rng.integers(bounds[0], bounds[1] + 1), replace=False)
    held = rng.permutation(test[np.isin(y[test], labels)])
    return held[:size] if bounds is not None else held


if __name__ == "__main__":
    main()
