"""Records of a model file: names on disk that are independent of the names of classes and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from skxma._version import __version__
from skxma.errors import ModelFileError


@dataclass(frozen=True)
class Record:
    """A dataclass and its names on disk.

    Attributes
    ----------
    name : str
        The record's name on disk; it never changes.
    version : int
        Raised when the record's fields change in a way that an earlier reader cannot ignore.
    cls : type
        The dataclass.
    fields : mapping of str to str
        Names of the fields on disk, and the attributes of `cls` that they hold.
    since : mapping of str to int
        Versions of fields on disk that came later. Where such a field holds nothing it is not written, so that earlier
        readers read the record.
    """

    name: str
    version: int
    cls: Any
    fields: Mapping[str, str]
    since: Mapping[str, int] = field(default_factory=dict)

    def written(self, value: Any) -> tuple[str, dict[str, str]]:
        """Name and least version on disk that can hold a value, and the fields that are to be written."""
        later = {name for name in self.since if getattr(value, self.fields[name]) in (None, [])}
        fields = {name: attribute for name, attribute in self.fields.items() if name not in later}
        return f"{self.name}/{max((self.since.get(name, 1) for name in fields), default=1)}", fields


@dataclass(frozen=True)
class EstimatorRecord:
    """An estimator and its names on disk.

    Attributes
    ----------
    name : str
        The record's name on disk; it never changes.
    version : int
        As in `Record`.
    path : str
        ``"module:class"``, where the estimator's class is imported from.
    parameters : mapping of str to str
        Names on disk, and the parameters that they hold.
    fitted : mapping of str to str
        Names on disk, and the fitted attributes that they hold.
    """

    name: str
    version: int
    path: str
    parameters: Mapping[str, str]
    fitted: Mapping[str, str]


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...


R = TypeVar("R", bound=_Named)


def type_on_disk(record: _Named) -> str:
    """Return a record's name and version, as in ``"image_cache/1"``.

    Parameters
    ----------
    record : Record or EstimatorRecord
    """
    return f"{record.name}/{record.version}"


def by_name(records: Iterable[R]) -> dict[str, R]:
    """Return records by their names on disk.

    Parameters
    ----------
    records : iterable of Record or EstimatorRecord
    """
    return {record.name: record for record in records}


def find_record(records: Mapping[str, R], written: object, where: str) -> R:
    """Return the record of a name and version that stand in a file.

    Parameters
    ----------
    records : mapping of str to record
        Those that may be read, by their names.
    written : object
        The name and version in the file.
    where : str
        The place in the file, for the error's message.

    Raises
    ------
    ModelFileError
        If this release does not know the name, or reads an earlier version of the record only.
    """
    name, _, version = written.partition("/") if isinstance(written, str) else ("", "", "")
    record = records.get(name)
    if record is None or not (version.isascii() and version.isdigit()) or int(version) < 1:
        raise ModelFileError(f"{where} is a {written!r:.80}, which skxma {__version__} does not know. Update skxma.")
    if int(version) > record.version:
        raise ModelFileError(
            f"{where} is a {written!r:.80}, which a later release wrote; skxma {__version__} reads "
            f"{type_on_disk(record)!r}. Update skxma."
        )
    return record
