import copy

import joblib
import numpy as np
import pytest
from problems import make_problem
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skxma import XMAdapterClassifier, XMAdapterSearchCV, load
from skxma.baselines import TipAdapterFClassifier

pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")


class Recorder:
    """Says what began and ended, how good the estimator was then, and stops after so many epochs."""

    max_propagation_depth = None

    def __init__(self, problem, stop_after=None):
        self.problem, self.stop_after = problem, stop_after
        self.heard, self.scores, self.data = [], [], []

    def setup(self, estimator, context):
        self.heard.append("setup")

    def teardown(self, estimator, context):
        self.heard.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.heard.append(f"+{context.task_name}")
        self.data.append((X, y, metadata))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.heard.append(f"-{context.task_name}")
        if fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(self.problem.X_test, self.problem.y_test))
        return self.stop_after is not None and self.heard.count("-epoch") == self.stop_after


@pytest.fixture
def problem():
    return make_problem(shots=4)


def classifier(problem, **changes):
    return XMAdapterClassifier("precomputed", text_features=problem.text, random_state=0, **changes)


def test_a_fit_tells_what_it_does(problem):
    heard = Recorder(problem)
    clf = classifier(problem).set_callbacks(heard)
    weights = np.ones(len(problem.y))
    clf.fit(problem.X, problem.y, sample_weight=weights)
    assert heard.heard == ["setup", "+fit", "+encode", "-encode", "+learn", "-learn", "-fit", "teardown"]
    assert heard.scores == [clf.score(problem.X_test, problem.y_test)]
    for X, y, metadata in heard.data:
        assert (X is problem.X, y is problem.y, metadata["sample_weight"] is weights) == (True, True, True)


def test_epochs_can_be_scored_and_stopped(problem):
    heard = Recorder(problem, stop_after=3)
    clf = classifier(problem, evidence="paper", n_epochs=8, false_rejection_rate=0.1).set_callbacks(heard)
    clf.fit(problem.X, problem.y)
    assert heard.heard.count("+epoch") == heard.heard.count("-epoch") == len(clf.loss_curve_) == 3
    whole = classifier(problem, evidence="paper", n_epochs=8).fit(problem.X, problem.y)
    np.testing.assert_allclose(clf.loss_curve_, whole.loss_curve_[:3], rtol=1e-5)
    assert len(heard.scores) == 4
    assert min(heard.scores) > 0.5


def test_an_error_ends_the_watching(problem):
    heard = Recorder(problem)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        classifier(problem).set_callbacks(heard).fit(problem.X, problem.y[:-1])
    assert heard.heard[-1] == "teardown"


def test_callbacks_change_nothing_and_stay_out_of_clones_results(problem):
    plain = classifier(problem).fit(problem.X, problem.y)
    watched = clone(classifier(problem).set_callbacks(Recorder(problem))).fit(problem.X, problem.y)
    np.testing.assert_array_equal(plain.predict_proba(problem.X_test), watched.predict_proba(problem.X_test))
    assert set(vars(watched)) - set(vars(plain)) == {"_skl_callbacks"}


def test_a_model_file_leaves_them_out(problem, tmp_path):
    clf = classifier(problem, warm_start=True).set_callbacks(Recorder(problem)).fit(problem.X, problem.y)
    clf.save(tmp_path / "m.skxma")
    loaded = load(tmp_path / "m.skxma")
    assert [one.choice for one in loaded.model_.components] == [one.choice for one in clf.model_.components]
    np.testing.assert_array_equal(loaded.predict_proba(problem.X_test), clf.predict_proba(problem.X_test))
    np.testing.assert_allclose(
        loaded.fit(problem.X, problem.y).predict_proba(problem.X_test),
        clf.fit(problem.X, problem.y).predict_proba(problem.X_test),
        atol=1e-6,
    )


@pytest.mark.parametrize("search", [GridSearchCV, XMAdapterSearchCV])
def test_searches_pass_them_on(problem, search):
    heard = Recorder(problem)
    made = search(classifier(problem, evidence="paper", n_epochs=2), {"alpha": [0.5, 1.0]}, cv=2)
    made.set_callbacks(heard).fit(problem.X, problem.y)
    assert heard.heard[0] == "setup"
    assert heard.heard[-1] == "teardown"
    assert heard.heard.count("+epoch") >= 2


def test_a_search_that_is_watched_makes_every_fit(problem):
    heard = Recorder(problem)
    search = XMAdapterSearchCV(classifier(problem, evidence="paper", n_epochs=0, beta=2.0), {"alpha": [0.5, 1.0]}, cv=2)
    search.set_params(estimator__fusion_ratio=0.5).set_callbacks(heard).fit(problem.X, problem.y)
    assert not search.swept_
    assert heard.heard.count("+learn") == 5
    assert search.set_callbacks().fit(problem.X, problem.y).swept_


def test_rivals_have_them_too(problem):
    heard = Recorder(problem)
    rival = TipAdapterFClassifier("precomputed", text_features=problem.text, n_epochs=2).set_callbacks(heard)
    rival.fit(problem.X, problem.y)
    assert heard.heard.count("-learn") == 1


def test_a_copy_of_a_classifier_keeps_the_encoder_that_a_file_leaves_out(problem, tmp_path):
    class Rows:
        def encode_image(self, X):
            return np.asarray(X)[:, 0, :, 0].astype(np.float32) + 1

        def encode_text(self, prompts):
            return np.stack([[len(p), p.count("a"), 1, 2] for p in prompts]).astype(np.float32)

    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 255, (8, 4, 4, 3)).astype(np.uint8), ["ant", "bee"] * 4
    clf = XMAdapterClassifier(Rows(), vocabulary=None).fit(X, y)
    np.testing.assert_array_equal(copy.copy(clf).predict_proba(X), clf.predict_proba(X))
    joblib.dump(clf, tmp_path / "m")
