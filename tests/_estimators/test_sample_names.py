"""The names of the samples stay with them, in a fit, as it grows, and in a file."""

import joblib
import numpy as np
import pytest
from PIL import Image

import skxma
from skxma import XMAdapterClassifier
from skxma.baselines import ZeroShotClassifier
from skxma.datasets import load_emoji


@pytest.fixture(scope="module")
def emoji():
    emoji = load_emoji(as_paths=True)
    kept = np.isin(emoji.target, ["bear", "fox", "snail"]) & (emoji.sets != "noto")
    paths = [str(path) for path, taken in zip(emoji.images, kept, strict=True) if taken]
    return paths, emoji.target[kept]


def fit(X, y, **parameters):
    return XMAdapterClassifier("tiny", vocabulary=None, **parameters).fit(X, y)


def test_paths_are_kept_as_they_were_given(emoji):
    paths, labels = emoji
    assert fit(paths, labels).sample_names_.tolist() == paths
    assert ZeroShotClassifier("tiny").fit(np.array(paths), labels).sample_names_.tolist() == paths
    mixed = [Image.open(paths[0]), np.asarray(Image.open(paths[1]).convert("RGB")), *paths[2:]]
    assert fit(mixed, labels).sample_names_.tolist() == [paths[0], None, *paths[2:]]


def test_what_has_no_path_has_no_name(emoji):
    paths, labels = emoji
    clf = fit(paths, labels)
    assert fit(np.asarray(clf.encode(paths)), labels).sample_names_ is None
    rows = clf.encode(paths).tolist()
    by_rows = XMAdapterClassifier("precomputed", text_features=clf.text_features_).fit(rows, labels)
    assert by_rows.sample_names_ is None
    stack = np.stack([np.asarray(Image.open(path).convert("RGB").resize((32, 32))) for path in paths])
    assert fit(stack, labels).sample_names_ is None


@pytest.mark.parametrize("pool", [False, True])
def test_names_follow_the_samples_as_the_model_grows_and_forgets(emoji, pool):
    paths, labels = emoji
    first, second = labels != "snail", labels == "snail"
    X, y = np.array(paths, dtype=object), labels.astype(object)
    unlabeled = [paths[0]] if pool else []
    clf = fit(
        [*X[first], *unlabeled], [*y[first], *["none"] * len(unlabeled)], unlabeled_label="none" if pool else None
    )
    clf.partial_fit(X[second].tolist(), y[second])
    assert len(clf.sample_names_) == len(clf.sample_position_)
    assert clf.sample_names_[: len(X)].tolist() == [*X[first], *X[second]]
    retrieved = clf.kneighbors([paths[-1]], 1)[2][0, 0]
    assert clf.sample_names_[retrieved] == paths[-1]
    clf.drop(["bear"])
    assert len(clf.sample_names_) == len(clf.sample_position_)
    assert clf.sample_names_[clf.kneighbors([paths[-1]], 1)[2][0, 0]] == paths[-1]
    clf.partial_fit(clf.encode(X[labels == "bear"].tolist()), y[labels == "bear"])
    assert clf.sample_names_[clf.kneighbors([paths[-1]], 1)[2][0, 0]] == paths[-1]
    assert clf.sample_names_[clf.kneighbors([paths[0]], 1)[2][0, 0]] is None


def test_names_are_in_the_file_unless_they_are_taken_off(emoji, tmp_path):
    paths, labels = emoji
    clf = fit(paths, labels)
    clf.save(tmp_path / "m.skxma")
    joblib.dump(clf, tmp_path / "m.joblib")
    for loaded in (skxma.load(tmp_path / "m.skxma"), joblib.load(tmp_path / "m.joblib")):
        assert loaded.sample_names_.tolist() == paths
    clf.sample_names_ = None
    clf.save(tmp_path / "m.skxma")
    assert skxma.load(tmp_path / "m.skxma").sample_names_ is None
    assert b"twemoji" not in (tmp_path / "m.skxma").read_bytes()


def test_a_name_in_bytes_that_are_no_text_comes_back(emoji, tmp_path):
    paths, labels = emoji
    clf = fit(paths, labels)
    clf.sample_names_[0] = "ren\udce9.png"
    clf.save(tmp_path / "m.skxma")
    assert skxma.load(tmp_path / "m.skxma").sample_names_[0] == "ren\udce9.png"
