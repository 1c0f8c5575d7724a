"""Parameters that the chosen evidence does not read are never ignored in silence."""

import warnings

import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier

PROBLEM = make_problem(n_classes=3, shots=2, dim=8)


def fit(clf, method="fit"):
    return getattr(clf, method)(PROBLEM.X, PROBLEM.y)


def classifier(**parameters):
    return XMAdapterClassifier("precomputed", text_features=PROBLEM.text, n_epochs=0, **parameters)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("evidence", "parameter"),
    [
        ("calibrated", {"text_dim": 4}),
        ("calibrated", {"learning_rate": 0.1}),
        ("calibrated", {"weight_decay": 0.1}),
        ("calibrated", {"batch_size": 7}),
        ("paper", {"vocabulary": PROBLEM.words}),
    ],
)
def test_a_parameter_that_the_evidence_does_not_read_is_named(evidence, parameter, method):
    (name,) = parameter
    other = {"calibrated": "paper", "paper": "calibrated"}[evidence]
    clf = classifier(evidence=evidence, **parameter)
    said = f"evidence='{evidence}' does not read {name}; leave it out, or pass evidence='{other}'"
    with pytest.warns(UserWarning, match=said) as caught:
        fit(clf, method)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(clf.set_params(evidence=other))


def test_several_are_named_at_once():
    with pytest.warns(UserWarning, match="does not read text_dim, batch_size; leave them out"):
        fit(classifier(text_dim=4, batch_size=7))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"evidence": "paper"},
        {"evidence": "paper", "vocabulary": None},
        {"vocabulary": PROBLEM.words},
        {"learning_rate": 1e-3, "weight_decay": np.float64(1e-2), "batch_size": np.int64(256)},
    ],
)
def test_defaults_and_what_is_read_are_no_reason_to_warn(parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(classifier(**parameters))
