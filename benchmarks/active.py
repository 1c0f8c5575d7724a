"""Which images to label: accuracy of the default estimator on the labels that each strategy asks for.

    python benchmarks/active.py FOLDER [--seeds 5] [--strategies auto random ...] [--pool]
    python benchmarks/active.py --large [100000 1000000]

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; the bundled
emoji come first. Of files with more than 200 classes 100 are drawn for each seed. The rounds are those of `skxma
benchmark --protocol active`: C labels are asked for, then C more, 2C more and 4C more, with a fit in between; budgets
of more than two thirds of the pool are left out. "balanced" draws the same number of images of each class, for which
it needs the labels. Before there are labels, "margin" and "clue" see zero-shot. With --pool, fits learn from the rest
of the pool as images without labels.

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
from rivals import MANY_CLASSES, problems

from skxma import XMAdapterClassifier
from skxma.active import suggest
from skxma.active._names import NEED_MODEL, STRATEGIES
from skxma.baselines import ZeroShotClassifier
from skxma.benchmark._asked import Rounds
from skxma.benchmark._cell import PeakMemory
from skxma.benchmark._names import ACTIVE, REST
from skxma.benchmark._problem import load_problem

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
            for name, rounds in found.items():
                rounds.append(measure_rounds(problem, name, seed, arguments.pool))
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


class AnyRounds(Rounds):
    """Rounds of any strategy of `suggest`, or of the same number of images of each class."""

    def _choose(self, clf, rest, labeled, n):
        if self._way == BALANCED:
            return self._balanced(rest, labeled, n)
        if self._way in NEED_MODEL and not len(labeled):
            known = self._draw.test[:2]
            clf = self.problem.settle(ZeroShotClassifier(), self.seed)
            clf.fit(self.problem.features(known), self.problem.y[known])
        return super()._choose(clf, rest, labeled, n)

    def _balanced(self, rest, labeled, n):
        """From the class with the fewest labels, again and again, a random image."""
        rest = np.random.default_rng(self.seed).permutation(rest)
        place = np.zeros(len(rest), dtype=int)
        for label in np.unique(self.problem.y):
            of_class = self._y[rest] == label
            place[of_class] = (self._y[labeled] == label).sum() + np.arange(of_class.sum())
        return rest[np.argsort(place, kind="stable")[:n]]


def measure_rounds(problem, strategy, seed, learn_from_rest):
    """Accuracy, share of classes seen and calibration error at each budget (budgets, 3) of which there are enough."""
    if problem.n_classes > MANY_CLASSES:
        problem = some_classes(problem, np.random.default_rng(seed))
    if problem.class_names is None and problem.text_features is None:
        problem = replace(problem, class_names=np.unique(problem.y).tolist())
    rounds = AnyRounds(replace(problem, asked=strategy + REST * learn_from_rest), XMAdapterClassifier(), seed)
    found = []
    for budget in BUDGETS:
        try:
            problem.draw(budget, ACTIVE, seed)
        except ValueError:
            # more than two thirds of the pool
            break
        cell = rounds.measure(budget)
        found.append((cell.accuracy, cell.seen, cell.ece))
    return found


def some_classes(problem, rng):
    """A problem with some of the classes of another, whose labels are integers from 0 on."""
    chosen = np.sort(rng.choice(problem.n_classes, FEW_CLASSES, replace=False))
    rows = np.flatnonzero(np.isin(problem.y, chosen))
    return replace(
        problem,
        X=problem.X[rows],
        y=np.searchsorted(chosen, problem.y[rows]),
        groups=None if problem.groups is None else problem.groups[rows],
        fold=None if problem.fold is None else problem.fold[rows],
        class_names=None,
        text_features=np.asarray(problem.text_features)[chosen],
    )


if __name__ == "__main__":
    main()
