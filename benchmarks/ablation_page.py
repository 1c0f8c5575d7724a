"""The text of docs/results.md: what each part of the default brings, and how it does under hard conditions."""

import math

import robustness as R
from ablation import DEFAULT
from results_page import DEFAULT as METHOD
from results_page import at, calibration_table, label, lead_sentence, markdown, number, signed, with_error

TIP = "tip-adapter-f"
SAME = 1e-6


def ablation(cells, compared):
    """The lines of the ablation; `compared` has the cells of the comparison."""
    if DEFAULT not in cells.methods:
        return ["## Ablation", "", "Not run.", ""]
    over = "; ".join(f"{at(shots)}: {len(cells.sets(shots))}" for shots in cells.shots)
    return [
        "## Ablation",
        "",
        "One part of the default is switched off at a time, on the same support sets; mean over the data sets "
        f"({over}), in brackets the difference from the default in points. The last columns are the mean of the "
        "differences over the numbers of shots ± its standard error, and in how many cells (data set, shots, seed) the "
        "answer changed. Without the image cache the trained residual stays.",
        "",
        *ablation_table(cells, "accuracy"),
        "",
        *ablation_table(cells, "ece"),
        "",
        *notable(cells),
        "",
        *no_words(cells, compared),
    ]


def ablation_table(cells, column):
    rows = []
    for method in cells.methods:
        row = [method]
        for shots in cells.shots:
            text = number(cells.average(method, shots, column)[0])
            gap, _ = cells.difference(method, DEFAULT, shots, column)
            row.append(text if method == DEFAULT else f"{text} ({signed(gap)})")
        gap, error = mean_difference(cells, method, column)
        brief = "" if method == DEFAULT else signed(gap, 2) + ("" if math.isnan(error) else f" ± {error:.2f}")
        rows.append([*row, brief, "" if method == DEFAULT else changed(cells, method)])
    name = {"accuracy": "accuracy %", "ece": "calibration error %"}[column]
    return markdown([name, *map(at, cells.shots), "mean difference", "cells changed"], rows)


def mean_difference(cells, method, column="accuracy"):
    """Over the numbers of shots, each counted once, with its standard error."""
    found = [cells.difference(method, DEFAULT, shots, column) for shots in cells.shots]
    found = [pair for pair in found if not math.isnan(pair[0])]
    if not found:
        return math.nan, math.nan
    errors = [error for _, error in found if not math.isnan(error)]
    error = math.sqrt(sum(error**2 for error in errors)) / len(found) if errors else math.nan
    return sum(gap for gap, _ in found) / len(found), error


def changed(cells, method):
    """Number of cells in which the likelihood of the test labels differs."""
    pairs = [
        (own[seed], other[seed])
        for shots in cells.shots
        for name in cells.sets(shots)
        for own, other in [[cells.seeds(m, name, shots, "nll") for m in (method, DEFAULT)]]
        for seed in own
        if seed in other
    ]
    return f"{sum(abs(a - b) > SAME for a, b in pairs)} of {len(pairs)}"


def notable(cells):
    """Rows that are clearly worse or better than the default, by two standard errors; none with one seed."""
    if all(math.isnan(mean_difference(cells, method)[1]) for method in cells.methods):
        return ["With one seed, no difference can be told from chance."]
    sorted_by = {"worse": [], "better": [], "no clear difference": []}
    for method in cells.methods:
        gap, error = mean_difference(cells, method)
        if method == DEFAULT or math.isnan(gap):
            continue
        clear = not math.isnan(error) and abs(gap) > 2 * error
        kind = "no clear difference" if not clear else "worse" if gap < 0 else "better"
        sorted_by[kind].append(f"{method} ({signed(gap, 2)})")
    heads = {
        "worse": "Clearly less accurate than the default (by more than two standard errors)",
        "better": "Clearly more accurate than the default, so that on these data the part costs something",
        "no clear difference": "No clear difference",
    }
    return [f"- {heads[kind]}: {', '.join(names) or 'none'}." for kind, names in sorted_by.items()]


def no_words(cells, compared):
    """The default's place without the vocabulary, which the rivals do not take."""
    method = "no vocabulary"
    lines = []
    for shots in cells.shots:
        sets = [name for name in cells.sets(shots) if cells.has(method, name, shots)]
        others = [m for m in compared.methods if m != METHOD]
        means = {m: compared.average(m, shots, sets=sets)[0] for m in others} if sets else {}
        means = {m: value for m, value in means.items() if not math.isnan(value)}
        if means:
            best = max(means, key=means.get)
            own = cells.average(method, shots, sets=sets)[0]
            lines.append(
                f"- At {at(shots)}, over {len(sets)}: {number(own)} % without the vocabulary, best rival {best} "
                f"{number(means[best])} % ({signed(own - means[best])})."
            )
    if not lines:
        return []
    return ["No rival takes a vocabulary. The default without one, on the same data sets:", "", *lines, ""]


def hard_conditions(cells, compared):
    """The lines on robustness."""
    if not cells.methods:
        return ["## Robustness", "", "Not run.", ""]
    return ["## Robustness", "", *useless_text(cells), *wrong_labels(cells, compared), *unequal(cells)]


