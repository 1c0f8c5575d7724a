"""Images without labels: the gain from half of the test images, unlabeled, also with images of other things among them.

    python benchmarks/unlabeled.py FOLDER [--seeds 5] [--shots 1 2 4] [--cells unlabeled.csv]
    python benchmarks/unlabeled.py --large

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; the
bundled emoji are always in, files of more than 200 classes are not. All are tested on the other half. Finished cells
are kept and not run again. With --large a made-up pool of 100 000 embeddings and 100 classes is fitted and saved
instead.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
from cells import Cells
from results_page import at, markdown, number, signed, with_error
from rivals import MANY_CLASSES, encoder_of, problems

from skxma import XMAdapterClassifier
from skxma.baselines import (
    LabelSpreadingProbe,
    SelfTrainingProbe,
    SSTextUClassifier,
    StatAClassifier,
    TransCLIPClassifier,
)
from skxma.benchmark._cell import MEBI, PeakMemory
from skxma.benchmark._names import EMOJI, POOL
from skxma.benchmark._problem import Problem, load_problem
from skxma.benchmark._results_file import failures
from skxma.benchmark._runner import run_benchmark

SHOTS = (1, 2, 4)
WITH, WITHOUT = "xmadapter", "xmadapter, labels only"
HALF_OTHERS = "half of the classes unknown"
SEPARATOR = ": "


class LabeledOnly(XMAdapterClassifier):
    """The default without the images that have no label."""

    def _evidence(self, task):
        return replace(super()._evidence(task), learns_from_pool=False)


def methods():
    """The default, without the pool and with it, and the rivals that take one."""
    return {
        WITHOUT: LabeledOnly(),
        WITH: XMAdapterClassifier(),
        "trans-clip": TransCLIPClassifier(),
        "stat-a": StatAClassifier(),
        "ss-text-u": SSTextUClassifier(),
        "self-training": SelfTrainingProbe(),
        "label-spreading": LabelSpreadingProbe(),
    }


@dataclass(frozen=True)
class WithOthers(Problem):
    """A problem whose X goes on, past its y, with images of other things: they make up half of the pool."""

    def split_pool(self, test, seed):
        """The pool of the problem, and as many of the others."""
        pool, rest = super().split_pool(test, seed)
        others = np.random.default_rng(seed).permutation(np.arange(len(self.y), len(self.X)))
        return np.concatenate([pool, others[: len(pool)]]), rest


def with_others(problem, name, known, others):
    """A problem of the `known` samples (bool mask) with `others`, a list or array of images as X has."""
    kept = np.flatnonzero(known)
    X = problem.X[kept] if isinstance(problem.X, np.ndarray) else [problem.X[i] for i in kept]
    joined = np.concatenate([X, others]) if isinstance(X, np.ndarray) else [*X, *others]
    held = {field: getattr(problem, field) for field in problem.__dataclass_fields__}
    return WithOthers(**held | {"name": problem.name + SEPARATOR + name, "X": joined, "y": problem.y[kept]})


def half_of_classes(problem):
    """Every second class is unknown; of labels that index names or texts, the rest is numbered anew."""
    names = np.unique(problem.y)
    known = np.isin(problem.y, names[::2])
    others = [problem.X[i] for i in np.flatnonzero(~known)]
    found = with_others(problem, HALF_OTHERS, known, np.array(others) if isinstance(problem.X, np.ndarray) else others)
    if problem.text_features is None:
        return found
    text = np.asarray(problem.text_features)[::2]
    class_names = None if problem.class_names is None else list(problem.class_names)[::2]
    return replace(found, y=found.y // 2, text_features=text, class_names=class_names)


def conditions(problem, found):
    """The problem, with unknown classes in its pool, and with the images of other files of its encoder."""
    yield problem
    yield half_of_classes(problem)
    for other in found:
        same = problem.name != EMOJI and other.name != problem.name and encoder_of(other) == encoder_of(problem)
        if same and problem.n_classes <= MANY_CLASSES:
            everything = np.ones(len(problem.y), dtype=bool)
            yield with_others(problem, f"{other.name} among them", everything, other.X)


def run_unlabeled(problem, found, shots, seeds, out):
    """All methods on one data set; cells that are in the results file are not run again.

    Parameters
    ----------
    problem : Problem
    found : list of Problem
        Feature files, to take other things from.
    shots : sequence of int
    seeds : int
    out : path-like
    """
    for condition in conditions(problem, found):
        least = np.unique(condition.y, return_counts=True)[1].min()
        few = [count for count in shots if count in SHOTS and count < least]
        run_benchmark([condition], methods(), shots=few, seeds=seeds, protocol=POOL, out=out, verbose=1)


def unlabeled(cells):
    """The lines of the results page."""
    if not cells.methods:
        return ["## Images without labels", "", "Not run.", ""]
    plain = [name for name in cells.datasets if SEPARATOR not in name]
    mixed = [name for name in cells.datasets if SEPARATOR in name]
    lines = [
        "## Images without labels",
        "",
        "Half of the images that the shots leave are given without labels, and all methods are tested on the other "
        "half. In brackets: the difference from the default that sees the labeled images alone.",
        "",
    ]
    for title, names in (("", plain), ("Half of the pool is images of other things", mixed)):
        if not names:
            continue
        some = cells.only(names)
        lines += [f"### {title}", ""] if title else []
        for column in ("accuracy", "ece"):
            lines += [*table(some, names, column), ""]
        lines += [*by_cell(some), ""]
    return lines


def table(cells, names, column):
    """Mean over the data sets that have each number of shots."""
    rows = []
    for method in cells.methods:
        row = []
        for shots in cells.shots:
            text = with_error(*cells.average(method, shots, column))
            gap, _ = cells.difference(method, WITHOUT, shots, column)
            row.append(text if method == WITHOUT else f"{text} ({signed(gap)})")
        rows.append([method, *row])
    title = {"accuracy": "accuracy %", "ece": "calibration error %"}[column]
    return markdown([f"{title}, {len(names)} sets", *map(at, cells.shots)], rows)


def by_cell(cells):
    """The change that the pool makes in each cell."""
    rows = []
    for name in cells.datasets:
        row = []
        for shots in cells.shots:
            if not cells.has(WITH, name, shots):
                row.append("–")
                continue
            gap, error = cells.difference(WITH, WITHOUT, shots, sets=[name])
            errors = [cells.average(method, shots, "ece", [name])[0] for method in (WITHOUT, WITH)]
            spread = "" if np.isnan(error) else f" ± {error:.1f}"
            row.append(f"{signed(gap)}{spread} ({' → '.join(map(number, errors))})")
        rows.append([name, *row])
    return markdown(["points gained (calibration error)", *map(at, cells.shots)], rows)


def large(n_pool=100_000, n_classes=100, width=512):
    """Print the time and memory of a fit with a large pool."""
    rng = np.random.default_rng(0)
    means, labels = rng.standard_normal((n_classes, width), dtype=np.float32), np.arange(n_classes).repeat(2)
    of_pool = rng.integers(n_classes, size=n_pool)
    everything = np.concatenate([labels, of_pool])
    X = 0.6 * means[everything] + rng.standard_normal((len(everything), width), dtype=np.float32)
    text = means + 2 * rng.standard_normal(means.shape, dtype=np.float32)
    clf = XMAdapterClassifier("precomputed", text_features=text, unlabeled_label=-1)
    with PeakMemory() as memory:
        start = time.perf_counter()
        clf.fit(X, np.concatenate([labels, np.full(n_pool, -1)]))
        seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.joblib"
        joblib.dump(clf, file)
        size = file.stat().st_size / MEBI
    print(
        f"{n_pool} unlabeled embeddings of width {width}, {n_classes} classes with 2 labeled each: {seconds:.0f} s, "
        f"{memory.peak_mb:.0f} MiB above the {X.nbytes / MEBI:.0f} of the data; saved model {size:.0f} MiB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS), choices=SHOTS)
    parser.add_argument("--cells", default="unlabeled.csv")
    parser.add_argument("--large", action="store_true", help="time and memory of a large pool, and nothing else")
    arguments = parser.parse_args()
    if arguments.large:
        large()
        return
    found = problems(arguments.folder, words=True)
    for problem in [load_problem(EMOJI), *found]:
        if problem.n_classes <= MANY_CLASSES:
            run_unlabeled(problem, found, arguments.shots, arguments.seeds, arguments.cells)
    for line in failures(arguments.cells):
        print(f"failed: {line}", file=sys.stderr)
    print("\n".join(unlabeled(Cells(arguments.cells))))


if __name__ == "__main__":
    main()
