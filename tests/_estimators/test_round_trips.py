"""A model is the same after it was saved, in another process, and where a search found it."""

import io
import tempfile
from copy import deepcopy
from pathlib import Path

import joblib
import numpy as np
import pytest
from hostile import EVIDENCES, PROPERTY, each_evidence, each_rival, hostile_problems, ours, rival, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict

import skxma
from skxma import XMAdapterClassifier, XMAdapterSearchCV
from skxma._evidence.semi_supervised.model import PooledModel

pytestmark = PROPERTY


def by_joblib(clf):
    file = io.BytesIO()
    joblib.dump(clf, file)
    file.seek(0)
    return joblib.load(file)


def by_skops(clf):
    skops = pytest.importorskip("skops.io")
    data = skops.dumps(clf)
    return skops.loads(data, trusted=skops.get_untrusted_types(data=data))


def by_file_of_ours(clf):
    with tempfile.TemporaryDirectory() as folder:
        clf.save(Path(folder) / "model.skxma")
        return skxma.load(Path(folder) / "model.skxma")


def assert_same(a, b, path="") -> None:
    """Equal to the last bit, through arrays, containers and objects."""
    assert type(a) is type(b), path
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path)
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{path}[{i}]")
    elif hasattr(a, "__dict__"):
        # a scorer that is ready is made again where it is needed
        assert_same(*({k: v for k, v in vars(one).items() if k != "_kept_scorer"} for one in (a, b)), path)
    else:
        assert a == b or (a != a and b != b), path  # NaN is no other NaN's equal


each_copy = pytest.mark.parametrize("copy", [by_joblib, by_skops, by_file_of_ours])


@each_copy
@each_evidence
@settings(max_examples=8, deadline=None)
@given(problem=hostile_problems(weighted=True), rate=st.sampled_from([None, 0.1]))
def test_saving_and_loading_is_the_identity(copy, evidence, problem, rate):
    clf = ours(problem, evidence, false_rejection_rate=rate).fit(problem.X, problem.y, problem.weights)
    loaded = copy(clf)
    assert_same(vars(clf), vars(loaded))
    np.testing.assert_array_equal(clf.predict_proba(problem.queries), loaded.predict_proba(problem.queries))
    np.testing.assert_array_equal(clf.predict(problem.queries), loaded.predict(problem.queries))


@each_copy
@each_rival
@settings(max_examples=2, deadline=None)
@given(problem=hostile_problems())
def test_saving_and_loading_a_rival_is_the_identity(copy, kind, problem):
    clf = rival(kind, problem.text).fit(problem.X, problem.y)
    loaded = copy(clf)
    assert_same(vars(clf), vars(loaded))
    np.testing.assert_array_equal(clf.predict_proba(problem.queries), loaded.predict_proba(problem.queries))


@pytest.fixture(scope="module", params=["with text", "without text"])
def pooled(request):
    """A model whose answers a pool changes, and its problem."""
    problem = make_problem(n_classes=4, shots=20, dim=24, noise=1.2, text_noise=2.0, n_test=5, seed=2)
    y = np.where(np.arange(len(problem.y)) % 20 < 3, problem.y, -1)
    text = dict(enumerate(problem.text)) if request.param == "with text" else None
    clf = XMAdapterClassifier("precomputed", text_features=text, unlabeled_label=-1, random_state=0)
    return clf.fit(problem.X, y), problem


@each_copy
def test_saving_and_loading_keeps_what_a_pool_brought(copy, pooled):
    clf, problem = pooled
    assert isinstance(clf.model_, PooledModel)
    loaded = copy(clf)
    assert_same(vars(clf), vars(loaded))
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), loaded.predict_proba(problem.X_test))
    # the pool itself is kept: what is learned and forgotten later reads it again
    grown, wanted = loaded, deepcopy(clf)
    for one in (grown, wanted):
        one.partial_fit(problem.X_test[:8], np.r_[problem.y_test[:4], [-1] * 4]).drop([3])
    assert_same(vars(wanted), vars(grown))
    np.testing.assert_array_equal(wanted.predict_proba(problem.X_test), grown.predict_proba(problem.X_test))


@pytest.mark.slow
def test_the_number_of_processes_never_matters():
    problem = make_problem(n_classes=4, shots=4)
    for evidence in EVIDENCES:
        clf = ours(problem, evidence)
        alone, shared = (
            cross_val_predict(clf, problem.X, problem.y, cv=2, method="predict_proba", n_jobs=n) for n in (1, 2)
        )
        np.testing.assert_allclose(shared, alone, atol=1e-5)


@pytest.mark.parametrize("search", [GridSearchCV, XMAdapterSearchCV])
@settings(max_examples=5, deadline=None)
@given(
    seed=seeds,
    alphas=st.sets(st.sampled_from([0.0, 0.3, 1.0, 10.0, 100.0]), min_size=1, max_size=3),
    betas=st.sets(st.sampled_from([0.5, 5.5, 50.0]), min_size=1, max_size=2),
    ratios=st.sets(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=2),
    with_text=st.booleans(),
)
def test_a_grid_search_finds_what_loops_find(search, seed, alphas, betas, ratios, with_text):
    problem = make_problem(n_classes=3, shots=4, dim=6, noise=1.5, text_noise=2.0, seed=seed)
    text = problem.text if with_text else None
    clf = XMAdapterClassifier("precomputed", text_features=text, evidence="paper", n_epochs=0, random_state=0)
    grid = {"alpha": sorted(alphas), "beta": sorted(betas), "fusion_ratio": sorted(ratios)}
    folds = StratifiedKFold(2)
    found = search(clf, grid, cv=folds).fit(problem.X, problem.y)
    by_hand = {}
    for alpha in grid["alpha"]:
        for beta in grid["beta"]:
            for ratio in grid["fusion_ratio"]:
                one = clone(clf).set_params(alpha=alpha, beta=beta, fusion_ratio=ratio)
                by_hand[alpha, beta, ratio] = np.mean(
                    [
                        one.fit(problem.X[train], problem.y[train]).score(problem.X[test], problem.y[test])
                        for train, test in folds.split(problem.X, problem.y)
                    ]
                )
    scores = [by_hand[tuple(p[name] for name in grid)] for p in found.cv_results_["params"]]
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], scores)
    assert found.best_score_ == pytest.approx(max(by_hand.values()))
    assert by_hand[tuple(found.best_params_[name] for name in grid)] == pytest.approx(max(by_hand.values()))
