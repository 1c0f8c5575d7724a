"""Write docs/results.md: all methods compared, parts of the default, hard conditions, pools, other protocols.

    python benchmarks/results.py FOLDER [--seeds 5] [--out docs/results.md] [--cells results.csv]

FOLDER (or the environment variable SKXMA_FEATURES) holds feature files as `load_features` describes them; the
bundled emoji are always in. Of data sets with more than 200 classes one seed is run. Finished cells are kept beside
--cells and not run again; after a change of a method, ``--redo METHOD`` runs its cells anew.
"""

import argparse
import os
import platform
import sys
import time
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import numpy as np
from ablation import variants
from ablation_page import ablation, hard_conditions
from cells import Cells, drop_method
from protocols_page import protocols, run_protocol, with_domains
from results_page import DEFAULT, ZERO_SHOT, comparison, markdown, number
from rivals import LABELED_ONLY, MANY_CLASSES, encoder_of, problems
from robustness import UNSCREENED, run_robustness
from unlabeled import WITHOUT, run_unlabeled, unlabeled

from skxma.benchmark._names import ACTIVE, BASE_TO_NOVEL, DOMAIN, EMOJI, EMOJI_ENCODER, METHODS
from skxma.benchmark._problem import load_problem
from skxma.benchmark._results_file import failures
from skxma.benchmark._runner import run_benchmark

PARTS = {
    "comparison": "",
    "ablation": "-ablation",
    "robustness": "-robustness",
    "unlabeled": "-unlabeled",
    DOMAIN: "-domain",
    BASE_TO_NOVEL: "-base-to-novel",
    ACTIVE: "-active",
}
BUDGETS = (1, 2, 4, 8)
SHOTS = (1, 2, 4, 8, 16)
PACKAGES = ("skxma", "torch", "numpy", "scikit-learn")


def main():
    arguments = parse()
    start = time.perf_counter()
    files = {part: arguments.cells.with_stem(arguments.cells.stem + end) for part, end in PARTS.items()}
    for name in arguments.redo:
        redo(files, name)
    found = [load_problem(EMOJI), *sorted(problems(arguments.folder, arguments.words), key=attrgetter("n_classes"))]
    for problem in found:
        run(problem, found, arguments, files)
    if DOMAIN in arguments.parts:
        for source in with_domains(arguments.folder):
            run_protocol(source, DOMAIN, arguments.methods, arguments.shots, arguments.seeds, files[DOMAIN])
    for file in files.values():
        for line in failures(file):
            print(f"failed: {line}", file=sys.stderr)
    text = page(arguments, found, files)
    arguments.out.write_text(text, encoding="utf-8")
    print(f"{arguments.out} written after {time.perf_counter() - start:.0f} s", file=sys.stderr)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("SKXMA_FEATURES"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--methods", nargs="+", default=LABELED_ONLY, choices=METHODS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="which of them to run")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--cells", type=Path, default=Path("results.csv"))
    parser.add_argument("--redo", nargs="+", default=[], choices=METHODS, help="methods to run again, as they changed")
    parser.add_argument(
        "--words",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the texts of the file with the most classes are the vocabulary of files of the same encoder",
    )
    parser.add_argument("--many", action=argparse.BooleanOptionalAction, default=True, help="ablate on many classes")
    return parser.parse_args()


def redo(files, method):
    """Forget a method's cells; all rows of the ablation are forms of the default."""
    drop_method(files["comparison"], method)
    drop_method(files["robustness"], method)
    for part in ("unlabeled", DOMAIN, BASE_TO_NOVEL, ACTIVE):
        drop_method(files[part], method)
    if method == DEFAULT:
        drop_method(files["robustness"], UNSCREENED)
        drop_method(files["ablation"])
        drop_method(files["unlabeled"], WITHOUT)


def shots_of(problem, shots):
    """Numbers of shots that leave each class an image to test on."""
    return [count for count in shots if count < np.unique(problem.y, return_counts=True)[1].min()]


def run(problem, found, arguments, files):
    """All parts on one data set."""
    many = problem.n_classes > MANY_CLASSES
    seeds = 1 if many else arguments.seeds
    shots = shots_of(problem, arguments.shots)
    common = {"shots": shots, "seeds": seeds, "verbose": 1}
    if "comparison" in arguments.parts:
        run_benchmark([problem], arguments.methods, out=files["comparison"], **common)
    if "ablation" in arguments.parts and (arguments.many or not many):
        run_benchmark([problem], variants(), out=files["ablation"], **common)
    # useless text is made from ready embeddings
    if "robustness" in arguments.parts and not many and problem.text_features is not None:
        run_robustness(problem, arguments.methods, shots, seeds, files["robustness"])
    if "unlabeled" in arguments.parts and not many:
        run_unlabeled(problem, found, shots, seeds, files["unlabeled"])
    if BASE_TO_NOVEL in arguments.parts:
        run_protocol(problem, BASE_TO_NOVEL, arguments.methods, shots, seeds, files[BASE_TO_NOVEL])
    if ACTIVE in arguments.parts and not many:
        run_protocol(problem, ACTIVE, [DEFAULT], BUDGETS, seeds, files[ACTIVE])


