import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.multioutput import MultiOutputClassifier

from skxma import XMAdapterClassifier
from skxma._labels.class_table import resolve_classes


def test_strings_are_names():
    table = resolve_classes(["dog", "cat", "dog"])
    assert table.classes.tolist() == ["cat", "dog"]
    assert table.indices.tolist() == [1, 0, 1]
    assert table.names == ["cat", "dog"]


def test_integers_have_no_names_of_their_own():
    assert resolve_classes([3, 5, 3]).names is None


def test_integers_index_a_sequence_and_classes_without_images_stay():
    table = resolve_classes([2, 0], class_names=["ant", "bee", ["cat", "kitten"]])
    assert table.classes.tolist() == [0, 1, 2]
    assert table.indices.tolist() == [2, 0]
    assert table.names == ["ant", "bee", ["cat", "kitten"]]


def test_a_mapping_names_any_labels_and_may_know_more():
    table = resolve_classes(["n2", "n1"], class_names={"n1": "ant", "n2": None, "n3": "cat"})
    assert table.classes.tolist() == ["n1", "n2", "n3"]
    assert table.names == ["ant", None, "cat"]


def test_strings_must_be_among_a_sequence_of_names():
    table = resolve_classes(["dog", "cat"], class_names=["dog", "cat", "emu"])
    assert table.names == ["cat", "dog", "emu"]
    with pytest.raises(ValueError, match=r"class_names has no entry for 'cow'.*has 'dog'"):
        resolve_classes(["dog", "cow"], class_names=["dog", "cat"])


def test_integers_out_of_range_ask_for_a_mapping():
    with pytest.raises(ValueError, match=r"class_names has 2 items.*from 0.*holds 1, 2.*mapping"):
        resolve_classes([1, 2], class_names=["ant", "bee"])


def test_text_rows_follow_integers_names_or_sorted_strings():
    rows = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(resolve_classes([2, 0], text_features=rows).text, rows)
    np.testing.assert_array_equal(resolve_classes(["b", "a", "c"], text_features=rows).text, rows)
    table = resolve_classes(["b", "a"], class_names=["c", "b", "a"], text_features=rows)
    np.testing.assert_array_equal(table.text, rows[::-1])
    table = resolve_classes(["b", "a"], text_features={"a": rows[0], "b": None})
    np.testing.assert_array_equal(table.text, [rows[0], 0 * rows[0]])


def test_text_may_have_a_row_for_each_prompt():
    prompts = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(resolve_classes(["b", "a"], text_features=prompts).text, prompts)
    table = resolve_classes(["b", "a", "c"], text_features={"a": prompts[0], "b": prompts[1, :1], "c": None})
    np.testing.assert_array_equal(table.text, [prompts[0], [prompts[1, 0], [0, 0], [0, 0]], np.zeros((3, 2))])
    for mixed in ({"a": prompts[0], "b": prompts[0, 0]}, {"a": prompts, "b": prompts}):
        with pytest.raises(ValueError, match="of each class an array of them"):
            resolve_classes(["b", "a"], text_features=mixed)


def test_text_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"text_features has 3 rows for 2 classes \('a', 'b'\)"):
        resolve_classes(["b", "a"], text_features=np.eye(3))
    with pytest.raises(ValueError, match="vectors of one length"):
        resolve_classes(["b", "a"], text_features={"a": [1.0], "b": [1.0, 2.0]})


def test_one_class_is_refused_and_a_named_second_one_helps():
    with pytest.raises(ValueError, match=r"y holds one class, 'cat'"):
        resolve_classes(["cat", "cat"])
    assert len(resolve_classes(["cat"], class_names=["cat", "dog"]).classes) == 2


def test_samples_that_do_not_count_make_no_class():
    table = resolve_classes(["a", "b", "c"], kept=np.array([True, True, False]))
    assert table.classes.tolist() == ["a", "b"]


def test_a_string_in_the_place_of_names_is_refused():
    with pytest.raises(ValueError, match="class_names is the string 'cat'"):
        resolve_classes([0, 1], class_names="cat")


