"""scikit-activeml: its strategies with our classifiers, and `suggest` among its strategies."""

import numpy as np
import pytest
from sklearn.base import clone

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.active import suggest
from skxma.baselines import TipAdapterClassifier
from skxma.datasets import load_emoji

pytest.importorskip("skactiveml", reason="scikit-activeml is not installed")

from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import Badge, ContrastiveAL, UncertaintySampling

from skxma.active import SuggestQueryStrategy

N_CLASSES = 40
pytestmark = pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%:UserWarning")


@pytest.fixture(scope="module")
def emoji():
    """Embeddings, labels from 0 on, names."""
    found = load_emoji()
    embeddings = np.asarray(CLIPEncoder("tiny").encode_image(found.images))
    return embeddings, np.searchsorted(found.target_names, found.target), list(found.target_names)


def some_labels(target, n=60):
    y = np.full(len(target), np.nan)
    rows = np.random.default_rng(0).permutation(len(target))[:n]
    y[rows] = target[rows]
    return y


def ours(names, kind=XMAdapterClassifier, **parameters):
    return kind("tiny", class_names=names, **parameters)


def wrapped(clf, **parameters):
    return SklearnClassifier(clf, classes=range(N_CLASSES), missing_label=np.nan, **parameters)


@pytest.mark.parametrize("kind", [XMAdapterClassifier, TipAdapterClassifier])
def test_the_wrapper_learns_what_our_classifier_learns_from_the_labeled_images(emoji, kind):
    X, target, names = emoji
    y = some_labels(target)
    labeled = ~np.isnan(y)
    found = wrapped(ours(names, kind, random_state=0)).fit(X, y)
    alone = ours(names, kind, random_state=0).fit(X[labeled], y[labeled])
    assert np.array_equal(found.predict_proba(X), alone.predict_proba(X))
    assert found.predict(X).tolist() == alone.predict(X).tolist()


def test_the_wrapper_passes_images_without_labels_on(emoji):
    X, target, names = emoji
    y = some_labels(target)
    clf = ours(names, unlabeled_label=np.nan)
    found = wrapped(clf, include_unlabeled_samples=True).fit(X, y)
    assert np.array_equal(found.predict_proba(X), clone(clf).fit(X, y).predict_proba(X))
    assert found.estimator_.soft_labels_.shape == (len(y) - 60, N_CLASSES)


def test_its_margins_are_those_of_our_probabilities(emoji):
    X, target, names = emoji
    y = some_labels(target)
    rest = np.isnan(y)
    clf = wrapped(ours(names))
    _, utilities = UncertaintySampling("margin_sampling", random_state=0).query(X, y, clf, return_utilities=True)
    best = np.sort(clf.fit(X, y).predict_proba(X)[rest], axis=1)
    assert np.allclose(utilities[0][rest], 1 - (best[:, -1] - best[:, -2]))


@pytest.mark.parametrize("strategy", [Badge, ContrastiveAL])
def test_its_strategies_ask_our_classifier(emoji, strategy):
    X, target, names = emoji
    y = some_labels(target)
    rows = strategy(random_state=0).query(X, y, wrapped(ours(names)), batch_size=5)
    assert len(set(rows)) == 5
    assert np.isnan(y[rows]).all()


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("n", [0, 60])
def test_the_strategy_asks_for_what_suggest_chooses(emoji, wrap, n):
    X, target, names = emoji
    y = some_labels(target, n)
    labeled = ~np.isnan(y)
    rest = np.flatnonzero(~labeled)
    clf = ours(names)
    rows = SuggestQueryStrategy(random_state=0).query(X, y, wrapped(clf) if wrap else clf, batch_size=20)
    assert not hasattr(clf, "classes_")
    known = clf.fit(X[labeled], y[labeled]) if n else clf
    assert rows.tolist() == rest[suggest(known, X[rest], 20, random_state=0)].tolist()


def test_rounds_lead_to_a_model(emoji):
    X, target, names = emoji
    y = np.full(len(X), np.nan)
    clf = wrapped(ours(names))
    scores = []
    for _ in range(3):
        rows = SuggestQueryStrategy(random_state=0).query(X, y, clf, batch_size=20)
        y[rows] = target[rows]
        scores.append(clone(clf).fit(X, y).score(X, target))
    assert (~np.isnan(y)).sum() == 60
    assert scores[2] > scores[0]


def test_a_fitted_classifier_is_asked_as_it_is(emoji):
    X, target, names = emoji
    clf = ours(names).fit(X[::4], target[::4])
    rows = SuggestQueryStrategy(random_state=0).query(X, np.full(len(X), np.nan), clf, fit_clf=False, batch_size=10)
    assert rows.tolist() == suggest(clf, X, 10, random_state=0).tolist()
    again = SuggestQueryStrategy(random_state=0).query(
        X, np.full(len(X), np.nan), wrapped(clf), fit_clf=False, batch_size=10
    )
    assert again.tolist() == rows.tolist()


@pytest.mark.parametrize("candidates", [None, "rows", "embeddings"])
def test_the_best_utility_is_that_of_the_choice(emoji, candidates):
    X, target, names = emoji
    y = some_labels(target)
    rest = np.flatnonzero(np.isnan(y))[::2]
    given = {None: None, "rows": rest, "embeddings": X[rest]}[candidates]
    rows, utilities = SuggestQueryStrategy(random_state=0).query(
        X, y, ours(names), candidates=given, batch_size=4, return_utilities=True
    )
    assert utilities.shape == (4, len(rest) if candidates == "embeddings" else len(X))
    assert np.nanargmax(utilities, axis=1).tolist() == rows.tolist()
    n_candidates = np.isnan(y).sum() if candidates is None else len(rest)
    assert (~np.isnan(utilities)).sum(axis=1).tolist() == [n_candidates - i for i in range(4)]


def test_a_missing_label_among_strings_is_none(emoji):
    X, target, names = emoji
    y = np.full(len(X), None, dtype=object)
    y[::4] = np.array(names)[target[::4]]
    rows = SuggestQueryStrategy(missing_label=None, random_state=0).query(X, y, ours(names), batch_size=10)
    assert len(set(rows)) == 10
    assert all(y[row] is None for row in rows)


def test_copies_of_labeled_images_come_last():
    X = np.eye(4, 8)[[0, 1, 0, 1, 2]]
    y = np.array([0, 1, np.nan, np.nan, np.nan])
    rows = SuggestQueryStrategy(random_state=0).query(X, y, XMAdapterClassifier("precomputed"), batch_size=3)
    assert rows.tolist() == [4, 2, 3]


@pytest.mark.bad_input
def test_arguments_that_cannot_be_meant_are_refused(emoji):
    X, target, names = emoji
    y = some_labels(target)
    with pytest.raises(ValueError, match="strategy='best'"):
        SuggestQueryStrategy("best").query(X, y, ours(names))
    with pytest.raises(TypeError, match="suggest takes a classifier of skxma"):
        SuggestQueryStrategy().query(X, y, SuggestQueryStrategy(), fit_clf=False)
