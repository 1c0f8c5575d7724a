"""Images that belong together: bursts, patients, copies that augment."""

import warnings

import joblib
import numpy as np
import pytest
from problems import make_problem, unit
from sklearn.exceptions import NotFittedError

import skxma
from skxma import XMAdapterClassifier


def with_copies(problem):
    """Every image with a copy that differs a little, their labels and groups."""
    rng = np.random.default_rng(0)
    near = unit(problem.X + 0.01 * rng.standard_normal(problem.X.shape))
    return np.concatenate([problem.X, near]), np.tile(problem.y, 2), np.tile(np.arange(len(problem.y)), 2)


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=4, shots=4, dim=24, noise=2.0, text_noise=2.0)


@pytest.fixture(scope="module")
def copies(problem):
    return with_copies(problem)


def classifier(problem):
    return XMAdapterClassifier("precomputed", text_features=problem.text)


def log_loss(clf, problem):
    proba = clf.predict_proba(problem.X_test)
    return -np.log(proba[np.arange(len(proba)), problem.y_test]).mean()


def test_copies_do_not_vouch_for_one_another():
    scores, losses, widths = [], [], []
    for seed in range(4):
        problem = make_problem(n_classes=4, shots=4, dim=24, noise=2.0, text_noise=2.0, n_test=100, seed=seed)
        X, y, groups = with_copies(problem)
        plain = classifier(problem).fit(problem.X, problem.y)
        grouped, fooled = (classifier(problem).fit(X, y, groups=given) for given in (groups, range(len(y))))
        fits = plain, grouped, fooled
        scores.append([clf.left_out_score_ for clf in fits])
        losses.append([log_loss(clf, problem) for clf in fits])
        widths.append([np.ptp(clf.left_out_interval_) for clf in fits])
    plain, grouped, fooled = np.mean(scores, axis=0)
    assert grouped == pytest.approx(plain, abs=0.05)
    assert fooled > plain + 0.1
    plain, grouped, _ = np.mean(losses, axis=0)
    assert grouped < 1.1 * plain
    # copies are no further witnesses
    plain, grouped, _ = np.mean(widths, axis=0)
    assert grouped == pytest.approx(plain, rel=0.1)


def test_near_duplicates_are_named_and_left_out_together(problem, copies):
    X, y, groups = copies
    with pytest.warns(UserWarning, match=r"32 of 32 images are near-duplicates .* such as 0 and 16\. .*groups="):
        found = classifier(problem).fit(X, y)
    told = classifier(problem).fit(X, y, groups=groups)
    np.testing.assert_allclose(found.predict_proba(problem.X_test), told.predict_proba(problem.X_test), atol=1e-6)
    assert found.left_out_score_ == pytest.approx(told.left_out_score_)
    assert not hasattr(found, "groups_")


def test_later_calls_know_the_near_duplicates_that_the_fit_found(problem, copies):
    X, y, _ = copies
    rows = np.flatnonzero(y < 2)
    with pytest.warns(UserWarning, match="near-duplicates"):
        clf = classifier(problem).set_params(conformal="full").fit(X[rows], y[rows])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict_set(problem.X_test[:1], 0.5)


