"""The values of a model as JSON and arrays, and back; the classes that may stand in it are a closed list."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from skxma._persistence.record import Record, find_record
from skxma.embeddings import Embeddings
from skxma.errors import ModelFileError

Arrays = dict[str, NDArray[Any]]
Records = Mapping[str, Record]

_NUMBERS = frozenset(
    {"bool", "float16", "float32", "float64", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64))}
)
_LAST_CODE_POINT = 0x10FFFF
_MT19937_WORDS = 624


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


class Packer:
    """Turns values into what JSON can say, and arrays on the side; equal arrays are kept once.

    Parameters
    ----------
    records : mapping of str to Record
        The dataclasses that may be packed, by their names on disk.

    Attributes
    ----------
    arrays : dict of str to ndarray
        What the packed values refer to.
    """

    def __init__(self, records: Records) -> None:
        self.arrays: Arrays = {}
        self._records = {record.cls: record for record in records.values()}
        self._names: dict[Any, str] = {}

    def pack(self, value: Any, where: str) -> Any:
        """Return a value as JSON.

        Parameters
        ----------
        value : object
            None, numbers, strings, arrays, lists, tuples, mappings, the known dataclasses, a RandomState, and what
            numpy makes an array of; numpy's scalars come back as Python's, such array-likes as arrays.
        where : str
            What it is called, for the error's message.

        Raises
        ------
        ModelFileError
            If it is none of these; says which.
        """
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"kind": "float", "value": repr(value)}
        if isinstance(value, dict):
            items = [
                [self.pack(key, f"a key of {where}"), self.pack(v, f"{where}[{key!r}]")] for key, v in value.items()
            ]
            return {"kind": "mapping", "items": items}
        if isinstance(value, (list, tuple)):
            packed = [self.pack(item, f"{where}[{i}]") for i, item in enumerate(value)]
            return packed if isinstance(value, list) else {"kind": "tuple", "items": packed}
        if isinstance(value, np.random.RandomState):
            return self._pack_random_state(value, where)
        if type(value) in self._records:
            written, fields = self._records[type(value)].written(value)
            inner = {
                name: self.pack(getattr(value, attribute), f"{where}.{name}") for name, attribute in fields.items()
            }
            return {"kind": "record", "type": written, "fields": inner}
        return self._pack_array(value, where)

    def _pack_array(self, value: Any, where: str) -> dict[str, Any]:
        array = _plain_array(value, where)
        if array.dtype == object:
            items = [self.pack(item, f"{where}[{i}]") for i, item in enumerate(array.ravel().tolist())]
            return {"kind": "objects", "shape": list(array.shape), "items": items}
        if array.dtype.kind == "U":
            width = max(1, array.dtype.itemsize // 4)
            flat = np.asarray(array, dtype=f"=U{width}", order="C").reshape(-1)
            return {"kind": "strings", "array": self._keep(flat.view(np.int32).reshape(*array.shape, width))}
        if array.dtype.name not in _NUMBERS:
            raise ModelFileError(f"{where} is an array of {array.dtype}, which a model file cannot hold.")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        # products of a transposed array may differ in the last bit from those of its copy
        transposed = array.flags.f_contiguous and not array.flags.c_contiguous
        packed: dict[str, Any] = {"kind": "array", "array": self._keep(array.T if transposed else array)}
        if transposed:
            packed["transposed"] = True
        if isinstance(value, Embeddings):
            packed["fingerprint"] = value.fingerprint
        return packed

    def _pack_random_state(self, value: np.random.RandomState, where: str) -> dict[str, Any]:
        state: Any = value.get_state(legacy=False)
        if state["bit_generator"] != "MT19937":
            raise ModelFileError(
                f"{where} is a RandomState of {state['bit_generator']}; a model file holds MT19937 alone."
            )
        inner = {"key": state["state"]["key"], "pos": state["state"]["pos"]}
        inner |= {name: state[name] for name in ("has_gauss", "gauss")}
        return {"kind": "random_state", "state": self.pack(inner, where)}

    def _keep(self, array: NDArray[Any]) -> str:
        array = np.asarray(array, order="C")
        content = array.dtype.str, array.shape, hashlib.blake2b(array.tobytes()).digest()
        name = self._names.setdefault(content, str(len(self._names)))
        self.arrays[name] = array
        return name


def _plain_array(value: Any, where: str) -> NDArray[Any]:
    """An array, or what another library's array-like is as one."""
    if isinstance(value, np.ma.MaskedArray) or not hasattr(value, "__array__"):
        raise ModelFileError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which a model file cannot hold. "
            "Give it as numbers, strings, arrays, lists or mappings, or save with joblib."
        )
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{where} is a {type(value).__qualname__} that is no array ({error}).") from error


