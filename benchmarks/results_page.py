"""The text of docs/results.md: its first part, the comparison of all methods."""

import math

from skxma._statistics import CALIBRATION_BINS

DEFAULT, ZERO_SHOT = "xmadapter", "zero-shot"


def markdown(head, rows):
    """A table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def signed(value, digits=1):
    """A difference with its sign; no sign on what rounds to nothing."""
    if math.isnan(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    sign = "" if float(text) == 0 else "−" if value < 0 else "+"
    return sign + text


def number(value, digits=1):
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def with_error(value, error, digits=1):
    return number(value, digits) + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def at(shots):
    return f"{shots} shot{'s' * (shots > 1)}"


def bold_best(texts, values, highest=True):
    """Texts of a column, the best bold, by what is shown and not by hidden digits."""
    known = [round(value, 1) for value in values if not math.isnan(value)]
    if not known:
        return list(texts)
    best = max(known) if highest else min(known)
    return [f"**{text}**" if round(value, 1) == best else text for text, value in zip(texts, values, strict=True)]


def label(method):
    return f"{method} (default)" if method == DEFAULT else method


def by_accuracy(cells):
    """Methods, the best first: by their mean over the numbers of shots at which all have results."""
    means = {method: [cells.average(method, shots)[0] for shots in cells.shots] for method in cells.methods}
    return sorted(means, key=lambda method: -sum(value for value in means[method] if not math.isnan(value)))


def accuracy_table(cells, shots, sets_of):
    """Accuracy with its error and rank; `sets_of` says over which data sets at a number of shots."""
    order = by_accuracy(cells)
    columns = []
    for count in shots:
        found = [cells.average(method, count, sets=sets_of(count)) for method in order]
        ranks = [cells.rank(method, count, sets_of(count)) for method in order]
        texts = [f"{with_error(*pair)} ({number(rank)})" for pair, rank in zip(found, ranks, strict=True)]
        columns.append(bold_best(texts, [value for value, _ in found]))
    return markdown(
        ["accuracy % (rank)", *map(at, shots)], [[label(m), *row] for m, *row in zip(order, *columns, strict=True)]
    )


def calibration_table(cells, shots, sets_of):
    order = by_accuracy(cells)
    columns = []
    for count in shots:
        values = [cells.average(method, count, "ece", sets_of(count))[0] for method in order]
        columns.append(bold_best([number(value) for value in values], values, highest=False))
    return markdown(
        ["calibration error %", *map(at, shots)], [[label(m), *row] for m, *row in zip(order, *columns, strict=True)]
    )


def rivals(cells):
    return [method for method in cells.methods if method != DEFAULT]


def lead_sentence(cells, shots):
    """The default's place on average at a number of shots, and its distance to the best rival."""
    means = {method: cells.average(method, shots)[0] for method in cells.methods}
    means = {method: value for method, value in means.items() if not math.isnan(value)}
    others = [method for method in means if method != DEFAULT]
    if DEFAULT not in means or not others:
        return f"- At {at(shots)} there is nothing to compare."
    best = max(others, key=means.get)
    gap, error = cells.difference(DEFAULT, best, shots)
    place = 1 + sum(means[method] > means[DEFAULT] for method in others)
    where = "first" if place == 1 else f"number {place} of {len(means)}"
    side = "above" if gap >= 0 else "below"
    return (
        f"- At {at(shots)} the default is {where} with {number(means[DEFAULT])} %, "
        f"{with_error(abs(gap), error)} points {side} the best rival, {best} ({number(means[best])} %)."
    )


