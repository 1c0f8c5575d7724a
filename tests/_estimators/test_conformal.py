"""Prediction sets of the estimators."""

import copy
import warnings
from dataclasses import replace

import joblib
import numpy as np
import pytest
from problems import make_problem
from sklearn.base import clone

import skxma
from skxma import XMAdapterClassifier
from skxma._estimators.conformal import scores_by
from skxma._statistics import prediction_sets
from skxma.baselines import GDAClassifier, TipAdapterClassifier, ZeroShotClassifier

PROBLEM = make_problem(n_classes=4, shots=5, n_test=25, seed=3)
SKEWED = np.array([0.6, 0.3, 0.1, 0.0])


def classifier(conformal, text=PROBLEM.text, **parameters):
    return XMAdapterClassifier(
        "precomputed", text_features=text, vocabulary=None, conformal=conformal, n_epochs=0, **parameters
    )


@pytest.fixture(scope="module")
def fitted():
    return {how: classifier(how).fit(PROBLEM.X, PROBLEM.y) for how in ("loo", "cross")}


def coverage(sets, y=PROBLEM.y_test):
    return sets[np.arange(len(y)), y].mean()


@pytest.mark.parametrize("how", ["loo", "cross"])
def test_sets_hold_the_class_and_grow_with_the_level(fitted, how):
    levels = [0.5, 0.8, 0.95]
    sets = fitted[how].predict_set(PROBLEM.X_test, levels)
    assert sets.shape == (100, 4, 3)
    assert sets.dtype == bool
    assert (sets[:, :, :-1] <= sets[:, :, 1:]).all()
    # 3 standard deviations of the coverage by one support set of 20 and 100 test images
    assert all(coverage(sets[:, :, i]) > level - 0.25 for i, level in enumerate(levels))
    assert sets[:, :, 1].sum(1).mean() < 2.5
    np.testing.assert_array_equal(fitted[how].predict_set(PROBLEM.X_test, 0.8), sets[:, :, 1])


@pytest.mark.parametrize("how", ["loo", "cross"])
@pytest.mark.parametrize("options", [{}, {"class_conditional": True}, {"class_prior": [0.1, 0.2, 0.3, 0.4]}])
def test_sets_are_those_of_the_p_values(fitted, how, options):
    levels = [0.5, 0.8]
    p_values = fitted[how].predict_p(PROBLEM.X_test, **options)
    for asked in ("loo", "cross", None):
        # what the models were fitted with counts, not what a next fit would do
        clf = copy.copy(fitted[how]).set_params(conformal=asked)
        sets = clf.predict_set(PROBLEM.X_test, levels, allow_empty=True, **options)
        np.testing.assert_array_equal(sets, prediction_sets(p_values, levels))


def test_full_conformal_leaves_out_of_the_fit_with_the_new_image():
    small = make_problem(n_classes=2, shots=3, seed=1)
    clf = classifier("full", text=small.text).fit(small.X, small.y)
    new, label = small.X_test[:1], 0
    p_values = clf.predict_p(new)
    with_it = classifier("loo", text=small.text).fit(np.vstack([small.X, new]), np.append(small.y, label))
    scores = with_it.calibration_.scores
    expected = (scores >= scores[with_it.sample_position_[-1]]).mean()
    assert p_values[0, label] == pytest.approx(expected)
    # exchangeable: the order of the samples plays no part
    shuffled = classifier("full", text=small.text).fit(small.X[::-1], small.y[::-1])
    np.testing.assert_array_equal(shuffled.predict_set(new, 0.8)[0], p_values[0] > 0.2)


@pytest.mark.parametrize("rival", [GDAClassifier, TipAdapterClassifier, ZeroShotClassifier])
def test_rivals_are_calibrated_by_the_same_code(rival):
    clf = rival("precomputed", text_features=PROBLEM.text, conformal="cross").fit(PROBLEM.X, PROBLEM.y)
    assert coverage(clf.predict_set(PROBLEM.X_test, 0.8)) > 0.55
    for fold, fit in enumerate(clf.fold_fits_):
        assert len(fit["image_cache_"].keys) == (clf.calibration_.models != fold).sum()


