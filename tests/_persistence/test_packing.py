import json
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, unicode_string_dtypes
from numpy.typing import NDArray

from skxma._persistence.packing import Packer, Unpacker, fits
from skxma._persistence.record import Record, by_name
from skxma.embeddings import Embeddings
from skxma.errors import ModelFileError


@dataclass(frozen=True)
class Leaf:
    values: NDArray[np.float32]
    name: str = "leaf"


@dataclass(frozen=True)
class Tree:
    leaves: list[Leaf]
    first: Leaf | None
    pair: tuple[Leaf, ...] = ()
    derived: int = field(default=3, init=False)


RECORDS = by_name(
    [
        Record("leaf", 1, Leaf, {"values": "values", "title": "name"}),
        Record("tree", 2, Tree, {"leaves": "leaves", "first": "first", "pair": "pair"}),
    ]
)


def round_trip(value, records=RECORDS, read_by=RECORDS):
    packer = Packer(records)
    packed = json.loads(json.dumps(packer.pack(value, "it"), allow_nan=False))
    return Unpacker(packer.arrays, read_by).unpack(packed, "it")


def same(a, b):
    """Equal in type and in every bit."""
    if isinstance(a, np.ndarray):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype == object:
            return all(map(same, a.ravel(), b.ravel()))
        return a.tobytes() == b.tobytes()
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(map(type, a)) == list(map(type, b)) and same(list(a.items()), list(b.items()))
    if isinstance(a, float):
        return type(b) is float and (np.float64(a).tobytes() == np.float64(b).tobytes() or (a != a and b != b))
    return type(a) is type(b) and a == b


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
number_arrays = st.sampled_from(
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
).flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
string_arrays = arrays(unicode_string_dtypes(endianness="="), array_shapes(min_dims=0, max_dims=2, min_side=0))
object_arrays = arrays(object, array_shapes(max_dims=2, max_side=3), elements=scalars)
values = st.recursive(
    scalars | number_arrays | string_arrays | object_arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.booleans() | st.integers() | st.text() | st.tuples(st.text(), st.integers()), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_what_is_packed_comes_back_in_every_bit(value):
    assert same(value, round_trip(value))


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (OrderedDict(a=1), {"a": 1}),
        (float("-inf"), float("-inf")),
        ("\udc80 no unicode", "\udc80 no unicode"),
        (10**400, 10**400),
    ],
)
def test_scalars_come_back_as_pythons(given, back):
    assert same(back, round_trip(given))


def test_layout_of_arrays_is_kept():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    for array in (rows, rows.T, np.asfortranarray(rows)):
        back = round_trip(array)
        np.testing.assert_array_equal(back, array)
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )
    np.testing.assert_array_equal(round_trip(rows[:, ::2]), rows[:, ::2])
    swapped = round_trip(rows.astype(">f4"))
    assert swapped.dtype == np.float32
    np.testing.assert_array_equal(swapped, rows)


def test_equal_arrays_are_kept_once_and_come_back_as_one():
    rows = np.ones((3, 4), dtype=np.float32)
    packer = Packer({})
    packed = packer.pack([rows, rows.copy(), rows.astype(np.float64), rows.T, rows.reshape(4, 3)], "it")
    assert len(packer.arrays) == 3
    back = Unpacker(packer.arrays, {}).unpack(packed, "it")
    assert back[0] is back[1]


def test_embeddings_remember_their_encoder():
    back = round_trip(Embeddings(np.eye(2, dtype=np.float32), "clip-a"))
    assert isinstance(back, Embeddings)
    assert back.fingerprint == "clip-a"
    assert round_trip(Embeddings(np.eye(2, dtype=np.float32))).fingerprint is None


def test_records_of_records_come_back():
    leaf = Leaf(np.arange(3, dtype=np.float32))
    tree = round_trip(Tree([leaf, Leaf(np.zeros(0, dtype=np.float32), "bare")], None, (leaf,)))
    assert [one.name for one in tree.leaves] == ["leaf", "bare"]
    assert tree.first is None
    assert tree.derived == 3
    np.testing.assert_array_equal(tree.pair[0].values, leaf.values)


@dataclass(frozen=True)
class Blade:
    numbers: NDArray[np.float32]
    title: str = "blade"


def test_a_record_keeps_its_names_on_disk_when_its_class_and_its_attributes_are_renamed():
    leaf = Leaf(np.arange(3, dtype=np.float32), "mine")
    packed = Packer(RECORDS).pack(leaf, "it")
    assert packed == {
        "kind": "record",
        "type": "leaf/1",
        "fields": {"values": {"kind": "array", "array": "0"}, "title": "mine"},
    }
    renamed = by_name([Record("leaf", 1, Blade, {"values": "numbers", "title": "title"})])
    blade = round_trip(leaf, read_by=renamed)
    assert type(blade) is Blade
    assert blade.title == "mine"
    np.testing.assert_array_equal(blade.numbers, leaf.values)
    assert Packer(renamed).pack(blade, "it") == packed


def test_a_random_state_goes_on_where_it_was():
    state = np.random.RandomState(5)
    state.standard_normal(3)
    back = round_trip(state)
    np.testing.assert_array_equal(back.standard_normal(700), state.standard_normal(700))
    with pytest.raises(ModelFileError, match="seed is a RandomState of PCG64"):
        Packer({}).pack(np.random.RandomState(np.random.PCG64()), "seed")