class Unpacker:
    """Makes values of what `Packer` made of them. What it does not know is refused, and nothing is looked up by name.

    Parameters
    ----------
    arrays : dict of str to ndarray
    records : mapping of str to Record
        The dataclasses that may be made, by their names on disk.
    """

    def __init__(self, arrays: Arrays, records: Records) -> None:
        self.arrays = arrays
        self.records = records
        self._strings: Arrays = {}

    def unpack(self, packed: Any, where: str) -> Any:
        """Return the value that was packed.

        Parameters
        ----------
        packed : object
            As JSON gives it.
        where : str
            What it is called, for the error's message.

        Raises
        ------
        ModelFileError
            If it is of a kind that this release does not know, or does not fit together.
        """
        if isinstance(packed, list):
            return [self.unpack(item, where) for item in packed]
        if not isinstance(packed, dict):
            return packed
        kind = packed.get("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise ModelFileError(f"{where} is of the kind {kind!r}, which this release does not know.")
        return getattr(self, f"_make_{kind}")(packed, where)

    def _make_float(self, packed: dict[str, Any], where: str) -> float:
        return float(packed["value"])

    def _make_mapping(self, packed: dict[str, Any], where: str) -> dict[Any, Any]:
        return {self.unpack(key, where): self.unpack(value, where) for key, value in packed["items"]}

    def _make_tuple(self, packed: dict[str, Any], where: str) -> tuple[Any, ...]:
        return tuple(self.unpack(item, where) for item in packed["items"])

    def _make_array(self, packed: dict[str, Any], where: str) -> NDArray[Any]:
        array = self.arrays[packed["array"]]
        if packed.get("transposed") is True:
            array = array.T
        return Embeddings(array, packed["fingerprint"]) if "fingerprint" in packed else array

    def _make_strings(self, packed: dict[str, Any], where: str) -> NDArray[Any]:
        name = packed["array"]
        if name not in self._strings:
            codes = self.arrays[name]
            # numpy reads what lies beyond as characters, and fails where they are used
            wrong = codes.dtype != np.int32 or codes.ndim == 0 or codes.shape[-1] == 0
            if wrong or (codes.size and (codes.min() < 0 or codes.max() > _LAST_CODE_POINT)):
                raise ModelFileError(f"{where} holds what are no characters.")
            self._strings[name] = codes.reshape(-1).view(f"=U{codes.shape[-1]}").reshape(codes.shape[:-1])
        return self._strings[name]

    def _make_objects(self, packed: dict[str, Any], where: str) -> NDArray[Any]:
        flat = np.empty(len(packed["items"]), dtype=object)
        for i, item in enumerate(packed["items"]):
            flat[i] = self.unpack(item, where)
        return flat.reshape([int(size) for size in packed["shape"]])

    def _make_random_state(self, packed: dict[str, Any], where: str) -> np.random.RandomState:
        state = self.unpack(packed["state"], where)
        key, pos = state["key"], state["pos"]
        # numpy checks neither, and reads memory that is not its own
        if key.shape != (_MT19937_WORDS,) or key.dtype != np.uint32 or not 0 <= int(pos) <= _MT19937_WORDS:
            raise ModelFileError(f"{where} is no state of a RandomState.")
        made = np.random.RandomState()
        made.set_state(("MT19937", key, int(pos), int(state["has_gauss"]), float(state["gauss"])))
        return made

    def _make_record(self, packed: dict[str, Any], where: str) -> Any:
        record = find_record(self.records, packed["type"], where)
        hints, given = _hints(record.cls), packed["fields"]
        values = {}
        # fields that a later release added are ignored
        for name, attribute in record.fields.items():
            if name not in given:
                continue
            value = values[attribute] = self.unpack(given[name], f"{where}.{name}")
            if not fits(value, hints[attribute]):
                raise ModelFileError(
                    f"{where}.{name} is a {type(value).__name__}, which the record {packed['type']!r} cannot hold."
                )
        return record.cls(**values)


_KINDS = {name.removeprefix("_make_") for name in vars(Unpacker) if name.startswith("_make_")}


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is what a type hint says: as far as dataclasses, arrays, numbers and lists of them go.

    Parameters
    ----------
    value : object
    hint : type, or what `typing.get_type_hints` gives for one

    Returns
    -------
    answer : bool
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is np.ndarray:
        scalar = (*get_args(arguments[1]), Any)[0]
        wanted = isinstance(scalar, type) and issubclass(scalar, np.generic)
        return isinstance(value, np.ndarray) and (not wanted or value.dtype.kind == np.dtype(scalar).kind)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if len(arguments) == 2 and arguments[1] is ... else arguments
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)
