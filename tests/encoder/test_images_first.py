"""A bad image is named before the weights are touched, in every method and on the command line."""

import io
import socket
from pathlib import Path

import numpy as np
import pytest
from bad_images import encode_as
from PIL import Image
from small_clip import make_pixels

from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.cli.main import main
from skxma.encoder import _clip_encoder, clear_models
from skxma.errors import EncoderMismatchError, ImageError, WeightsError
from skxma.inspection import RetrievalDisplay
from skxma.store import MemoryStore

GOOD = [make_pixels(seed) for seed in range(6)]
Y = list("aaabbb")


@pytest.fixture
def no_weights(monkeypatch):
    """From here on nothing is loaded, and no connection is made."""

    def refuse(*args, **kwargs):
        raise AssertionError("weights or the network were touched")

    clear_models()
    monkeypatch.setattr(_clip_encoder, "load_once", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(
    params=["missing", "no image", "no image in bytes", "no image in a file", "floats in a file", "a URL", "an array"]
)
def bad(request, tmp_path):
    (tmp_path / "text.png").write_bytes(b"no image")
    floats = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(floats, "TIFF")
    (tmp_path / "floats.tif").write_bytes(floats.getvalue())
    made = {
        "missing": str(tmp_path / "missing.png"),
        "no image": tmp_path / "text.png",
        "no image in bytes": b"no image",
        "no image in a file": io.BytesIO(b"no image"),
        "floats in a file": tmp_path / "floats.tif",
        "a URL": "https://example.org/a.png",
        "an array": np.zeros((4, 4)),
    }
    return made[request.param]


@pytest.mark.parametrize("model", ["ViT-B-32/laion2b_s34b_b79k", "local-dir:/no/such/folder", "hf-hub:a/b", "tiny"])
@pytest.mark.parametrize(
    "use",
    [
        lambda model, X: CLIPEncoder(model).encode_image(X),
        lambda model, X: CLIPEncoder(model).encode_image(X, n_views=3),
        lambda model, X: CLIPEncoder(model).check_images(X),
        lambda model, X: CLIPEncoder(model).fit_transform(X),
        lambda model, X: XMAdapterClassifier(model).fit(X, Y),
        lambda model, X: XMAdapterClassifier(model).partial_fit(X, Y),
        lambda model, X: XMAdapterSearchCV(XMAdapterClassifier(model), {"alpha": [1, 2]}, cv=2).fit(X, Y),
    ],
)
def test_bad_images_are_named_before_an_encoder_without_weights_is_asked_for_them(no_weights, bad, model, use):
    with pytest.raises(ImageError, match="image 5"):
        use(model, [*GOOD[:5], bad])


@pytest.fixture(scope="module")
def fitted() -> XMAdapterClassifier:
    return XMAdapterClassifier(CLIPEncoder("tiny", memory=MemoryStore()), vocabulary=None).fit(GOOD, Y)


@pytest.mark.parametrize(
    "use",
    [
        lambda clf, X: clf.predict(X),
        lambda clf, X: clf.predict_proba(X),
        lambda clf, X: clf.decision_function(X),
        lambda clf, X: clf.zero_shot(X),
        lambda clf, X: clf.encode(X),
        lambda clf, X: clf.kneighbors(X),
        lambda clf, X: clf.open_set_score(X),
        lambda clf, X: clf.score(X, Y),
        lambda clf, X: clf.partial_fit(X, Y),
        lambda clf, X: RetrievalDisplay.from_estimator(clf, X),
    ],
)
def test_a_fitted_model_names_bad_images_before_it_loads_its_encoder(no_weights, fitted, tmp_path, use):
    with pytest.raises(ImageError, match="image 5"):
        use(fitted, [*GOOD[:5], tmp_path / "missing.png"])


def test_a_model_with_another_encoder_still_refuses_before_it_encodes(fitted, random_model, forwarded):
    other = XMAdapterClassifier(CLIPEncoder("tiny", memory=MemoryStore()), vocabulary=None).fit(GOOD, Y)
    del forwarded[:]
    other.set_params(encoder=CLIPEncoder(random_model))
    with pytest.raises(EncoderMismatchError):
        other.predict(GOOD)
    assert forwarded == []


def test_the_command_line_names_bad_images_first(no_weights, fitted, tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        for seed in range(2):
            (tmp_path / name / f"{seed}.png").write_bytes(encode_as(make_pixels(seed), "PNG"))
    (tmp_path / "b" / "text.png").write_bytes(b"no image")
    assert main(["fit", str(tmp_path), "--model", str(tmp_path / "m.skxma")]) == 1
    err = capsys.readouterr().err
    assert "text.png: not an image" in err
    assert len(err.splitlines()) == 1
    fitted.save(tmp_path / "m.skxma")
    main(["predict", str(tmp_path / "m.skxma"), str(tmp_path / "b" / "text.png")])
    assert "text.png: not an image" in capsys.readouterr().err


def test_with_good_images_the_missing_weights_are_the_error(tmp_path):
    with pytest.raises(WeightsError, match="no such folder"):
        CLIPEncoder("local-dir:/no/such/folder").encode_image(GOOD)
    with pytest.raises(WeightsError, match="no such folder"):
        CLIPEncoder("local-dir:/no/such/folder", on_error="skip").encode_image([tmp_path / "missing.png"])


def test_files_are_not_read_once_more_for_being_checked_first(tmp_path, monkeypatch, fitted):
    import os

    paths = []
    for seed in range(4):
        path = tmp_path / f"{seed}.png"
        path.write_bytes(encode_as(make_pixels(seed + 50), "PNG"))
        os.utime(path, (1e9, 1e9))
        paths.append(str(path))
    read = []
    key = _clip_encoder.content_key
    monkeypatch.setattr(
        _clip_encoder, "content_key", lambda item, *more: read.append(Path(item).name) or key(item, *more)
    )
    fitted.predict(paths)
    assert sorted(read) == ["0.png", "1.png", "2.png", "3.png"]
