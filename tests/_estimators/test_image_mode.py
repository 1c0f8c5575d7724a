"""The estimator on images, with the bundled encoder."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.errors import EncoderMismatchError, EncoderNotFoundError, ImageError

N_CLASSES = 8


@pytest.fixture(scope="module")
def emoji():
    """Eight things in five styles: paths, arrays, labels, styles."""
    arrays, paths = load_emoji(), load_emoji(as_paths=True)
    chosen = np.isin(arrays.target, arrays.target_names[:N_CLASSES])
    rows = np.flatnonzero(chosen)
    return {
        "paths": [paths.images[i] for i in rows],
        "arrays": arrays.images[chosen],
        "labels": arrays.target[chosen],
        "support": np.isin(arrays.sets[chosen], ["noto", "twemoji"]),
    }


@pytest.fixture
def forwards(monkeypatch):
    """How many images passed through a model."""
    passed = []
    forward = CLIPEncoder._forward_images

    def counting(self, batch):
        passed.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(CLIPEncoder, "_forward_images", counting)
    return passed


def split(emoji, kind="paths"):
    items, support = emoji[kind], emoji["support"]
    if kind == "paths":
        train = [path for path, chosen in zip(items, support, strict=True) if chosen]
        test = [path for path, chosen in zip(items, support, strict=True) if not chosen]
    else:
        train, test = items[support], items[~support]
    return train, emoji["labels"][support], test, emoji["labels"][~support]


def test_images_in_predictions_out(emoji):
    train, y, test, wanted = split(emoji)
    clf = XMAdapterClassifier("tiny").fit(train, y)
    proba = clf.predict_proba(test)
    assert clf.classes_.tolist() == sorted(set(y))
    assert clf.score(test, wanted) > max(0.6, (clf.classes_[clf.zero_shot(test).argmax(1)] == wanted).mean())
    np.testing.assert_allclose(proba.sum(1), 1)


@pytest.mark.parametrize("form", ["paths", "str", "pil", "list", "array"])
def test_every_form_of_image_gives_the_same(emoji, form):
    train, y, test, _ = split(emoji)
    arrays, _, test_arrays, _ = split(emoji, "arrays")
    make = {
        "paths": lambda paths, pixels: paths,
        "str": lambda paths, pixels: [str(path) for path in paths],
        "pil": lambda paths, pixels: [Image.open(path).copy() for path in paths],
        "list": lambda paths, pixels: list(pixels),
        "array": lambda paths, pixels: pixels,
    }[form]
    clf = XMAdapterClassifier("tiny", vocabulary=None)
    wanted = clone(clf).fit(train, y).predict_proba(test)
    got = clf.fit(make(train, arrays), y).predict_proba(make(test, test_arrays))
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_embeddings_of_the_encoder_are_taken_too(emoji):
    train, y, test, _ = split(emoji)
    clf = XMAdapterClassifier("tiny", vocabulary=None).fit(train, y)
    again = clone(clf).fit(clf.encode(train), y)
    np.testing.assert_allclose(again.predict_proba(clf.encode(test)), clf.predict_proba(test), atol=1e-6)


def test_a_search_encodes_each_file_once(emoji, forwards, tmp_path):
    rng = np.random.default_rng(0)
    files, labels = [], []
    for label in range(6):
        for k in range(20):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            pixels[..., label % 3] //= 1 + label
            Image.fromarray(pixels).save(tmp_path / f"{label}_{k}.png")
            files.append(tmp_path / f"{label}_{k}.png")
            labels.append(label)
    names = ["red", "green", "blue", "dark red", "dark green", "dark blue"]
    clf = XMAdapterClassifier("tiny", class_names=names, vocabulary=None, n_epochs=0)
    grid = {"alpha": [0.5, 1.0, "auto"], "fusion_ratio": [0.5, "auto"]}
    GridSearchCV(clf, grid, cv=3).fit(files, labels)
    assert sum(forwards) == 120


def test_another_process_finds_what_was_encoded(emoji, tmp_path):
    train, y, _, _ = split(emoji)
    clf = XMAdapterClassifier("tiny", vocabulary=None, memory=tmp_path / "store").fit(train, y)
    joblib.dump((clf, train), tmp_path / "model.joblib")
    script = (
        "import sys, joblib; from skxma import CLIPEncoder\n"
        "def refuse(self, batch): raise AssertionError('encoded again')\n"
        "CLIPEncoder._forward_images = refuse\n"
        "clf, train = joblib.load(sys.argv[1]); print(clf.predict(train)[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.joblib")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() in set(y)


def test_a_saved_model_carries_no_backbone_and_predicts_the_same(emoji, tmp_path):
    train, y, test, _ = split(emoji)
    clf = XMAdapterClassifier("tiny").fit(train, y)
    joblib.dump(clf, tmp_path / "model.joblib")
    assert (tmp_path / "model.joblib").stat().st_size < 500_000
    script = (
        "import sys, joblib, numpy as np; clf, test = joblib.load(sys.argv[1]), joblib.load(sys.argv[2])\n"
        "np.save(sys.argv[3], clf.predict_proba(test))"
    )
    joblib.dump(test, tmp_path / "test.joblib")
    arguments = [str(tmp_path / name) for name in ("model.joblib", "test.joblib", "proba.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "proba.npy"), clf.predict_proba(test), atol=1e-6)


def test_another_encoder_is_refused(emoji, random_model):
    train, y, test, _ = split(emoji)
    clf = XMAdapterClassifier("tiny", vocabulary=None).fit(train, y)
    with pytest.raises(EncoderMismatchError, match=r"fitted with .* set_params\(encoder"):
        clf.set_params(encoder=random_model).predict(test)
    other = CLIPEncoder(random_model).transform(test)
    with pytest.raises((EncoderMismatchError, ValueError), match=r"clip-|features"):
        clf.set_params(encoder="tiny").predict(other)


class OtherEncoder:
    """A user's own encoder: colors as embeddings, with weights that must not be pickled."""

    def __init__(self):
        self.weights = np.zeros(10**6)

    def encode_image(self, X):
        return np.stack([np.asarray(Image.open(x).convert("RGB").resize((4, 4)), float).ravel() for x in X])

    def encode_text(self, prompts):
        return np.stack([np.random.default_rng(len(p)).standard_normal(48) for p in prompts])


