"""From the benchmark's rows to a table and to curves."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skxma._runtime.optional import require
from skxma.benchmark._names import (
    ACTIVE,
    ASKED,
    BASE_TO_NOVEL,
    DOMAIN,
    HALVES,
    RANDOM,
    SAME,
    SUGGESTED,
    VALIDATED,
)
from skxma.benchmark._results_file import read_results

AVERAGE, SHIFTED = "average", "shifted"
MEANS = ("ece", "nll", "fit_s", "predict_s", "n_trained", "peak_mb", "seen")
# Okabe and Ito's, which differ for all kinds of color vision, without the yellow that white swallows
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
METHOD_MARKERS = "osD^vP*X<>ph8d|_+xH1234"
DASHES = ("-", "--", ":")


@dataclass(frozen=True)
class SummaryRow:
    """A method on a data set, or on their average, at a number of shots: means over the seeds.

    Attributes
    ----------
    accuracy, accuracy_se : float
        Mean and standard error, NaN for one seed; of the average, that of a mean of independent data sets.
    seen : float
        Share of the classes that have a labeled image, with protocol "active" alone.
    rank : float
        By accuracy among the methods, 1 is the best; of the average, the mean rank.
    n_seeds, n_datasets : int
    """

    protocol: str
    dataset: str
    method: str
    shots: int
    n_seeds: int
    n_datasets: int
    accuracy: float
    accuracy_se: float
    rank: float
    ece: float
    nll: float
    fit_s: float
    predict_s: float
    n_trained: float
    peak_mb: float
    seen: float = math.nan


def summarize(path: str | os.PathLike[str]) -> list[SummaryRow]:
    """Means, standard errors and ranks of a results file.

    The average over data sets at some shots is over all that have results there; a method that lacks one of them has
    no average there. With protocol "domain" there are two, "average/same" of the domains learned from and
    "average/shifted" of the others, with "base-to-novel" and "active" one of each part.

    Parameters
    ----------
    path : path-like
        A results file.

    Returns
    -------
    rows : list of SummaryRow
        Data set by data set, then averages where there are several.
    """
    return summary_of(read_results(path))


def summary_of(results: Iterable[dict[str, str]]) -> list[SummaryRow]:
    """Summarize rows of a results file, as `summarize` does a whole one."""
    cells: dict[tuple[str, str, int], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for row in results:
        if not row["error"]:
            cells[row["protocol"], row["dataset"], int(row["shots"])][row["method"]].append(row)
    single = [
        _single(key, method, rows, rank)
        for key, held in cells.items()
        for (method, rows), rank in zip(
            held.items(), _ranks([_mean(r, "accuracy") for r in held.values()]), strict=True
        )
    ]
    single.sort(key=lambda row: (row.protocol, row.dataset, row.method, row.shots))
    return single + _averages(single)


def _mean(rows: Sequence[dict[str, str]], column: str) -> float:
    values = [float(row[column]) for row in rows if row[column]]
    return float(np.mean(values)) if values else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value, 1 for the highest; equal values share the mean of theirs."""
    array = np.asarray(values)
    return [float((array > value).sum() + ((array == value).sum() + 1) / 2) for value in array]


