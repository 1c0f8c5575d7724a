"""Wrong embeddings, labels and weights get scikit-learn's errors, from every method; odd but right ones get answers."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hostile import each_evidence, each_rival, ours, rival
from problems import Problem, make_problem

from skxma import XMAdapterClassifier
from skxma.errors import SkxmaError

pytestmark = [
    pytest.mark.bad_input,
    *map(pytest.mark.filterwarnings, ("ignore:A column-vector y", "ignore::RuntimeWarning")),
]
PROBLEM = make_problem(n_classes=3, shots=3, dim=4, n_test=3)
X, Y = PROBLEM.X.astype(np.float64), PROBLEM.y


def with_value(value) -> np.ndarray:
    changed = X.copy()
    changed[2, 1] = value
    return changed


def with_object(value) -> np.ndarray:
    changed = X.astype(object)
    changed[2, 1] = value
    return changed


def as_frame(values):
    return pytest.importorskip("pandas").DataFrame(values)


def as_series(values):
    return pytest.importorskip("pandas").Series(values)


def lazy_frame(values):
    return pytest.importorskip("polars").LazyFrame(values)


WRONG = {
    "NaN": (lambda: with_value(np.nan), ValueError, "contains NaN"),
    "inf": (lambda: with_value(np.inf), ValueError, "contains infinity"),
    "-inf": (lambda: with_value(-np.inf), ValueError, "contains infinity"),
    "too large for float64": (
        lambda: X.astype(np.longdouble) * np.longdouble("1e400"),
        ValueError,
        "contains infinity",
    ),
    "NaN in float32": (lambda: with_value(np.nan).astype(np.float32), ValueError, "contains NaN"),
    "words": (lambda: np.full(X.shape, "x"), ValueError, "could not convert string to float"),
    "objects": (lambda: np.full(X.shape, {}, dtype=object), TypeError, "float\\(\\) argument must be"),
    "objects with a None": (lambda: with_object(None), ValueError, "contains NaN"),
    "objects with a word": (lambda: with_object("x"), ValueError, "could not convert string to float"),
    "paths": (lambda: ["a.png"] * 9, ValueError, "X holds images, such as 'a.png'; encoder='precomputed' expects"),
    "a column of arrays": (lambda: as_series(list(X)), ValueError, r"array in each row.*numpy\.stack\(X\)"),
    "a frame of arrays": (
        lambda: as_frame({"e": list(X)}),
        ValueError,
        r"array in each row; make one array of them: numpy\.stack\(X\['e'\]\)",
    ),
    "a lazy frame": (lambda: lazy_frame(X), ValueError, r"LazyFrame of polars.*pass X\.collect\(\)"),
    "csr_matrix": (lambda: scipy.sparse.csr_matrix(X), TypeError, "Sparse data was passed"),
    "coo_array": (lambda: scipy.sparse.coo_array(X), TypeError, "Sparse data was passed"),
    "one dimension": (lambda: X[:, 0], ValueError, "Expected 2D array, got 1D array"),
    "three dimensions": (lambda: X[:, :, None], ValueError, "dim 3"),
    "a scalar": (lambda: np.array(3.0), (ValueError, TypeError), "scalar"),
    "no rows": (lambda: X[:0], ValueError, "0 sample|0 samples"),
    "no columns": (lambda: X[:, :0], ValueError, "0 feature"),
    "ragged lists": (lambda: [[1.0, 2.0], [3.0]] * 4 + [[1.0]], ValueError, "inhomogeneous"),
    "complex numbers": (lambda: X.astype(complex), ValueError, "Complex data not supported"),
    "masked values": (lambda: np.ma.masked_array(X, mask=X > 0.3), ValueError, "masked values"),
    "a matrix": (lambda: np.asmatrix(X), TypeError, "np.matrix is not supported"),
    "records": (lambda: np.zeros(9, dtype=[("a", float), ("b", float)]), TypeError, "Cannot cast"),
    "a frame with NaN": (lambda: as_frame(with_value(np.nan)), ValueError, "contains NaN"),
    "a frame of words": (lambda: as_frame(np.full(X.shape, "x")), ValueError, "could not convert string to float"),
    "a series": (lambda: as_frame(X)[0], ValueError, "Expected a 2-dimensional container"),
    "a generator": (lambda: (row for row in X), TypeError, "generator"),
    "None": (lambda: None, (ValueError, TypeError), "NoneType|scalar"),
}
RIGHT = {
    "lists": lambda: X.tolist(),
    "tuples": lambda: tuple(map(tuple, X)),
    "a frame": lambda: as_frame(X),
    "a tensor": lambda: torch.as_tensor(X),
    "objects that are numbers": lambda: X.astype(object),
    "words that are numbers": lambda: X.astype(str),
    "Fortran's order": lambda: np.asfortranarray(X),
    "strides": lambda: np.repeat(X, 2, axis=1)[::-1, ::2][::-1],
    "big endians": lambda: X.astype(">f8"),
    "long doubles": lambda: X.astype(np.longdouble),
    "a masked array without a mask": lambda: np.ma.masked_array(X),
    "what may not be written": lambda: np.frombuffer(X.tobytes()).reshape(X.shape),
}


@pytest.fixture(scope="module", params=["calibrated", "paper"])
def fitted(request) -> XMAdapterClassifier:
    return ours(PROBLEM, request.param).fit(X, Y)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_embeddings_get_scikit_learns_errors_from_every_method(name, fitted):
    make, error, match = WRONG[name]
    methods = ("predict", "predict_proba", "decision_function", "zero_shot", "encode", "kneighbors", "open_set_score")
    for method in methods:
        with pytest.raises(error, match=match):
            getattr(fitted, method)(make())
    before = fitted.predict_proba(X)
    with pytest.raises(error, match=match):
        ours(PROBLEM, "calibrated").fit(make(), Y)
    with pytest.raises((ValueError, TypeError), match=f"{match}|inconsistent numbers|Expected sequence"):
        fitted.partial_fit(make(), Y)
    # a fit that was refused leaves the model as it was
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


@each_rival
@pytest.mark.parametrize("name", ["NaN", "inf", "csr_matrix", "words", "three dimensions", "masked values"])
def test_wrong_embeddings_get_scikit_learns_errors_from_a_rival(name, kind):
    make, error, match = WRONG[name]
    with pytest.raises(error, match=match):
        rival(kind, PROBLEM.text).fit(make(), Y)


@pytest.mark.parametrize("name", RIGHT)
def test_odd_containers_of_right_embeddings_get_the_same_answers(name, fitted):
    wanted = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict_proba(RIGHT[name]()), wanted, atol=1e-6)
    again = ours(PROBLEM, fitted.evidence).fit(RIGHT[name](), Y)
    np.testing.assert_allclose(again.predict_proba(X), wanted, atol=1e-6)


def test_another_number_of_features_is_refused(fitted):
    for columns in (1, 3, 5):
        with pytest.raises(ValueError, match=f"has {columns} features.*expecting 4 features"):
            fitted.predict(np.ones((2, columns)))


@pytest.mark.parametrize("parameter", ["text_features", "vocabulary"])
@pytest.mark.parametrize("name", ["NaN", "inf", "words", "csr_matrix", "one dimension", "three dimensions", "no rows"])
def test_wrong_text_and_vocabulary_are_named(name, parameter):
    make, _, match = WRONG[name]
    labels = np.arange(9) if parameter == "text_features" else Y
    with pytest.raises(
        (ValueError, TypeError),
        match=f"{match}|contains NaN or infinity|'{parameter}' parameter|{parameter} (holds words|has 1 columns)",
    ):
        ours(PROBLEM, "calibrated", **{parameter: make()}).fit(X, labels)


def test_a_vocabulary_of_no_rows_is_not_taken_for_words():
    with pytest.raises(ValueError, match="0 sample"):
        ours(PROBLEM, "calibrated", vocabulary=X[:0]).fit(X, Y)


WRONG_LABELS = {
    "NaN": (np.where(np.arange(9) == 1, np.nan, Y), "sample 1 has no label"),
    "inf": (np.where(np.arange(9) == 1, np.inf, Y), "Input y contains infinity"),
    "continuous": (np.linspace(0, 1, 9), "Unknown label type: continuous"),
    "two columns": (np.c_[Y, Y], "y should be a 1d array"),
    "one hot": (np.eye(9)[:, :3], "y should be a 1d array"),
    "None": (None, "requires y to be passed"),
    "one class": (np.zeros(9), "y holds one class"),
    "too few": (Y[:5], "inconsistent numbers of samples"),
    "too many": (np.r_[Y, Y], "inconsistent numbers of samples"),
    "words with a NaN": (np.array(["a", np.nan, "b"] * 3, dtype=object), "sample 1 has no label"),
    "words with a None": (np.array(["a", "b", None] * 3, dtype=object), "sample 2 has no label"),
    "words and numbers": (np.array(["a", 1, "b"] * 3, dtype=object), "several kinds \\(int, str\\)"),
    "bytes": (np.array([b"a", b"b", b"c"] * 3), "bytes"),
    "complex": (Y + 0j, "Complex data not supported"),
    "a word": ("abcabcabc", "1d array"),
    "a mapping": (dict.fromkeys(range(9), "a"), r"y is a dict.*pass list\(y\.values\(\)\)"),
    "a set": (set(range(9)), "y is a set.*pass a list"),
    "an iterator": (iter(Y), r"can be read only once; expected a sequence: pass list\(y\)"),
}


@each_evidence
@pytest.mark.parametrize("name", WRONG_LABELS)
def test_wrong_labels_are_named(name, evidence):
    labels, match = WRONG_LABELS[name]
    with pytest.raises((ValueError, TypeError), match=match):
        ours(Problem(X, Y, None, None, X, Y), evidence).fit(X, labels)


@pytest.mark.parametrize(
    "labels",
    [Y.tolist(), Y > 0, Y.astype(float), -Y, Y + 2**62, np.array(list("abc") * 3), torch.as_tensor(Y), Y[:, None]],
    ids=["list", "bool", "float", "negative", "large", "words", "tensor", "column"],
)
def test_odd_labels_come_back_as_they_were_given(labels):
    plain = np.asarray(labels).ravel()
    clf = ours(Problem(X, Y, None, None, X, Y), "calibrated").fit(X, labels)
    np.testing.assert_array_equal(clf.classes_, np.unique(plain))
    assert clf.classes_.dtype == plain.dtype
    assert set(clf.predict(X)) <= set(plain)


@each_evidence
@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.full(9, np.nan), "sample_weight contains NaN"),
        (np.full(9, np.inf), "sample_weight contains infinity"),
        (-np.ones(9), "Negative values"),
        (np.zeros(9), "at least one non-zero|no sample of positive weight"),
        (np.ones(3), "sample_weight.shape == \\(3,\\)"),
        (np.ones((9, 2)), "1D array"),
        (["a"] * 9, "could not convert string to float"),
    ],
    ids=["NaN", "inf", "negative", "zero", "too few", "two columns", "words"],
)
def test_wrong_weights_are_named(weights, match, evidence):
    with pytest.raises(ValueError, match=match):
        ours(PROBLEM, evidence).fit(X, Y, sample_weight=weights)


@each_evidence
@pytest.mark.parametrize("weights", [1e308, 5e-324, np.where(Y == 0, 1e300, 1e-300)], ids=["huge", "tiny", "both"])
def test_weights_of_any_size_give_probabilities(weights, evidence):
    clf = ours(PROBLEM, evidence).fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1)
    clf.partial_fit(PROBLEM.X_test, PROBLEM.y_test)
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1)


def test_errors_of_ours_are_builtin_errors_too():
    builtin = {ValueError, OSError, RuntimeError, ImportError}
    assert all(set(kind.__mro__) & builtin for kind in SkxmaError.__subclasses__())