def test_any_object_that_encodes_will_do(emoji, tmp_path):
    train, y, test, wanted = split(emoji)
    clf = XMAdapterClassifier(OtherEncoder(), vocabulary=None).fit(train, y)
    assert clf.score(test, wanted) > 2 / N_CLASSES
    joblib.dump(clf, tmp_path / "model.joblib")
    assert (tmp_path / "model.joblib").stat().st_size < 500_000
    loaded = joblib.load(tmp_path / "model.joblib")
    with pytest.raises(EncoderMismatchError, match=r"OtherEncoder was not saved.*set_params"):
        loaded.predict(test)
    loaded.set_params(encoder=OtherEncoder())
    np.testing.assert_array_equal(loaded.predict_proba(test), clf.predict_proba(test))


@pytest.mark.fault
def test_bad_images_are_named_before_any_work(emoji, forwards, tmp_path):
    train, y, _, _ = split(emoji)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"3.*broken\.png"):
        XMAdapterClassifier("tiny").fit([*train[:3], broken, *train[4:]], y)
    with pytest.raises(ImageError, match=r"gone\.png"):
        XMAdapterClassifier("tiny").fit([*train[:3], tmp_path / "gone.png", *train[4:]], y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        XMAdapterClassifier("tiny").fit(train, y[:-1])
    with pytest.raises(ValueError, match=r"X is the single path 'images'; pass a list"):
        XMAdapterClassifier("tiny").fit("images", y)
    assert forwards == []


def test_an_unknown_encoder_is_named(emoji):
    train, y, _, _ = split(emoji)
    with pytest.raises(EncoderNotFoundError, match="ViT-B-23"):
        XMAdapterClassifier("ViT-B-23/openai").fit(train, y)


def test_integers_without_names_warn_and_still_learn(emoji):
    train, y, test, wanted = split(emoji)
    names, numbers = np.unique(y, return_inverse=True)
    with pytest.warns(UserWarning, match="class_names"):
        clf = XMAdapterClassifier("tiny").fit(train, numbers)
    assert (names[clf.predict(test)] == wanted).mean() > 0.5
    named = XMAdapterClassifier("tiny", class_names=names.tolist()).fit(train, numbers)
    by_string = XMAdapterClassifier("tiny").fit(train, y)
    np.testing.assert_allclose(named.predict_proba(test), by_string.predict_proba(test), atol=1e-10)


def test_scikit_learns_tools_take_images(emoji):
    train, y, test, wanted = split(emoji)
    clf = XMAdapterClassifier("tiny", vocabulary=None, n_epochs=0)
    assert cross_val_predict(clf, train, y, cv=2).shape == (len(y),)
    assert CalibratedClassifierCV(clf, cv=2).fit(train, y).predict(test).shape == (len(test),)
    # VotingClassifier numbers the labels, and numbers index the names
    named = clone(clf).set_params(class_names=sorted(set(y)))
    voting = VotingClassifier([("a", named), ("b", clone(named).set_params(alpha=0.5))], voting="soft").fit(train, y)
    assert voting.score(test, wanted) > 0.5
    encoder = CLIPEncoder("tiny")
    text = dict(zip(sorted(set(y)), encoder.zero_shot_weights(sorted(set(y))), strict=True))
    pipeline = make_pipeline(encoder, XMAdapterClassifier("precomputed", text_features=text))
    assert pipeline.fit(train, y).score(test, wanted) > 0.5


def test_views_of_a_image_make_one_key(emoji):
    train, y, test, wanted = split(emoji)
    clf = XMAdapterClassifier("tiny", n_views=4, vocabulary=None, random_state=0).fit(train, y)
    plain = XMAdapterClassifier("tiny", vocabulary=None).fit(train, y)
    assert clf.image_cache_.keys.shape == plain.image_cache_.keys.shape
    assert not np.allclose(clf.image_cache_.keys, plain.image_cache_.keys, atol=1e-3)
    assert clf.score(test, wanted) > 0.5


def test_growing_by_images_and_a_new_class(emoji):
    train, y, test, wanted = split(emoji)
    first = y != sorted(set(y))[-1]
    clf = XMAdapterClassifier("tiny", vocabulary=None).fit(
        [p for p, k in zip(train, first, strict=True) if k], y[first]
    )
    assert len(clf.classes_) == N_CLASSES - 1
    clf.partial_fit([p for p, k in zip(train, first, strict=True) if not k], y[~first])
    assert len(clf.classes_) == N_CLASSES
    assert clf.score(test, wanted) > 0.5


def test_nothing_is_loaded_before_fit():
    clf = XMAdapterClassifier("hf-hub:nobody/nothing", device="cuda:99", memory="/nowhere/at/all")
    assert "encoder='hf-hub:nobody/nothing'" in repr(clf)
    clone(clf).set_params(device="cpu").get_params()


@pytest.mark.fault
def test_a_model_from_a_machine_with_a_gpu_goes_on_without(emoji):
    train, y, test, _ = split(emoji)
    clf = XMAdapterClassifier("tiny", vocabulary=None).fit(train, y)
    wanted = clf.predict_proba(test)
    clf.set_params(device="cuda:7")
    with pytest.warns(UserWarning, match=r"cuda:7.*goes on with the CPU"):
        got = clf.predict_proba(test)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="cuda:7"):
        clone(clf).fit(train, y)


def test_images_that_an_encoder_skips_take_no_part(emoji, tmp_path):
    train, y, test, _ = split(emoji)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    clf = XMAdapterClassifier(CLIPEncoder("tiny", on_error="skip"), vocabulary=None)
    with pytest.warns(UserWarning, match=r"broken\.png"):
        skipping = clone(clf).fit([*train, broken], [*y, y[0]])
    np.testing.assert_allclose(skipping.predict_proba(test), clf.fit(train, y).predict_proba(test), atol=1e-6)
    with pytest.warns(UserWarning, match=r"broken\.png"), pytest.raises(ImageError, match=r"items \[1\]"):
        skipping.predict([test[0], broken])