def _single(key: tuple[str, str, int], method: str, rows: list[dict[str, str]], rank: float) -> SummaryRow:
    protocol, dataset, shots = key
    accuracies = [float(row["accuracy"]) for row in rows]
    error = float(np.std(accuracies, ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else math.nan
    means = {name: _mean(rows, name) for name in MEANS}
    return SummaryRow(protocol, dataset, method, shots, len(rows), 1, float(np.mean(accuracies)), error, rank, **means)


def _averages(single: Sequence[SummaryRow]) -> list[SummaryRow]:
    groups: dict[tuple[str, str, int], list[SummaryRow]] = defaultdict(list)
    for row in single:
        groups[row.protocol, _average_of(row), row.shots].append(row)
    averages = []
    names = {(row.protocol, _average_of(row), row.dataset) for row in single}
    for (protocol, average, shots), rows in groups.items():
        if sum((of, held) == (protocol, average) for of, held, _ in names) < 2:
            continue
        datasets = {row.dataset for row in rows}
        for method in dict.fromkeys(row.method for row in rows):
            own = [row for row in rows if row.method == method]
            if len(own) < len(datasets):
                continue
            squares = sum(row.accuracy_se**2 for row in own)
            averages.append(
                SummaryRow(
                    protocol,
                    average,
                    method,
                    shots,
                    min(row.n_seeds for row in own),
                    len(own),
                    float(np.mean([row.accuracy for row in own])),
                    math.sqrt(squares) / len(own),
                    float(np.mean([row.rank for row in own])),
                    **{name: float(np.mean([getattr(row, name) for row in own])) for name in MEANS},
                )
            )
    return sorted(averages, key=lambda row: (row.protocol, row.dataset, row.method, row.shots))


def _average_of(row: SummaryRow) -> str:
    """The average that a data set, or a part of one, is in."""
    if row.protocol not in (DOMAIN, BASE_TO_NOVEL, ACTIVE):
        return AVERAGE
    part = row.dataset.rpartition("/")[2]
    return f"{AVERAGE}/{SHIFTED if row.protocol == DOMAIN and part != SAME else part}"


def _is_average(dataset: str) -> bool:
    return dataset.partition("/")[0] == AVERAGE


def format_table(summary: Sequence[SummaryRow], *, per_dataset: bool = True) -> str:
    """A summary as text: for the average and each data set accuracy, rank and calibration error by shots.

    With protocol "base-to-novel", for the average and each data set the accuracies of base, novel and all classes, and
    the harmonic mean of the first two. With protocol "active", the ways to choose labels side by side: also the share
    of the classes seen, the area under the curve, and how many random labels give the same accuracy.

    Parameters
    ----------
    summary : sequence of SummaryRow
    per_dataset : bool, default=True
        Whether each data set gets its table too.

    Returns
    -------
    text : str
    """
    blocks = []
    for protocol in dict.fromkeys(row.protocol for row in summary):
        rows = [row for row in summary if row.protocol == protocol]
        found = list(dict.fromkeys(row.dataset for row in rows))
        if protocol in IN_ONE_TABLE:
            # the parts of a data set stand in one table
            found = list(dict.fromkeys(name.rpartition("/")[0] for name in found))
        averages = [name for name in found if _is_average(name)]
        names = [name for name in found if name not in averages]
        for dataset in [*averages, *names] if per_dataset or len(names) == 1 else averages:
            if protocol in IN_ONE_TABLE:
                held = [row for row in rows if row.dataset.rpartition("/")[0] == dataset]
                blocks.append(IN_ONE_TABLE[protocol](dataset, held))
            else:
                blocks.append(_block(dataset, protocol, [row for row in rows if row.dataset == dataset]))
    return "\n\n".join(blocks)


def _block(dataset: str, protocol: str, rows: Sequence[SummaryRow]) -> str:
    shots = sorted({row.shots for row in rows})
    by_method: dict[str, dict[int, SummaryRow]] = defaultdict(dict)
    for row in rows:
        by_method[row.method][row.shots] = row
    order = sorted(by_method, key=lambda method: -float(np.mean([r.accuracy for r in by_method[method].values()])))
    order.sort(key=lambda method: -len(by_method[method]))
    width = max(len("method"), *(len(method) for method in order))
    counts = {count: max(row.n_datasets for row in rows if row.shots == count) for count in shots}
    how = "validation" if protocol in ("none", *VALIDATED) else "protocol"
    title = f"{dataset}, {how} {protocol}: accuracy % ± standard error (rank) | calibration error %"
    if _is_average(dataset):
        title += "; over " + ", ".join(f"{n} at {count}" for count, n in counts.items()) + " shots"
    head = " ".join(
        [f"{'method':{width}}", *(f"{_shots(count):>16}" for count in shots), "  |", *(f"{c:>5}" for c in shots)]
    )
    lines = [title, head]
    for method in order:
        cells = [_accuracy_and_rank(by_method[method].get(count)) for count in shots]
        errors = [_percent(by_method[method][count].ece) if count in by_method[method] else "–" for count in shots]
        lines.append(" ".join([f"{method:{width}}", *cells, "  |", *(f"{error:>5}" for error in errors)]).rstrip())
    return "\n".join(lines)


def harmonic_mean(a: float, b: float) -> float:
    """``2 a b / (a + b)``; 0 where both are."""
    return 2 * a * b / (a + b) if a + b else 0.0


def _halves_block(dataset: str, rows: Sequence[SummaryRow]) -> str:
    """Accuracy on base and novel classes, their harmonic mean, and accuracy among all, by shots."""
    held = {(row.method, row.shots, row.dataset.rpartition("/")[2]): row.accuracy for row in rows}
    shots = sorted({row.shots for row in rows})

    def cell(method: str, count: int) -> list[float]:
        base, novel, both = (held.get((method, count, half), math.nan) for half in HALVES)
        return [base, novel, harmonic_mean(base, novel), both]

    found = {row.method: [value for count in shots for value in cell(row.method, count)] for row in rows}
    order = sorted(found, key=lambda method: -float(np.nan_to_num(found[method][2::4]).mean()))
    width = max(len("method"), *(len(method) for method in found))
    columns = ("base", "novel", "h", "all")
    lines = [
        f"{dataset}, base-to-novel: accuracy % on base and novel classes, each among themselves, their harmonic mean "
        "h, and accuracy among all classes",
        " ".join([" " * width, *(f"  |{_shots(count):>24}" for count in shots)]),
        " ".join([f"{'method':{width}}", *("  |" + "".join(f"{name:>6}" for name in columns) for _ in shots)]),
    ]
    for method in order:
        values = [_percent_or_dash(value) for value in found[method]]
        groups = ["".join(f"{value:>6}" for value in values[i : i + 4]) for i in range(0, len(values), 4)]
        lines.append(" ".join([f"{method:{width}}", *("  |" + group for group in groups)]))
    return "\n".join(lines)


def curve_area(accuracy: Mapping[int, float]) -> float:
    """Area under accuracies by labels per class, over the logarithm of their number, as a mean; NaN for one number."""
    budgets = sorted(accuracy)
    if len(budgets) < 2:
        return math.nan
    x, y = np.log2(budgets), np.array([accuracy[n] for n in budgets])
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2 / (x[-1] - x[0]))


def labels_worth(accuracy: float, random: Mapping[int, float]) -> float:
    """Random labels per class that give an accuracy.

    Parameters
    ----------
    accuracy : float
    random : mapping from labels per class to accuracy
        Of random labels; between them it is a line over the logarithm of their number.

    Returns
    -------
    n : float
        Infinite above all of `random`, 0 below, NaN where there is nothing to compare with.
    """
    budgets = sorted(random)
    if not budgets:
        return math.nan
    # more random labels are not worth less
    curve = np.maximum.accumulate([random[n] for n in budgets])
    if accuracy > curve[-1]:
        return math.inf
    return 0.0 if accuracy < curve[0] else float(2 ** np.interp(accuracy, curve, np.log2(budgets)))


def _asked_block(dataset: str, rows: Sequence[SummaryRow]) -> str:
    """Ways to choose labels: accuracy, share of classes seen and calibration error by labels per class."""
    budgets = sorted({row.shots for row in rows})
    held: dict[tuple[str, str], dict[int, SummaryRow]] = defaultdict(dict)
    for row in rows:
        held[row.method, row.dataset.rpartition("/")[2]][row.shots] = row
    order = [(method, part) for method in dict.fromkeys(m for m, _ in held) for part in ASKED if (method, part) in held]
    titles = [f"{method}, {part}" for method, part in order]
    width = max(len("method"), *map(len, titles))
    columns = {"accuracy": "accuracy", "classes seen": "seen", "calibration error": "ece"}
    space = max(6 * len(budgets), max(map(len, columns)) + 1)
    numbers = "".join(f"{n:>6}" for n in budgets)
    lines = [
        f"{dataset}, active: % by labels per class; area under the accuracy over the logarithm of the labels; worth: "
        "random labels per class of the same accuracy",
        " ".join([" " * width, *(f"  |{title:>{space}}" for title in [*columns, "worth"]), "  |  area"]),
        " ".join([f"{'method':{width}}", *[f"  |{numbers:>{space}}"] * 4, "  |"]),
    ]
    for (method, part), title in zip(order, titles, strict=True):
        own = held[method, part]
        # random labels are worth themselves
        other = {} if RANDOM in part else held.get((method, part.replace(SUGGESTED, RANDOM)), {})
        curve = {n: row.accuracy for n, row in other.items()}
        found = [[_percent(getattr(own[n], name)) if n in own else "–" for n in budgets] for name in columns.values()]
        found.append([worth_text(own[n].accuracy, curve) if n in own else "–" for n in budgets])
        area = curve_area({n: row.accuracy for n, row in own.items()})
        cells = ["".join(f"{text:>6}" for text in texts) for texts in found]
        lines.append(
            " ".join(
                [f"{title:{width}}", *(f"  |{cell:>{space}}" for cell in cells), f"  |{_percent_or_dash(area):>6}"]
            )
        )
    return "\n".join(lines)


def worth_text(accuracy: float, random: Mapping[int, float]) -> str:
    """Text of the number that `labels_worth` finds; outside of what was measured it is a bound."""
    n = labels_worth(accuracy, random)
    if math.isnan(n):
        return "–"
    if math.isinf(n):
        return f">{max(random)}"
    return f"{n:.1f}" if n else f"<{min(random)}"


IN_ONE_TABLE = {BASE_TO_NOVEL: _halves_block, ACTIVE: _asked_block}


def _shots(count: int) -> str:
    return f"{count} shot{'s' * (count > 1)}"


def _accuracy_and_rank(row: SummaryRow | None) -> str:
    if row is None:
        return f"{'–':>16}"
    error = "" if math.isnan(row.accuracy_se) else f"±{100 * row.accuracy_se:.1f}"
    return f"{100 * row.accuracy:5.1f}{error:<5}({row.rank:4.1f})".rjust(16)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _percent_or_dash(value: float) -> str:
    return "–" if math.isnan(value) else _percent(value)


def plot_curves(path: str | os.PathLike[str], image: str | os.PathLike[str], *, protocol: str | None = None) -> None:
    """Draw accuracy by shots, a panel a data set and one for their average.

    Parameters
    ----------
    path : path-like
        A results file.
    image : path-like
        File of the figure; its ending chooses the format.
    protocol : str, optional
        Which protocol of the file; by default its first.

    Raises
    ------
    ValueError
        There are no results to draw.
    skxma.errors.MissingDependencyError
        matplotlib cannot be imported.
    """
    require("matplotlib", what="plot_curves", extra="plot")
    summary = summarize(path)
    protocol = protocol or next((row.protocol for row in summary), None)
    rows = [row for row in summary if row.protocol == protocol]
    if not rows:
        raise ValueError(f"{path} has no results to draw" + (f" with protocol {protocol!r}." if summary else "."))
    draw_curves(rows, image)


def draw_curves(rows: Sequence[SummaryRow], image: str | os.PathLike[str]) -> None:
    """Draw the summary of one protocol, as `plot_curves` does that of a file."""
    agg, figures = (
        require(f"matplotlib.{name}", what="plot_curves", extra="plot") for name in ("backends.backend_agg", "figure")
    )
    names = list(dict.fromkeys(row.dataset for row in rows if not _is_average(row.dataset)))
    shared = any(row.dataset == AVERAGE and row.n_datasets == len(names) > 1 for row in rows)
    panels = [AVERAGE, *names] if shared else names
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = figures.Figure(figsize=(4.2 * columns + 2.8, 3.6 * lines), layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    styles = _styles(rows)
    for i, (axis, name) in enumerate(zip(axes, panels, strict=False)):
        # an average over fewer data sets is none of the same curve
        whole = len(names) if name == AVERAGE else 1
        shown = [row for row in rows if row.dataset == name and row.n_datasets == whole]
        _draw_panel(axis, name, shown, styles)
        axis.set_ylabel("accuracy (%)" if i % columns == 0 else "")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    handles = {handle.get_label(): handle for axis in axes[: len(panels)] for handle in axis.get_lines()}
    order = [method for method in styles if method in handles]
    figure.legend([handles[method] for method in order], order, loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(image, dpi=150)


def _styles(rows: Iterable[SummaryRow]) -> dict[str, dict[str, Any]]:
    """Look of each method, the best first: colors come round again with another dash, markers never."""
    held: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        held[row.method].append(row.accuracy)
    order = sorted(held, key=lambda method: -float(np.mean(held[method])))
    return {
        method: {
            "color": COLORS[i % len(COLORS)],
            "linestyle": DASHES[i // len(COLORS) % len(DASHES)],
            "marker": METHOD_MARKERS[i % len(METHOD_MARKERS)],
        }
        for i, method in enumerate(order)
    }


def _draw_panel(axis: Any, name: str, rows: Sequence[SummaryRow], styles: dict[str, dict[str, Any]]) -> None:
    shots = sorted({row.shots for row in rows})
    for method, style in styles.items():
        own = sorted((row for row in rows if row.method == method), key=lambda row: row.shots)
        if own:
            errors = [0.0 if math.isnan(row.accuracy_se) else 100 * row.accuracy_se for row in own]
            x, y = [row.shots for row in own], [100 * row.accuracy for row in own]
            axis.plot(x, y, label=method, linewidth=1.4, markersize=5, **style)
            axis.errorbar(x, y, errors, fmt="none", ecolor=style["color"], elinewidth=0.8, label="_nolegend_")
    axis.set_xscale("log", base=2)
    axis.set_xticks(shots, [str(count) for count in shots])
    axis.minorticks_off()
    axis.margins(x=0.08)
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("shots")
    axis.grid(alpha=0.25)