def having(cells, condition, shots):
    """Names of the data sets, without their condition, that were run under it."""
    ending = f": {condition}"
    return [name.removesuffix(ending) for name in cells.sets(shots) if name.endswith(ending)]


def under(names, condition):
    return [f"{name}: {condition}" for name in names]


def useless_text(cells):
    """Shuffled and random text against methods that see no text at all."""
    shots = [count for count in cells.shots if having(cells, R.NO_TEXT, count)]
    sets = having(cells, R.NO_TEXT, shots[0]) if shots else []
    if not sets:
        return []
    rows = [[f"{m}, no text"] + [number(on(cells, m, R.NO_TEXT, sets, s)) for s in shots] for m in R.IMAGE_ONLY]
    sentences = []
    for kind in (R.SHUFFLED, R.RANDOM):
        for method in ("zero-shot", METHOD):
            rows.append([f"{label(method)}, {kind}"] + [number(on(cells, method, kind, sets, s)) for s in shots])
        sentences.append(f"- {kind}: " + ", ".join(against_images(cells, kind, sets, s) for s in shots) + ".")
    return [
        "### Useless text",
        "",
        f"Mean over {', '.join(sets)}. Shuffled: every class has the text of another class. Random: normal "
        "numbers. Drawn anew for each seed, and no vocabulary. Without text, class means stand for it in GDA.",
        "",
        *markdown(["accuracy %", *map(at, shots)], rows),
        "",
        "The default less the best method that sees no text, in points (the best of them at that number of shots):",
        "",
        *sentences,
        "",
    ]


def on(cells, method, condition, sets, shots, column="accuracy"):
    return cells.average(method, shots, column, under(sets, condition))[0]


def against_images(cells, kind, sets, shots):
    means = {method: on(cells, method, R.NO_TEXT, sets, shots) for method in R.IMAGE_ONLY}
    best = max(means, key=means.get)
    return f"{at(shots)} {signed(on(cells, METHOD, kind, sets, shots) - means[best])} ({best})"


def wrong_labels(cells, compared):
    """Accuracy on right and wrong labels, and the cost of the wrong ones."""
    shots = [count for count in cells.shots if having(cells, R.WRONG, count)]
    if not shots:
        return []
    sets, rows = having(cells, R.WRONG, shots[0]), []
    for name, condition in (("all", R.WRONG), ("one class", R.WRONG_IN_ONE)):
        for method in (METHOD, TIP) if condition == R.WRONG_IN_ONE else (METHOD, R.UNSCREENED, TIP):
            row = [f"{label(method)}, {name}"]
            for count in shots:
                clean = compared.average(METHOD if method == R.UNSCREENED else method, count, sets=sets)[0]
                noisy = on(cells, method, condition, sets, count)
                row.append(f"{number(noisy)} ({signed(noisy - clean)})")
            rows.append(row)
    return [
        "### Wrong labels",
        "",
        f"{100 * R.WRONG_SHARE:.0f} % of the support labels wrong, of all labels or of one class's; accuracy and in "
        "brackets what that changes (without screening: from the default on right labels), mean over "
        f"{', '.join(sets)}.",
        "",
        *markdown(["accuracy %", *map(at, shots)], rows),
        "",
        *(f"- {at(count)}: {kept(cells, sets, count)}." for count in shots),
        "",
    ]


def kept(cells, sets, shots):
    texts = []
    for name, condition in (("of all labels", R.WRONG), ("of one class's", R.WRONG_IN_ONE)):
        gap, error = cells.difference(METHOD, TIP, shots, sets=under(sets, condition))
        side = "more" if gap >= 0 else "less"
        texts.append(f"with wrong ones {name} the default keeps {with_error(abs(gap), error)} points {side} than {TIP}")
    return "; ".join(texts)


def unequal(cells):
    """A table of all methods on unbalanced classes."""
    names = [name for name in cells.datasets if name.endswith(f": {R.UNBALANCED}")]
    if not names:
        return []
    own = cells.only(names)
    order = sorted(own.methods, key=lambda method: -own.average(method, R.MOST)[0])
    rows = []
    for method in order:
        values = [with_error(*own.average(method, R.MOST, sets=[name])) for name in names]
        mean, error = own.average(method, R.MOST)
        rows.append([label(method), *values, f"{with_error(mean, error)} ({number(own.rank(method, R.MOST))})"])
    sentence = lead_sentence(own, R.MOST).replace(f"At {at(R.MOST)}", "On average")
    return [
        "### Unbalanced classes",
        "",
        f"From {R.FEWEST} to {R.MOST} images per class, evenly spaced in the logarithm; the seed determines how many "
        "each class has. The test sets are balanced as before.",
        "",
        *markdown(["accuracy %", *(name.split(":")[0] for name in names), "mean (rank)"], rows),
        "",
        sentence,
        "",
        "Calibration error:",
        "",
        *[line.replace(at(R.MOST), "mean") for line in calibration_table(own, [R.MOST], own.sets)],
        "",
    ]
