"""Model files of earlier releases are read, and answer as they did; `fixtures/make.py` writes those of this one."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import skxma
from skxma._persistence import model_file
from skxma.datasets import load_emoji

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODELS = sorted(FIXTURES.glob("*.skxma"))
OF_IMAGES = [path for path in MODELS if path.stem.startswith(("images-", "pictures-"))]
OF_EMBEDDINGS = [path for path in MODELS if path not in OF_IMAGES]


def format_of(path):
    with safe_open(path, framework="numpy") as opened:
        return opened.metadata()["version"].partition(".")[0]


def test_the_fixtures_are_here():
    stems = {path.stem for path in MODELS}
    kinds = ("calibrated", "no-text", "paper", "pool", "rival")
    assert stems >= {f"{kind}-0.1.0" for kind in (*kinds, "pictures")}
    assert stems >= {f"{kind}-0.1.0-format2" for kind in (*kinds, "images")}
    assert {model_file.READABLE[0]} < set(map(format_of, MODELS)) == set(model_file.READABLE)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_is_read_and_answers_as_it_did(path):
    clf = skxma.load(path)
    expected = np.load(path.with_suffix(".npz"))
    # another machine may differ in the last digits
    np.testing.assert_allclose(clf.predict_proba(expected["X"]), expected["proba"], atol=1e-5)
    np.testing.assert_array_equal(clf.predict(expected["X"]), expected["labels"])


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_is_the_same_model_in_the_format_of_today(path, tmp_path):
    clf = skxma.load(path)
    clf.save(tmp_path / "again.skxma")
    assert format_of(tmp_path / "again.skxma") == str(model_file.MAJOR)
    again = skxma.load(tmp_path / "again.skxma")
    assert vars(again).keys() == vars(clf).keys()
    X = np.load(path.with_suffix(".npz"))["X"]
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("path", OF_IMAGES, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_still_knows_its_encoder(path):
    clf = skxma.load(path)
    emoji = load_emoji()
    chosen = np.isin(emoji.target, emoji.target_names[:3])
    expected = np.load(path.with_suffix(".npz"))
    proba = clf.predict_proba(emoji.images[chosen][9:])
    np.testing.assert_allclose(proba, expected["proba"], atol=1e-3)


@pytest.mark.parametrize("path", OF_EMBEDDINGS, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_grows(path):
    clf = skxma.load(path)
    expected = np.load(path.with_suffix(".npz"))
    clf.partial_fit(expected["X"], clf.classes_[expected["proba"].argmax(1)])
    assert np.isfinite(clf.predict_proba(expected["X"])).all()


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("pool-*.skxma")), ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_holds_its_pool(path):
    clf = skxma.load(path)
    n_pool = len(clf.soft_labels_)
    assert clf.n_unlabeled_used_ > 0
    clf.partial_fit(np.load(path.with_suffix(".npz"))["X"][:1], ["?"])
    assert len(clf.soft_labels_) == n_pool + 1
