"""Classifiers through a model file: what comes back is what was saved, and nothing else happens."""

import pickle
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from problems import make_problem
from sklearn import config_context
from sklearn.exceptions import NotFittedError

import skxma
from skxma import CLIPEncoder, EmbeddingStore, XMAdapterClassifier, baselines
from skxma.datasets import load_emoji
from skxma.embeddings import Embeddings
from skxma.encoder._detached import DetachedEncoder
from skxma.errors import EncoderMismatchError, ModelFileError

NAMES = np.array(["heron", "egret", "stork", "ibis", "a very long name of a bird"])
ANSWERS = ("predict", "predict_proba", "decision_function", "zero_shot")


def through_file(clf, tmp_path):
    clf.save(tmp_path / "model.skxma")
    return skxma.load(tmp_path / "model.skxma")


def assert_same(clf, loaded, X):
    assert type(clf) is type(loaded)
    assert vars(clf).keys() == vars(loaded).keys()
    for answer in ANSWERS:
        found, back = getattr(clf, answer)(X), getattr(loaded, answer)(X)
        assert found.dtype == back.dtype
        np.testing.assert_array_equal(found, back)


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=5, shots=4, dim=16)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"text_features": None, "vocabulary": None},
        {"false_rejection_rate": 0.1, "unknown_label": "none of them"},
        {"alpha": np.float32(0.7), "beta": 2, "n_epochs": 0, "templates": ("a {}.", "the {}.")},
        {"evidence": "paper", "n_epochs": 3},
        {"evidence": "paper", "n_epochs": 2, "text_dim": 4},
        {"evidence": "paper", "n_epochs": 0, "text_features": None},
    ],
)
def test_predictions_are_the_same_in_every_bit(problem, parameters, tmp_path):
    parameters = {"text_features": problem.text, "vocabulary": problem.words, **parameters}
    clf = XMAdapterClassifier("precomputed", random_state=0, **parameters).fit(problem.X, NAMES[problem.y])
    loaded = through_file(clf, tmp_path)
    assert_same(clf, loaded, problem.X_test)
    np.testing.assert_array_equal(clf.open_set_score(problem.X_test), loaded.open_set_score(problem.X_test))
    for found, back in zip(clf.kneighbors(problem.X_test), loaded.kneighbors(problem.X_test), strict=True):
        np.testing.assert_array_equal(found, back)
    for name in ("hardness_", "label_noise_", "set_aside_", "left_out_label_", "sample_weight_", "classes_"):
        np.testing.assert_array_equal(getattr(clf, name), getattr(loaded, name))
        assert getattr(clf, name).dtype == getattr(loaded, name).dtype


@pytest.mark.parametrize("name", baselines.__all__)
def test_rivals_too(problem, name, tmp_path):
    clf = getattr(baselines, name)("precomputed", text_features=problem.text, random_state=0)
    few = {given: 2 for given in ("n_epochs", "n_steps") if given in clf.get_params()}
    clf.set_params(**few).fit(problem.X, NAMES[problem.y])
    assert_same(clf, through_file(clf, tmp_path), problem.X_test)


@pytest.mark.parametrize("shots", [1, 2, 16])
@pytest.mark.parametrize("dim", [8, 96])
def test_sizes_too(shots, dim, tmp_path):
    problem = make_problem(n_classes=12, shots=shots, dim=dim)
    for parameters in ({}, {"evidence": "paper", "n_epochs": 2}):
        clf = XMAdapterClassifier("precomputed", text_features=problem.text, vocabulary=problem.words, **parameters)
        clf.fit(problem.X, problem.y)
        assert_same(clf, through_file(clf, tmp_path), problem.X_test)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["a", "b", "c", "d", "e"]),
        np.array(["a", "b", "c", "d", "e"], dtype=object),
        np.array(["ä\udc80", "日本", "", " ", "e" * 300]),
        np.array([3, -1, 7, 2**40, 0]),
        np.array([3, 1, 7, 2, 0], dtype=np.int8),
        np.array([0.0, 1.0, 2.0, 3.0, 2.0**40]),
        np.array([False, True]),
    ],
)
def test_labels_of_every_kind_come_back_in_theirs(problem, labels, tmp_path):
    some = problem.y < len(labels)
    clf = XMAdapterClassifier("precomputed", text_features=None).fit(problem.X[some], labels[problem.y[some]])
    assert_same(clf, through_file(clf, tmp_path), problem.X_test)