def calibration_sentence(cells, shots):
    errors = {method: cells.average(method, shots, "ece")[0] for method in cells.methods}
    errors = {method: value for method, value in errors.items() if not math.isnan(value)}
    others = [method for method in errors if method != DEFAULT]
    if DEFAULT not in errors or not others:
        return f"- At {at(shots)} there is nothing to compare."
    least = min(others, key=errors.get)
    accurate = max(others, key=lambda method: cells.average(method, shots)[0])
    text = (
        f"- At {at(shots)}: {number(errors[DEFAULT])} %; the least of any rival is {number(errors[least])} % ({least})"
    )
    if accurate == least:
        return text + ", which is also the most accurate rival."
    return text + f", that of the most accurate rival {number(errors[accurate])} % ({accurate})."


def cells_behind(cells):
    """Each data set and number of shots where a rival is ahead of the default."""
    lines = []
    for name in cells.datasets:
        for shots in cells.shots:
            if not cells.has(DEFAULT, name, shots):
                continue
            own = cells.average(DEFAULT, shots, sets=[name])[0]
            found = {m: cells.average(m, shots, sets=[name])[0] for m in rivals(cells) if cells.has(m, name, shots)}
            ahead = sorted((m for m in found if found[m] > own), key=lambda m: -found[m])
            if ahead:
                named = ", ".join(f"{m} {number(found[m])}" for m in ahead[:3])
                more = f" and {len(ahead) - 3} more" if len(ahead) > 3 else ""
                lines.append(f"- {name}, {at(shots)}: {number(own)} % behind {named}{more}.")
    return lines or ["- None."]


def cells_below_zero_shot(cells):
    lines = []
    for name in cells.datasets:
        for shots in cells.shots:
            gap, error = cells.difference(DEFAULT, ZERO_SHOT, shots, sets=[name])
            if gap < 0:
                lines.append(f"- {name}, {at(shots)}: {with_error(-gap, error, 2)} points below zero-shot.")
    return lines or ["- None."]


def cost_table(cells):
    """Seconds and trained parameters at the largest common number of shots of each data set."""
    order = by_accuracy(cells)
    most = {name: max(s for s in cells.shots if name in cells.sets(s)) for name in cells.datasets}
    rows = []
    for method in order:
        seconds = [cells.average(method, most[name], "fit_s", [name])[0] for name in cells.datasets]
        trained = [cells.average(method, most[name], "n_trained", [name])[0] for name in cells.datasets]
        texts = [
            f"{number(s, 2)} ({'–' if math.isnan(n) else f'{n:.0f}'})" for s, n in zip(seconds, trained, strict=True)
        ]
        rows.append([label(method), *texts])
    head = ["fit, seconds (trained parameters)", *(f"{name}, {at(most[name])}" for name in cells.datasets)]
    return markdown(head, rows)


def comparison(cells):
    """The lines of the comparison."""
    over = "; ".join(f"{at(shots)}: {len(cells.sets(shots))}" for shots in cells.shots)
    lines = [
        "## Comparison",
        "",
        f"Macro-average over the data sets that have enough images ({over}). ± is the standard error over the "
        "seeds, to which a data set with one seed adds nothing; in brackets the mean rank among all methods.",
        "",
        *accuracy_table(cells, cells.shots, cells.sets),
        "",
        *(lead_sentence(cells, shots) for shots in cells.shots),
        "",
        "± of a distance is that of the differences on the same support sets.",
        "",
        f"Expected calibration error, {CALIBRATION_BINS} bins of equal width:",
        "",
        *calibration_table(cells, cells.shots, cells.sets),
        "",
        "The default's:",
        "",
        *(calibration_sentence(cells, shots) for shots in cells.shots),
        "",
        "Where the default is not first:",
        "",
        *cells_behind(cells),
        "",
        "Where the default is below zero-shot:",
        "",
        *cells_below_zero_shot(cells),
        "",
    ]
    for name in cells.datasets:
        lines += one_set(cells, name)
    return [*lines, "### Cost", "", *cost_table(cells), ""]


def one_set(cells, name):
    shots = [count for count in cells.shots if name in cells.sets(count)]
    table = accuracy_table(cells, shots, lambda _: [name])
    return [f"### {name}", "", *table, "", *calibration_table(cells, shots, lambda _: [name]), ""]
