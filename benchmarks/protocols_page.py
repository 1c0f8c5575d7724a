"""The text of docs/results.md: domain generalization and base-to-novel, and the cells that it needs."""

import math
from pathlib import Path

import numpy as np
from results_page import (
    accuracy_table,
    at,
    bold_best,
    by_accuracy,
    calibration_table,
    cells_below_zero_shot,
    label,
    lead_sentence,
    markdown,
    number,
    with_error,
)

from skxma.benchmark._corruptions import BLUR_SIZE, CONTRAST, JPEG_QUALITY, NOISE_STD, PIXELATE
from skxma.benchmark._names import EMOJI, EMOJI_ENCODER, HALVES, SAME
from skxma.benchmark._parts import load_parts
from skxma.benchmark._report import harmonic_mean
from skxma.benchmark._runner import run_benchmark


def with_domains(folder):
    """The emoji, and the feature files of a folder that hold their images."""
    files = sorted(Path(folder).glob("*.npz")) if folder else []
    held = []
    for file in files:
        with np.load(file) as arrays:
            held += [file] if "images" in arrays.files else []
    return [EMOJI, *held]


def run_protocol(source, protocol, methods, shots, seeds, out):
    """All methods on the parts of one data set, at the numbers of shots for which it has enough images."""
    parts = load_parts(source, protocol)
    enough = [count for count in shots if all(can_be_drawn(part, count, protocol) for part in parts)]
    run_benchmark([source], methods, shots=enough, seeds=seeds, protocol=protocol, out=out, verbose=1)


def can_be_drawn(part, n_shots, protocol):
    try:
        part.draw(n_shots, protocol, 0)
    except ValueError:
        return False
    return True


def protocols(shifted, novel):
    """The lines of both protocols, from their cells."""
    return [*domain_generalization(shifted), *base_to_novel(novel)]


def domain_generalization(cells):
    """The lines of the part on domains."""
    if not cells.methods:
        return ["## Domain generalization", "", "Not run.", ""]
    sources = [name for name in cells.datasets if part_of(name) == SAME]
    shifts = cells.only([name for name in cells.datasets if name not in sources])
    lines = [
        "## Domain generalization",
        "",
        "Tested are images of other domains than those learned from (`skxma benchmark --protocol domain`): of the "
        "emoji each style with what was learned on the other four, and of a feature file with images each corruption "
        f"with what was learned on clean ones, all encoded by `{EMOJI_ENCODER}`. Corruptions: noise of "
        f"{NOISE_STD:.0f} gray levels, blur of {BLUR_SIZE:.0%} of the width, JPEG of quality {JPEG_QUALITY}, contrast "
        f"of {CONTRAST:.0%}, and pixels {1 / PIXELATE:.0f} times as large. No image that was learned from is tested "
        "in another form.",
        "",
        f"Mean over the shifted parts that have enough images ({counts_by_shots(shifts, shifts.datasets)}):",
        "",
        *accuracy_table(shifts, shifts.shots, shifts.sets),
        "",
        *(lead_sentence(shifts, shots) for shots in shifts.shots),
        "",
        *calibration_table(shifts, shifts.shots, shifts.sets),
        "",
    ]
    for name in dict.fromkeys(map(whole_of, cells.datasets)):
        lines += [f"### {name}, domain by domain", "", *domain_table(cells, name), ""]
    return lines


def domain_table(cells, name):
    """Accuracy on each part of a data set at its largest number of shots."""
    parts = [part for part in cells.datasets if whole_of(part) == name]
    parts.sort(key=lambda part: part_of(part) != SAME)
    own = cells.only(parts)
    shots = max(own.shots)
    order, columns = by_accuracy(own), []
    for part in parts:
        found = [own.average(method, shots, sets=[part]) for method in order]
        columns.append(bold_best([with_error(*pair) for pair in found], [value for value, _ in found]))
    rows = [[label(method), *row] for method, *row in zip(order, *columns, strict=True)]
    return markdown([f"accuracy %, {at(shots)}", *map(part_of, parts)], rows)


def base_to_novel(cells):
    """The lines of the part on novel classes."""
    if not cells.methods:
        return ["## Base-to-novel", "", "Not run.", ""]
    names = list(dict.fromkeys(map(whole_of, cells.datasets)))
    counts = counts_by_shots(cells, [f"{name}/{HALVES[0]}" for name in names])
    lines = [
        "## Base-to-novel",
        "",
        "The first half of the classes, sorted, is learned from images; the others are known by their text alone "
        "(`skxma benchmark --protocol base-to-novel`). A cell has the harmonic mean of two accuracies in %, on images "
        "of the base classes and of the novel ones, each among themselves; in brackets these two, and the accuracy on "
        "images of all classes among all classes.",
        "",
        f"Mean over the data sets that have enough images ({counts}):",
        "",
        *halves_table(cells, names),
        "",
        "Where the default is below zero-shot:",
        "",
        *cells_below_zero_shot(cells),
        "",
    ]
    for name in names:
        lines += [f"### {name}, base-to-novel", "", *halves_table(cells, [name]), ""]
    return lines


def halves_table(cells, names):
    """Harmonic mean, base, novel and all classes by shots, of means over data sets."""
    own = cells.only([f"{name}/{half}" for name in names for half in HALVES])
    columns = {}
    for shots in own.shots:
        held = [name for name in names if all(f"{name}/{half}" in own.sets(shots) for half in HALVES)]
        for method in own.methods:
            sets = ([f"{name}/{half}" for name in held] for half in HALVES)
            base, novel, both = (own.average(method, shots, sets=parts)[0] for parts in sets)
            columns.setdefault(shots, {})[method] = harmonic_mean(base, novel), base, novel, both
    found = {method: [column[method][0] for column in columns.values()] for method in own.methods}
    order = sorted(found, key=lambda method: -sum(value for value in found[method] if not math.isnan(value)))
    texts = []
    for column in columns.values():
        cell = [f"{number(h)} ({' / '.join(map(number, rest))})" for h, *rest in (column[m] for m in order)]
        texts.append(bold_best(cell, [column[method][0] for method in order]))
    rows = [[label(method), *row] for method, *row in zip(order, *texts, strict=True)]
    return markdown(["harmonic mean (base / novel / all) %", *map(at, columns)], rows)


def counts_by_shots(cells, names):
    """How many of some parts have results at each number of shots."""
    counts = {shots: sum(name in cells.sets(shots) for name in names) for shots in cells.shots}
    return "; ".join(f"{at(shots)}: {count}" for shots, count in counts.items())


def part_of(name):
    return name.rpartition("/")[2]


def whole_of(name):
    return name.rpartition("/")[0]
