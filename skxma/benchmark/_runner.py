"""The benchmark: methods by data sets by shots by seeds, on features encoded once; it goes on where it was killed."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any

from skxma._runtime.progress import Progress
from skxma.benchmark._asked import Rounds
from skxma.benchmark._cell import Measured, run_cell
from skxma.benchmark._names import ACTIVE, DEFAULT, METHODS, NEED_POOL, POOL, PROTOCOLS, SHOTS
from skxma.benchmark._parts import load_parts
from skxma.benchmark._problem import Problem
from skxma.benchmark._report import SummaryRow, summary_of
from skxma.benchmark._results_file import KEY, append_row, check_results_file, key_of, read_results

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

    Methods, data sets, encoders and the results file are checked before the first cell runs.

    Every finished cell is a line that is added to `out` at once, so a run that was killed goes on where it was when it
    is started again with the same file. What fails is a line too, with its error, and is tried again at the next
    start; the rest goes on. Give every encoder a file of its own: results of another one are refused.

    Parameters
    ----------
    datasets : sequence of str, path-like or Problem
        "emoji"; feature files (``.npz``); folders or tables of images; names of CoOp's data sets and of ImageNet's
        shifts, followed by "/base", "/novel" or "/all" for one part of base-to-novel. Shifts and novel classes are
        tested with what was learned on ImageNet and on the base classes.
    methods : sequence of str or mapping from name to estimator, optional
        Names from `METHODS`; by default all, those that need unlabeled images with protocol "pool" alone, and with
        "active" the default estimator.
    shots : sequence of int, default=(1, 2, 4, 8, 16)
        Images of each class to learn from.
    seeds : int or sequence of int, default=5
        How many random support sets, or their seeds.
    protocol : {"none", "few", "full", "pool", "domain", "base-to-novel", "active"}, default="none"
        Validation images that choose the hyper-parameters: none, min(shots, 4) a class, or a full set (the data set's
        own, else half of what the shots leave). "pool" has none, and half of the test images, without their labels,
        are learned from by the methods that take such; all are tested on the other half. "domain" tests other domains
        than those that were learned from: styles of the emoji, folders of domains, corruptions of the images that a
        feature file holds (encoded by `encoder`, "tiny" by default), and the shifts of "imagenet". "base-to-novel"
        learns the first half of the classes and tests them, the others, known by their text alone, and all together.
        "active" asks for the labels of images that :func:`skxma.active.suggest` chooses, or of random ones, in rounds
        with a fit in between: so many labels as classes, then twice as many as before; the shots are labels per class.
        The other images are left out or learned from without their labels ("+rest").
        The results name each part after its data set, as in "emoji/noto" and "dtd/novel".
    out : path-like, default="benchmark.csv"
        The results file.
    encoder : str or object, optional
        What encodes images; "tiny" for the emoji and the default ViT-B/32 for others unless given.
    root : path-like, optional
        The folder that holds CoOp's data sets.
    memory : optional
        Where embeddings are kept, as `CLIPEncoder` takes it: a path keeps them from run to run.
    verbose : int, default=0
        Above 0, progress on stderr.

    Returns
    -------
    rows : list of SummaryRow
        Summary of the cells that were asked for; `summarize` has that of the whole file.

    Raises
    ------
    ValueError
        A method or protocol of an unknown name, data sets that cannot be read or that share a name, or a results file
        that holds something else, or results of these data sets through another encoder.
    OSError
        The results file cannot be written.
    skxma.errors.EncoderNotFoundError
        An encoder of an unknown name; a ValueError.
    """
    run = run_cells(
        datasets,
        methods,
        shots=shots,
        seeds=seeds,
        protocol=protocol,
        out=out,
        encoder=encoder,
        root=root,
        memory=memory,
        verbose=verbose,
    )
    return summary_of(run.rows)


@dataclass(frozen=True)
class FinishedRun:
    """Cells of a finished run, those among them that an earlier run had finished too.

    Attributes
    ----------
    rows : list of dict from column to str
        Lines of the results file, in the order of the run.
    n_kept : int
        How many of them an earlier run finished.
    """

    rows: list[dict[str, str]]
    n_kept: int


