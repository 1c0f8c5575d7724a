"""Which images to label: accuracy of the default estimator on the labels that each strategy asks for.

    python benchmarks/active.py FOLDER [--seeds 5] [--strategies auto random ...] [--pool]
    python benchmarks/active.py --large [100000 1000000]

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; the bundled
emoji come first. Of files with more than 200 classes 100 are drawn for each seed. Two fifths of the images of each
class are the test and the others the pool, from which C labels are asked for, then C more, 2C more and 4C more, with
a fit in between; budgets of more than two thirds of the pool are left out. "balanced" draws the same number of images
of each class, for which it needs the labels. Before there are labels, "margin" and "clue" see zero-shot. With --pool,
fits learn from the rest of the pool as images without labels.

Each cell holds the accuracy, the share of the classes that have an image, and the calibration error, in per cent; in
brackets the accuracy above random labels on the same seeds, with its standard error.

With --large, time and memory of 200 suggestions from pools of so many made-up embeddings of 512 dimensions and 100
classes, before there are labels and with a model of 200; on two threads with OMP_NUM_THREADS=2. Those of more than
100 000 lie in a file, whose pages count as memory while it is read.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from results_page import markdown, number, signed
from rivals import MANY_CLASSES, n_classes, problems

from skxma import XMAdapterClassifier
from skxma._statistics import calibration_error
from skxma.active import suggest
from skxma.active._suggest import NEED_MODEL, STRATEGIES
from skxma.baselines import ZeroShotClassifier
from skxma.benchmark._cell import PeakMemory
from skxma.benchmark._problem import MOST_OF_POOL, TEST_SHARE, load_problem

BUDGETS = (1, 2, 4, 8)
FEW_CLASSES = 100
BALANCED = "balanced"
LARGE, IN_MEMORY = (100_000, 1_000_000), 100_000
N_SUGGESTED, N_FEATURES, N_LARGE_CLASSES = 200, 512, 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", default=[*STRATEGIES, BALANCED], choices=[*STRATEGIES, BALANCED])
    parser.add_argument("--pool", action="store_true", help="learn from the rest of the pool too")
    parser.add_argument("--large", type=int, nargs="*", metavar="N", help="time and memory of large pools instead")
    arguments = parser.parse_args()
    if arguments.large is not None:
        for n in arguments.large or LARGE:
            run_large(n)
        return
    print("\n".join(markdown(["data set, strategy", *(f"{budget}C labels" for budget in BUDGETS)], [])))
    totals = {}
    for problem in [load_problem("emoji"), *problems(arguments.folder, words=True)]:
        found = {name: [] for name in dict.fromkeys(["random", *arguments.strategies])}
        for seed in range(arguments.seeds):
            task = Task(problem, seed, arguments.pool)
            for name, rounds in found.items():
                rounds.append(task.run(name))
        for name, rounds in found.items():
            print_row(f"{problem.name}, {name}", np.array(rounds), np.array(found["random"]))
            totals.setdefault(name, []).append(np.array(rounds)[..., 0].mean(0))
    for name, means in totals.items():
        mean = [number(100 * np.mean([m[i] for m in means if len(m) > i])) for i in range(max(map(len, means)))]
        print("| " + " | ".join([f"mean, {name}", *mean]) + " |", flush=True)


def print_row(name, found, random):
    """A row of the table from (seeds, budgets, 3) values."""
    cells = []
    for i in range(found.shape[1]):
        accuracy, seen, error = 100 * found[:, i].mean(0)
        gain = 100 * (found[:, i, 0] - random[:, i, 0])
        spread = f" ± {gain.std(ddof=1) / np.sqrt(len(gain)):.1f}" if len(gain) > 1 else ""
        cells.append(f"{number(accuracy)}, {seen:.0f}, {number(error)} ({signed(gain.mean())}{spread})")
    print("| " + " | ".join([name, *cells, *["–"] * (len(BUDGETS) - len(cells))]) + " |", flush=True)


def run_large(n):
    """Time and memory of suggestions from a pool of `n` embeddings."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(N_LARGE_CLASSES, N_FEATURES)).astype(np.float32)
    text = centers + rng.normal(size=centers.shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.npy"
        pool = np.lib.format.open_memmap(path, "w+", np.float32, (n, N_FEATURES))
        for block in range(0, n, IN_MEMORY):
            rows = pool[block : block + IN_MEMORY]
            rows[:] = centers[rng.integers(N_LARGE_CLASSES, size=len(rows))]
            rows += rng.normal(size=rows.shape).astype(np.float32)
        del pool, rows
        pool = np.load(path, mmap_mode=None if n <= IN_MEMORY else "r")
        clf = XMAdapterClassifier("precomputed", text_features=text)
        rows = measure_large(f"{n} embeddings, no label", clf, pool)
        chosen = np.array(pool[rows])
        clf.fit(chosen, (chosen @ text.T).argmax(1))
        measure_large(f"{n} embeddings, a model", clf, pool)


def measure_large(name, clf, pool):
    """Suggest, and print what it took."""
    with PeakMemory() as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        rows = suggest(clf, pool, N_SUGGESTED, random_state=0)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name}: {wall:.1f} s, {cpu:.1f} s of processors, {memory.peak_mb:.0f} MiB", flush=True)
    return rows


