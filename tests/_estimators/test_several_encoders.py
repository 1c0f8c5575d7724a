"""Several encoders: their embeddings travel as blocks of a row, and the fusion weighs the image experts of each."""

import copy
import pickle
import warnings

import numpy as np
import pandas
import pytest
import torch
from own_encoder import Own
from problems import make_problem
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from small_models import write_timm

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.active import suggest
from skxma.baselines import TipAdapterClassifier
from skxma.embeddings import Embeddings
from skxma.encoder import TimmEncoder
from skxma.errors import EncoderMismatchError
from skxma.export import to_module
from skxma.inspection import FusionDisplay
from skxma.store import MemoryStore

N_CLASSES = 4


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=N_CLASSES, shots=4, dim=16, seed=3)


def other_encoder(problem, seed=0, dim=24, noise=0.4):
    """Embeddings of the same images by an encoder of another width: a random map of them, and noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(problem.X.shape[1], dim)) / dim**0.5
    return [X @ matrix + noise / dim**0.5 * rng.normal(size=(len(X), dim)) for X in (problem.X, problem.X_test)]


def fitted(problem, X, **parameters):
    return XMAdapterClassifier("precomputed", text_features=problem.text, **parameters).fit(X, problem.y)


def test_a_list_of_arrays_is_the_same_as_one_array_with_its_blocks(problem):
    train, test = other_encoder(problem)
    of_list = fitted(problem, [problem.X, 7 * train])
    of_rows = fitted(problem, np.hstack([problem.X, train]), blocks=[16, 24])
    assert of_list.image_cache_.blocks == of_rows.image_cache_.blocks == (16, 24)
    assert of_list.n_features_in_ == 40
    probabilities = of_list.predict_proba([problem.X_test, test])
    np.testing.assert_allclose(of_rows.predict_proba(np.hstack([problem.X_test, test])), probabilities, atol=1e-6)
    np.testing.assert_allclose(of_list.predict_proba(np.hstack([problem.X_test, 3 * test])), probabilities, atol=1e-6)


@pytest.mark.parametrize("kind", [np.array, torch.as_tensor, pandas.DataFrame])
def test_arrays_of_integers_are_embeddings_where_there_are_no_images(problem, kind):
    parts = [np.round(100 * problem.X).astype(int), np.round(100 * other_encoder(problem)[0]).astype(int)]
    floats = fitted(problem, [part.astype(float) for part in parts])
    integers = fitted(problem, [kind(part) for part in parts])
    np.testing.assert_array_equal(integers.image_cache_.keys, floats.image_cache_.keys)
    assert integers.image_cache_.blocks == (16, 24)


def test_a_second_encoder_counts(problem):
    alone = fitted(problem, problem.X)
    both = fitted(problem, [problem.X, other_encoder(problem)[0]])
    assert len(both.model_.further) == 1
    one = both.model_.components[0]
    assert len(one.weights) == len(alone.model_.components[0].weights) + 1
    assert one.weights[-1] > 0


@pytest.mark.parametrize("shots", [1, 4])
def test_a_random_encoder_vanishes(shots):
    problem = make_problem(n_classes=8, shots=shots, dim=16, seed=1)
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(len(X), 64)) for X in (problem.X, problem.X_test)]
    alone, both = fitted(problem, problem.X), fitted(problem, [problem.X, noise[0]])
    assert not both.model_.further
    # the folds of the cross-fitting follow the order of the keys, which is another one
    np.testing.assert_allclose(
        both.predict_proba([problem.X_test, noise[1]]), alone.predict_proba(problem.X_test), atol=0.1
    )


def test_a_shuffled_encoder_counts_little():
    problem = make_problem(n_classes=8, shots=4, dim=16, seed=1)
    train, test = other_encoder(problem)
    rng = np.random.default_rng(0)
    alone = fitted(problem, problem.X)
    both = fitted(problem, [problem.X, rng.permutation(train)])
    X = [problem.X_test, rng.permutation(test)]
    assert both.score(X, problem.y_test) >= alone.score(problem.X_test, problem.y_test) - 0.02


def test_texts_and_vocabulary_belong_to_the_first_encoder(problem):
    train, test = other_encoder(problem)
    words = np.random.default_rng(0).normal(size=(30, 16))
    clf = fitted(problem, [problem.X, train], vocabulary=words)
    alone = fitted(problem, problem.X, vocabulary=words)
    assert clf.text_features_.shape == (N_CLASSES, 16)
    np.testing.assert_allclose(clf.zero_shot([problem.X_test, test]), alone.zero_shot(problem.X_test), atol=1e-5)
    with pytest.raises(ValueError, match="text_features has 24 columns, the embeddings have 16"):
        XMAdapterClassifier("precomputed", text_features=np.ones((N_CLASSES, 24))).fit([problem.X, train], problem.y)


def test_everything_that_a_fitted_model_answers(problem):
    train, test = other_encoder(problem)
    X = [problem.X, train]
    clf = fitted(problem, X, false_rejection_rate=0.1)
    queries = [problem.X_test, test]
    assert clf.score(queries, problem.y_test) > 0.7
    assert set(clf.predict(queries)) <= {*clf.classes_.tolist(), -1}
    assert clf.predict_set(queries, 0.8).shape == (len(test), N_CLASSES)
    assert clf.open_set_score(queries).shape == (len(test),)
    assert 0 < clf.left_out_score_ <= 1
    assert "accuracy" in str(clf.report()).lower()
    alone = fitted(problem, problem.X)
    for affinity, of_first in zip(clf.kneighbors(queries)[:2], alone.kneighbors(problem.X_test)[:2], strict=True):
        assert affinity.shape == of_first.shape
    without_text = XMAdapterClassifier("precomputed").fit(X, problem.y)
    assert without_text.zero_shot(queries).shape == (len(test), N_CLASSES)
    assert without_text.score(queries, problem.y_test) > 0.6


def test_growing_and_dropping_give_what_a_fit_on_all_gives(problem):
    train, test = other_encoder(problem)
    rows = np.concatenate([problem.X, train], axis=1)
    weights, groups = np.linspace(0.5, 2, len(rows)), np.arange(len(rows)) // 2
    everything = fitted(problem, rows, blocks=[16, 24])
    everything.fit(rows, problem.y, sample_weight=weights, groups=groups)
    first = np.arange(len(rows)) % 4 < 2
    grown = clone(everything).fit(rows[first], problem.y[first], sample_weight=weights[first], groups=groups[first])
    grown.partial_fit(
        [problem.X[~first], train[~first]], problem.y[~first], sample_weight=weights[~first], groups=groups[~first]
    )
    queries = [problem.X_test, test]
    np.testing.assert_allclose(grown.predict_proba(queries), everything.predict_proba(queries), atol=1e-5)
    fewer = grown.drop([0])
    assert fewer.predict_proba(queries).shape == (len(test), N_CLASSES - 1)


def test_a_useless_first_encoder_counts_little_without_text():
    X, y = load_digits(return_X_y=True)
    X, noise = X - 5, np.random.default_rng(0).normal(size=X.shape)
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        support = [rng.choice(np.flatnonzero(y == c)) for c in range(10)]
        test = rng.permutation(len(y))[:400]
        alone = XMAdapterClassifier("precomputed").fit(X[support], y[support])
        both = XMAdapterClassifier("precomputed").fit([noise[support], X[support]], y[support])
        found.append((alone.score(X[test], y[test]), both.score([noise[test], X[test]], y[test])))
    alone, both = np.mean(found, 0)
    assert both > alone - 0.12
    assert both > 0.5


def pooled(problem, X, X_pool, **parameters):
    """A classifier that has learned from labeled and unlabeled images, given as arrays of each encoder."""
    rows = [np.concatenate(parts) for parts in zip(X, X_pool, strict=True)]
    y = np.append(problem.y, np.full(len(X_pool[0]), -1))
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, unlabeled_label=-1, **parameters)
    return clf.fit(rows if len(rows) > 1 else rows[0], y)


def test_a_pool_is_seen_by_all_encoders(tmp_path):
    problem = make_problem(n_classes=4, shots=2, dim=16, n_test=40, noise=1.2, seed=0)
    train, test = other_encoder(problem)
    in_pool = np.arange(len(problem.X_test)) % 2 == 0
    queries = [problem.X_test[~in_pool], test[~in_pool]]
    clf = pooled(problem, [problem.X, train], [problem.X_test[in_pool], test[in_pool]])
    alone = fitted(problem, [problem.X, train])
    assert clf.n_unlabeled_used_ > 40
    assert clf.soft_labels_.shape == (80, 4)
    assert clf.score(queries, problem.y_test[~in_pool]) >= alone.score(queries, problem.y_test[~in_pool])
    statistics = clf.model_.statistics
    assert np.abs(statistics.projection[16:]).max() > 0
    probabilities = clf.predict_proba(queries)
    clf.save(tmp_path / "m.skxma")
    np.testing.assert_array_equal(skxma.load(tmp_path / "m.skxma").predict_proba(queries), probabilities)
    exported = to_module(clf, "head")(torch.as_tensor(clf.encode(queries)))[0]
    np.testing.assert_allclose(exported.numpy(), probabilities, atol=1e-5)
    half = np.arange(len(problem.y)) % 2 == 0
    grown = clone(clf).fit(
        [np.concatenate([one[half], more[in_pool]]) for one, more in ((problem.X, problem.X_test), (train, test))],
        np.append(problem.y[half], np.full(80, -1)),
    )
    grown.partial_fit([problem.X[~half], train[~half]], problem.y[~half])
    np.testing.assert_allclose(grown.predict_proba(queries), probabilities, atol=1e-4)


def test_a_pool_sees_nothing_of_a_useless_encoder():
    problem = make_problem(n_classes=4, shots=2, dim=16, n_test=40, noise=1.2, seed=2)
    noise = np.random.default_rng(0).normal(size=(len(problem.X) + len(problem.X_test), 24))
    train, test = noise[: len(problem.X)], noise[len(problem.X) :]
    both = pooled(problem, [problem.X, train], [problem.X_test, test])
    alone = pooled(problem, [problem.X], [problem.X_test])
    assert not both.model_.without_pool().further
    assert both.n_unlabeled_used_ == alone.n_unlabeled_used_ > 40
    np.testing.assert_allclose(
        both.predict_proba([problem.X_test, test]), alone.predict_proba(problem.X_test), atol=1e-3
    )


def test_splits_of_scikit_learn_slice_the_rows(problem):
    rows = np.concatenate([problem.X, other_encoder(problem)[0]], axis=1)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, blocks=[16, 24])
    assert cross_val_score(clf, rows, problem.y, cv=2).mean() > 0.6
    search = GridSearchCV(clf, {"hard_sample_weight": [0.0, 0.3]}, cv=2).fit(rows, problem.y)
    assert search.best_estimator_.image_cache_.blocks == (16, 24)


def test_the_search_takes_a_list_of_arrays(problem):
    train, test = other_encoder(problem)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text)
    search = XMAdapterSearchCV(clf, {"hard_sample_weight": [0.0, 0.3]}, cv=2).fit([problem.X, train], problem.y)
    assert search.best_estimator_.image_cache_.blocks == (16, 24)
    assert search.best_estimator_.score([problem.X_test, test], problem.y_test) > 0.7


def test_a_saved_model_answers_as_before(problem, tmp_path):
    train, test = other_encoder(problem)
    clf = fitted(problem, [problem.X, train])
    clf.save(tmp_path / "model.skxma")
    loaded = skxma.load(tmp_path / "model.skxma")
    queries = [problem.X_test, test]
    np.testing.assert_array_equal(loaded.predict_proba(queries), clf.predict_proba(queries))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(queries), clf.predict_proba(queries))
    loaded.partial_fit([problem.X_test, test], problem.y_test)
    assert loaded.image_cache_.blocks == (16, 24)


def test_top_retrieval_reads_all_keys_of_further_encoders(problem):
    train, test = other_encoder(problem)
    X, queries = [problem.X, train], [problem.X_test, test]
    exact, top = fitted(problem, X), fitted(problem, X, retrieval="top")
    np.testing.assert_allclose(top.predict_proba(queries), exact.predict_proba(queries), atol=0.3)


@pytest.mark.parametrize("conformal", ["cross", "full"])
def test_sets_are_calibrated_for_all_encoders_together(conformal):
    few = make_problem(n_classes=2, shots=3, dim=8, n_test=1)
    train, test = other_encoder(few)
    clf = fitted(few, [few.X, train], conformal=conformal, n_epochs=0)
    p_values = clf.predict_p([few.X_test, test])
    assert p_values.shape == (2, 2)
    assert ((p_values > 0) & (p_values <= 1)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"blocks": [16, 23]}, r"blocks=\[16, 23\] sums to 39, and X has 40 columns"),
        ({"blocks": [16.5, 23.5]}, "is no list of widths"),
        ({"blocks": []}, "is no list of widths"),
        ({"blocks": [16, 24], "evidence": "paper"}, "evidence='paper' knows one encoder"),
    ],
)
def test_what_several_encoders_cannot_do_is_refused(problem, parameters, message):
    rows = np.concatenate([problem.X, other_encoder(problem)[0]], axis=1)
    with pytest.raises(ValueError, match=message):
        XMAdapterClassifier("precomputed", **parameters).fit(rows, problem.y)


def test_wrong_lists_of_arrays_are_refused(problem):
    train, test = other_encoder(problem)
    clf = XMAdapterClassifier("precomputed")
    with pytest.raises(ValueError, match="16, 15 rows"):
        clone(clf).fit([problem.X, train[:15]], problem.y)
    with pytest.raises(ValueError, match="evidence='paper' knows one encoder"):
        clone(clf).set_params(evidence="paper").fit([problem.X, train], problem.y)
    with pytest.raises(ValueError, match=r"blocks=\[24, 16\], but"):
        clone(clf).set_params(blocks=[24, 16]).fit([problem.X, train], problem.y)
    with pytest.raises(ValueError, match="TipAdapterClassifier takes one encoder"):
        TipAdapterClassifier("precomputed").fit([problem.X, train], problem.y)
    with pytest.raises(ValueError, match="fitted with embeddings of encoders with widths"):
        clf.fit([problem.X, train], problem.y).predict([test, problem.X_test])
    with pytest.raises(ValueError, match="fitted with embeddings of one encoder"):
        clf.fit(problem.X, problem.y).predict([problem.X_test, test])


def test_slices_and_pickles_of_embeddings_keep_their_blocks():
    rows = Embeddings(np.ones((4, 5)), "a + b", (2, 3))
    kept = [
        rows[1:3],
        rows[[0, 2]],
        np.concatenate([rows, rows]),
        copy.deepcopy(rows),
        pickle.loads(pickle.dumps(rows)),
    ]
    assert all(one.blocks == (2, 3) for one in kept)
    assert rows[:, :2].blocks is None
    assert np.concatenate([rows, Embeddings(np.ones((1, 5)))]).blocks is None


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 255, (12, 20, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def of_images_alone(tmp_path_factory):
    return TimmEncoder(str(write_timm(tmp_path_factory.mktemp("timm"))))


LABELS = np.repeat(["cat", "dog", "temple"], 4)


def test_the_first_encoder_with_text_names_the_classes(images, of_images_alone):
    clf = XMAdapterClassifier([of_images_alone, "tiny"]).fit(list(images), LABELS)
    widths = CLIPEncoder("tiny").n_features, of_images_alone.n_features
    assert clf.image_cache_.blocks == widths
    assert clf.text_features_.shape == (3, widths[0])
    one = XMAdapterClassifier("tiny").fit(list(images), LABELS)
    np.testing.assert_allclose(clf.zero_shot(list(images)), one.zero_shot(list(images)), atol=1e-5)
    assert clf.encoder_fingerprint_ == f"{one.encoder_fingerprint_} + {of_images_alone.fingerprint}"
    # the list's own order is that of a list of arrays, the text's encoder comes first in a row
    embeddings = [of_images_alone.encode_image(images), CLIPEncoder("tiny").encode_image(images)]
    probabilities = clf.predict_proba(list(images))
    np.testing.assert_allclose(clf.predict_proba(embeddings), probabilities, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(clf.encode(list(images))), probabilities, atol=1e-5)
    again = clone(clf).fit(embeddings, LABELS)
    np.testing.assert_allclose(again.predict_proba(list(images)), probabilities, atol=1e-5)


def test_a_model_of_several_encoders_is_saved_with_all_of_them(images, of_images_alone, tmp_path):
    clf = XMAdapterClassifier(["tiny", of_images_alone]).fit(list(images), LABELS)
    clf.save(tmp_path / "model.skxma")
    loaded = skxma.load(tmp_path / "model.skxma")
    assert loaded.encoder[0] == "tiny"
    assert loaded.encoder[1].model == of_images_alone.model
    np.testing.assert_array_equal(loaded.predict_proba(list(images)), clf.predict_proba(list(images)))
    with pytest.raises(EncoderMismatchError):
        loaded.set_params(encoder="tiny").predict(list(images))


def test_no_image_is_encoded_twice_by_any_encoder(images, of_images_alone, monkeypatch):
    passed = []
    # the encoders of other libraries pass images through one of these too
    forward = CLIPEncoder._forward_images

    def counted(self, batch):
        passed.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(CLIPEncoder, "_forward_images", counted)
    store = MemoryStore()
    second = clone(of_images_alone).set_params(memory=store)
    clf = XMAdapterClassifier(["tiny", second], memory=store)
    cross_val_score(clf, list(images), LABELS, cv=2)
    XMAdapterSearchCV(clf, {"hard_sample_weight": [0.0, 0.3]}, cv=2).fit(list(images), LABELS)
    assert sum(passed) == 2 * len(images)


def test_clones_and_copies_share_encoders_of_the_callers_own(images):
    clf = XMAdapterClassifier(["tiny", Own()])
    for other in (clone(clf), copy.deepcopy(clf)):
        assert other.encoder[1] is clf.encoder[1]


@pytest.mark.parametrize(
    ("encoders", "error", "message"),
    [
        ([], ValueError, "is an empty list"),
        (["tiny", 3], TypeError, "holds 3, which is neither"),
        (["tiny", "tiny"], ValueError, "'tiny' twice"),
        (["tiny", "precomputed"], ValueError, "X as a list of arrays"),
    ],
)
def test_lists_that_are_no_encoders_are_refused_before_images_are_read(encoders, error, message):
    with pytest.raises(error, match=message):
        XMAdapterClassifier(encoders).fit(["missing.png"] * 4, list("aabb"))


def test_rivals_refuse_a_list_of_encoders():
    with pytest.raises(ValueError, match="encoder"):
        TipAdapterClassifier(["tiny", "photo"]).fit(["missing.png"] * 4, list("aabb"))


def test_an_encoder_without_room_in_a_pickle_is_left_out_alone(images):
    large = Own()
    large.ballast = np.zeros(2**20)
    clf = XMAdapterClassifier([CLIPEncoder("tiny"), large]).fit(list(images), LABELS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = pickle.loads(pickle.dumps(clf))
    assert any("left out of the pickled model" in str(one.message) for one in caught)
    with pytest.raises(EncoderMismatchError, match=r"own_encoder\.Own was not saved"):
        loaded.predict(list(images))


class OfImages:
    """An encoder of the caller's own that knows no texts and has no room in a pickle."""

    n_features = 16

    def __init__(self):
        self.ballast = np.zeros(2**20)

    def encode_image(self, images):
        return np.zeros((len(images), 16))


