"""Names of groups of images that depend on one another, as `groups` has them in fits and in splits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._labels.arrays import as_python, is_missing
from skxma.embeddings import host_array


def group_names(given: Any, n_samples: int) -> NDArray[np.str_]:
    """Return the name of each sample's group (n_samples,); "" for a sample of its own, whose group is missing or "".

    Raises
    ------
    ValueError
        Another number of names than of samples.
    """
    groups = np.asarray(host_array(given), dtype=object)
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups[:, 0]
    if groups.ndim != 1 or len(groups) != n_samples:
        found = f"{len(groups)} entries" if groups.ndim == 1 else f"the shape {groups.shape}"
        raise ValueError(f"groups has {found} for {n_samples} samples. Give each sample its group's name, or None.")
    return np.array([_group_name(as_python(group)) for group in groups], dtype=str)


def numbers_of(names: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return a number for the group of each sample (n_samples,), from names as `group_names` has them."""
    numbers = np.unique(names, return_inverse=True)[1]
    return np.where(names == "", len(names) + np.arange(len(names)), numbers).astype(np.intp)


def group_numbers(given: Any, n_samples: int) -> NDArray[np.intp]:
    """Return a number for the group of each sample (n_samples,), in the order of the groups as they are given."""
    names = group_names(given, n_samples)
    values = np.asarray(host_array(given))
    if (names == "").any() or values.dtype.kind not in "iufU":
        return numbers_of(names)
    # integers are not ordered as their names are, and what a seed draws depends on the order
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _group_name(group: Any) -> str:
    if is_missing(group):
        return ""
    # a missing value among integers makes floats of them, and the same group may come without one later
    return str(int(group)) if isinstance(group, float) and group.is_integer() else str(group)
