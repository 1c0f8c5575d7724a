import matplotlib as mpl
import numpy as np
import pytest
from problems import make_problem
from sklearn.calibration import calibration_curve

from skxma import XMAdapterClassifier
from skxma._statistics import calibration_error
from skxma.baselines import ZeroShotClassifier
from skxma.inspection import CalibrationDisplay

mpl.use("Agg")


@pytest.fixture(scope="module")
def fitted():
    problem = make_problem(n_classes=3, shots=4, seed=2)
    return XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y), problem


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_bins_are_those_of_scikit_learn_for_the_likeliest_class():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.5, 0.5, 0.5], 300)
    y = rng.integers(3, size=300)
    display = CalibrationDisplay.from_predictions(y, p, n_bins=7, name="ours")
    share, mean = calibration_curve(p.argmax(1) == y, p.max(1), n_bins=7)
    np.testing.assert_allclose(display.accuracy, share)
    np.testing.assert_allclose(display.confidence, mean)
    assert (display.low <= display.accuracy).all()
    assert (display.accuracy <= display.high).all()
    error = calibration_error(p.max(1), p.argmax(1) == y, 15)
    assert display.calibration_error == error
    assert legend(display) == ["calibrated", f"ours: calibration error {100 * error:.1f} %"]


def test_new_images_and_left_out_answers_in_one_figure(fitted):
    clf, problem = fitted
    display = CalibrationDisplay.from_estimator(clf, problem.X_test, problem.y_test, name="new")
    p = clf.predict_proba(problem.X_test)
    assert display.calibration_error == calibration_error(p.max(1), clf.classes_[p.argmax(1)] == problem.y_test)
    left_out = CalibrationDisplay.from_estimator(clf, name="left out", ax=display.ax_)
    expected = calibration_error(clf.left_out_probability_.astype(float), clf.left_out_label_ == problem.y)
    assert left_out.calibration_error == pytest.approx(expected)
    assert len(display.ax_.containers) == 2
    assert [text.split(":")[0] for text in legend(left_out)] == ["calibrated", "new", "left out"]


def test_an_only_image_of_its_class_and_one_without_weight_are_not_counted(fitted):
    _, problem = fitted
    rows = np.append(np.flatnonzero(problem.y != 0), np.flatnonzero(problem.y == 0)[:1])
    weights = np.append(0, np.ones(len(rows) - 1))
    clf = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X[rows], problem.y[rows], weights)
    display = CalibrationDisplay.from_estimator(clf)
    counted = slice(1, -1)
    expected = clf.left_out_label_[counted] == problem.y[rows][counted]
    assert display.calibration_error == pytest.approx(
        calibration_error(clf.left_out_probability_[counted].astype(float), expected)
    )


@pytest.mark.bad_input
def test_what_cannot_be_drawn_is_refused(fitted):
    clf, problem = fitted
    with pytest.raises(ValueError, match="both X and y, or neither"):
        CalibrationDisplay.from_estimator(clf, problem.X_test)
    rival = ZeroShotClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y)
    with pytest.raises(ValueError, match="ZeroShotClassifier keeps no left-out answers"):
        CalibrationDisplay.from_estimator(rival)
    one = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X[::4], problem.y[::4])
    with pytest.raises(ValueError, match="no class has two images"):
        CalibrationDisplay.from_estimator(one)
    paper = XMAdapterClassifier("precomputed", text_features=problem.text, evidence="paper", n_epochs=0)
    with pytest.raises(ValueError, match="with evidence='calibrated' does"):
        CalibrationDisplay.from_estimator(paper.fit(problem.X, problem.y))
    with pytest.raises(ValueError, match=r"y_prob \(3,\)"):
        CalibrationDisplay.from_predictions([0, 1, 1], [0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="class indices, the columns of y_prob"):
        CalibrationDisplay.from_predictions(["a", "b"], [[0.2, 0.8], [0.3, 0.7]])
    with pytest.raises(ValueError, match="n_bins=0"):
        CalibrationDisplay.from_predictions([0, 1], [[0.2, 0.8], [0.3, 0.7]], n_bins=0)
    groups = XMAdapterClassifier("precomputed", text_features=problem.text)
    groups.fit(problem.X, problem.y, groups=problem.y)
    with pytest.raises(ValueError, match="two images of two groups"):
        CalibrationDisplay.from_estimator(groups)
