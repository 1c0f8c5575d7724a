"""Images that are refused as unlike all classes: the share of known classes' against `false_rejection_rate`.

    python benchmarks/rejection.py FOLDER [--seeds 10] [--shots 1 2 4 8 16] [--rates 0.1 0.3]

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; those of more
than 200 classes are left out. For each seed half of the classes, drawn at random, are known. Support sets have as many
images of each known class; what they leave is the test. Each cell is the share in % of refused test images of known
classes ± its standard error over the seeds / of the other classes.
"""

import argparse
import os
from dataclasses import replace

import numpy as np
from results_page import markdown, number
from rivals import MANY_CLASSES, problems

from skxma import XMAdapterClassifier
from skxma.benchmark._problem import load_problem
from skxma.model_selection import FewShotSplit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.3])
    arguments = parser.parse_args()
    small = [one for one in problems(arguments.folder, words=False) if one.n_classes <= MANY_CLASSES]
    print("\n".join(markdown(["data set, shots", *(f"rate {rate:.0%}" for rate in arguments.rates)], [])))
    means = []
    for problem in [load_problem("emoji"), *small]:
        most = np.unique(problem.y, return_counts=True)[1].min() - 1
        for n_shots in (count for count in arguments.shots if count <= most):
            found = np.array([measure(problem, n_shots, seed, arguments.rates) for seed in range(arguments.seeds)])
            print_row(f"{problem.name}, {n_shots}", 100 * found)
            means.append(100 * found.mean(0))
    print("| " + " | ".join(["mean", *(f"{number(a)} / {number(b)}" for a, b in np.mean(means, 0))]) + " |")


def print_row(name, found):
    """A row of the table from (seeds, rates, 2) values."""
    cells = []
    for known, other in zip(found[..., 0].T, found[..., 1].T, strict=True):
        error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else np.nan
        cells.append(f"{number(known.mean())} ± {number(error)} / {number(other.mean())}")
    print("| " + " | ".join([name, *cells]) + " |", flush=True)


def measure(problem, n_shots, seed, rates):
    """Shares of refused images of known classes and of the others at each rate (rates, 2)."""
    problem, unknown, test = of_known_classes(problem, n_shots, seed)
    rows = next(FewShotSplit(n_shots, 1, random_state=seed).draw(problem.y, problem.y, problem.groups))
    known = problem.features(rows.test)
    found = []
    for rate in rates:
        clf = problem.settle(XMAdapterClassifier(false_rejection_rate=rate), seed)
        clf.fit(problem.features(rows.train), problem.y[rows.train])
        found.append([(clf.open_set_score(X) > clf.reject_threshold_).mean() for X in (known, unknown.features(test))])
    return found


def of_known_classes(problem, n_shots, seed):
    """The part of a problem that holds half of its classes, the problem, and the rows of its other classes."""
    labels = np.unique(problem.y)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 2])
    is_known = np.isin(problem.y, labels[chosen])
    rows = np.flatnonzero(is_known)
    part = replace(
        problem,
        X=[problem.X[row] for row in rows] if isinstance(problem.X, list) else problem.X[rows],
        y=problem.y[rows],
        groups=None if problem.groups is None else problem.groups[rows],
        class_names=kept(problem.class_names, labels[chosen]),
        text_features=kept(problem.text_features, labels[chosen]),
    )
    return part, problem, np.flatnonzero(~is_known)


def kept(table, labels):
    """Names or rows of text of some labels, by label."""
    return None if table is None else {label: table[label] for label in labels.tolist()}


if __name__ == "__main__":
    main()
