"""Finished cells of a benchmark: means over seeds and data sets, ranks, and paired differences."""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from skxma.benchmark._results_file import append_row, read_results


class Cells:
    """The cells of a results file, without its errors.

    Parameters
    ----------
    path : path-like
    keep : callable from row to bool, optional
        Which rows count.

    Attributes
    ----------
    methods, datasets : list of str
        In the order of the file.
    shots : list of int
    """

    def __init__(self, path, keep=lambda row: True):
        self._path, self._keep = path, keep
        self._held = defaultdict(dict)
        for row in read_results(path):
            if not row["error"] and keep(row):
                self._held[row["method"], row["dataset"], int(row["shots"])][int(row["seed"])] = row
        self.methods, self.datasets = (list(dict.fromkeys(key[i] for key in self._held)) for i in range(2))
        self.shots = sorted({key[2] for key in self._held})

    def seeds(self, method, dataset, shots, column="accuracy"):
        """Values by seed, in per cent where they are shares."""
        scale = 100.0 if column in ("accuracy", "ece", "seen") else 1.0
        rows = self._held.get((method, dataset, shots), {})
        return {seed: scale * float(row[column] or "nan") for seed, row in rows.items()}

    def has(self, method, dataset, shots):
        """Whether there is any seed."""
        return (method, dataset, shots) in self._held

    def sets(self, shots):
        """Data sets with results at a number of shots."""
        return [name for name in self.datasets if any(self.has(method, name, shots) for method in self.methods)]

    def average(self, method, shots, column="accuracy", sets=None):
        """Mean over data sets and its standard error over the seeds; NaN where a data set is missing."""
        parts = [self.seeds(method, name, shots, column).values() for name in sets or self.sets(shots)]
        return _combine(parts)

    def difference(self, one, other, shots, column="accuracy", sets=None):
        """Mean of `one` less `other` over data sets, seed by seed, and its standard error."""
        parts = []
        for name in sets or self.sets(shots):
            a, b = (self.seeds(method, name, shots, column) for method in (one, other))
            parts.append([a[seed] - b[seed] for seed in a if seed in b])
        return _combine(parts)

    def gain(self, method, shots, sets, others):
        """Mean of a method on some data sets less that on others, pair by pair and seed by seed, and its error."""
        parts = []
        for one, other in zip(sets, others, strict=True):
            a, b = (self.seeds(method, name, shots) for name in (one, other))
            parts.append([a[seed] - b[seed] for seed in a if seed in b])
        return _combine(parts)

    def rank(self, method, shots, sets=None):
        """Mean rank by accuracy over data sets, 1 for the best; equals share theirs."""
        ranks = []
        for name in sets or self.sets(shots):
            found = [other for other in self.methods if self.has(other, name, shots)]
            means = {other: self.average(other, shots, sets=[name])[0] for other in found}
            if method not in means:
                return math.nan
            values = np.array(list(means.values()))
            ranks.append((values > means[method]).sum() + ((values == means[method]).sum() + 1) / 2)
        return float(np.mean(ranks))

    def only(self, names):
        """The cells of some data sets."""
        return Cells(self._path, lambda row: self._keep(row) and row["dataset"] in names)

    def n_seeds(self, dataset):
        """The most seeds that any cell of a data set has."""
        return max(len(rows) for key, rows in self._held.items() if key[1] == dataset)


def _combine(parts):
    """Mean of the means and its error, to which a data set with one seed adds nothing."""
    parts = [list(part) for part in parts]
    if not parts or any(not part for part in parts):
        return math.nan, math.nan
    several = [np.var(part, ddof=1) / len(part) for part in parts if len(part) > 1]
    error = math.sqrt(sum(several)) / len(parts) if several else math.nan
    return float(np.mean([np.mean(part) for part in parts])), error


def drop_method(path, method=None):
    """Take a method's lines, or all, out of a results file, so that they are run again."""
    path = Path(path)
    if not path.exists():
        return
    kept = [row for row in read_results(path) if method is not None and row["method"] != method]
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    for row in kept:
        append_row(fresh, row)
    if kept:
        fresh.replace(path)
    else:
        path.unlink()
