"""Classifiers, searches and displays take every form of an image, and give the same answers for all."""

import io

import numpy as np
import pytest
import sklearn
import torch
from bad_images import encode_as
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.fixes import parse_version
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.inspection import RetrievalDisplay
from skxma.store import MemoryStore

PIXELS = np.stack([make_pixels(seed) for seed in range(8)])
CONTENTS = [encode_as(pixels, "PNG") for pixels in PIXELS]
Y = list("aaaabbbb")
FORMS = {
    "bytes": lambda: CONTENTS,
    "open files": lambda: [io.BytesIO(content) for content in CONTENTS],
    "records": lambda: [{"bytes": content, "path": None} for content in CONTENTS],
    "a tensor, channels first": lambda: torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "a tensor, channels last": lambda: torch.from_numpy(PIXELS),
    "a list of tensors": lambda: list(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)),
    "an array of objects": lambda: np.array([{"bytes": content} for content in CONTENTS], dtype=object),
}


@pytest.fixture(scope="module")
def clf() -> XMAdapterClassifier:
    return XMAdapterClassifier(
        CLIPEncoder("tiny", memory=MemoryStore(), precision="fp32", device="cpu"), vocabulary=None
    )


@pytest.fixture(scope="module")
def expected(clf) -> np.ndarray:
    return clf.fit(PIXELS, Y).predict_proba(PIXELS)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_is_fitted_predicted_and_searched(clf, expected, form):
    X = FORMS[form]()
    np.testing.assert_allclose(clf.fit(X, Y).predict_proba(X), expected, atol=1e-6)
    if isinstance(X, torch.Tensor) and parse_version(sklearn.__version__) < parse_version("1.7"):
        pytest.skip("scikit-learn 1.6 asks numpy for the device of a tensor when it splits one")
    assert cross_val_score(clf, X, Y, cv=2).shape == (2,)
    for search in (GridSearchCV, XMAdapterSearchCV):
        np.testing.assert_allclose(
            search(clf, {"alpha": ["auto"]}, cv=2).fit(X, Y).predict_proba(X), expected, atol=1e-6
        )
    np.testing.assert_allclose(clf.partial_fit(X, Y).encode(X), clf.encode(PIXELS), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_displays_show_every_form(clf, expected, form):
    pytest.importorskip("matplotlib").use("agg")
    X = FORMS[form]()
    clf.fit(X, Y)
    display = RetrievalDisplay.from_estimator(clf, X[:2], support=X)
    display.plot()


def test_a_frame_of_one_column_is_taken(clf, expected):
    pandas = pytest.importorskip("pandas")
    for X in (pandas.DataFrame({"image": CONTENTS}), pandas.Series(CONTENTS, index=range(10, 18))):
        np.testing.assert_allclose(clf.fit(X, Y).predict_proba(X), expected, atol=1e-6)
        assert cross_val_score(clf, X, Y, cv=2).shape == (2,)