class OfBoth(OfImages):
    """One that knows texts."""

    def encode_text(self, prompts):
        return np.ones((len(prompts), 16))


@pytest.mark.parametrize("form", ["pickle", "skxma"])
def test_a_reloaded_model_knows_which_encoder_comes_first(problem, form, tmp_path):
    second = other_encoder(problem, dim=16)
    given, new = [second[0], problem.X], [second[1], problem.X_test]
    clf = XMAdapterClassifier([OfImages(), OfBoth()], text_features=problem.text).fit(given, problem.y)
    if form == "pickle":
        with pytest.warns(UserWarning, match="left out of the pickled model"):
            loaded = pickle.loads(pickle.dumps(clf))
    else:
        clf.save(tmp_path / "model.skxma")
        loaded = skxma.load(tmp_path / "model.skxma")
    np.testing.assert_allclose(loaded.predict_proba(new), clf.predict_proba(new), atol=1e-6)


def test_lists_of_embeddings_remember_their_encoders(problem):
    train, test = other_encoder(problem, dim=16)
    parts = [Embeddings(problem.X, "one"), Embeddings(train, "other")]
    clf = fitted(problem, parts)
    assert clf.encoder_fingerprint_ == "one + other"
    with pytest.raises(EncoderMismatchError, match=r"one \+ other"):
        clf.predict([Embeddings(test, "other"), Embeddings(problem.X_test, "one")])