def test_folds_have_not_seen_what_they_score():
    """A classifier that knows its samples by heart is not fooled by them."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 8)), rng.integers(0, 2, 40)
    clf = TipAdapterClassifier("precomputed", beta=50.0, alpha=500.0, conformal="cross").fit(X, y)
    assert clf.score(X, y) == 1
    new, y_new = rng.standard_normal((200, 8)), rng.integers(0, 2, 200)
    assert coverage(clf.predict_set(new, 0.9), y_new) > 0.8


@pytest.mark.parametrize("how", ["loo", "cross"])
def test_saved_models_answer_with_the_same_sets(fitted, how, tmp_path):
    clf = fitted[how]
    clf.save(tmp_path / "clf.skxma")
    joblib.dump(clf, tmp_path / "clf.joblib")
    expected, under_a_prior = clf.predict_p(PROBLEM.X_test), clf.predict_p(PROBLEM.X_test, class_prior=SKEWED)
    for loaded in (skxma.load(tmp_path / "clf.skxma"), joblib.load(tmp_path / "clf.joblib"), copy.deepcopy(clf)):
        np.testing.assert_array_equal(loaded.predict_p(PROBLEM.X_test), expected)
        np.testing.assert_array_equal(loaded.predict_p(PROBLEM.X_test, class_prior=SKEWED), under_a_prior)
        assert loaded.conformal == how


@pytest.mark.parametrize("how", ["loo", "cross", "full"])
def test_skops_keeps_the_sets(fitted, how, tmp_path):
    skops = pytest.importorskip("skops.io")
    clf = fitted[how] if how in fitted else classifier(how).fit(PROBLEM.X, PROBLEM.y)
    skops.dump(clf, tmp_path / "clf.skops")
    trusted = skops.get_untrusted_types(file=tmp_path / "clf.skops")
    assert all(name.startswith("skxma.") for name in trusted)
    loaded = skops.load(tmp_path / "clf.skops", trusted=trusted)
    few = PROBLEM.X_test[:3]
    np.testing.assert_array_equal(loaded.predict_set(few, [0.6, 0.8]), clf.predict_set(few, [0.6, 0.8]))
    assert loaded.conformal == how


def test_a_saved_model_grows_by_little(tmp_path):
    sizes = []
    for how in ("loo", None):
        classifier(how).fit(PROBLEM.X, PROBLEM.y).save(tmp_path / "clf.skxma")
        sizes.append((tmp_path / "clf.skxma").stat().st_size)
    assert sizes[0] <= 1.5 * sizes[1]


def test_growing_and_dropping_recalibrate():
    half = np.arange(len(PROBLEM.y)) % 5 < 3
    rival = GDAClassifier("precomputed", text_features=PROBLEM.text, conformal="cross")
    for clf in (classifier("loo"), rival):
        grown = clone(clf).fit(PROBLEM.X[half], PROBLEM.y[half]).partial_fit(PROBLEM.X[~half], PROBLEM.y[~half])
        whole = clf.fit(PROBLEM.X, PROBLEM.y)
        np.testing.assert_allclose(grown.predict_p(PROBLEM.X_test), whole.predict_p(PROBLEM.X_test))
        assert whole.drop([3]).predict_p(PROBLEM.X_test).shape == (100, 3)
        assert len(whole.calibration_.scores) == 15


def test_sample_weights_count():
    weights = np.where(PROBLEM.y == 0, 2.0, 1.0)
    weighted = classifier("loo").fit(PROBLEM.X, PROBLEM.y, weights)
    twice = classifier("loo").fit(
        np.vstack([PROBLEM.X, PROBLEM.X[PROBLEM.y == 0]]), np.append(PROBLEM.y, np.zeros(5, dtype=int))
    )
    np.testing.assert_allclose(weighted.predict_p(PROBLEM.X_test), twice.predict_p(PROBLEM.X_test))
    assert weighted.calibration_.weights.max() == pytest.approx(2 * weighted.calibration_.weights.min())


@pytest.mark.slow
def test_a_pool_takes_part_in_cross_but_not_in_loo():
    X = np.vstack([PROBLEM.X, PROBLEM.X_test[::2]])
    y = np.append(PROBLEM.y, np.full(50, -1))
    plain = classifier("loo").fit(PROBLEM.X, PROBLEM.y)
    pooled = classifier("loo", unlabeled_label=-1).fit(X, y)
    np.testing.assert_allclose(pooled.predict_p(PROBLEM.X_test), plain.predict_p(PROBLEM.X_test))
    crossed = classifier("cross", unlabeled_label=-1).fit(X, y)
    assert coverage(crossed.predict_set(PROBLEM.X_test[1::2], 0.8), PROBLEM.y_test[1::2]) > 0.55


def test_a_group_counts_as_one_image_and_shares_a_fold():
    groups = np.arange(len(PROBLEM.y)) // 5 * 3 + np.minimum(np.arange(len(PROBLEM.y)) % 5, 2)
    clf = GDAClassifier("precomputed", text_features=PROBLEM.text, conformal="cross")
    clf.fit(PROBLEM.X, PROBLEM.y, groups=groups)
    assert clf.calibration_.weights.sum() == pytest.approx(12)
    folds = clf.calibration_.models[clf.sample_position_]
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    with pytest.raises(ValueError, match="this model has 12"):
        clf.predict_set(PROBLEM.X_test, 0.95)


def test_a_warm_start_does_not_leak_into_the_folds():
    warm = classifier("cross", warm_start=True).fit(PROBLEM.X, PROBLEM.y).fit(PROBLEM.X, PROBLEM.y)
    cold = classifier("cross").fit(PROBLEM.X, PROBLEM.y)
    np.testing.assert_array_equal(warm.calibration_.scores, cold.calibration_.scores)


def test_classes_without_text_and_with_one_image():
    one_each = np.arange(len(PROBLEM.y)) % 5 == 0
    for how in ("loo", "cross"):
        clf = classifier(how, text=None).fit(PROBLEM.X[one_each], PROBLEM.y[one_each])
        assert np.isfinite(clf.predict_p(PROBLEM.X_test)).all()


def test_the_only_image_of_a_class_counts_for_all_that_another_could_look_like():
    found = []
    for seed in range(4):
        problem = make_problem(n_classes=12, shots=1, n_test=20, noise=1.6, seed=seed)
        clf = classifier("loo", text=problem.text).fit(problem.X, problem.y)
        assert (np.diff(clf.calibration_.simulated, axis=1) <= 1e-6).all()
        mean_only = copy.deepcopy(clf)
        mean_only.calibration_ = replace(clf.calibration_, simulated=None)
        found.append([coverage(one.predict_set(problem.X_test, 0.9), problem.y_test) for one in (clf, mean_only)])
    simulated, of_mean = np.mean(found, 0)
    assert of_mean < 0.8
    assert simulated > 0.84
    more = np.flatnonzero(PROBLEM.y < 3)
    mixed = classifier("loo").fit(PROBLEM.X[[*more, -1]], PROBLEM.y[[*more, -1]]).calibration_
    alone = mixed.labels == 3
    assert np.ptp(mixed.simulated, axis=1)[alone].min() > 0
    np.testing.assert_allclose(mixed.simulated[~alone], np.repeat(mixed.scores[~alone, None], 20, 1), atol=1e-5)


def test_a_class_without_images_may_be_in_a_set():
    known = PROBLEM.y < 3
    clf = classifier("loo").fit(PROBLEM.X[known], PROBLEM.y[known])
    assert clf.predict_set(PROBLEM.X_test, 0.9).shape == (100, 4)
    with pytest.raises(ValueError, match=r"3 \(0\)"):
        clf.predict_set(PROBLEM.X_test, 0.5, class_conditional=True)


@pytest.mark.parametrize("how", ["loo", "cross"])
def test_a_prior_of_the_shares_of_the_labeled_images_changes_nothing(fitted, how):
    equal = fitted[how].predict_p(PROBLEM.X_test, class_prior=np.full(4, 0.25))
    np.testing.assert_allclose(equal, fitted[how].predict_p(PROBLEM.X_test))


def test_full_conformal_under_a_prior():
    small = make_problem(n_classes=3, shots=3, seed=1)
    clf = classifier("full", text=small.text).fit(small.X, small.y)
    few = small.X_test[:2]
    np.testing.assert_allclose(clf.predict_p(few, class_prior=np.full(3, 1 / 3)), clf.predict_p(few))
    p_values = clf.predict_p(few, class_prior=[0.9, 0.1, 0.0])
    assert (p_values[:, 2] == 0).all()
    # a class of 90 % has 3 of the 9 images: a new one of it weighs 2.7, beside 9 in all
    assert (p_values[:, 0] >= 2.7 / 11.7 - 1e-9).all()


@pytest.mark.parametrize("how", ["loo", "cross"])
def test_sets_under_a_prior_follow_the_probabilities_under_it(fitted, how):
    clf, X = fitted[how], PROBLEM.X_test
    sets, proba = clf.predict_set(X, 0.8, class_prior=SKEWED), clf.predict_proba(X, SKEWED)
    assert not sets[:, 3].any()
    by_label = dict(zip(clf.classes_.tolist(), SKEWED, strict=True))
    np.testing.assert_array_equal(clf.predict_set(X, 0.8, class_prior=by_label), sets)
    single = sets.sum(1) == 1
    assert single.sum() > 20
    assert (sets.argmax(1) == proba.argmax(1))[single].mean() > 0.95
    batch = np.concatenate([np.flatnonzero(PROBLEM.y_test == c)[:n] for c, n in enumerate([20, 10, 4])])
    assert coverage(clf.predict_set(X[batch], 0.8, class_prior=SKEWED), PROBLEM.y_test[batch]) > 0.6


def test_an_empty_set_under_a_prior_gets_its_likeliest_class():
    problem = make_problem(n_classes=4, shots=3, dim=12)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y)
    free, full = (
        clf.predict_set(problem.X_test, 0.5, allow_empty=allow, class_prior=SKEWED) for allow in (True, False)
    )
    empty = ~free.any(axis=1)
    assert empty.any()
    expected = clf.predict(problem.X_test, SKEWED)[empty]
    np.testing.assert_array_equal(clf.classes_[full[empty].argmax(axis=1)], expected)


def test_the_frequencies_of_a_batch_shift_the_sets(fitted):
    clf = fitted["loo"]
    batch = np.concatenate([np.flatnonzero(PROBLEM.y_test == c)[:n] for c, n in enumerate([25, 10, 1, 1])])
    X = PROBLEM.X_test[batch]
    ratio = clf.predict_proba(X, "batch") / clf.predict_proba(X)
    shares = (ratio / ratio.sum(1, keepdims=True))[0]
    assert shares.max() > 0.4
    np.testing.assert_allclose(clf.predict_p(X, class_prior="batch"), clf.predict_p(X, class_prior=shares))
    np.testing.assert_array_equal(
        clf.predict_set(X, 0.8, class_prior="batch"), clf.predict_set(X, 0.8, class_prior=shares)
    )


def test_a_rival_that_learns_frequencies_takes_a_prior():
    kept = (PROBLEM.y < 2) | (np.arange(len(PROBLEM.y)) % 5 < 3)
    clf = TipAdapterClassifier("precomputed", text_features=PROBLEM.text, conformal="cross")
    clf.fit(PROBLEM.X[kept], PROBLEM.y[kept])
    equal = np.full(4, 0.25)
    for model in clf._left_out_models():
        expected = -np.log(model.predict_proba(PROBLEM.X_test, class_prior=equal))
        np.testing.assert_allclose(scores_by(model, PROBLEM.X_test, equal), expected, atol=1e-5)


@pytest.mark.bad_input
def test_priors_that_the_samples_cannot_calibrate(fitted):
    known = PROBLEM.y < 3
    clf = classifier("loo").fit(PROBLEM.X[known], PROBLEM.y[known])
    for method in (clf.predict_set, clf.predict_p):
        with pytest.raises(ValueError, match="classes without labeled images alone"):
            method("no image is looked at", class_prior=[0, 0, 0, 1])
        with pytest.raises(ValueError, match="sums to 4"):
            method("no image is looked at", class_prior=np.ones(4))
    with pytest.raises(ValueError, match=r"need 33 different labeled images or more of 0 under .* has 5"):
        clf.predict_set("no image is looked at", 0.99, class_prior=[1 / 3, 1 / 3, 1 / 3, 0])
    # a class of 99.9 % is in every set, which holds at any level
    assert clf.predict_set(PROBLEM.X_test, 0.95, class_prior=[0.999, 0.001, 0, 0])[:, 0].all()
    with pytest.raises(ValueError, match="more of 0 under this class_prior"):
        fitted["loo"].predict_set(PROBLEM.X_test, 0.995, class_prior="batch")


@pytest.mark.bad_input
def test_more_than_twice_as_many_classes_as_features_need_cross_for_a_prior():
    problem = make_problem(n_classes=9, shots=2, dim=4)
    equal = np.full(9, 1 / 9)
    with pytest.raises(ValueError, match=r"all 9 classes, .* conformal='cross'"):
        classifier("loo", text=problem.text).fit(problem.X, problem.y).predict_p("no image", class_prior=equal)
    clf = classifier("cross", text=problem.text).fit(problem.X, problem.y)
    np.testing.assert_allclose(clf.predict_p(problem.X_test, class_prior=equal), clf.predict_p(problem.X_test))


@pytest.mark.bad_input
@pytest.mark.parametrize("level", [0, 1, 1.5, [], [[0.9]], [0.5, np.nan]])
def test_levels_lie_between_0_and_1(fitted, level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fitted["loo"].predict_set(PROBLEM.X_test, level)


@pytest.mark.bad_input
def test_levels_that_the_samples_cannot_give(fitted):
    with pytest.raises(ValueError, match="99 different labeled images or more, and this model has 20"):
        fitted["loo"].predict_set(PROBLEM.X_test, [0.8, 0.99])
    with pytest.raises(ValueError, match=r"need 9 .* in every class"):
        fitted["cross"].predict_set(PROBLEM.X_test, 0.9, class_conditional=True)
    sets = fitted["loo"].predict_set(PROBLEM.X_test, 0.8, class_conditional=True)
    assert coverage(sets) > 0.6


@pytest.mark.bad_input
def test_models_that_keep_nothing_to_calibrate_by():
    with pytest.raises(ValueError, match="conformal='cross'"):
        classifier(None).fit(PROBLEM.X, PROBLEM.y).predict_set(PROBLEM.X_test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paper = classifier("loo", evidence="paper").fit(PROBLEM.X, PROBLEM.y)
    with pytest.raises(ValueError, match="'loo' and evidence='paper'"):
        paper.predict_p(PROBLEM.X_test)
    with pytest.raises(ValueError, match="fitted with conformal=None"):
        classifier(None).fit(PROBLEM.X, PROBLEM.y).set_params(conformal="loo").predict_set(PROBLEM.X_test)
    with pytest.raises(ValueError, match="conformal='full'"):
        classifier("full", evidence="paper").fit(PROBLEM.X, PROBLEM.y)


def test_the_parameter_is_cloned_and_validated():
    assert clone(classifier("cross")).conformal == "cross"
    with pytest.raises(ValueError, match="conformal"):
        GDAClassifier("precomputed", conformal="loo").fit(PROBLEM.X, PROBLEM.y)


def test_a_set_that_would_be_empty_holds_the_predicted_class():
    problem = make_problem(n_classes=4, shots=3, dim=12)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y)
    free, full = (clf.predict_set(problem.X_test, 0.5, allow_empty=allow) for allow in (True, False))
    empty = ~free.any(axis=1)
    assert empty.any()
    np.testing.assert_array_equal(full[~empty], free[~empty])
    np.testing.assert_array_equal(clf.classes_[full[empty].argmax(axis=1)], clf.predict(problem.X_test)[empty])
    assert (full[empty].sum(axis=1) == 1).all()


def test_one_labeled_image_leaves_no_fold():
    clf = XMAdapterClassifier("precomputed", text_features=PROBLEM.text, conformal="cross")
    clf.partial_fit(PROBLEM.X[:1], PROBLEM.y[:1], classes=range(4))
    with pytest.raises(ValueError, match="on one labeled image or group alone"):
        clf.predict_set(PROBLEM.X_test)
    clf.partial_fit(PROBLEM.X[1:], PROBLEM.y[1:])
    assert clf.predict_set(PROBLEM.X_test).any(axis=1).all()


def test_what_fit_refuses_is_refused_after_set_params():
    clf = XMAdapterClassifier("precomputed", text_features=PROBLEM.text, evidence="paper", n_epochs=2)
    clf.fit(PROBLEM.X, PROBLEM.y).set_params(conformal="full")
    with pytest.raises(ValueError, match="pass conformal='cross'"):
        clf.predict_p(PROBLEM.X_test[:1])


def test_a_class_of_which_nothing_is_known_is_in_no_set():
    kept = PROBLEM.y < 3
    clf = TipAdapterClassifier("precomputed", conformal="cross")
    with pytest.warns(UserWarning, match="neither images nor a text"):
        clf.partial_fit(PROBLEM.X[kept], PROBLEM.y[kept], classes=range(4))
    assert not clf.predict_set(PROBLEM.X_test, 0.7)[:, 3].any()