@given(st.lists(st.sampled_from(["kiwi", "fig", "date", "plum"]), min_size=2, max_size=20))
def test_indices_point_back_to_the_labels(y):
    if len(set(y)) > 1:
        table = resolve_classes(y)
        assert table.classes[table.indices].tolist() == y


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_text_features_of_a_mapping_that_are_no_numbers_are_named(value):
    with pytest.raises(ValueError, match="text_features of 'bee' contains NaN or infinity"):
        resolve_classes(["ant", "bee"], text_features={"ant": [1.0, 0.0], "bee": [value, 1.0]})


def test_text_features_beyond_single_precision_keep_their_direction():
    table = resolve_classes([0, 1], text_features=[[1e300, 1e300], [0.0, -1e-300]])
    assert table.text.tolist() == [[1e300, 1e300], [0.0, -1e-300]]


def test_names_that_are_none_are_refused_where_they_are_labels_and_allowed_where_they_are_not():
    with pytest.raises(ValueError, match=r"class_names\[1\] is None.*mapping"):
        resolve_classes(["cat", "dog"], class_names=["cat", None])
    assert resolve_classes(["cat", "dog"], class_names={"cat": "cat", "dog": None}).names == ["cat", None]
    assert resolve_classes([0, 1], class_names=["cat", None]).names == ["cat", None]
    assert resolve_classes([0, 1], class_names=["cat", float("nan")]).names == ["cat", None]


@pytest.mark.parametrize("missing", [None, float("nan"), np.datetime64("NaT")])
def test_a_missing_key_is_refused(missing):
    for parameter in ("class_names", "text_features"):
        table = {"a": "ant", "b": "bee", missing: "cat"}
        if parameter == "text_features":
            table = {key: [1.0, float(i)] for i, key in enumerate(table)}
        with pytest.raises(ValueError, match=rf"{parameter} has a key that is missing"):
            resolve_classes(["a", "b"], **{parameter: table})


def test_keys_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"class_names .*'x' \(str\).* y holds 0 \(int\)"):
        resolve_classes([0, 1], class_names={0: "ant", 1: "bee", "x": "cat"})
    with pytest.raises(ValueError, match=r"class_names .*2\.5"):
        resolve_classes([0, 1], class_names={0: "ant", 1: "bee", 2.5: "cat"})
    with pytest.raises(ValueError, match="b'x'"):
        resolve_classes(["a", "b"], class_names={"a": "ant", "b": "bee", b"x": "cat"})


def test_keys_that_are_equal_are_one():
    table = resolve_classes(np.array([0, 1], dtype=np.int8), class_names={0.0: "ant", np.int64(1): "bee", 2.0: "cat"})
    assert table.classes.tolist() == [0, 1, 2]
    assert table.classes.dtype == np.int8
    assert table.names == ["ant", "bee", "cat"]


@pytest.mark.parametrize("name", [3, "", " ", [], ["ant", ""], ["ant", 3]])
def test_names_that_are_no_names_are_refused_before_any_image_is_read(name):
    with pytest.raises((ValueError, TypeError), match=r"class_names\[1\]"):
        resolve_classes([0, 1], class_names={0: "ant", 1: name})


def test_labels_of_other_types_are_refused_in_plain_words():
    with pytest.raises(ValueError, match=r"y holds labels of type complex.*str, int"):
        resolve_classes([1j, 2j])
    with pytest.raises(ValueError, match=r"y holds labels of type (list|dict)"):
        resolve_classes([{"a": 1}, {"b": 2}])


def test_integers_among_floats_stay_exact():
    assert resolve_classes([0, 1.0]).classes.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"y holds .*exactly"):
        resolve_classes([2**60 + 1, 1.0, 0.0])
    assert resolve_classes([2**63 + 1, 5]).classes.tolist() == [5, 2**63 + 1]


@pytest.mark.bad_input
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_several_labels_per_image_are_refused_with_a_way_on(method):
    X, Y = np.random.default_rng(0).normal(size=(6, 4)), np.array([[0, 1], [1, 0], [1, 1]] * 2)
    with pytest.raises(ValueError, match=r"\(6, 2\).*MultiOutputClassifier"):
        getattr(XMAdapterClassifier("precomputed"), method)(X, Y)
    # what the message advises
    assert MultiOutputClassifier(XMAdapterClassifier("precomputed")).fit(X, Y).predict(X).shape == (6, 2)
