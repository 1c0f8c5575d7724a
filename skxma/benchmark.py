"""The benchmark: methods by data sets by shots by seeds, on features encoded once; it goes on where it was killed."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from skxma._benchmark_cell import run_cell
from skxma._benchmark_problem import POOL, Problem, load_problem
from skxma._benchmark_report import (
    COLUMNS,
    KEY,
    SummaryRow,
    format_table,
    plot_curves,
    read_results,
    summarise,
)
from skxma._progress import Progress

__all__ = ["METHODS", "Problem", "format_table", "plot_curves", "read_results", "run_benchmark", "summarise"]

METHODS = {
    "xmadapter": "skxma.classifier:XMAdapterClassifier",
    "zero-shot": "skxma.baselines:ZeroShotClassifier",
    "tip-adapter": "skxma.baselines:TipAdapterClassifier",
    "tip-adapter-f": "skxma.baselines:TipAdapterFClassifier",
    "clip-adapter": "skxma.baselines:CLIPAdapterClassifier",
    "task-res": "skxma.baselines:TaskResClassifier",
    "clap": "skxma.baselines:CLAPClassifier",
    "lp++": "skxma.baselines:LPPlusPlusClassifier",
    "gda": "skxma.baselines:GDAClassifier",
    "proker": "skxma.baselines:ProKeRClassifier",
    "ape": "skxma.baselines:APEClassifier",
    "ape-t": "skxma.baselines:APETClassifier",
    "cross-modal": "skxma.baselines:CrossModalLinearProbe",
    "multimodal-adapter": "skxma.baselines:MultiModalAdapterClassifier",
    "logistic-regression": "skxma.baselines:LogisticRegressionProbe",
    "trans-clip": "skxma.baselines:TransCLIPClassifier",
    "ss-text-u": "skxma.baselines:SSTextUClassifier",
    "self-training": "skxma.baselines:SelfTrainingProbe",
    "label-spreading": "skxma.baselines:LabelSpreadingProbe",
}
NEED_POOL = ("trans-clip", "ss-text-u", "self-training", "label-spreading")
SHOTS = (1, 2, 4, 8, 16)
PROTOCOLS = ("none", "few", "full", POOL)
LONGEST_ERROR = 400


def run_benchmark(
    datasets: Sequence[Any],
    methods: Sequence[str] | Mapping[str, Any] | None = None,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int | Sequence[int] = 5,
    protocol: str = "none",
    out: str | os.PathLike[str] = "benchmark.csv",
    encoder: Any = None,
    root: str | os.PathLike[str] | None = None,
    memory: Any = None,
    verbose: int = 0,
) -> list[SummaryRow]:
    """Run methods on data sets at numbers of shots with seeds; finished cells are kept and not run again.

    Every finished cell is a line that is added to `out` at once, so a run that was killed goes on where it was when it
    is started again with the same file. What fails is a line too, with its error, and is tried again at the next
    start; the rest goes on. Give every encoder a file of its own: the lines do not name it.

    Parameters
    ----------
    datasets : sequence of str, path-like or Problem
        "emoji"; feature files (``.npz``); folders or tables of pictures; names of CoOp's data sets and of ImageNet's
        shifts, followed by "/base" or "/novel" for base-to-novel. Shifts and novel classes are tested with what was
        learned on ImageNet and on the base classes.
    methods : sequence of str or mapping from name to estimator, optional
        Names from `METHODS`; by default all, those that need unlabelled pictures with protocol "pool" alone.
    shots : sequence of int, default=(1, 2, 4, 8, 16)
        Images of each class to learn from.
    seeds : int or sequence of int, default=5
        How many random support sets, or their seeds.
    protocol : {"none", "few", "full", "pool"}, default="none"
        Validation images that choose the hyper-parameters: none, min(shots, 4) a class, or a full set (the data set's
        own, else half of what the shots leave). "pool" has none, and half of the test images, without their labels,
        are learned from by the methods that take such; all are tested on the other half.
    out : path-like, default="benchmark.csv"
        The results file.
    encoder : str or object, optional
        What encodes pictures; "tiny" for the emoji and the default ViT-B/32 for others unless given.
    root : path-like, optional
        The folder that holds CoOp's data sets.
    memory : optional
        Where embeddings are kept, as `CLIPEncoder` takes it: a path keeps them from run to run.
    verbose : int, default=0
        Above 0, progress on stderr.

    Returns
    -------
    rows : list of SummaryRow
        Summary of the whole file; see `summarise`.

    Raises
    ------
    ValueError
        A method or protocol of an unknown name, or a file that holds something else.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {', '.join(PROTOCOLS)}.")
    estimators = _estimators(methods, protocol)
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    done = {tuple(row[name] for name in KEY) for row in read_results(out) if not row["error"]}
    total = len(datasets) * len(shots) * len(numbers) * len(estimators)
    with Progress("benchmark", total, verbose) as progress:
        for source in datasets:
            try:
                problem = load_problem(source, encoder=encoder, root=root, memory=memory, verbose=max(0, verbose - 1))
            except Exception as error:  # the other data sets still count
                append_row(out, {"dataset": str(source), "protocol": protocol, "error": _say(error)})
                progress.advance(total // len(datasets))
                continue
            for k in shots:
                for row in _rows(problem, estimators, k, numbers, protocol, done):
                    if row is not None:
                        append_row(out, row)
                    progress.advance(1)
    return summarise(out)


def _estimators(methods: Sequence[str] | Mapping[str, Any] | None, protocol: str) -> dict[str, Any]:
    """Estimators by the names that the results will have."""
    if isinstance(methods, Mapping):
        return dict(methods)
    suited = [name for name in METHODS if protocol == POOL or name not in NEED_POOL]
    names = suited if methods is None else list(methods)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"there is no method {', '.join(map(repr, unknown))}; choose from {', '.join(METHODS)}.")
    made = {}
    for name in names:
        module, kind = METHODS[name].split(":")
        made[name] = getattr(import_module(module), kind)()
    return made