def page(arguments, found, files):
    """The whole text."""
    names = {problem.name for problem in found}

    def asked_for(part, row):
        # the files may hold more than this run was to show
        if part not in arguments.parts:
            return False
        held = row["dataset"].split(":")[0].partition("/")[0] in names
        held = held and (row["protocol"] == ACTIVE or int(row["shots"]) in arguments.shots)
        return held and int(row["seed"]) < arguments.seeds

    compared, ablated, hard, pooled, shifted, novel, chosen = (
        Cells(file, partial(asked_for, part)) for part, file in files.items()
    )
    lines = [
        "# Results",
        "",
        f"Generated by `{command(arguments)}`; every number comes from that run. FOLDER holds feature files of "
        "your own; without it, only the bundled emoji are compared.",
        "",
        *setting(arguments, found, compared),
        *comparison(compared),
        *ablation(ablated, compared),
        *hard_conditions(hard, compared),
        *unlabeled(pooled),
        *protocols(shifted, novel, chosen),
    ]
    return "\n".join(lines).rstrip() + "\n"


def command(arguments):
    words = ["python benchmarks/results.py FOLDER --seeds", arguments.seeds]
    if tuple(arguments.shots) != SHOTS:
        words += ["--shots", *arguments.shots]
    if set(arguments.parts) != set(PARTS):
        words += ["--parts", *arguments.parts]
    words += [flag for flag, on in (("--no-words", arguments.words), ("--no-many", arguments.many)) if not on]
    return " ".join(map(str, words))


def setting(arguments, found, compared):
    """The data sets and the protocol of the comparison."""
    tested = [problem for problem in found if problem.name in compared.datasets]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        "## Data and protocol",
        "",
        *markdown(
            ["data set", "encoder", "images", "classes", "zero-shot %", "seeds", "shots", "vocabulary"],
            [row_of(problem, compared) for problem in tested],
        ),
        "",
        *source(arguments.folder),
        f"No validation data: the support set is drawn for each class, and the rest is the test set. "
        f"{len(compared.methods)} methods see the same embeddings, texts and support sets; each rival "
        "keeps the fixed defaults of its docstring, nothing is tuned. The zero-shot column is the mean over the tests.",
        "",
        words(arguments, tested),
        "",
        f"Machine: {os.cpu_count()} CPU cores, {platform.machine()}; Python {platform.python_version()}, {versions}.",
        "",
    ]


def row_of(problem, compared):
    shots = [count for count in compared.shots if problem.name in compared.sets(count)]
    zero_shot = compared.average(ZERO_SHOT, shots[0], sets=[problem.name])[0]
    encoder = EMOJI_ENCODER + " (bundled)" if problem.name == EMOJI else " ".join(encoder_of(problem))
    seeds = compared.n_seeds(problem.name)
    figures = [len(problem.y), problem.n_classes, number(zero_shot), seeds, ", ".join(map(str, shots))]
    return [problem.name, encoder, *map(str, figures), vocabulary_of(problem)]


def vocabulary_of(problem):
    return "none" if problem.vocabulary is None else f"{len(problem.vocabulary)} texts"


def words(arguments, tested):
    """The source of the vocabulary, which only the default uses."""
    given = [problem.name for problem in tested if problem.vocabulary is not None]
    if not given:
        return "Vocabulary: none."
    largest = max((problem for problem in tested if problem.vocabulary is not None), key=attrgetter("n_classes")).name
    return (
        f"Vocabulary: of {', '.join(given)} the class texts of {largest}, the file with the most classes of that "
        "encoder, in the place of the default's list of common words, which takes an encoder; of other files none, and "
        'of the emoji none, as with "tiny" no words shape the metric. No rival takes one. See the ablation for the '
        "default without it."
    )


def source(folder):
    """The table in the README of the feature files, quoted as their source."""
    readme = Path(folder or "") / "README.md"
    if not folder or not readme.is_file():
        return []
    table = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return ["The feature files, as their own README describes them:", "", *table, ""] if table else []


if __name__ == "__main__":
    main()
