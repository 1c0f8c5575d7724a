"""The estimator on a CUDA device; skipped where there is none."""

import joblib
import numpy as np
import pytest
import torch
from problems import make_problem
from sklearn.base import clone

import skxma
from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji

# how far a probability may be apart between CPU and GPU
TOLERANCE = 2e-3

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("parameters", [{}, {"evidence": "paper", "n_epochs": 5}])
@pytest.mark.parametrize("shots", [1, 4])
def test_cpu_and_gpu_agree(parameters, shots):
    problem = make_problem(n_classes=20, shots=shots, dim=64)
    on_cpu = XMAdapterClassifier(
        "precomputed", text_features=problem.text, vocabulary=problem.words, random_state=0, device="cpu", **parameters
    )
    on_gpu = clone(on_cpu).set_params(device="cuda").fit(problem.X, problem.y)
    on_cpu.fit(problem.X, problem.y)
    np.testing.assert_allclose(
        on_gpu.predict_proba(problem.X_test), on_cpu.predict_proba(problem.X_test), atol=TOLERANCE
    )


@pytest.mark.parametrize("parameters", [{}, {"evidence": "paper", "n_epochs": 5}])
def test_same_seed_same_bits_on_the_gpu(parameters):
    problem = make_problem(n_classes=20, shots=4, dim=64)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, device="cuda", random_state=0, **parameters)
    a, b = (clone(clf).fit(problem.X, problem.y).predict_proba(problem.X_test) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", ["joblib", "skxma"])
def test_fitted_on_the_gpu_predicts_on_the_cpu(tmp_path, form):
    emoji = load_emoji()
    shots = emoji.sets == "noto"
    clf = XMAdapterClassifier("tiny", device="cuda", precision="fp32").fit(emoji.images[shots], emoji.target[shots])
    if form == "joblib":
        joblib.dump(clf, tmp_path / "model")
    else:
        clf.save(tmp_path / "model")
    loaded = (joblib.load if form == "joblib" else skxma.load)(tmp_path / "model")
    loaded.set_params(device="cpu", memory=False)
    queries = emoji.images[~shots][:40]
    np.testing.assert_allclose(loaded.predict_proba(queries), clf.predict_proba(queries), atol=TOLERANCE)
