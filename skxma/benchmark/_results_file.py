"""Results on disk: rows of a CSV file that a benchmark appends to and resumes from."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

COLUMNS = (
    "method",
    "dataset",
    "shots",
    "seed",
    "protocol",
    "accuracy",
    "ece",
    "nll",
    "fit_s",
    "predict_s",
    "n_trained",
    "peak_mb",
    "error",
    "seen",
    "encoder",
)
# files of earlier releases lack the encoder, or the share of the classes that was seen too
EARLIER = (COLUMNS[:-2], COLUMNS[:-1])
KEY = COLUMNS[:5]


def read_results(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a results file, the latest of each cell; a line that a kill cut short is left out.

    Parameters
    ----------
    path : path-like
        A results file; without one there are no rows.

    Returns
    -------
    rows : list of dict from column to str

    Raises
    ------
    ValueError
        The file is not one of the benchmark's.
    """
    path = Path(path)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines) if row]
    if rows and tuple(rows[0]) not in (COLUMNS, *EARLIER):
        raise ValueError(f"{path} is no results file of the benchmark: its first line is {','.join(rows[0])[:80]!r}.")
    columns = tuple(rows[0]) if rows else COLUMNS
    nothing = dict.fromkeys(COLUMNS, "")
    whole = [
        nothing | dict(zip(columns, row, strict=True))
        for row in rows
        if len(row) == len(columns) and tuple(row) != columns
    ]
    return list({key_of(row): row for row in whole}.values())


def check_results_file(path: str | os.PathLike[str]) -> None:
    """Refuse a results file that `append_row` could not write; nothing is made.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    OSError
        It is a folder, or it or the folder that it would be made in cannot be written.
    """
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; pass the path of a file for the results.")
    nearest = next(place for place in (file, *file.absolute().parents) if place.exists())
    if nearest != file and not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is no folder, so the results file {file} cannot be made in it.")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"{nearest} cannot be written, so there is no place for the results file {file}.")


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
    columns = _columns_of(file)
    if columns is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        columns = COLUMNS
        writer.writerow(columns)
    elif not _ends_with_newline(file):
        # a kill cut the last line short
        text.write("\n")
    values = [row.get(name) for name in columns]
    writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in values])
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        os.write(handle, text.getvalue().encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _columns_of(file: Path) -> tuple[str, ...] | None:
    """Columns of a results file; None where there is nothing in it yet."""
    if not file.exists() or not file.stat().st_size:
        return None
    with file.open(newline="", encoding="utf-8") as lines:
        first = tuple(next(csv.reader(lines)))
    return first if first in EARLIER else COLUMNS


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as held:
        held.seek(-1, os.SEEK_END)
        return held.read(1) == b"\n"


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Identity of a line of a results file among the others, as text."""
    return tuple("" if row.get(name) is None else str(row[name]) for name in KEY)


def failures(rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Failed cells, one line each.

    Parameters
    ----------
    rows : iterable of mapping from column to str
        Of a results file.
    """
    for row in rows:
        if row["error"]:
            where = " ".join(filter(None, [row["method"], row["dataset"], row["shots"] and f"{row['shots']} shots"]))
            yield f"{where}, seed {row['seed']}: {row['error']}" if row["seed"] else f"{where}: {row['error']}"
