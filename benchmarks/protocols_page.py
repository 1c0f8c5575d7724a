"""The text of docs/results.md: domain generalization, base-to-novel, active learning, and the cells that it needs."""

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
    signed,
    with_error,
)

from skxma.benchmark._corruptions import BLUR_SIZE, CONTRAST, JPEG_QUALITY, NOISE_STD, PIXELATE
from skxma.benchmark._names import ASKED, EMOJI, EMOJI_ENCODER, HALVES, RANDOM, SAME, SUGGESTED
from skxma.benchmark._parts import load_parts
from skxma.benchmark._report import curve_area, harmonic_mean, worth_text
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


def protocols(shifted, novel, chosen):
    """The lines of the protocols, from their cells."""
    return [*domain_generalization(shifted), *base_to_novel(novel), *active_learning(chosen)]


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


def active_learning(cells):
    """The lines of the part on labels that are asked for."""
    if not cells.methods:
        return ["## Labels that are asked for", "", "Not run.", ""]
    names = list(dict.fromkeys(map(whole_of, cells.datasets)))
    counts = counts_by_shots(cells, [f"{name}/{SUGGESTED}" for name in names], "{}C".format)
    lines = [
        "## Labels that are asked for",
        "",
        "Two fifths of the images of each class are the test and the others a pool, from which as many labels as there "
        "are classes (C) are asked for, then as many again, and so on, with a fit in between (`skxma benchmark "
        "--protocol active`): of images that `skxma.active.suggest` chooses, or of random ones. The default estimator "
        "learns from the labels alone, or from the rest of the pool too, without its labels. A cell has the accuracy "
        "in %, and in brackets the points above random labels on the same seeds with their standard error; then the "
        "share of the classes seen and the calibration error in %; then how many random labels, per class, give the "
        "same accuracy. The area is that under the accuracy over the logarithm of the number of labels.",
        "",
        f"Mean over the data sets that have enough images ({counts}):",
        "",
        *asked_table(cells, names),
        "",
    ]
    for name in names if len(names) > 1 else []:
        lines += [f"### {name}, labels that are asked for", "", *asked_table(cells, [name]), ""]
    return lines


def asked_table(cells, names):
    """Each way to choose labels by labels per class; the area where all data sets have the same numbers."""
    own = cells.only([f"{name}/{part}" for name in names for part in ASKED])
    rows = []
    for method in own.methods:
        for part in (part for part in ASKED if any(part_of(name) == part for name in own.datasets)):
            curve = asked_curve(own, method, part, names)
            texts = [asked_cell(own, method, part, n, names) for n in own.shots]
            area = curve_area(curve) if len(curve) == len(own.shots) else math.nan
            rows.append([f"{label(method)}, {part}", *texts, number(area)])
    return markdown(["labels", *(f"{n}C" for n in own.shots), "area"], rows)


def asked_curve(cells, method, part, names):
    """Accuracy by labels per class, where all of some data sets have it."""
    sets = [f"{name}/{part}" for name in names]
    whole = [n for n in cells.shots if all(cells.has(method, name, n) for name in sets)]
    return {n: cells.average(method, n, sets=sets)[0] for n in whole}


def asked_cell(cells, method, part, n, names):
    """What a way to choose so many labels per class gives, against random ones."""
    names = [name for name in names if cells.has(method, f"{name}/{part}", n)]
    if not names:
        return "–"
    other = part.replace(SUGGESTED, RANDOM)
    sets, others = ([f"{name}/{one}" for name in names] for one in (part, other))
    accuracy, seen, error = (cells.average(method, n, column, sets)[0] for column in ("accuracy", "seen", "ece"))
    if part == other:
        return f"{number(accuracy)}, {number(seen, 0)}, {number(error)}"
    gain, spread = cells.gain(method, n, sets, others)
    above = signed(gain) + ("" if math.isnan(spread) else f" ± {spread:.1f}")
    worth = worth_text(accuracy, asked_curve(cells, method, other, names))
    return f"{number(accuracy)} ({above}), {number(seen, 0)}, {number(error)}; {worth}"


def counts_by_shots(cells, names, at=at):
    """How many of some parts have results at each number of shots."""
    counts = {shots: sum(name in cells.sets(shots) for name in names) for shots in cells.shots}
    return "; ".join(f"{at(shots)}: {count}" for shots, count in counts.items())


def part_of(name):
    return name.rpartition("/")[2]


def whole_of(name):
    return name.rpartition("/")[0]
