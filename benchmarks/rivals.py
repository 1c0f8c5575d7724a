"""Accuracy and calibration of all methods on feature files and on the bundled emoji.

    python benchmarks/rivals.py FOLDER [--seeds 2] [--out rivals.csv]

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; of
data sets with more than 200 classes one seed is run. Without a folder only the emoji are. Started again with the same
results file it goes on where it was.
"""

import argparse
import os
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from skxma.benchmark._names import METHODS, NEED_POOL
from skxma.benchmark._problem import load_problem
from skxma.benchmark._report import format_table, plot_curves, summarize
from skxma.benchmark._results_file import failures
from skxma.benchmark._runner import run_benchmark

MANY_CLASSES = 200
LABELED_ONLY = [name for name in METHODS if name not in NEED_POOL]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--methods", nargs="+", default=LABELED_ONLY, choices=METHODS)
    parser.add_argument("--protocol", default="none", choices=["none", "few", "full"])
    parser.add_argument("--out", default="rivals.csv")
    parser.add_argument("--plot")
    parser.add_argument(
        "--words",
        action="store_true",
        help="let the texts of the file with the most classes be the vocabulary of files of the same encoder, which "
        "is what the last two parts of their names say (cifar10_500_vitb32_openai)",
    )
    arguments = parser.parse_args()
    common = {"shots": arguments.shots, "protocol": arguments.protocol, "out": arguments.out, "verbose": 1}
    run_benchmark(["emoji"], arguments.methods, seeds=arguments.seeds, **common)
    for problem in sorted(problems(arguments.folder, arguments.words), key=attrgetter("n_classes")):
        seeds = 1 if problem.n_classes > MANY_CLASSES else arguments.seeds
        run_benchmark([problem], arguments.methods, seeds=seeds, **common)
    print(format_table(summarize(arguments.out)))
    for line in failures(arguments.out):
        print(f"failed: {line}", file=sys.stderr)
    if arguments.plot:
        plot_curves(arguments.out, arguments.plot)


def encoder_of(problem):
    return problem.name.split("_")[-2:]


def problems(folder, words):
    """Feature files of a folder, small ones first; prints a note if there is none."""
    if not folder:
        print("feature files are skipped: give their folder, or set SKXMA_FEATURES", file=sys.stderr)
        return []
    found = [load_problem(file) for file in sorted(Path(folder).glob("*.npz"))]
    if not found:
        print(f"feature files are skipped: {folder} has no .npz", file=sys.stderr)
    if not words or not found:
        return found
    largest = max(found, key=attrgetter("n_classes"))
    return [
        replace(problem, vocabulary=largest.text_features) if encoder_of(problem) == encoder_of(largest) else problem
        for problem in found
    ]


if __name__ == "__main__":
    main()
