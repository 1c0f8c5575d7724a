"""Prediction sets: how often they hold the class, and how many classes they hold, against split conformal prediction.

    python benchmarks/conformal.py FOLDER [--seeds 20] [--shots 1 2 4 8 16] [--levels 0.8 0.9 0.95]
    python benchmarks/conformal.py FOLDER --full 20 --seeds 4 --shots 1 2
    python benchmarks/conformal.py FOLDER --ratio 0.6
    python benchmarks/conformal.py FOLDER --cost

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; those of more
classes than --most-classes are left out, and the bundled emoji come first. Support sets have as many images of each
class; what they leave is the test. "split" fits on half of the images of each class and calibrates on the others; "–"
is a level that these cannot give. Each cell is coverage in % ± its standard error over the seeds / mean number of
classes in a set; without --allow-empty an empty set gets the likeliest class. With --full, so many test images of each
support set get full conformal sets too. With --ratio, the test has class frequencies proportional to ratio^rank, the
classes ranked at random, and the sets are those without `class_prior`, with the true frequencies, and with "batch".
With --cost, times and sizes of files.
"""

import argparse
import os
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from class_prior import skewed
from results_page import markdown, number
from rivals import MANY_CLASSES, problems

from skxma import XMAdapterClassifier
from skxma._statistics import Calibration, nonconformity, own_nonconformity, prediction_sets, samples_needed
from skxma.benchmark._problem import load_problem
from skxma.model_selection import FewShotSplit

PRIORS = ("no class_prior", "true frequencies", '"batch"')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--levels", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--full", type=int, default=0, metavar="N", help="test images that get full conformal sets")
    parser.add_argument("--ratio", type=float, help="of the frequencies of one class and the next")
    parser.add_argument("--most-classes", type=int, default=MANY_CLASSES, metavar="N")
    parser.add_argument("--allow-empty", action="store_true", help="count empty sets as they are")
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    few = [one for one in problems(arguments.folder, words=False) if one.n_classes <= arguments.most_classes]
    cells = [(one, n) for one in [load_problem("emoji"), *few] for n in arguments.shots if n < images_per_class(one)]
    if arguments.cost:
        rows = [cost(problem, n_shots) for problem, n_shots in cells]
        columns = ["fit, None, s", "loo ×", "cross ×", "sets / probabilities, loo", "file, loo ×", "cross ×"]
        print("\n".join(markdown(["problem, shots", *columns], rows)))
        return
    methods = ["loo", "cross", "split", *(["full"] if arguments.full else [])]
    judged = measure
    if arguments.ratio is not None:
        methods, judged = [f"{how}, {prior}" for how in ("loo", "cross") for prior in PRIORS], measure_skewed
    for problem, n_shots in cells:
        found = [judged(problem, n_shots, seed, arguments) for seed in range(arguments.seeds)]
        rows = [[f"{level:.0%}", *(cell(found, method, i) for method in methods)]
                for i, level in enumerate(arguments.levels)]  # fmt: skip
        print("\n".join(["", *markdown([f"{problem.name}, {n_shots}", *methods], rows)]), flush=True)


def images_per_class(problem):
    return int(np.unique(problem.y, return_counts=True)[1].min())


def cell(found, method, i):
    """Coverage ± standard error / size, of one level."""
    both = np.array([one[method][i] for one in found if one[method][i] is not None])
    if not len(both):
        return "–"
    coverage, size = 100 * both[:, 0], both[:, 1]
    error = coverage.std(ddof=1) / np.sqrt(len(both)) if len(both) > 1 else np.nan
    return f"{number(coverage.mean())} ± {number(error)} / {number(size.mean(), 2)}"


def draw(problem, n_shots, seed):
    return next(FewShotSplit(n_shots, 1, random_state=seed).draw(problem.y, problem.y, problem.groups))


def fit(problem, rows, seed, how):
    clf = problem.settle(XMAdapterClassifier(conformal=how), seed)
    return clf.fit(problem.features(rows), problem.y[rows])


