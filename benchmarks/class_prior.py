"""Class priors: what `predict_proba(X, class_prior=...)` gains on unbalanced batches, and costs on balanced ones.

    python benchmarks/class_prior.py FOLDER [--seeds 10] [--shots 1 2 4 16] [--ratio 0.6]

FOLDER (or the environment variable SKXMA_FEATURES) holds the feature files that docs/results.md names; those of more
than 200 classes are left out. Beside them stand the digits of scikit-learn and the CIFAR images through "tiny", which
confuses them. The support set has as many images of each class. A balanced batch is all that it leaves,
cut to as many of each class; in a skewed one class frequencies are proportional to ratio^rank, the classes ranked at
random. Printed are accuracy and log loss without a prior, and the differences, paired over the seeds, that these make:
the true frequencies, the estimate of the batch without the test, and "batch", which is the estimate with it.
"""

import argparse
import os

import numpy as np
import torch
from priors import kinds
from results_page import markdown, number, signed
from rivals import MANY_CLASSES, problems

from skxma import XMAdapterClassifier
from skxma._statistics import ClassPriorEstimator
from skxma.benchmark._problem import Problem
from skxma.model_selection import FewShotSplit

RULES = ("true frequencies", "estimate, untested", '"batch"')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--ratio", type=float, default=0.6, help="of the frequencies of one class and the next")
    arguments = parser.parse_args()
    small = [problem for problem in problems(arguments.folder, words=False) if problem.n_classes <= MANY_CLASSES]
    made, rng = kinds(arguments.folder), np.random.default_rng(0)
    for name in ("digits, tiny", "photos, tiny"):
        data = made[name](rng)
        small.append(Problem(name, data.X, data.y, text_features=data.text))
    for name, ratio in (("balanced", 1.0), ("skewed", arguments.ratio)):
        rows = [row(problem, k, arguments.seeds, ratio) for problem in small for k in arguments.shots]
        print("\n".join(["", *markdown([f"{name} batch", "no prior", *RULES, "found unbalanced"], rows)]))


def row(problem, n_shots, seeds, ratio):
    """Accuracy and log loss without a prior, what the rules change, and in how many batches "batch" is an estimate."""
    found = np.array([measure(problem, n_shots, seed, ratio) for seed in range(seeds)])
    accuracy, loss = 100 * found[:, :, 0], found[:, :, 1]
    cells = [f"{number(accuracy[:, 0].mean())} ({number(loss[:, 0].mean(), 3)})"]
    for i in range(1, len(RULES) + 1):
        gain, other = accuracy[:, i] - accuracy[:, 0], loss[:, i] - loss[:, 0]
        error = gain.std(ddof=1) / np.sqrt(seeds)
        cells.append(f"{signed(gain.mean())} ± {number(error)} ({signed(other.mean(), 3)})")
    used = int((np.abs(loss[:, -1] - loss[:, 0]) > 0).sum())
    return [f"{problem.name}, {n_shots}", *cells, f"{used} of {seeds}"]


def measure(problem, n_shots, seed, ratio):
    """Accuracy and log loss (4, 2) of one batch: without a prior, then by the rules."""
    split = FewShotSplit(n_shots, 1, random_state=seed)
    draw = next(split.draw(problem.y, problem.y, problem.groups))
    clf = problem.settle(XMAdapterClassifier(), seed).fit(problem.features(draw.train), problem.y[draw.train])
    batch = skewed(problem.y, draw.test, ratio, np.random.default_rng(seed))
    X, own = problem.features(batch), np.searchsorted(clf.classes_, problem.y[batch])
    plain = clf.predict_proba(X)
    equal = torch.full((len(clf.classes_),), 1 / len(clf.classes_), dtype=torch.float64)
    untested = ClassPriorEstimator(level=1.0).estimate(torch.as_tensor(plain).log(), equal).numpy()
    true = np.bincount(own, minlength=len(equal)) / len(own)
    answers = [plain, *(clf.predict_proba(X, class_prior=prior) for prior in (true, untested, "batch"))]
    rows = np.arange(len(own))
    return [((p.argmax(1) == own).mean(), -np.log(p[rows, own]).mean()) for p in answers]


def skewed(y, test, ratio, rng):
    """Test positions of which each class has ratio^rank times as many as the first, in a random order of classes."""
    labels = rng.permutation(np.unique(y))
    held = [rng.permutation(test[y[test] == label]) for label in labels]
    most = min(map(len, held))
    return np.concatenate([rows[: max(1, round(most * ratio**rank))] for rank, rows in enumerate(held)])


if __name__ == "__main__":
    main()