class Task:
    """A pool and a test of one seed.

    Parameters
    ----------
    problem : Problem
    seed : int
    learn_from_rest : bool
    """

    def __init__(self, problem, seed, learn_from_rest):
        rng = np.random.default_rng(seed)
        if n_classes(problem) > MANY_CLASSES:
            problem = some_classes(problem, rng)
        if problem.class_names is None and problem.text_features is None:
            problem = replace(problem, class_names=np.unique(problem.y).tolist())
        order = rng.permutation(len(problem.y))
        test = np.zeros(len(order), dtype=bool)
        for label in np.unique(problem.y):
            rows = order[problem.y[order] == label]
            test[rows[: int(TEST_SHARE * len(rows))]] = True
        pool, test = order[~test[order]], np.flatnonzero(test)
        self.X, self.y = problem.features(pool), problem.y[pool]
        self.X_test, self.y_test = problem.features(test), problem.y[test]
        self.classes, self.problem, self.seed = np.unique(problem.y), problem, seed
        self.learn_from_rest = learn_from_rest

    def run(self, strategy):
        """Accuracy, share of classes seen and calibration error at each budget (budgets, 3)."""
        labeled, found = np.empty(0, dtype=int), []
        clf = self.problem.settle(XMAdapterClassifier(), self.seed)
        for budget in BUDGETS:
            wanted = budget * len(self.classes)
            if wanted > MOST_OF_POOL * len(self.y):
                break
            labeled = np.append(labeled, self.choose(clf, labeled, wanted, strategy))
            clf = self.fit(labeled)
            found.append(self.measure(clf, labeled))
        return found

    def choose(self, clf, labeled, wanted, strategy):
        """Positions of the labels to add."""
        rest = np.setdiff1d(np.arange(len(self.y)), labeled)
        n = wanted - len(labeled)
        if strategy == BALANCED:
            return self.balanced(rest, labeled, n)
        if strategy in NEED_MODEL and not len(labeled):
            clf = self.problem.settle(ZeroShotClassifier(), self.seed).fit(self.X_test[:2], self.y_test[:2])
        return rest[suggest(clf, self.X[rest], n, strategy=strategy, random_state=self.seed)]

    def balanced(self, rest, labeled, n):
        """From the class with the fewest labels, again and again, a random image."""
        rest = np.random.default_rng(self.seed).permutation(rest)
        place = np.zeros(len(rest), dtype=int)
        for label in self.classes:
            of_class = self.y[rest] == label
            place[of_class] = (self.y[labeled] == label).sum() + np.arange(of_class.sum())
        return rest[np.argsort(place, kind="stable")[:n]]

    def fit(self, labeled):
        """The default estimator on some labels."""
        clf = self.problem.settle(XMAdapterClassifier(), self.seed)
        if not self.learn_from_rest:
            return clf.fit(self.X[labeled], self.y[labeled])
        y = np.full(len(self.y), None, dtype=object)
        y[labeled] = self.y[labeled]
        return clf.set_params(unlabeled_label=np.nan).fit(self.X, y)

    def measure(self, clf, labeled):
        """Accuracy, share of classes seen, calibration error."""
        p = clf.predict_proba(self.X_test)
        target = np.searchsorted(clf.classes_, self.y_test)
        error = calibration_error(p.max(1), p.argmax(1) == target)
        return (p.argmax(1) == target).mean(), len(np.unique(self.y[labeled])) / len(self.classes), error


def some_classes(problem, rng):
    """A problem with some of the classes of another, whose labels are integers from 0 on."""
    chosen = np.sort(rng.choice(n_classes(problem), FEW_CLASSES, replace=False))
    rows = np.flatnonzero(np.isin(problem.y, chosen))
    return replace(
        problem,
        X=problem.X[rows],
        y=np.searchsorted(chosen, problem.y[rows]),
        class_names=None,
        text_features=np.asarray(problem.text_features)[chosen],
    )


if __name__ == "__main__":
    main()