def test_images_that_only_resemble_each_other_are_no_near_duplicates(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(problem).fit(problem.X, problem.y)
        # equal images are one key
        classifier(problem).fit(np.tile(problem.X, (2, 1)), np.tile(problem.y, 2))


def test_names_of_groups_mean_the_same_in_every_call(problem, copies):
    X, y, groups = copies
    half, names = len(y) // 2, [f"burst {group}" for group in groups]
    whole = classifier(problem).fit(X, y, groups=names)
    grown = classifier(problem).partial_fit(X[:half], y[:half], groups=names[:half])
    grown.partial_fit(X[half:], y[half:], groups=names[half:])
    np.testing.assert_allclose(grown.predict_proba(problem.X_test), whole.predict_proba(problem.X_test), atol=1e-6)
    np.testing.assert_array_equal(grown.groups_, names)
    kept = y != 3
    fitted = classifier(problem).set_params(text_features={c: problem.text[c] for c in range(3)})
    fitted.fit(X[kept], y[kept], groups=np.array(names)[kept])
    dropped = whole.drop([3])
    np.testing.assert_allclose(dropped.left_out_probability_, fitted.left_out_probability_, atol=1e-5)


def test_groups_survive_saving(problem, copies, tmp_path):
    X, y, groups = copies
    clf = classifier(problem).fit(X, y, groups=groups)
    clf.save(tmp_path / "model.skxma")
    joblib.dump(clf, tmp_path / "model.joblib")
    for loaded in (skxma.load(tmp_path / "model.skxma"), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(loaded.groups_, clf.groups_)
        np.testing.assert_array_equal(loaded.image_cache_.groups, clf.image_cache_.groups)
        loaded.partial_fit(problem.X_test[:1], problem.y_test[:1])
        assert loaded.groups_[-1] == ""


def test_a_class_of_one_group_is_a_class_of_one_shot(problem):
    groups = np.where(problem.y == 0, "patient", None)
    clf = classifier(problem).fit(problem.X, problem.y, groups=groups)
    assert np.isfinite(clf.predict_proba(problem.X_test)).all()
    assert clf.score(problem.X_test, problem.y_test) > 0.3
    one_each = classifier(problem).fit(problem.X, problem.y, groups=problem.y)
    assert np.isnan(one_each.left_out_score_)


@pytest.mark.bad_input
def test_another_number_of_groups_is_refused(problem):
    clf = classifier(problem)
    with pytest.raises(ValueError, match=r"groups has 3 entries for 16 samples\. Give each sample"):
        clf.fit(problem.X, problem.y, groups=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"groups has the shape \(16, 2\) for 16 samples"):
        clf.fit(problem.X, problem.y, groups=np.zeros((16, 2)))
    with pytest.raises(ValueError, match=r"groups has the shape \(\)"):
        clf.fit(problem.X, problem.y, groups="camera")
    with pytest.raises(NotFittedError):
        clf.predict(problem.X)


def test_a_missing_group_is_none_in_every_spelling(problem):
    pandas = pytest.importorskip("pandas")
    clf = classifier(problem)
    groups = [None, np.nan, pandas.NA, *range(13)]
    assert clf.fit(problem.X, problem.y, groups=groups).groups_[:4].tolist() == ["", "", "", "0"]


def test_a_group_of_integers_is_the_same_beside_a_missing_value(problem):
    clf = classifier(problem).fit(problem.X, problem.y, groups=np.arange(16))
    clf.partial_fit(problem.X_test[:2], problem.y_test[:2], groups=np.array([3, np.nan]))
    assert clf.groups_[-2:].tolist() == ["3", ""]


def test_groups_and_a_pool_go_together(problem, copies):
    X, y, groups = copies
    pool = problem.X_test
    labels = np.concatenate([y, np.full(len(pool), -1)])
    names = np.concatenate([groups.astype(str), np.full(len(pool), "")])
    clf = classifier(problem).set_params(unlabeled_label=-1).fit(np.concatenate([X, pool]), labels, groups=names)
    assert clf.soft_labels_.shape == (len(pool), 4)


def test_classes_given_as_groups_are_warned_of():
    problem = make_problem(n_classes=3, shots=4)
    with pytest.warns(UserWarning, match="groups gives all images of each class one group"):
        clf = classifier(problem).fit(problem.X, problem.y, groups=problem.y)
    assert np.isnan(clf.left_out_score_)
    one_more = problem.y.copy()
    one_more[0] = 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(problem).fit(problem.X, problem.y, groups=one_more)
        classifier(problem).fit(problem.X[::4], problem.y[::4], groups=problem.y[::4])
