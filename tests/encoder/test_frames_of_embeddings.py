"""Embeddings in data frames, as scikit-learn's output setting makes them."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.embeddings import embedding_array, is_embeddings
from skxma.errors import ImageError
from skxma.store import MemoryStore

X = [make_pixels(seed) for seed in range(8)]
Y = np.array(list("aaaabbbb"))


@pytest.fixture(params=["pandas", "polars"])
def library(request):
    return pytest.importorskip(request.param)


@pytest.fixture
def encoder() -> CLIPEncoder:
    return CLIPEncoder("tiny", memory=MemoryStore(), precision="fp32", device="cpu")


@pytest.fixture
def pipeline(encoder):
    return make_pipeline(encoder, XMAdapterClassifier(clone(encoder), vocabulary=None))


def test_a_pipeline_with_frames_in_it_predicts_as_one_with_arrays(library, pipeline):
    expected = clone(pipeline).fit(X, Y).predict_proba(X)
    alphas = {"xmadapterclassifier__alpha": [1, 2]}
    searched = GridSearchCV(pipeline, alphas, cv=2).fit(X, Y).predict(X)
    by_call = clone(pipeline).set_output(transform=library.__name__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(by_call.fit(X, Y).predict_proba(X), expected)
        with sklearn.config_context(transform_output=library.__name__):
            np.testing.assert_array_equal(clone(pipeline).fit(X, Y).predict_proba(X), expected)
            np.testing.assert_array_equal(cross_val_predict(pipeline, X, Y, cv=2).shape, (8,))
            search = GridSearchCV(pipeline, alphas, cv=2).fit(X, Y)
    assert search.predict(X).tolist() == searched.tolist()


def test_frames_are_embeddings_wherever_arrays_are(library, encoder):
    rows = encoder.encode_image(X)
    frame = library.DataFrame(
        np.asarray(rows), **({"schema": [f"c{i}" for i in range(128)]} if library.__name__ == "polars" else {})
    )
    assert is_embeddings(frame)
    clf = XMAdapterClassifier(encoder, vocabulary=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_frame = clone(clf).fit(frame, Y)
        by_rows = clone(clf).fit(rows, Y)
        for one in (by_frame, by_rows):
            for given in (frame, rows):
                np.testing.assert_array_equal(one.predict_proba(given), by_rows.predict_proba(rows))
        np.testing.assert_array_equal(by_frame.partial_fit(frame, Y).predict(rows), Y)
        grid = {"alpha": [1, 2]}
        XMAdapterSearchCV(clf, grid, cv=2).fit(frame, Y)
        precomputed = XMAdapterClassifier("precomputed").fit(frame, Y)
        assert precomputed.predict(frame).tolist() == Y.tolist()


def test_other_frames_are_no_embeddings(library):
    for column in ({"path": ["a.png", "b.png"]}, {"a": [1, 2], "b": [3, 4]}, {"a": [1.0, 2.0], "b": ["x", "y"]}):
        assert not is_embeddings(library.DataFrame(column))
    assert not is_embeddings(library.Series([1.0, 2.0]))
    with pytest.raises(ImageError, match=r"a\.png"):
        XMAdapterClassifier("tiny").fit(library.DataFrame({"path": ["a.png", "b.png"]}), ["a", "b"])


def test_arrays_stay_as_they_are():
    rows = np.zeros((2, 3))
    assert embedding_array(rows) is rows
    assert is_embeddings(rows)
    assert not is_embeddings(["a.png"])
