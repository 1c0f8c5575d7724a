import numpy as np
import pytest
from problems import make_problem
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.datasets import load_emoji
from skxma.model_selection import FewShotSplit

GRID = {"alpha": [0.5, 3.0, 40.0], "beta": [1.0, 5.5, 20.0], "fusion_ratio": [0.0, 0.4, 1.0]}


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=4, shots=6, noise=1.0, text_noise=1.5)


def paper(problem, **changes):
    changes = {"text_features": problem.text, "evidence": "paper", "n_epochs": 0, **changes}
    return XMAdapterClassifier("precomputed", random_state=0, **changes)


def scores(search):
    return np.array([search.cv_results_[f"split{i}_test_score"] for i in range(search.n_splits_)])


@pytest.mark.parametrize("scoring", [None, "neg_log_loss", "balanced_accuracy", "roc_auc_ovr"])
def test_a_sweep_finds_what_grid_search_finds(problem, scoring):
    both = [
        kind(paper(problem), GRID, cv=3, scoring=scoring).fit(problem.X, problem.y)
        for kind in (GridSearchCV, XMAdapterSearchCV)
    ]
    assert both[1].swept_
    np.testing.assert_allclose(scores(both[0]), scores(both[1]), atol=1e-6)
    assert len(np.unique(scores(both[1]))) > 3
    assert both[0].best_params_ == both[1].best_params_
    assert both[0].best_score_ == pytest.approx(both[1].best_score_)
    assert set(both[0].cv_results_) == set(both[1].cv_results_)
    np.testing.assert_allclose(both[0].predict_proba(problem.X_test), both[1].predict_proba(problem.X_test), atol=1e-6)


@pytest.mark.parametrize("weights", [{}, {"sample_weight": np.linspace(0.5, 2, 24)}])
def test_without_text_and_with_weights_the_scores_are_those_of_grid_search(problem, weights):
    both = [
        kind(paper(problem, text_features=None), GRID, cv=3).fit(problem.X, problem.y, **weights)
        for kind in (GridSearchCV, XMAdapterSearchCV)
    ]
    assert both[1].swept_ == (not weights)
    np.testing.assert_allclose(scores(both[0]), scores(both[1]))


def test_what_learns_is_searched_as_grid_search_does(problem):
    clf = paper(problem, evidence="calibrated")
    both = [
        kind(clf, {"alpha": [0.2, "auto"]}, cv=3).fit(problem.X, problem.y)
        for kind in (GridSearchCV, XMAdapterSearchCV)
    ]
    assert not both[1].swept_
    np.testing.assert_array_equal(scores(both[0]), scores(both[1]))


@pytest.mark.parametrize(
    ("changes", "grid"),
    [({"n_epochs": 2}, GRID), ({}, {**GRID, "alpha": ["auto"]}), ({}, {"alpha": [1]}), ({}, {**GRID, "n_epochs": [0]})],
)
def test_only_what_shares_everything_is_swept(problem, changes, grid):
    search = XMAdapterSearchCV(paper(problem, **changes), {k: v[:1] for k, v in grid.items()}, cv=2)
    assert not search.fit(problem.X, problem.y).swept_


def test_images_are_encoded_once_for_all_folds_and_candidates(monkeypatch):
    emoji = load_emoji()
    keep = emoji.target < 6 if emoji.target.dtype.kind == "i" else np.isin(emoji.target, np.unique(emoji.target)[:6])
    images, labels = emoji.images[keep], emoji.target[keep]
    seen = []
    original = CLIPEncoder.encode_image
    monkeypatch.setattr(
        CLIPEncoder, "encode_image", lambda self, X, **kw: seen.append(len(X)) or original(self, X, **kw)
    )
    clf = XMAdapterClassifier("tiny", evidence="paper", n_epochs=0, memory=False)
    search = XMAdapterSearchCV(clf, GRID, cv=FewShotSplit(2, 2, random_state=0)).fit(images, labels)
    assert seen == [len(images)]
    assert search.swept_
    assert search.predict(images[:3]).shape == (3,)


def test_it_is_an_estimator_of_pipelines_and_clones(problem):
    search = XMAdapterSearchCV(paper(problem), GRID, cv=2)
    pipe = make_pipeline(FunctionTransformer(), clone(search)).fit(problem.X, problem.y)
    assert pipe.score(problem.X_test, problem.y_test) == search.fit(problem.X, problem.y).score(
        problem.X_test, problem.y_test
    )


def test_wrong_inputs_are_named_before_any_fit(problem):
    with pytest.raises(ValueError, match="'beta' parameter"):
        XMAdapterSearchCV(paper(problem), {**GRID, "beta": [-1.0]}, cv=2).fit(problem.X, problem.y)
    with pytest.raises(TypeError, match="GridSearchCV takes any"):
        XMAdapterSearchCV(FunctionTransformer(), GRID).fit(problem.X, problem.y)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        XMAdapterSearchCV(paper(problem), GRID, cv=2).fit(problem.X, problem.y[:-1])


@pytest.mark.bad_input
def test_a_grid_without_candidates_is_refused():
    with pytest.raises(ValueError, match=r"param_grid=\[\] holds no candidates"):
        XMAdapterSearchCV(XMAdapterClassifier("precomputed"), []).fit(np.eye(4), [0, 0, 1, 1])