def test_what_numpy_makes_an_array_of_comes_back_as_one():
    np.testing.assert_array_equal(round_trip(pd.Series(["a", "b"])), ["a", "b"])
    np.testing.assert_array_equal(round_trip(pd.DataFrame({"x": [1.5, 2.0]})), [[1.5], [2.0]])


class Stranger:
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": [1, Stranger()]}, r"it\['a'\]\[1\] is a .*Stranger"),
        ({Stranger(): 1}, "a key of it is a .*Stranger"),
        (lambda x: x, "it is a builtins.function"),
        (b"bytes", "it is a builtins.bytes"),
        ({1, 2}, "it is a builtins.set"),
        (np.array([1, 2j]), "it is an array of complex128"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), r"it is an array of datetime64\[D\]"),
        (np.array([Stranger()]), r"it\[0\] is a .*Stranger"),
        (np.ma.masked_array([1, 2], [True, False]), "MaskedArray"),
        (np.array([(1, 2)], dtype=[("a", int), ("b", int)]), "it is an array of"),
    ],
)
def test_what_cannot_be_packed_is_named(value, named):
    with pytest.raises(ModelFileError, match=named):
        Packer(RECORDS).pack(value, "it")


def test_a_namesake_of_a_known_record_is_refused():
    impostor = dataclass(type("Leaf", (), {"__annotations__": {"values": int}}))
    with pytest.raises(ModelFileError, match="Leaf"):
        Packer(RECORDS).pack(impostor(3), "it")


LEAF = {"kind": "record", "type": "leaf/1", "fields": {"values": {"kind": "array", "array": "0"}}}
KEY = np.zeros(624, dtype=np.uint32)


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ({"kind": "module", "name": "os"}, "kind 'module'"),
        ({"kind": "__class__"}, "kind '__class__'"),
        ({"kind": ["array"]}, "kind"),
        ({}, "kind None"),
        ({"kind": "record", "type": "Popen", "fields": {}}, "'Popen', which skxma .* does not know"),
        ({"kind": "record", "type": "leaf/1", "fields": {"values": 3}}, "it.values is a int"),
        ({"kind": "record", "type": "Leaf", "fields": {}}, "'Leaf', which skxma .* does not know. Update skxma"),
        ({"kind": "record", "type": "leaf", "fields": {}}, "'leaf', which skxma .* does not know"),
        ({"kind": "record", "type": "leaf/0", "fields": {}}, "'leaf/0', which skxma .* does not know"),
        ({"kind": "record", "type": "leaf/one", "fields": {}}, "'leaf/one', which skxma .* does not know"),
        ({"kind": "record", "type": ["leaf/1"], "fields": {}}, r"\['leaf/1'\], which skxma .* does not know"),
        ({"kind": "record", "type": "leaf/2", "fields": {}}, "'leaf/2', which a later release wrote; .*'leaf/1'"),
        ({"kind": "record", "type": "tree/2", "fields": {"leaves": [LEAF, 3], "first": None}}, "it.leaves is a list"),
        ({"kind": "strings", "array": "0"}, "no characters"),
        ({"kind": "strings", "array": "codes"}, "no characters"),
        ({"kind": "strings", "array": "scalar"}, "no characters"),
    ],
)
def test_what_is_not_known_is_not_made(packed, said):
    arrays = {
        "0": np.zeros(3, dtype=np.float32),
        "codes": np.array([[65, 0x110000]], dtype=np.int32),
        "scalar": np.array(65, dtype=np.int32),
    }
    with pytest.raises(ModelFileError, match=said):
        Unpacker(arrays, RECORDS).unpack(packed, "it")


@pytest.mark.parametrize("pos", [-1, 625, 2**31 - 1])
def test_a_random_state_that_points_elsewhere_is_refused(pos):
    inner = {"key": {"kind": "array", "array": "0"}, "pos": pos, "has_gauss": 0, "gauss": 0.0}
    items = [[name, value] for name, value in inner.items()]
    packed = {"kind": "random_state", "state": {"kind": "mapping", "items": items}}
    with pytest.raises(ModelFileError, match="no state"):
        Unpacker({"0": KEY}, {}).unpack(packed, "it")


def test_fields_of_a_later_release_are_left_alone():
    later = {**LEAF, "fields": {**LEAF["fields"], "color": {"kind": "something new"}}}
    leaf = Unpacker({"0": np.zeros(3, dtype=np.float32)}, RECORDS).unpack(later, "it")
    assert leaf.name == "leaf"


@pytest.mark.parametrize(
    ("value", "hint", "answer"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        ("a", float, False),
        (None, float | None, True),
        ([1.0], list[float], True),
        ([1.0, "a"], list[float], False),
        ((1, "a"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        ((1, 2, 3), tuple[int, ...], True),
        (np.zeros(2), NDArray[np.float32], True),
        (np.zeros(2, dtype=int), NDArray[np.float32], False),
        ([0.0], NDArray[np.float32], False),
    ],
)
def test_values_are_held_against_type_hints(value, hint, answer):
    assert fits(value, hint) is answer