def run_cells(
    datasets: Sequence[Any],
    methods: Sequence[str] | Mapping[str, Any] | None,
    *,
    shots: Sequence[int],
    seeds: int | Sequence[int],
    protocol: str,
    out: str | os.PathLike[str],
    encoder: Any,
    root: str | os.PathLike[str] | None,
    memory: Any,
    verbose: int,
) -> FinishedRun:
    """Run what `run_benchmark` is asked for, which has the parameters."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {', '.join(PROTOCOLS)}.")
    estimators = _estimators(methods, protocol)
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    check_results_file(out)
    finished = {key_of(row): row for row in read_results(out) if not row["error"]}
    how = {"encoder": encoder, "root": root, "memory": memory}
    encoders = _check_datasets(datasets, protocol, **how)
    _refuse_other_encoders(finished.values(), dict(ChainMap(*encoders)), protocol, out)
    cells = len(shots) * len(numbers) * len(estimators)
    asked: list[tuple[str, ...]] = []
    with Progress("benchmark", sum(map(len, encoders)) * cells, verbose) as progress:
        for source, names in zip(datasets, encoders, strict=True):
            try:
                parts = load_parts(source, protocol, **how, verbose=max(0, verbose - 1))
            except Exception as error:  # it could be read a while ago; the other data sets still count
                row = {"dataset": str(source), "protocol": protocol, "error": _format_error(error)}
                append_row(out, row)
                asked.append(key_of(row))
                progress.advance(len(names) * cells)
                continue
            for problem in parts:
                for row, is_new in _rows(problem, estimators, shots, numbers, protocol, finished.keys()):
                    if is_new:
                        append_row(out, row | {"encoder": problem.encoder_name})
                    asked.append(key_of(row))
                    progress.advance(1)
    held, keys = {key_of(row): row for row in read_results(out)}, dict.fromkeys(asked)
    return FinishedRun([held[key] for key in keys], sum(key in finished for key in keys))


def _estimators(methods: Sequence[str] | Mapping[str, Any] | None, protocol: str) -> dict[str, Any]:
    """Estimators by the names that the results will have."""
    if isinstance(methods, Mapping):
        return dict(methods)
    suited = [name for name in METHODS if protocol == POOL or name not in NEED_POOL]
    if protocol == ACTIVE:
        suited = [DEFAULT]
    names = suited if methods is None else list(methods)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"there is no method {', '.join(map(repr, unknown))}; choose from {', '.join(METHODS)}.")
    made = {}
    for name in names:
        module, kind = METHODS[name].split(":")
        made[name] = getattr(import_module(module), kind)()
    return made


def _check_datasets(datasets: Sequence[Any], protocol: str, **how: Any) -> list[dict[str, str | None]]:
    """Refuse data sets that cannot be read, two of one name, and encoders of unknown names; nothing is encoded.

    Returns the names of the parts of each, and of their encoders.
    """
    from skxma.encoder._clip_encoder import CLIPEncoder
    from skxma.encoder._model_names import find_source

    unreadable: list[str] = []
    sources: dict[str, Any] = {}
    encoders, found = set(), list[dict[str, str | None]]()
    for source in datasets:
        try:
            parts = load_parts(source, protocol, **how)
        except Exception as error:
            unreadable.append(f"{source}: {error}" if str(source) not in str(error) else str(error))
            continue
        found.append({problem.name: problem.encoder_name for problem in parts})
        for problem in parts:
            if problem.name in sources:
                raise ValueError(
                    f"{sources[problem.name]} and {source} are both called {problem.name!r}, by which the results tell "
                    "them apart. Rename one, or give them results files of their own."
                )
            sources[problem.name] = source
            if isinstance(problem.encoder, CLIPEncoder):
                encoders.add(problem.encoder.name)
    if unreadable:
        count = f"{len(unreadable)} of {len(datasets)} data sets cannot be read, so nothing was run:"
        raise ValueError("\n  ".join([count, *unreadable]))
    for model in encoders:
        find_source(model)
    return found


def _refuse_other_encoders(
    finished: Iterable[Mapping[str, str]],
    encoders: Mapping[str, str | None],
    protocol: str,
    out: str | os.PathLike[str],
) -> None:
    """Refuse to mix results of two encoders, given by data set; a line of an earlier release names none."""
    for row in finished:
        wanted = encoders.get(row["dataset"])
        if row["protocol"] == protocol and row["encoder"] and wanted is not None and row["encoder"] != wanted:
            raise ValueError(
                f"{out} has results of {row['dataset']} through the encoder {row['encoder']!r}, not {wanted!r}. Give "
                "each encoder a results file of its own."
            )


def _rows(
    problem: Problem,
    estimators: Mapping[str, Any],
    shots: Sequence[int],
    seeds: Sequence[int],
    protocol: str,
    done: Container[tuple[str, ...]],
) -> Iterator[tuple[dict[str, Any], bool]]:
    """A line for each cell, and whether it is new; with too few images the same error for all cells, once new."""
    enough = []
    for n_shots in shots:
        try:
            problem.draw(n_shots, protocol, 0)
        except Exception as error:  # other numbers of shots still count
            row = {"dataset": problem.name, "shots": n_shots, "protocol": protocol, "error": _format_error(error)}
            yield row, True
            yield from [(row, False)] * (len(seeds) * len(estimators) - 1)
        else:
            enough.append(n_shots)
    for method, n_shots, seed, run in _cells(problem, estimators, enough, seeds, protocol):
        key = dict(zip(KEY, (method, problem.name, n_shots, seed, protocol), strict=True))
        if key_of(key) in done:
            yield key, False
            continue
        try:
            yield key | asdict(run()), True
        except Exception as error:  # the other cells still count
            yield key | {"error": _format_error(error)}, True


def _cells(
    problem: Problem, estimators: Mapping[str, Any], shots: Sequence[int], seeds: Sequence[int], protocol: str
) -> Iterator[tuple[str, int, int, Callable[[], Measured]]]:
    """Method, shots and seed of each cell, and what measures it."""
    if protocol != ACTIVE:
        for n_shots, seed, (method, estimator) in product(shots, seeds, estimators.items()):
            yield method, n_shots, seed, partial(run_cell, problem, estimator, n_shots, seed, protocol)
        return
    # a round goes on where the one before ended
    for seed, (method, estimator) in product(seeds, estimators.items()):
        rounds = Rounds(problem, estimator, seed)
        for n_shots in shots:
            yield method, n_shots, seed, partial(rounds.measure, n_shots)


def _format_error(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_ERROR]
