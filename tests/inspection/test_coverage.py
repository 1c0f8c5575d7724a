import matplotlib as mpl
import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.inspection import CoverageDisplay

mpl.use("Agg")


@pytest.fixture(scope="module")
def fitted():
    problem = make_problem(n_classes=3, shots=4, seed=2)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, vocabulary=None, n_epochs=0)
    return clf.fit(problem.X, problem.y), problem


def test_coverage_and_size_of_sets_at_hand():
    sets = np.zeros((4, 3, 2), dtype=bool)
    sets[:, 0, 0] = True
    sets[:, :2, 1] = True
    display = CoverageDisplay.from_sets(sets, [0, 0, 1, 2], levels=[0.5, 0.7])
    np.testing.assert_allclose(display.coverage, [0.5, 0.75])
    np.testing.assert_allclose(display.mean_size, [1, 2])
    assert (display.low < display.coverage).all()
    assert (display.coverage < display.high).all()
    assert len(display.axes_) == 2


def test_levels_in_reach_of_a_classifier(fitted):
    clf, problem = fitted
    display = CoverageDisplay.from_estimator(clf, problem.X_test, problem.y_test)
    # 12 samples: 0.9 is the last level of those that there are
    assert display.levels.max() == 0.9
    assert (np.diff(display.mean_size) >= 0).all()
    again = CoverageDisplay.from_estimator(clf, problem.X_test, problem.y_test, levels=[0.6], axes=display.axes_)
    expected = clf.predict_set(problem.X_test, 0.6)[np.arange(60), problem.y_test].mean()
    np.testing.assert_allclose(again.coverage, expected)


@pytest.mark.bad_input
def test_labels_of_no_class(fitted):
    clf, problem = fitted
    with pytest.raises(ValueError, match="none of the classes"):
        CoverageDisplay.from_estimator(clf, problem.X_test[:1], [9])
