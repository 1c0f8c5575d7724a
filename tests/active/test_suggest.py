"""Which images of a pool are suggested for labeling."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.active import suggest
from skxma.active._names import STRATEGIES
from skxma.baselines import TipAdapterClassifier, ZeroShotClassifier
from skxma.datasets import load_emoji
from skxma.encoder._checkpoints import TINY_FOLDER
from skxma.errors import EncoderMismatchError


@pytest.fixture(scope="module")
def emoji():
    return load_emoji()


@pytest.fixture(scope="module")
def embeddings(emoji):
    return CLIPEncoder("tiny").encode_image(emoji.images)


@pytest.fixture(scope="module")
def blobs():
    """Thirty embeddings around each of four directions, and one more of the first than of the others."""
    rng = np.random.default_rng(0)
    y = np.append(np.repeat(np.arange(4), 30), 0)
    return np.eye(4, 16)[y] + 0.05 * rng.normal(size=(len(y), 16)), y


def precomputed(**parameters):
    return XMAdapterClassifier("precomputed", **parameters)


def fitted_emoji(emoji, embeddings, rows):
    return XMAdapterClassifier("tiny", class_names=emoji.target_names).fit(embeddings[rows], emoji.target[rows])


def test_before_there_are_labels_each_cluster_gives_an_image_the_largest_first(blobs):
    X, y = blobs
    rows = suggest(precomputed(), X, 4, random_state=0)
    assert sorted(y[rows]) == [0, 1, 2, 3]
    assert y[rows[0]] == 0


def test_chosen_images_see_more_classes_than_random_ones(emoji, embeddings):
    clf = XMAdapterClassifier("tiny", class_names=emoji.target_names)
    seen = {
        name: np.mean(
            [len(set(emoji.target[suggest(clf, embeddings, 40, strategy=name, random_state=i)])) for i in range(3)]
        )
        for name in ("auto", "random")
    }
    assert seen["auto"] > seen["random"] + 3


def test_images_and_their_embeddings_give_the_same_rows(emoji, embeddings):
    clf = XMAdapterClassifier("tiny", class_names=emoji.target_names)
    by_image = suggest(clf, emoji.images[:60], 10, random_state=0)
    assert by_image.tolist() == suggest(clf, embeddings[:60], 10, random_state=0).tolist()
    clf = fitted_emoji(emoji, embeddings, by_image)
    again = suggest(clf, emoji.images[:60], 10, random_state=0)
    assert again.tolist() == suggest(clf, embeddings[:60], 10, random_state=0).tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_asks_for_different_images_that_are_not_in_the_support_set(emoji, embeddings, strategy):
    known = np.arange(0, 200, 4)
    clf = fitted_emoji(emoji, embeddings, known)
    rows = suggest(clf, embeddings, 30, strategy=strategy, random_state=0)
    assert len(set(rows)) == 30
    assert not set(rows) & set(known)
    assert rows.tolist() == suggest(clf, embeddings, 30, strategy=strategy, random_state=0).tolist()


def test_the_class_without_labels_is_asked_for_first(blobs):
    X, y = blobs
    labeled = np.r_[0:5, 30:35, 60:65]
    clf = precomputed(text_features=np.eye(4, 16)).fit(X[labeled], y[labeled])
    assert y[suggest(clf, X, 5, random_state=0)].tolist() == [3] * 5


def test_among_the_images_of_a_class_the_least_certain_is_first():
    """Between two classes that are labeled equally often."""
    angles = np.radians([0, 5, 85, 90, 2, 40, 50, 88])
    X = np.stack([np.cos(angles), np.sin(angles), np.ones_like(angles)], axis=1)
    clf = precomputed(text_features=np.array([[1.0, 0, 1], [0, 1, 1]])).fit(X[:4], [0, 0, 1, 1])
    assert sorted(suggest(clf, X, 2).tolist()) == [5, 6]


def test_of_near_duplicates_one_is_suggested(blobs):
    X, y = blobs
    labeled = np.r_[0:3, 30:33, 60:63, 90:93]
    clf = precomputed(text_features=np.eye(4, 16)).fit(X[labeled], y[labeled])
    first = suggest(clf, X, 1, random_state=0)[0]
    pool = np.concatenate([X, np.repeat(X[[first]], 20, axis=0) + 1e-4])
    rows = suggest(clf, pool, 12, random_state=0)
    copies = np.isin(rows, np.append(np.arange(len(X), len(pool)), first))
    assert copies.sum() == 1


def test_fewer_are_returned_where_the_pool_has_no_more(blobs):
    X, y = blobs
    assert sorted(suggest(precomputed(), X[:7], 10, random_state=0)) == list(range(7))
    clf = precomputed().fit(X[::10], y[::10])
    assert suggest(clf, X[::10], 5).tolist() == []


def test_equal_images_leave_no_warning_and_no_gap():
    X = np.repeat(np.eye(3, 8), 5, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = suggest(precomputed(), X, 6, random_state=0)
    assert len(set(rows)) == 6
    assert set(rows[:3] // 5) == {0, 1, 2}


def test_a_random_share_comes_last_and_is_drawn_from_the_whole_pool(blobs):
    X, _ = blobs
    whole = suggest(precomputed(), X, 20, random_share=0.5, random_state=0)
    chosen = suggest(precomputed(), X, 10, random_state=0)
    assert len(set(whole)) == 20
    assert whole[:10].tolist() == chosen.tolist()
    drawn = {row for i in range(60) for row in suggest(precomputed(), X, 4, random_share=1, random_state=i)}
    assert len(drawn) > 80


def test_a_missing_label_may_be_nan_in_every_round(blobs):
    """As in scikit-activeml, whose arrays of labels are floats with NaN for those that are missing."""
    X, target = blobs
    clf = precomputed(text_features=np.eye(4, 16), unlabeled_label=np.nan)
    y = np.full(len(X), np.nan)
    for _ in range(3):
        missing = np.flatnonzero(np.isnan(y))
        rows = missing[suggest(clf, X[missing], 4, random_state=0)]
        y[rows] = target[rows]
        clf.fit(X, y)
    assert (~np.isnan(y)).sum() == 12
    assert clf.classes_.tolist() == [0, 1, 2, 3]
    assert clf.score(X, target) == 1


@pytest.mark.parametrize("text", ["names", "features"])
def test_class_texts_shape_the_metric_where_there_is_no_vocabulary(emoji, embeddings, text):
    if text == "names":
        known = {"class_names": {name: name for name in emoji.target_names}}
    else:
        known = {"text_features": CLIPEncoder("tiny").encode_text(list(emoji.target_names))}

    def chosen(encoder, **known):
        clf = XMAdapterClassifier(encoder, vocabulary=None, **known)
        return suggest(clf, embeddings, 20, random_state=0).tolist()

    # by another name the bundled model is one whose texts shape the metric
    by_folder = f"local-dir:{TINY_FOLDER}"
    assert chosen(by_folder, **known) != chosen(by_folder)
    assert chosen("tiny", **known) == chosen("tiny")


def test_one_class_alone_may_have_a_name_before_there_are_labels(blobs):
    X, _ = blobs
    unnamed = suggest(precomputed(), X, 5, random_state=0)
    named = suggest(precomputed(text_features={"fox": X[0]}), X, 5, random_state=0)
    assert named.tolist() == unnamed.tolist()


@pytest.mark.parametrize("rival", [ZeroShotClassifier, TipAdapterClassifier])
def test_rivals_suggest_too(emoji, embeddings, rival):
    clf = rival("tiny", class_names=emoji.target_names)
    rows = suggest(clf, embeddings, 20, random_state=0)
    clf.fit(embeddings[rows], emoji.target[rows])
    assert not set(rows) & set(suggest(clf, embeddings, 20, random_state=0))


def test_the_classifier_stays_as_it_was(emoji, embeddings):
    clf = XMAdapterClassifier("tiny", class_names=emoji.target_names, n_views=2)
    before = dict(vars(clf))
    suggest(clf, embeddings, 5)
    assert vars(clf) == before


def test_unreadable_images_that_the_encoder_skips_are_not_suggested(emoji, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    clf = XMAdapterClassifier(CLIPEncoder("tiny", on_error="skip"))
    with pytest.warns(UserWarning, match="broken"):
        rows = suggest(clf, [str(broken), *emoji.images[:4]], 5)
    assert sorted(rows) == [1, 2, 3, 4]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "best"}, "strategy='best'.*auto"),
        ({"strategy": "margin"}, "not fitted"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"n_samples": 2.5}, "n_samples=2.5"),
        ({"random_share": 1.5}, "random_share=1.5"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(blobs, arguments, message):
    with pytest.raises(ValueError, match=message):
        suggest(precomputed(), blobs[0], **arguments)


@pytest.mark.bad_input
def test_what_a_fit_would_refuse_is_refused_before_images_are_encoded(emoji):
    class Encoder:
        def encode_image(self, images):
            raise AssertionError("encoded")

    several = [Encoder(), Encoder()]
    with pytest.raises(ValueError, match="knows one encoder"):
        suggest(XMAdapterClassifier(several, evidence="paper"), emoji.images)
    with pytest.raises(ValueError, match="'encoder' parameter"):
        suggest(TipAdapterClassifier(several), emoji.images)


@pytest.mark.bad_input
def test_other_classifiers_and_other_encoders_are_refused(emoji, embeddings, random_model):
    with pytest.raises(TypeError, match="KMeans"):
        suggest(KMeans(), embeddings)
    clf = fitted_emoji(emoji, embeddings, np.arange(0, 200, 5)).set_params(encoder=random_model)
    with pytest.raises(EncoderMismatchError):
        suggest(clf, emoji.images[:3])


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_rows_are_distinct_positions_of_the_pool(n, share, seed):
    X = np.random.default_rng(seed).normal(size=(25, 6))
    rows = suggest(precomputed(), X, n, random_share=share, random_state=seed)
    assert len(rows) == len(set(rows)) == min(n, 25)
    assert set(rows) <= set(range(25))


def test_of_a_large_pool_some_are_drawn_before_anything_is_read(blobs, monkeypatch, tmp_path):
    X, y = blobs
    monkeypatch.setattr("skxma.active._suggest.MOST_CANDIDATES", 40)
    np.save(tmp_path / "pool.npy", X)
    pool = np.load(tmp_path / "pool.npy", mmap_mode="r")
    rows = suggest(precomputed(), pool, 8, random_state=0)
    assert len(set(rows)) == 8
    assert len(set(y[rows])) == 4
    assert rows.tolist() == suggest(precomputed(), X, 8, random_state=0).tolist()
    reachable = {
        row for seed in range(40) for row in suggest(precomputed(), X, 40, strategy="random", random_state=seed)
    }
    assert reachable == set(range(len(X)))
    clf = precomputed().fit(X[::10], y[::10])
    assert not set(suggest(clf, pool, 20, random_state=0)) & set(range(0, len(X), 10))


@pytest.mark.parametrize("strategy", ["clusters", "clue", "auto"])
def test_clusters_of_many_points_are_those_of_some(blobs, monkeypatch, strategy):
    X, y = blobs
    monkeypatch.setattr("skxma.active._strategies.SMALL_POOL", 20)
    monkeypatch.setattr("skxma.active._strategies.LARGE_POOL", 60)
    clf = precomputed(text_features=np.eye(4, 16)).fit(X[::20], y[::20])
    rows = suggest(clf, X, 12, strategy=strategy, random_state=0)
    assert len(set(rows)) == 12
    assert set(y[rows]) == {0, 1, 2, 3}