def _rows(
    problem: Problem,
    estimators: Mapping[str, Any],
    n_shots: int,
    seeds: Sequence[int],
    protocol: str,
    done: set[tuple[str, ...]],
) -> Iterator[dict[str, Any] | None]:
    """A line for each seed and method, None where none is needed; one error where there are too few images."""
    n_cells = len(seeds) * len(estimators)
    try:
        problem.draw(n_shots, protocol, 0)
    except Exception as error:  # other numbers of shots still count
        yield {"dataset": problem.name, "shots": n_shots, "protocol": protocol, "error": _say(error)}
        yield from [None] * (n_cells - 1)
        return
    for seed in seeds:
        for method, estimator in estimators.items():
            key = dict(zip(KEY, (method, problem.name, n_shots, seed, protocol), strict=True))
            if tuple(map(str, key.values())) in done:
                yield None
                continue
            try:
                yield key | asdict(run_cell(problem, estimator, n_shots, seed, protocol))
            except Exception as error:  # the other cells still count
                yield key | {"error": _say(error)}


def _say(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_ERROR]


def append_row(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Add a line to a results file in one write, on disk before this returns.

    Parameters
    ----------
    path : path-like
        The file; made with its first line if it is not there.
    row : mapping from column to value
        Floats are written so that they come back as they were; None and what is not there are empty.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    file = Path(path)
    if not file.exists() or not file.stat().st_size:
        file.parent.mkdir(parents=True, exist_ok=True)
        writer.writerow(COLUMNS)
    elif not _ends_with_newline(file):
        # a kill cut the last line short
        text.write("\n")
    values = [row.get(name) for name in COLUMNS]
    writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in values])
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, text.getvalue().encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as held:
        held.seek(-1, os.SEEK_END)
        return held.read(1) == b"\n"


def failures(path: str | os.PathLike[str]) -> Iterator[str]:
    """What failed, one line each.

    Parameters
    ----------
    path : path-like
        A results file.
    """
    for row in read_results(path):
        if row["error"]:
            where = " ".join(filter(None, [row["method"], row["dataset"], row["shots"] and f"{row['shots']} shots"]))
            yield f"{where}, seed {row['seed']}: {row['error']}" if row["seed"] else f"{where}: {row['error']}"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add ``skxma benchmark`` to the subparsers of the command line; its `run` default is :func:`run`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark",
        help="compare methods on data sets, shots and seeds",
        description="Compare few-shot methods. Every finished cell is kept in the results file: start again with the "
        "same file to go on. The table goes to stdout, progress to stderr.",
        epilog="example: skxma benchmark emoji features/*.npz --shots 1 4 --seeds 3 --plot curves.png",
    )
    parser.add_argument(
        "datasets",
        nargs="*",
        default=["emoji"],
        metavar="DATA",
        help="emoji, feature files (.npz), folders with a folder a class, tables (.csv) of path and label, or names of "
        "CoOp's data sets and of ImageNet's shifts, with /base or /novel for base-to-novel (default: emoji)",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), metavar="NAME", help=f"among {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--shots", nargs="+", type=positive_count, default=list(SHOTS), metavar="K", help="(default: 1 2 4 8 16)"
    )
    parser.add_argument("--seeds", type=positive_count, default=5, metavar="N", help="random support sets (default: 5)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="none",
        help="validation images to tune on: none, min(K, 4) a class, or a full set; or pool: half of the test images "
        "are learned from without their labels (default: none)",
    )
    parser.add_argument("--encoder", metavar="NAME", help="for pictures (default: tiny for emoji, else ViT-B/32)")
    parser.add_argument("--root", metavar="DIR", help="where CoOp's data sets lie")
    parser.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    parser.add_argument("--out", default="benchmark.csv", metavar="CSV", help="results file (default: %(default)s)")
    parser.add_argument("--plot", metavar="PNG", help="draw accuracy by shots")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)
    return parser


def positive_count(text: str) -> int:
    """A number of the command line that counts something.

    Parameters
    ----------
    text : str
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments; 1 where a cell failed."""
    summary = run_benchmark(
        arguments.datasets,
        arguments.methods,
        shots=arguments.shots,
        seeds=arguments.seeds,
        protocol=arguments.protocol,
        out=arguments.out,
        encoder=arguments.encoder,
        root=arguments.root,
        memory=arguments.memory,
        verbose=0 if arguments.quiet else 1,
    )
    if summary:
        print(format_table(summary))
    failed = list(failures(arguments.out))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    if arguments.plot and summary:
        plot_curves(arguments.out, arguments.plot, protocol=arguments.protocol)
    return int(bool(failed))
