"""The model file: a safetensors file whose header says in JSON what the arrays are. Nothing in it can be run."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save as to_safetensors

from skxma._persistence import format_1
from skxma._persistence.packing import Arrays
from skxma._runtime.atomic import atomic_write
from skxma._version import __version__
from skxma.errors import ModelFileError

FORMAT = "skxma"
# A reader of one major number reads every minor one: those only add what may be ignored.
MAJOR, MINOR = 2, 0
READABLE = ("1", "2")

_LENGTH_BYTES = 8
# safetensors refuses longer ones too
_MAX_HEADER = 100_000_000
_LOOKS = (
    (b"PK\x03\x04", "a zip archive, as skops and torch write"),
    (b"\x1f\x8b", "a gzip file"),
    (b"x\x9c", "a compressed pickle, as joblib writes"),
    (b"x\xda", "a compressed pickle, as joblib writes"),
    (b"x^", "a compressed pickle, as joblib writes"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"<", "a web page"),
    (b"{", "a JSON file"),
)


def write(path: str | os.PathLike[str], state: dict[str, Any], arrays: Arrays) -> None:
    """Write a model file; it is there whole or not at all.

    Parameters
    ----------
    path : str or path-like
    state : dict
        As JSON; refers to the arrays by their names.
    arrays : dict of str to ndarray

    Raises
    ------
    OSError
        If it cannot be written; what was there before then is as it was.
    """
    text = json.dumps(state, separators=(",", ":"), allow_nan=False)
    metadata = {
        "format": FORMAT,
        "version": f"{MAJOR}.{MINOR}",
        "written_by": f"skxma {__version__}",
        "state": text,
        "digest": _digest(text, arrays),
    }
    content = to_safetensors(arrays, metadata)
    if int.from_bytes(content[:_LENGTH_BYTES], "little") > _MAX_HEADER:
        raise ModelFileError(
            "The names, labels and lists of this model take more than the 100 MB that a file may have."
        )
    with atomic_write(path) as stream:
        stream.write(content)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays]:
    """Read a model file, and check that it is whole.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    state : dict
    arrays : dict of str to ndarray

    Raises
    ------
    FileNotFoundError
        If there is none.
    ModelFileError
        If it is no model file, is damaged, or is of a format that this release does not read; says which.
    """
    file = Path(path).expanduser()
    check_start(file)
    try:
        with safetensors.safe_open(str(file), framework="numpy") as opened:
            metadata = opened.metadata() or {}
            _check_version(file, metadata)
            arrays = {name: np.asarray(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{file} is damaged or cut short ({error}).") from error
    text = metadata.get("state", "")
    if metadata.get("digest") != _digest(text, arrays):
        raise ModelFileError(f"{file} is damaged: what it holds is not what was written.")
    try:
        state = _parse(text, metadata["version"])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file} is damaged ({error}).") from error
    return state, arrays


def _parse(text: str, version: str) -> dict[str, Any]:
    """Read the state, with today's names in it whatever the format."""
    old = version.partition(".")[0] == "1"
    state = json.loads(text, object_hook=format_1.translate_record if old else None)
    if not isinstance(state, dict):
        raise ModelFileError("its state is not an object.")
    return format_1.translate(state) if old else state


def check_start(file: Path) -> None:
    """Refuse what does not start as a safetensors file, and name what it looks like.

    Parameters
    ----------
    file : Path

    Raises
    ------
    FileNotFoundError
        If there is none.
    ModelFileError
        If it is something else, or cut short.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no model file {file}.")
    size = file.stat().st_size
    if not size:
        raise ModelFileError(f"{file} is empty.")
    with file.open("rb") as stream:
        start = stream.read(64)
    header = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and header <= _MAX_HEADER:
        if header > size - _LENGTH_BYTES:
            raise ModelFileError(f"{file} is cut short: it has {size} bytes, its header alone should have {header}.")
        return
    if start[:1] == b"\x80" and b"" < start[1:2] <= b"\x05":
        raise ModelFileError(
            f"{file} is no model file of skxma but a pickle, as joblib writes. A pickle can run any code: if you trust "
            "its source, open it with joblib.load."
        )
    look = next((f"; it looks like {look}" for magic, look in _LOOKS if start.startswith(magic)), "")
    raise ModelFileError(f"{file} is no model file of skxma{look}.")


def _check_version(file: Path, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{file} is a safetensors file, but no model file of skxma; those come from `clf.save(path)`."
        )
    version = metadata.get("version", "")
    if version.partition(".")[0] not in READABLE:
        raise ModelFileError(
            f"{file} was written by {metadata.get('written_by', 'another release'):.40} in format {version:.20}; skxma "
            f"{__version__} reads formats {' and '.join(READABLE)}. Use a release of skxma that reads it: for a later "
            "format a later one."
        )


def _digest(text: str, arrays: Arrays) -> str:
    """Tells damage, not intent: whoever changes a file can change this too."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}{array.dtype.name}{array.shape}".encode())
        digest.update(np.asarray(array, order="C").tobytes())
    return digest.hexdigest()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Metadata in the header of a model file: format, version and the release that wrote it.

    Parameters
    ----------
    path : str or path-like
        A file that `read` takes.
    """
    with safetensors.safe_open(str(path), framework="numpy") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
    return {name: metadata[name] for name in ("format", "version", "written_by") if name in metadata}
