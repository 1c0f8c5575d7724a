"""Model files of earlier releases are read, and answer as they did; `fixtures/make.py` writes those of this one."""

from pathlib import Path

import numpy as np
import pytest

import skxma
from skxma.datasets import load_emoji

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODELS = sorted(FIXTURES.glob("*.skxma"))


def test_the_fixtures_are_here():
    names = {path.stem.rpartition("-")[0] for path in MODELS}
    assert names == {"calibrated", "no-text", "paper", "pictures", "pool", "rival"}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_is_read_and_answers_as_it_did(path):
    clf = skxma.load(path)
    expected = np.load(path.with_suffix(".npz"))
    # another machine may differ in the last digits
    np.testing.assert_allclose(clf.predict_proba(expected["X"]), expected["proba"], atol=1e-5)
    np.testing.assert_array_equal(clf.predict(expected["X"]), expected["labels"])


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("pictures-*.skxma")), ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_still_knows_its_encoder(path):
    clf = skxma.load(path)
    emoji = load_emoji()
    chosen = np.isin(emoji.target, emoji.target_names[:3])
    expected = np.load(path.with_suffix(".npz"))
    proba = clf.predict_proba(emoji.images[chosen][9:])
    np.testing.assert_allclose(proba, expected["proba"], atol=1e-3)


@pytest.mark.parametrize("path", [path for path in MODELS if "pictures" not in path.stem], ids=lambda path: path.stem)
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
