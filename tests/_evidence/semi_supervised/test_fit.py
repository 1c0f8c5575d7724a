"""Images without labels, as an estimator takes them."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from problems import make_problem, unit
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma._evidence.semi_supervised import fit as pool_fit
from skxma._evidence.semi_supervised.class_statistics import SoftLabeledPool
from skxma._evidence.semi_supervised.config import PoolConfig
from skxma._labels.arrays import split_unlabeled
from skxma.datasets import load_emoji
from skxma.model_selection import FewShotSplit, UnlabeledInTraining


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=5, shots=32, dim=32, noise=1.2, text_noise=2.0, n_test=60, seed=2)


def few(problem, shots=2):
    """Labeled at first, -1 after."""
    place = np.arange(len(problem.y)) % 32
    order = np.argsort(place >= shots, kind="stable")
    return problem.X[order], np.where(place < shots, problem.y, -1)[order]


def model(problem, **parameters):
    return XMAdapterClassifier("precomputed", text_features=problem.text, **{"unlabeled_label": -1, **parameters})


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_the_pool_helps_where_there_is_one(problem, shots):
    X, y = few(problem, shots)
    with_pool = model(problem).fit(X, y)
    without = model(problem).fit(X[y >= 0], y[y >= 0])
    gain = with_pool.score(problem.X_test, problem.y_test) - without.score(problem.X_test, problem.y_test)
    assert with_pool.n_unlabeled_used_ > 0.7 * np.sum(y < 0)
    assert without.n_unlabeled_used_ == 0
    assert gain > 0.01


def test_copies_of_labeled_images_are_left_out_with_a_warning(problem):
    X, y = few(problem)
    labeled = X[y >= 0]
    # as another batch of an encoder gives them
    noise = 1e-7 * np.random.default_rng(0).standard_normal(labeled.shape)
    copies = unit(labeled * (1 + noise))
    with pytest.warns(UserWarning, match=r"10 of 160 images without labels are copies of labeled ones, left out"):
        with_copies = model(problem).fit(np.concatenate([X, copies]), np.concatenate([y, np.full(len(copies), -1)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        without = model(problem).fit(X, y)
        # a label that comes later is no mistake
        without.partial_fit(X[y < 0][:5], problem.y[:5])
    assert with_copies.n_unlabeled_used_ == model(problem).fit(X, y).n_unlabeled_used_
    np.testing.assert_array_equal(with_copies.unlabeled_position_[-10:], -1)


def test_soft_labels_are_probabilities_and_about_right(problem):
    X, y = few(problem, 4)
    clf = model(problem).fit(X, y)
    true = np.argsort(np.arange(len(problem.y)) % 32 >= 4, kind="stable")
    soft = clf.soft_labels_
    assert soft.shape == (np.sum(y < 0), 5)
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-5)
    right = soft.argmax(1) == problem.y[true][y < 0]
    assert abs(soft.max(1).mean() - right.mean()) < 0.12


def test_without_the_parameter_minus_one_is_a_class_and_with_it_and_none_marked_nothing_changes(problem):
    X, y = few(problem, 4)
    assert -1 in XMAdapterClassifier("precomputed").fit(X[:30], y[:30]).classes_
    X, y = X[y >= 0], y[y >= 0]
    plain, marked = model(problem, unlabeled_label=None).fit(X, y), model(problem).fit(X, y)
    np.testing.assert_array_equal(plain.predict_proba(problem.X_test), marked.predict_proba(problem.X_test))
    assert not hasattr(plain, "n_unlabeled_used_")


@pytest.mark.parametrize(
    ("marker", "label"), [(-1, -1), (np.nan, None), (np.nan, float("nan")), ("?", "?"), (-1.0, -1), (99, 99)]
)
def test_any_marker_gives_the_same_model(problem, marker, label):
    X, y = few(problem)
    expected = model(problem).fit(X, y).predict_proba(problem.X_test)
    marked = [label if value < 0 else int(value) for value in y]
    np.testing.assert_array_equal(
        model(problem, unlabeled_label=marker).fit(X, marked).predict_proba(problem.X_test), expected
    )


def test_text_labels(problem):
    X, y = few(problem)
    names = np.array(["ant", "bee", "cow", "dog", "elk"])
    text = dict(zip(names, problem.text, strict=True))
    for marker, given in (("", ""), (np.nan, None)):
        marked = [given if value < 0 else names[value] for value in y]
        clf = XMAdapterClassifier("precomputed", text_features=text, unlabeled_label=marker).fit(X, marked)
        np.testing.assert_array_equal(clf.classes_, names)
        assert set(clf.left_out_label_) <= set(names)


def test_missing_values_of_pandas():
    pandas = pytest.importorskip("pandas")
    y, marks = split_unlabeled(pandas.Series(["a", pandas.NA, "b", None], dtype="string"), np.nan)
    assert marks.tolist() == [False, True, False, True]
    assert y.tolist() == ["a", "a", "b", "a"]


def test_all_marked_is_said(problem):
    with pytest.raises(ValueError, match="every sample is marked -1"):
        model(problem).fit(problem.X[:4], [-1] * 4)


def test_order_and_repetition_of_the_pool_play_no_part(problem):
    X, y = few(problem)
    expected = model(problem).fit(X, y).predict_proba(problem.X_test)
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_allclose(
        model(problem).fit(X[order], y[order]).predict_proba(problem.X_test), expected, atol=1e-6
    )
    weights = np.where(np.arange(len(y)) % 3 == 0, 2, 1)
    weighted = model(problem).fit(X, y, sample_weight=weights).predict_proba(problem.X_test)
    repeated = model(problem).fit(np.repeat(X, weights, 0), np.repeat(y, weights)).predict_proba(problem.X_test)
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


def test_weight_zero_leaves_out(problem):
    X, y = few(problem)
    some = np.where((y >= 0) | (np.arange(len(y)) % 2 == 0), 1.0, 0.0)
    clf = model(problem).fit(X, y, sample_weight=some)
    kept = model(problem).fit(X[some > 0], y[some > 0])
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), kept.predict_proba(problem.X_test), atol=1e-6)
    assert len(clf.soft_labels_) == np.sum(y < 0)


def test_attributes_of_the_samples(problem):
    X, y = few(problem)
    clf = model(problem).fit(X, y)
    without = y < 0
    assert not clf.hardness_[without].any()
    assert not clf.label_noise_[without].any()
    assert not clf.set_aside_[without].any()
    np.testing.assert_array_equal(clf.left_out_label_[without], clf.classes_[clf.soft_labels_.argmax(1)])
    np.testing.assert_allclose(clf.left_out_probability_[without], clf.soft_labels_.max(1))
    assert clf.kneighbors(problem.X_test[:3])[2].max() < np.sum(~without)


def test_no_fold_is_scored_by_a_model_or_soft_labels_that_saw_it(problem, monkeypatch):
    X, y = few(problem, 4)
    seen = []
    score = pool_fit.score_pool

    def spy(report, *rest):
        seen.append(report.model.image_cache.keys)
        return score(report, *rest)

    monkeypatch.setattr(pool_fit, "score_pool", spy)
    clf = model(problem).fit(X, y)
    whole, folds = seen[0], seen[1:]
    assert len(folds) == PoolConfig().n_folds
    assert len(whole) == len(clf.image_cache_.keys)
    for key in whole:
        held = sum(bool((part == key).all(1).any()) for part in folds)
        assert held == len(folds) - 1


def test_a_pool_of_nothing_known_does_little(problem):
    X, y = few(problem, 4)
    rng = np.random.default_rng(5)
    strangers = unit(rng.standard_normal((200, X.shape[1])) + 3)
    labeled = y >= 0
    both = np.concatenate([X[labeled], strangers]), np.concatenate([y[labeled], np.full(200, -1)])
    clf, without = model(problem).fit(*both), model(problem).fit(X[labeled], y[labeled])
    assert clf.score(problem.X_test, problem.y_test) > without.score(problem.X_test, problem.y_test) - 0.02


def test_strangers_in_the_pool_count_less_than_what_is_known(problem):
    X, y = few(problem, 4)
    strangers = unit(np.random.default_rng(5).standard_normal((100, X.shape[1])) - 2)
    clf = model(problem).fit(np.concatenate([X, strangers]), np.concatenate([y, np.full(100, -1)]))
    assert 0 < clf.n_unlabeled_used_ < np.sum(y < 0) + 30
    plain = model(problem, false_rejection_rate=0.1, unknown_label=7).fit(X[y >= 0], y[y >= 0])
    pooled = model(problem, false_rejection_rate=0.1, unknown_label=7).fit(X, y)
    np.testing.assert_allclose(pooled.open_set_score(strangers), plain.open_set_score(strangers), atol=1e-5)
    assert pooled.reject_threshold_ == pytest.approx(plain.reject_threshold_)


def test_one_shot_without_text_has_nothing_to_judge_by(problem):
    X, y = few(problem, 1)
    clf = XMAdapterClassifier("precomputed", unlabeled_label=-1).fit(X, y)
    plain = XMAdapterClassifier("precomputed").fit(X[y >= 0], y[y >= 0])
    assert clf.n_unlabeled_used_ == 0
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), plain.predict_proba(problem.X_test))
    np.testing.assert_allclose(clf.soft_labels_, plain.predict_proba(X[y < 0]), atol=1e-6)


@pytest.mark.parametrize(("surer", "factor"), [(0.5, 1), (1, 1), (4, 0.5)])
def test_at_one_shot_half_of_what_the_pool_makes_the_model_surer_is_taken_back(surer, factor):
    logits = torch.as_tensor(np.random.default_rng(0).standard_normal((50, 4)))
    pool = SoftLabeledPool(torch.zeros(50, 3), logits, torch.ones(50, dtype=torch.float64))
    assert pool_fit.scale_at_one_shot(pool, torch.softmax(surer * logits, 1)) == pytest.approx(factor, abs=1e-3)


def test_classes_of_one_and_of_several(problem):
    X, y = few(problem, 3)
    kept = np.isin(y, [-1, 1, 2, 3]) | (np.arange(len(y)) % 3 == 0)
    clf = model(problem).fit(X[kept], y[kept])
    assert np.isfinite(clf.predict_proba(problem.X_test)).all()
    assert clf.n_unlabeled_used_ > 0


def test_a_class_known_by_text_alone_is_found_in_the_pool(problem):
    X, y = few(problem, 4)
    kept = y != 4
    clf = model(problem).fit(X[kept], y[kept])
    assert 4 in clf.classes_
    assert (clf.predict(problem.X_test)[problem.y_test == 4] == 4).any()


def test_growing_and_dropping_remember_the_pool(problem):
    X, y = few(problem, 4)
    first = np.arange(len(y)) % 2 == 0
    grown = model(problem).fit(X[first], y[first]).partial_fit(X[~first], y[~first])
    whole = model(problem).fit(X, y)
    np.testing.assert_allclose(grown.predict_proba(problem.X_test), whole.predict_proba(problem.X_test), atol=1e-5)
    assert grown.soft_labels_.shape == whole.soft_labels_.shape
    fewer = whole.drop([2])
    kept = y != 2
    text = {label: row for label, row in enumerate(problem.text) if label != 2}
    fresh = XMAdapterClassifier("precomputed", text_features=text, unlabeled_label=-1).fit(X[kept], y[kept])
    np.testing.assert_allclose(fewer.predict_proba(problem.X_test), fresh.predict_proba(problem.X_test), atol=1e-5)


def test_images_without_labels_alone_can_be_added(problem):
    X, y = few(problem)
    clf = model(problem).fit(X[y >= 0], y[y >= 0]).partial_fit(X[y < 0], y[y < 0])
    whole = model(problem).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), whole.predict_proba(problem.X_test), atol=1e-5)


def test_a_large_pool_is_not_saved(tmp_path):
    problem = make_problem(n_classes=4, shots=1000, dim=128)
    y = np.where(np.arange(len(problem.y)) % 1000 < 4, problem.y, -1)
    clf = model(problem).fit(problem.X, y)
    joblib.dump(clf, tmp_path / "m")
    assert (tmp_path / "m").stat().st_size < 0.6 * problem.X.nbytes
    again = joblib.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(problem.X_test), clf.predict_proba(problem.X_test))
    more = again.partial_fit(problem.X[:2], problem.y[:2])
    assert more.soft_labels_.shape == (1024, 4)


def test_a_model_file_holds_what_a_pool_brought(problem, tmp_path):
    clf = model(problem).fit(*few(problem, 2))
    assert clf.n_unlabeled_used_ > 0
    clf.save(tmp_path / "m.skxma")
    again = skxma.load(tmp_path / "m.skxma")
    np.testing.assert_array_equal(again.predict_proba(problem.X_test), clf.predict_proba(problem.X_test))
    np.testing.assert_array_equal(again.soft_labels_, clf.soft_labels_)


def test_soft_labels_of_a_large_pool_are_not_saved(problem, monkeypatch):
    from skxma._estimators import xmadapter

    clf = model(problem).fit(*few(problem))
    assert hasattr(pickle.loads(pickle.dumps(clf)), "soft_labels_")
    monkeypatch.setattr(xmadapter, "SAVED_SOFT_LABELS", 10)
    assert not hasattr(pickle.loads(pickle.dumps(clf)), "soft_labels_")
    assert hasattr(clf, "soft_labels_")


def test_the_papers_form_leaves_them_out(problem):
    X, y = few(problem)
    clf = model(problem, evidence="paper", n_epochs=0).fit(X, y)
    plain = model(problem, evidence="paper", n_epochs=0).fit(X[y >= 0], y[y >= 0])
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), plain.predict_proba(problem.X_test), atol=1e-6)
    assert clf.n_unlabeled_used_ == 0
    assert clf.soft_labels_.shape == (np.sum(y < 0), 5)


def test_images_and_text_labels():
    emoji = load_emoji()
    things = np.isin(emoji.target, emoji.target_names[:6])
    images, names, styles = emoji.images[things], emoji.target[things], emoji.sets[things]
    given = [name if style in ("noto", "twemoji") else None for name, style in zip(names, styles, strict=True)]
    clf = XMAdapterClassifier("tiny", unlabeled_label=np.nan).fit(list(images), given)
    embedded = XMAdapterClassifier("tiny", unlabeled_label=np.nan).fit(CLIPEncoder("tiny").encode_image(images), given)
    np.testing.assert_allclose(clf.predict_proba(images[:5]), embedded.predict_proba(images[:5]), atol=1e-6)
    assert clf.soft_labels_.shape == (18, 6)


class TestSplitting:
    def test_few_shots_keep_them_in_training(self, problem):
        X, y = few(problem, 8)
        for train, test in FewShotSplit(2, 3, random_state=0, unlabeled_label=-1).split(X, y):
            assert (y[test] >= 0).all()
            assert np.sum(y[train] < 0) == np.sum(y < 0)
            np.testing.assert_array_equal(np.bincount(y[train][y[train] >= 0]), 2)

    def test_labeled_images_are_drawn_as_without_them(self, problem):
        X, y = few(problem, 8)
        known = np.flatnonzero(y >= 0)
        with_pool = FewShotSplit(2, 2, random_state=0, unlabeled_label=-1).split(X, y)
        alone = FewShotSplit(2, 2, random_state=0).split(X[known], y[known])
        for (train, test), (train_alone, test_alone) in zip(with_pool, alone, strict=True):
            np.testing.assert_array_equal(train[y[train] >= 0], known[train_alone])
            np.testing.assert_array_equal(test, known[test_alone])

    def test_views_of_a_tested_image_are_left_out(self):
        y = np.array([0, 0, 0, 1, 1, 1, -1, -1])
        groups = np.array([0, 1, 2, 3, 4, 5, 0, 6])
        for splitter in (
            FewShotSplit(1, 6, random_state=0, unlabeled_label=-1),
            UnlabeledInTraining(KFold(3, shuffle=True, random_state=0)),
        ):
            for train, test in splitter.split(y, y, groups):
                assert not set(groups[train]) & set(groups[test])
                assert 7 in train

    def test_any_splitter(self, problem):
        X, y = few(problem, 6)
        found = list(UnlabeledInTraining(3).split(X, y))
        assert len(found) == UnlabeledInTraining(3).get_n_splits(X, y) == 3
        np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in found])), np.flatnonzero(y >= 0))

    def test_scikit_learns_search(self, problem):
        X, y = few(problem, 4)
        cv = FewShotSplit(2, 2, random_state=0, unlabeled_label=-1)
        search = GridSearchCV(model(problem), {"hard_sample_weight": [0]}, cv=cv).fit(X, y)
        assert search.best_estimator_.n_unlabeled_used_ > 0
        assert len(cross_val_score(model(problem), X, y, cv=UnlabeledInTraining(2))) == 2

    def test_missing_labels_among_text_in_a_search(self, problem):
        X, y = few(problem, 4)
        names = np.array(["ant", "bee", "cow", "dog", "elk"])
        marked = np.array([None if value < 0 else names[value] for value in y], dtype=object)
        clf = XMAdapterClassifier("precomputed", unlabeled_label=np.nan)
        cv = UnlabeledInTraining(2, np.nan)
        assert (cross_val_score(clf, X, marked, cv=cv) > 0.3).all()

    @pytest.mark.parametrize("cv", [None, 2, FewShotSplit(2, 2, random_state=0, unlabeled_label=-1)])
    def test_the_projects_search_never_tests_on_them(self, problem, cv):
        X, y = few(problem, 5)
        search = XMAdapterSearchCV(model(problem), {"hard_sample_weight": [0]}, cv=cv, scoring="accuracy").fit(X, y)
        assert search.cv is cv
        assert search.best_score_ > 0.4
        assert search.n_splits_ == {None: 5}.get(cv, 2)

    def test_a_sweep_never_tests_on_them(self, problem):
        X, y = few(problem, 5)
        clf = model(problem, evidence="paper", n_epochs=0, fusion_ratio=0.5, beta=3.0)
        search = XMAdapterSearchCV(clf, {"alpha": [1.0, 3.0]}, cv=2).fit(X, y)
        plain = XMAdapterSearchCV(clf, {"alpha": [1.0, 3.0]}, cv=2).fit(X[y >= 0], y[y >= 0])
        assert search.swept_
        np.testing.assert_allclose(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