def test_models_that_grew_and_shrank_go_on_after_loading(problem, tmp_path):
    text = dict(zip(NAMES.tolist(), problem.text, strict=True))
    clf = XMAdapterClassifier("precomputed", text_features=text, vocabulary=problem.words)
    clf.fit(problem.X[:16], NAMES[problem.y[:16]], sample_weight=np.linspace(1, 2, 16)).drop("egret")
    loaded = through_file(clf, tmp_path)
    assert_same(clf, loaded, problem.X_test)
    for one in (clf, loaded):
        one.partial_fit(problem.X[16:], NAMES[problem.y[16:]])
    assert_same(clf, loaded, problem.X_test)


def test_parameters_come_back(problem, tmp_path):
    state = np.random.RandomState(1)
    clf = XMAdapterClassifier(
        "precomputed",
        class_names={0: "heron", 1: ["egret", "white heron"], 2: None, 3: ("stork",), 4: "ibis"},
        text_features=dict(enumerate(Embeddings(problem.text, "clip-a"))),
        vocabulary=Embeddings(problem.words, "clip-a"),
        evidence="paper",
        n_epochs=1,
        device=torch.device("cpu"),
        random_state=state,
    ).fit(problem.X, problem.y)
    loaded = through_file(clf, tmp_path)
    given, back = clf.get_params(), loaded.get_params()
    assert back["class_names"] == given["class_names"]
    assert isinstance(back["vocabulary"], Embeddings)
    assert back["vocabulary"].fingerprint == "clip-a"
    np.testing.assert_array_equal(back["random_state"].rand(3), state.rand(3))
    assert back["device"] == "cpu"
    plain = set(given) - {"class_names", "text_features", "vocabulary", "random_state", "device"}
    assert {name: back[name] for name in plain} == {name: given[name] for name in plain}


class OwnEncoder:
    def encode_image(self, X):
        return np.stack([np.asarray(x, dtype=np.float32).reshape(-1)[:12] for x in X])

    def encode_text(self, prompts):
        return np.stack([np.random.default_rng(len(p)).standard_normal(12) for p in prompts])


@pytest.fixture(scope="module")
def emoji():
    data = load_emoji()
    chosen = np.isin(data.target, data.target_names[:4])
    return [data.images[i] for i in np.flatnonzero(chosen)], data.target[chosen]


@pytest.mark.parametrize("encoder", ["tiny", CLIPEncoder("tiny", batch_size=7, precision="fp32")])
def test_image_models_keep_the_encoder_by_name(emoji, encoder, tmp_path):
    images, labels = emoji
    clf = XMAdapterClassifier(encoder, precision="fp32").fit(images, labels)
    loaded = through_file(clf, tmp_path)
    assert_same(clf, loaded, images[:6])
    assert repr(loaded.encoder) == repr(encoder)
    assert (tmp_path / "model.skxma").stat().st_size < 4e5


def test_another_encoder_is_to_be_given_back(emoji, tmp_path):
    images, labels = emoji
    clf = XMAdapterClassifier(OwnEncoder(), vocabulary=None).fit(images, labels)
    loaded = through_file(through_file(clf, tmp_path), tmp_path)
    assert isinstance(loaded.encoder, DetachedEncoder)
    with pytest.raises(EncoderMismatchError, match="OwnEncoder was not saved"):
        loaded.predict(images[:1])
    assert_same(clf, loaded.set_params(encoder=OwnEncoder()), images[:6])


def test_what_an_encoder_says_of_its_texts_is_kept(emoji, tmp_path):
    images, labels = emoji
    encoder = OwnEncoder()
    for said in (True, False):
        encoder.text_shapes_metric = said
        clf = XMAdapterClassifier(encoder, vocabulary=None).fit(images, labels)
        loaded = through_file(through_file(clf, tmp_path), tmp_path)
        assert loaded.encoder.text_shapes_metric is said


