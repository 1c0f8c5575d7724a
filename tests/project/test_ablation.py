"""Every part of the default is at work: without it the answers change, and get worse where that is clear."""

import sys
from pathlib import Path

import numpy as np
import pytest
from problems import make_problem
from sklearn.base import clone
from sklearn.metrics import log_loss

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from ablation import DEFAULT, variants
from robustness import mislabel

SEEDS = range(3)
GOOD_TEXT = {"n_classes": 6, "shots": 1, "dim": 24, "noise": 1.2, "text_noise": 0.3}
GOOD_TEXT_MORE_SHOTS = {"n_classes": 12, "shots": 3, "dim": 16, "noise": 1.2, "text_noise": 0.1}
BAD_TEXT = {"n_classes": 6, "shots": 3, "dim": 24, "noise": 0.6, "text_noise": 3.0}
FAIR = {"n_classes": 6, "shots": 4, "dim": 24, "noise": 1.0, "text_noise": 1.0}
MANY_SHOTS = {"n_classes": 5, "shots": 9, "dim": 24, "noise": 0.8, "text_noise": 1.0, "wrong": True}
CLEAN_BUT_FOR_LABELS = {"n_classes": 6, "shots": 10, "dim": 24, "noise": 0.5, "text_noise": 0.5, "wrong": True}


def problem_of(seed, wrong=False, **condition):
    problem = make_problem(seed=seed, n_test=30, **condition)
    if wrong:
        problem.y = mislabel(problem.y, seed)
    return problem


def probabilities(name, problem):
    classifier = clone(variants()[name]).set_params(
        encoder="precomputed", text_features=problem.text, vocabulary=problem.words, random_state=0
    )
    return classifier.fit(problem.X, problem.y).predict_proba(problem.X_test)


def losses(name, condition, seeds=SEEDS):
    """Test log loss and share of errors of each seed."""
    found = []
    for seed in seeds:
        problem = problem_of(seed, **condition)
        p = probabilities(name, problem)
        found.append((log_loss(problem.y_test, p), (p.argmax(1) != problem.y_test).mean()))
    return np.array(found)


@pytest.fixture(scope="module")
def full():
    # weak text leaves the residual something to do
    conditions = [(seed, condition) for condition in (MANY_SHOTS, BAD_TEXT | {"shots": 4}) for seed in SEEDS]
    problems = [problem_of(seed, **condition) for seed, condition in conditions]
    return [(problem, probabilities(DEFAULT, problem)) for problem in problems]


@pytest.mark.parametrize("name", [name for name in variants() if name != DEFAULT])
def test_every_switch_changes_the_answer(full, name):
    changes = [np.abs(probabilities(name, problem) - default).max() for problem, default in full]
    assert max(changes) > 1e-3


def test_the_default_of_the_ablation_is_the_default():
    assert clone(variants()[DEFAULT]).get_params() == type(variants()[DEFAULT])().get_params()


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("no text cache", GOOD_TEXT),
        ("no text cache", GOOD_TEXT_MORE_SHOTS),
        ("no image cache", BAD_TEXT),
        ("no leave-one-out", FAIR),
        ("no wrong-label screening", CLEAN_BUT_FOR_LABELS),
        ("paper's form, no training", FAIR),
    ],
)
def test_without_it_the_answers_are_worse(name, condition):
    loss, errors = (losses(name, condition) - losses(DEFAULT, condition)).mean(0)
    assert loss > 0
    assert errors > 0


def test_training_improves_the_papers_form():
    trained, start = (losses(f"paper's form, {kind}", FAIR)[:, 0] for kind in ("20 epochs", "no training"))
    assert trained.mean() < start.mean()