def measure(problem, n_shots, seed, arguments):
    """Coverage and size (n_levels, 2) of each method; None where a level cannot be had."""
    drawn = draw(problem, n_shots, seed)
    test = drawn.test
    p_values = {how: fit(problem, drawn.train, seed, how).predict_p(problem.features(test)) for how in ("loo", "cross")}
    found = {how: judge(p, problem, test, len(drawn.train), arguments) for how, p in p_values.items()}
    found["split"] = [None] * len(arguments.levels)
    if n_shots > 1:
        half, others = halves(problem.y, drawn.train)
        p = split_p_values(fit(problem, half, seed, None), problem, others, test)
        found["split"] = judge(p, problem, test, len(others), arguments)
    if arguments.full:
        some = np.random.default_rng(seed).permutation(test)[: arguments.full]
        p = fit(problem, drawn.train, seed, "full").predict_p(problem.features(some))
        found["full"] = judge(p, problem, some, len(drawn.train), arguments)
    return found


def measure_skewed(problem, n_shots, seed, arguments):
    """Coverage and size (n_levels, 2) with each class prior, on a test of unequal class frequencies."""
    drawn = draw(problem, n_shots, seed)
    test = skewed(problem.y, drawn.test, arguments.ratio, np.random.default_rng(seed))
    X, found = problem.features(test), {}
    for how in ("loo", "cross"):
        clf = fit(problem, drawn.train, seed, how)
        true = np.bincount(np.searchsorted(clf.classes_, problem.y[test]), minlength=len(clf.classes_)) / len(test)
        for name, prior in zip(PRIORS, (None, true, "batch"), strict=True):
            p = clf.predict_p(X, class_prior=prior)
            found[f"{how}, {name}"] = judge(p, problem, test, len(drawn.train), arguments)
    return found


def halves(y, rows):
    """Half of the images of each class, and the others."""
    first = np.concatenate([rows[y[rows] == c][: (y[rows] == c).sum() // 2] for c in np.unique(y[rows])])
    return first, np.setdiff1d(rows, first)


def split_p_values(clf, problem, calibration_rows, test):
    """P-values of split conformal prediction."""
    own = np.searchsorted(clf.classes_, problem.y[calibration_rows])
    logits = np.log(clf.predict_proba(problem.features(calibration_rows)))
    zeros = np.zeros(len(own), dtype=np.intp)
    calibration = Calibration(own_nonconformity(logits, own), own, np.ones(len(own)), zeros)
    return calibration.p_values([nonconformity(np.log(clf.predict_proba(problem.features(test))))])


def judge(p_values, problem, rows, n, arguments):
    """Coverage and size of each level on some of the images, None where n calibration images are too few."""
    sets = prediction_sets(p_values, arguments.levels, None if arguments.allow_empty else p_values.argmax(1))
    own = np.searchsorted(np.unique(problem.y), problem.y[rows])
    hits = sets[np.arange(len(rows)), own]
    return [
        (hits[:, i].mean(), sets[:, :, i].sum(1).mean()) if n >= samples_needed(level) else None
        for i, level in enumerate(arguments.levels)
    ]


def cost(problem, n_shots):
    """Times of fits and predictions and sizes of files, as multiples of those without sets."""
    drawn = draw(problem, n_shots, 0)
    models, seconds, sizes = {}, {}, {}
    for how in (None, "loo", "cross"):
        times = []
        for _ in range(3):
            start = perf_counter()
            models[how] = fit(problem, drawn.train, 0, how)
            times.append(perf_counter() - start)
        seconds[how] = min(times)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clf.skxma"
            models[how].save(path)
            sizes[how] = path.stat().st_size
    X = problem.features(drawn.test)
    of_sets = best_of(lambda: models["loo"].predict_set(X, 0.8))
    return [
        f"{problem.name}, {n_shots}",
        number(seconds[None], 2),
        *(number(seconds[how] / seconds[None], 2) for how in ("loo", "cross")),
        number(of_sets / best_of(lambda: models["loo"].predict_proba(X)), 2),
        *(number(sizes[how] / sizes[None], 2) for how in ("loo", "cross")),
    ]


def best_of(call, times=7):
    call()
    found = []
    for _ in range(times):
        start = perf_counter()
        call()
        found.append(perf_counter() - start)
    return min(found)


if __name__ == "__main__":
    main()