def test_a_file_names_no_place_on_disk(emoji, tmp_path):
    images, labels = emoji
    store = EmbeddingStore(tmp_path / "store")
    for memory in (str(tmp_path / "memory"), store):
        encoder = CLIPEncoder("tiny", memory=memory, cache_dir=str(tmp_path / "cache"))
        clf = XMAdapterClassifier(encoder, memory=memory).fit(images[:8], labels[:8])
        loaded = through_file(clf, tmp_path)
        assert loaded.memory is loaded.encoder.memory is loaded.encoder.cache_dir is None
    assert str(tmp_path).encode() not in (tmp_path / "model.skxma").read_bytes()
    for memory in (None, False):
        clf = XMAdapterClassifier("tiny", memory=memory).fit(images[:8], labels[:8])
        assert through_file(clf, tmp_path).memory is memory


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"templates": {"a {}."}}, "templates is a builtins.set"),
        ({"class_names": {0: b"bytes"}}, r"class_names\[0\] is a builtins.bytes"),
        ({"random_state": np.random.RandomState(np.random.PCG64(0))}, "random_state is a RandomState of PCG64"),
    ],
)
def test_what_a_file_cannot_hold_is_named_before_anything_is_written(problem, change, named, tmp_path):
    clf = XMAdapterClassifier("precomputed").fit(problem.X, problem.y).set_params(**change)
    with pytest.raises(ModelFileError, match=named):
        clf.save(tmp_path / "model.skxma")
    assert list(tmp_path.iterdir()) == []


def test_only_fitted_classifiers_of_skxma_are_saved(problem, tmp_path):
    class Own(XMAdapterClassifier):
        pass

    with pytest.raises(NotFittedError):
        XMAdapterClassifier("precomputed").save(tmp_path / "model.skxma")
    with pytest.raises(ModelFileError, match=r"Own; save it with joblib"):
        Own("precomputed").fit(problem.X, problem.y).save(tmp_path / "model.skxma")
    clf = XMAdapterClassifier("precomputed").fit(problem.X, problem.y)
    clf.note = "mine"
    with pytest.raises(ModelFileError, match="'note' is neither"):
        clf.save(tmp_path / "model.skxma")
    assert list(tmp_path.iterdir()) == []


def test_what_scikit_learn_notes_for_itself_stays_out(problem, tmp_path):
    with config_context(enable_metadata_routing=True):
        clf = XMAdapterClassifier("precomputed").set_fit_request(sample_weight=True).fit(problem.X, problem.y)
    assert "_metadata_request" in vars(clf)
    loaded = through_file(clf, tmp_path)
    assert "_metadata_request" not in vars(loaded)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), loaded.predict_proba(problem.X_test))


def test_a_saved_file_has_the_permissions_of_any_other_and_follows_links(problem, tmp_path):
    clf = XMAdapterClassifier("precomputed").fit(problem.X, problem.y)
    (tmp_path / "real.skxma").write_bytes(b"old")
    (tmp_path / "link.skxma").symlink_to("real.skxma")
    clf.save(tmp_path / "link.skxma")
    assert (tmp_path / "link.skxma").is_symlink()
    skxma.load(tmp_path / "real.skxma")
    (tmp_path / "plain").write_bytes(b"")
    mode = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "real.skxma").stat().st_mode) == mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.skxma", "plain", "real.skxma"]


def test_a_place_that_cannot_be_written_is_named(problem, tmp_path):
    clf = XMAdapterClassifier("precomputed").fit(problem.X, problem.y)
    with pytest.raises(FileNotFoundError, match=r"absent is not a folder, so m.skxma cannot .*; create it first"):
        clf.save(tmp_path / "absent" / "m.skxma")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        clf.save(tmp_path)


def test_a_model_file_loads_in_another_process(problem, tmp_path):
    clf = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, NAMES[problem.y])
    clf.save(tmp_path / "model.skxma")
    np.save(tmp_path / "X.npy", problem.X_test)
    script = (
        "import sys, numpy as np, skxma\n"
        "folder = sys.argv[1]; clf = skxma.load(folder + '/model.skxma')\n"
        "np.save(folder + '/p.npy', clf.predict_proba(np.load(folder + '/X.npy')))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), np.load(tmp_path / "p.npy"))


def test_a_loaded_model_pickles_and_its_arrays_can_be_written(problem, tmp_path):
    clf = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y)
    loaded = through_file(clf, tmp_path)
    assert_same(clf, pickle.loads(pickle.dumps(loaded)), problem.X_test)
    assert loaded.image_cache_.keys.flags.writeable
    assert loaded.text_features_ is loaded.text_cache_.keys