@pytest.mark.bad_input
def test_widths_that_do_not_belong_to_the_encoders_are_refused(problem, images):
    with pytest.raises(ValueError, match=r"blocks=\[64, 64\] are widths of several"):
        XMAdapterClassifier("tiny", blocks=[64, 64]).fit(list(images), LABELS)
    rows = np.hstack([problem.X, problem.X])
    with pytest.raises(ValueError, match="X is one array for 2 encoders"):
        XMAdapterClassifier([Own(), Own()], text_features=problem.text).fit(rows, problem.y)
    with pytest.raises(ValueError, match=r"of 2 encoders; TipAdapterClassifier takes those of one"):
        TipAdapterClassifier("precomputed").fit(Embeddings(rows, blocks=(16, 16)), problem.y)


def test_what_to_label_next_is_asked_of_all_encoders(problem):
    train, test = other_encoder(problem)
    pool = [problem.X_test, test]
    clf = XMAdapterClassifier("precomputed", text_features=problem.text)
    assert len(set(suggest(clf, pool, 6, random_state=0))) == 6
    clf.fit([problem.X, train], problem.y)
    assert len(set(suggest(clf, pool, 6, random_state=0))) == 6
    assert not len(suggest(clf, [problem.X, train], 6, random_state=0))


def test_an_exported_head_answers_as_the_classifier(problem):
    train, test = other_encoder(problem)
    clf = fitted(problem, [problem.X, train])
    probabilities = to_module(clf, "head")(torch.as_tensor(clf.encode([problem.X_test, test])))[0]
    np.testing.assert_allclose(probabilities.numpy(), clf.predict_proba([problem.X_test, test]), atol=1e-5)


def test_an_encoder_of_several_is_not_exported_with_the_head(images):
    clf = XMAdapterClassifier(["tiny", Own()]).fit(list(images), LABELS)
    with pytest.raises(ValueError, match="part='model' needs one encoder"):
        to_module(clf, "model")


def test_the_display_of_the_fusion_names_the_encoders(problem):
    pytest.importorskip("matplotlib")
    display = FusionDisplay.from_estimator(fitted(problem, [problem.X, other_encoder(problem)[0]]))
    assert display.names[-2:] == ["gaussian", "encoder_2"]
    assert display.weights.shape[1] == len(display.names)
