"""Tables of paths and labels, as spreadsheets, scripts and other tools write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PATH_NAMES = (
    *("path", "filepath", "file_path", "filename", "file_name", "file", "image", "image_path", "image_file"),
    *("image_name", "img", "img_path", "imgpath", "impath", "img_name", "photo", "picture", "src"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "classname", "class_label", "category", "category_name", "target"),
    *("y", "tag", "species"),
)
GROUP_NAMES = ("group", "groups")
DELIMITERS = ",;\t|"
EXCEL_ENCODING = "cp1252"
# Excel writes this line above a table to name its delimiter
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ARCHIVES = {b"PK\x03\x04": "an archive or a spreadsheet", b"\x1f\x8b": "an archive", b"Rar!": "an archive"}


@dataclass(frozen=True)
class Row:
    """A row of a table: the path of an image, its label, and its group or None."""

    path: str
    label: str
    group: str | None


@dataclass(frozen=True)
class Table:
    """The rows of a table.

    Attributes
    ----------
    rows : list of Row
    notes : list of str
        Sentences about how it was read, where that was not plain from its first line.
    """

    rows: list[Row]
    notes: list[str]


@dataclass(frozen=True)
class Columns:
    """The columns that a caller names, and how the interface that shows an error calls these options."""

    path: str | None = None
    label: str | None = None
    options: tuple[str, str] = ("path_column=", "label_column=")


def read_table(file: Path, columns: Columns) -> Table:
    """Read a table of paths and labels.

    Parameters
    ----------
    file : Path
        Text with a first line that names the columns.
    columns : Columns

    Returns
    -------
    table : Table

    Raises
    ------
    FileNotFoundError
        An image of the table is missing.
    ValueError
        It is no table, or a column or a label is missing.
    """
    text, notes = _decode(file)
    separator = _SEPARATOR_LINE.match(text)
    n_lines_before = 0
    if separator:
        text, n_lines_before = text[separator.end() :], 1
    delimiter = separator[1] if separator else _sniff_delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        path = _find_column(file, header, columns.path, PATH_NAMES, "paths", columns)
        label = _find_column(file, header, columns.label, LABEL_NAMES, "labels", columns)
        group = _position_in(file, header, None, GROUP_NAMES)
        if (header[path], header[label]) != ("path", "label"):
            notes.append(f"Read the paths from the column {header[path]}, the labels from {header[label]}.")
        rows = list(_read_rows(file, reader, (path, label, group), len(header), n_lines_before))
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num + n_lines_before} is no line of a table: {error}.") from error
    return Table(rows, notes)


def _read_rows(
    file: Path, reader: Iterator[list[str]], places: tuple[int, int, int | None], width: int, n_lines_before: int
) -> Iterator[Row]:
    path, label, group = places
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        # sheets end in rows of nothing but delimiters
        if not any(cells):
            continue
        line = f"{file} line {reader.line_num + n_lines_before}"  # type: ignore[attr-defined]
        if any(cells[width:]):
            raise ValueError(
                f"{line} has {len(cells)} cells, the first line {width}. Put a cell that holds a delimiter into quotes."
            )
        cells += [""] * (width - len(cells))
        if not cells[path]:
            raise ValueError(f"{line} has no path for its label {cells[label]!r}.")
        if not cells[label]:
            raise ValueError(f"{line}: {cells[path]} has no label.")
        yield Row(_find_image(file.parent, cells[path], line), cells[label], None if group is None else cells[group])


def _find_image(folder: Path, given: str, line: str) -> str:
    """The path of an image, which a table may name in the manner of Windows."""
    image = folder / given
    if image.is_file():
        return str(image)
    slashed = folder / given.replace("\\", "/")
    if slashed.is_file():
        return str(slashed)
    hint = ""
    if not Path(given).is_absolute() and Path(given).is_file():
        hint = f" Paths are relative to the folder of the table, {folder}."
    raise FileNotFoundError(f"{line}: there is no image {image}.{hint}")


def column_position(header: Sequence[str], wanted: str | None, usual: Sequence[str]) -> int | None:
    """Return the position of the column that is asked for, or else the first of the usual names; None if there is none.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    wanted : str or None
    usual : sequence of str

    Raises
    ------
    ValueError
        Several columns have that name.
    """
    names = [re.sub(r"[\s-]+", "_", name.lower()) for name in header]
    if wanted is None:
        found = next((name for name in usual if name in names), None)
    elif wanted in header:
        names, found = list(header), wanted
    else:
        found = wanted.lower()
    places = [place for place, name in enumerate(names) if name == found]
    if len(places) > 1:
        raise ValueError(
            f"{len(places)} columns are called {header[places[0]]}; keep or name one so. "
            f"The columns are {', '.join(header)}."
        )
    return next(iter(places), None)


def _position_in(file: Path, header: Sequence[str], wanted: str | None, usual: Sequence[str]) -> int | None:
    try:
        return column_position(header, wanted, usual)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _find_column(
    file: Path, header: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, columns: Columns
) -> int:
    """The position of a column: the one that is asked for, or the first of the usual names."""
    found = _position_in(file, header, wanted, usual)
    if found is not None:
        return found
    option = columns.options[0 if usual is PATH_NAMES else 1]
    listed = ", ".join(header) or "none"
    if wanted is not None:
        raise ValueError(f"{file} has no column {wanted}; its columns are {listed}.")
    raise ValueError(
        f"{file} has the columns {listed}, none of which is known to hold the {what} ({', '.join(usual[:6])}, ...). "
        f"Name the column on the first line so, or with {option}NAME."
    )


def _sniff_delimiter(text: str) -> str:
    """The delimiter that makes columns of the first line, known ones before many."""
    first = text.lstrip("\r\n").partition("\n")[0]

    def merit(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        return sum(cell in {*PATH_NAMES, *LABEL_NAMES, *GROUP_NAMES} for cell in cells), len(cells)

    return max(DELIMITERS, key=merit)


def _decode(file: Path) -> tuple[str, list[str]]:
    """The text of a file, and a note if its encoding was guessed."""
    content = file.read_bytes()
    encoding = next((encoding for bom, encoding in _BOMS.items() if content.startswith(bom)), None)
    _refuse_other_kinds(file, content, encoding)
    try:
        return content.decode(encoding or "utf-8"), []
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        advice = "Save it as CSV UTF-8."
        if encoding is not None:
            raise ValueError(f"{file} line {number} is not in {encoding}, as its first bytes say. {advice}") from error
    try:
        text = content.decode(EXCEL_ENCODING)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} line {number} is neither in UTF-8 nor in Windows-1252, which Excel writes on Windows. {advice}"
        ) from error
    note = (
        f"Line {number} of {file} is not in UTF-8, so the table was read in Windows-1252, which Excel writes on "
        f"Windows. If names look wrong, save it as CSV UTF-8."
    )
    return text, [note]


def _refuse_other_kinds(file: Path, content: bytes, encoding: str | None) -> None:
    """Say of a file that is no table what it is."""
    advice = "Give a folder with one folder of images per class, or a table (.csv) of paths and labels."
    kind = next((kind for magic, kind in _ARCHIVES.items() if content.startswith(magic)), None)
    if kind is not None:
        raise ValueError(f"{file} is {kind}, not a table. Unpack an archive; save a spreadsheet as CSV UTF-8.")
    if _is_image(file):
        raise ValueError(f"{file} is an image, not a table. {advice}")
    if encoding != "utf-16" and b"\0" in content:
        raise ValueError(f"{file} is no text, so no table. {advice}")


def _is_image(file: Path) -> bool:
    try:
        with Image.open(file):
            return True
    except Exception:
        return False
