"""A real CUDA device: the operations of the simulated one, and what only hardware shows."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from device_operations import BATCH, RIVALS, classifier, encode, encoder, fitted, images, operations, predictions
from problems import make_problem
from sklearn.base import clone

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.errors import OutOfMemoryError

# how far a probability may be apart between CPU and GPU
TOLERANCE = 2e-3

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
cases = [
    pytest.param(operation, id=operation.name, marks=[pytest.mark.slow] if operation.slow else [])
    for operation in operations()
]


def as_list(found):
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("operation", cases)
def test_all_that_runs_on_the_simulated_device_runs_on_a_real_one(operation):
    expected = as_list(operation.run(operation.prepare("cpu")))
    found = as_list(operation.run(operation.prepare("cuda")))
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        if theirs.dtype.kind == "f":
            # scores of a search are shares of few images, of which one may change sides
            atol = 0.2 if "search" in operation.name else 2e-2 if "bf16" in operation.name else TOLERANCE
            np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=atol)
        else:
            assert np.mean(ours == theirs) > 0.9


@pytest.mark.parametrize("parameters", [{}, {"evidence": "paper", "n_epochs": 5}])
@pytest.mark.parametrize("shots", [1, 4])
def test_cpu_and_gpu_agree(parameters, shots):
    problem = make_problem(n_classes=20, shots=shots, dim=64)
    on_cpu = XMAdapterClassifier(
        "precomputed", text_features=problem.text, vocabulary=problem.words, random_state=0, device="cpu"
    )
    on_cpu.set_params(**parameters, vocabulary=None if parameters else problem.words)
    on_gpu = clone(on_cpu).set_params(device="cuda").fit(problem.X, problem.y)
    on_cpu.fit(problem.X, problem.y)
    np.testing.assert_allclose(
        on_gpu.predict_proba(problem.X_test), on_cpu.predict_proba(problem.X_test), atol=TOLERANCE
    )


@pytest.mark.parametrize("kind", [XMAdapterClassifier, *RIVALS])
def test_same_seed_same_bits_on_the_gpu(kind):
    problem = make_problem(n_classes=20, shots=4, dim=64)
    clf = classifier("cuda", kind, text_features=problem.text)
    y = np.where(np.arange(len(problem.y)) % 4 < 2, problem.y, -1) if clf.unlabeled_label == -1 else problem.y
    a, b = (clone(clf).fit(problem.X, y).predict_proba(problem.X_test) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_same_seed_same_bits_of_the_paper_on_the_gpu():
    problem = make_problem(n_classes=20, shots=4, dim=64)
    clf = classifier("cuda", text_features=problem.text, evidence="paper", n_epochs=5)
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


def test_predictions_wait_once_and_copy_queries_and_results_alone():
    clf = fitted("cuda")
    expected = predictions(clf)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            predictions(clf)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in caught if "synchroniz" in str(one.message)]
    # the queries are pageable, so that torch counts their copy too
    assert len(waits) <= 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        np.testing.assert_array_equal(predictions(clf), expected)
    copies = [event for event in profile.events() if event.name.startswith("Memcpy")]
    assert len([event for event in copies if "HtoD" in event.name]) <= 2
    assert len([event for event in copies if "DtoH" in event.name]) <= 2


def test_a_batch_is_copied_while_the_one_before_is_computed():
    made = encoder("cuda")
    encode(made)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        encode(made)
    copies = [event for event in profile.events() if "HtoD" in event.name]
    # pinned memory, and a stream of its own
    assert all("Pinned" in event.name for event in copies if event.cuda_time > 0)
    assert len(copies) >= len(images()) // BATCH


def test_batches_halve_when_the_memory_of_the_device_runs_out():
    made = encoder("cuda")
    expected = encode(made)
    loaded = made._load()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    before = loaded.max_batch
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**22) / total)
        many = images() * 200
        found = CLIPEncoder("tiny", device="cuda", precision="fp32", memory=False).encode_image(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        loaded.max_batch = before
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-4)


def test_a_fit_that_does_not_fit_names_the_device_and_the_remedy():
    problem = make_problem(n_classes=20, shots=16, dim=64)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1) / total)
        with pytest.raises(OutOfMemoryError, match=r"ran out of memory on cuda.*device='cpu'"):
            classifier("cuda", text_features=problem.text).fit(problem.X.repeat(20, 0), problem.y.repeat(20))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_bf16_moves_embeddings_little():
    exact, coarse = (encode(encoder("cuda", precision=precision)) for precision in ("fp32", "bf16"))
    assert (exact * coarse).sum(axis=1).min() > 0.999


def test_tensors_of_the_device_are_inputs_like_any_others():
    problem = make_problem(n_classes=4, shots=4, dim=16, n_test=2)
    clf = classifier("cuda", text_features=problem.text, evidence="paper", n_epochs=2)
    expected = clf.fit(problem.X, problem.y).predict_proba(problem.X_test)
    text, X, y, queries = (
        torch.as_tensor(a, device="cuda") for a in (problem.text, problem.X, problem.y, problem.X_test)
    )
    clf.set_params(text_features=text).fit(X, y, sample_weight=torch.ones(len(y), device="cuda"))
    np.testing.assert_array_equal(clf.predict_proba(queries), expected)
