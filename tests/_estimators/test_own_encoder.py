"""Encoder objects of the caller's own: copies, clones, pickles, and the rows that they return."""

import copy
import os
import pickle
import threading
import warnings
from pathlib import Path

import joblib
import numpy as np
import own_encoder
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from own_encoder import Own
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.baselines import TipAdapterClassifier
from skxma.datasets import load_emoji
from skxma.errors import EncoderMismatchError, ImageError

pytestmark = pytest.mark.bad_input


class Session(Own):
    """Holds what can be neither copied nor pickled."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Heavy(Own):
    """Holds weights."""

    def __init__(self):
        super().__init__()
        self.weights = torch.zeros(2**19)


class Broken(Own):
    """Overflows on some of the images and prompts, as a model in half precision may."""

    def __init__(self, images=(), texts=(), value=np.nan):
        super().__init__()
        self.images, self.texts, self.value = list(images), list(texts), value

    def encode_image(self, images):
        rows = super().encode_image(images)
        rows[[i for i in self.images if i < len(rows)], 3] = self.value
        return rows

    def encode_text(self, prompts):
        rows = super().encode_text(prompts)
        rows[[any(word in prompt for word in self.texts) for prompt in prompts]] = self.value
        return rows


@pytest.fixture(scope="module")
def emoji():
    emoji = load_emoji(sets=["noto", "twemoji", "emojione"])
    chosen = np.isin(emoji.target, np.unique(emoji.target)[:4])
    return emoji.images[chosen], emoji.target[chosen]


def classifier(encoder, kind=XMAdapterClassifier, **parameters):
    if kind is XMAdapterClassifier:
        parameters = {"vocabulary": None, "n_epochs": 0, **parameters}
    return kind(encoder, **parameters)


each_kind = pytest.mark.parametrize("kind", [XMAdapterClassifier, TipAdapterClassifier])


@each_kind
@pytest.mark.parametrize("encoder", [Own, Session, Heavy])
def test_copies_within_a_process_keep_the_encoder(emoji, kind, encoder):
    X, y = emoji
    clf = classifier(encoder(), kind).fit(X, y)
    wanted = clf.predict_proba(X)
    for copied in (copy.copy(clf), copy.deepcopy(clf), copy.deepcopy([clf])[0]):
        assert copied.encoder is clf.encoder
        np.testing.assert_array_equal(copied.predict_proba(X), wanted)
    assert copied.image_cache_ is not clf.image_cache_
    unfitted = copy.deepcopy(classifier(encoder(), kind))
    np.testing.assert_array_equal(unfitted.fit(X, y).predict_proba(X), wanted)


@each_kind
def test_clones_share_the_encoder(emoji, kind):
    X, y = emoji
    session = Session()
    clf = classifier(session, kind, class_names={label: [label] for label in np.unique(y)})
    cloned = clone(clf)
    assert cloned.encoder is session
    assert cloned is not clf
    assert cloned.class_names is not clf.class_names
    assert not hasattr(clone(clf.fit(X, y)), "classes_")
    assert clone(make_pipeline(clf))[-1].encoder is session
    search = GridSearchCV(clf, {"alpha": [0.5, 1.0]}, cv=3).fit(X, y)
    assert search.best_estimator_.encoder is session
    assert search.predict(X[:2]).shape == (2,)


def test_estimators_as_encoders_are_cloned():
    clf = classifier(CLIPEncoder("tiny"))
    assert clone(clf).encoder is not clf.encoder
    assert clone(clf.set_params(encoder__batch_size=3)).encoder.batch_size == 3


@each_kind
def test_a_small_encoder_is_pickled_with_the_model(emoji, kind, tmp_path):
    X, y = emoji
    clf = classifier(Own(), kind).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(pickle.dumps(clf))
        joblib.dump(clf, tmp_path / "model.joblib")
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict(X), clf.predict(X))


@pytest.mark.parametrize(("encoder", "reason"), [(Heavy, "more than 1 MiB"), (Session, "cannot be pickled")])
def test_an_encoder_that_is_left_out_of_a_pickle_is_told_beforehand(emoji, encoder, reason):
    X, y = emoji
    clf = classifier(encoder()).fit(X, y)
    with pytest.warns(UserWarning, match=f"{encoder.__name__} is left out of the pickled model.*{reason}.*set_params"):
        written = pickle.dumps(clf)
    assert len(written) < 2**20
    again = pickle.loads(written)
    with pytest.raises(EncoderMismatchError, match=r"give it back with set_params\(encoder=...\)"):
        again.predict(X)
    again.set_params(encoder=clf.encoder)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))


@pytest.mark.slow
def test_other_processes_return_models_with_their_encoder(emoji, monkeypatch):
    X, y = emoji
    # processes find modules in PYTHONPATH, and not where pytest found them
    folder = str(Path(own_encoder.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
    get_reusable_executor().shutdown()
    found = [
        CalibratedClassifierCV(classifier(Own()), cv=3, n_jobs=n_jobs).fit(X, y).predict_proba(X) for n_jobs in (1, 2)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


@each_kind
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_an_embedding_are_named(emoji, kind, value):
    X, y = emoji
    clf = classifier(Broken(images=[1, 3], value=value), kind)
    with pytest.raises(
        ImageError, match=r"Broken.encode_image gave NaN or infinity for 2 of 12 images \(items \[1, 3\]"
    ):
        clf.fit(X, y)
    assert not hasattr(clf, "classes_")
    clf = classifier(Own(), kind).fit(X, y)
    clf.encoder = Broken(images=[1], value=value)
    clf.encoder_fingerprint_ = f"{Broken.__module__}.{Broken.__qualname__}"
    for method in (clf.predict, clf.encode, clf.zero_shot, lambda X: clf.partial_fit(X, y[:2])):
        with pytest.raises(ImageError, match=r"1 of 2 images \(items \[1\]") as caught:
            method(X[:2])
        assert caught.value.index == 1


def test_images_that_a_clip_encoder_skips_are_left_out_as_asked(emoji, tmp_path):
    X, y = emoji
    (tmp_path / "no.png").write_bytes(b"no image")
    encoder = CLIPEncoder("tiny", on_error="skip")
    with pytest.warns(UserWarning, match="no.png"):
        clf = classifier(encoder).fit([*X, str(tmp_path / "no.png")], [*y, y[0]])
    assert clf.sample_position_[-1] == -1


def test_texts_without_an_embedding_are_named(emoji):
    X, y = emoji
    name = str(np.unique(y)[2])
    with pytest.raises(ValueError, match=f"Broken gave NaN or infinity for the text of 1 of 4 names.*{name!r}"):
        classifier(Broken(texts=[name])).fit(X, y)
    with pytest.raises(ValueError, match=r"for the text of 1 of 3 names.*'teapot'"):
        classifier(Broken(texts=["teapot"]), vocabulary=["sea", "teapot", "sky"]).fit(X, y)


def test_tensors_of_any_kind_are_taken(emoji):
    class Tensors(Own):
        def encode_image(self, images):
            return torch.as_tensor(super().encode_image(images)).requires_grad_().to(torch.bfloat16)

        def encode_text(self, prompts):
            # as a model that keeps its gradients does, outside of torch.no_grad
            weight = torch.ones(1, requires_grad=True)
            return torch.as_tensor(super().encode_text(prompts)) * weight

    X, y = emoji
    found, wanted = (classifier(encoder).fit(X, y) for encoder in (Tensors(), Own()))
    # bfloat16 has three digits
    np.testing.assert_allclose(found.zero_shot(X), wanted.zero_shot(X), atol=0.1)


def test_an_object_that_encodes_images_alone_serves_a_classifier():
    class ImagesAlone:
        def encode_image(self, images):
            return np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images])

    red, blue = (np.full((8, 8, 3), color, dtype=np.uint8) for color in ((200, 10, 10), (10, 10, 200)))
    clf = XMAdapterClassifier(ImagesAlone()).fit([red, blue], ["red", "blue"])
    assert clf.predict([blue, red]).tolist() == ["blue", "red"]
    np.testing.assert_allclose(clf.zero_shot([red]).sum(), 1)
