"""All that a device is asked for, on a simulated one: right values, no tensors of two devices, few waits and copies."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from device_operations import BATCH, N_IMAGES, classifier, encode, encoder, images, measure, operations
from PIL import Image
from problems import make_problem
from simulated_device import simulated_device
from small_clip import make_pixels

from skxma import baselines
from skxma.errors import ImageError, OutOfMemoryError
from skxma.store import EmbeddingStore

cases = [
    pytest.param(operation, id=operation.name, marks=[pytest.mark.slow] if operation.slow else [])
    for operation in operations()
]


@pytest.fixture
def device():
    with simulated_device() as made:
        yield made


@pytest.mark.parametrize("operation", cases)
def test_values_are_those_of_the_cpu_within_the_bounds_of_waits_and_bytes(operation):
    found = measure(operation)
    assert found.difference <= operation.tolerance
    assert found.n_mixed == found.n_conversions == 0
    assert found.n_waits <= operation.n_waits
    assert found.to_device <= operation.to_device
    assert found.to_host <= operation.to_host


def waits_of_a_fit(kind, parameters, n_classes, shots):
    problem = make_problem(n_classes=n_classes, shots=shots, dim=12, n_test=1)
    clf = classifier("cuda", kind, **{**parameters, "text_features": problem.text})
    y = np.where(np.arange(len(problem.y)) % shots < shots // 2, problem.y, -1) if clf.unlabeled_label == -1 else None
    with simulated_device() as device:
        clf.fit(problem.X, problem.y if y is None else y)
    return Counter(event.place for event in device.events if event.kind == "wait" or event.kind == "to_host")


@pytest.mark.parametrize("kind", [getattr(baselines, name) for name in baselines.__all__])
def test_a_fit_waits_no_more_for_more_classes_and_samples(kind):
    few, *more = (sum(waits_of_a_fit(kind, {}, *size).values()) for size in ((4, 4), (12, 4), (4, 12)))
    assert max(more) <= few + 2


@pytest.mark.slow
def test_the_calibrated_fit_waits_at_no_place_once_for_each_class_or_sample():
    few, *more = (waits_of_a_fit(type(classifier("cuda")), {}, *size) for size in ((4, 4), (12, 4), (4, 12)))
    # how long a search goes on depends on the data; three times as much of them must not take three times as long
    iterative = {place for place in few if place.startswith(("newton.py", "_statistics.py", "residual.py"))}
    for counts in more:
        for place, n in counts.items():
            assert n <= max(2 * few[place], 4) or place in iterative, place


def test_the_next_batch_is_copied_and_launched_before_the_one_before_is_waited_for(device):
    encode(encoder("cuda"))
    order = [event.kind for event in device.events if event.pinned or event.name == "synchronize"]
    n_batches = -(-N_IMAGES // BATCH)
    inner = ["to_device", "to_host", "wait"] * (n_batches - 1)
    assert order == ["to_device", "to_host", *inner, "wait"]
    copies = [event for event in device.events if event.kind == "to_device" and event.pinned]
    assert {event.stream for event in copies} != {0}
    assert device.count("record_stream") == n_batches


def test_what_the_device_has_is_kept_when_the_next_image_cannot_be_read(device, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3 * BATCH)]
    for i, path in enumerate(paths):
        Image.fromarray(make_pixels(i)).save(path)
    content = paths[-2].read_bytes()
    paths[-2].write_bytes(content[: len(content) // 2])
    made = encoder("cuda", memory=EmbeddingStore(tmp_path / "store"), batch_size=BATCH, n_threads=1)
    with pytest.raises(ImageError, match=f"{3 * BATCH - 2}.png"):
        made.encode_image(paths)
    device.reset()
    made.encode_image(paths[: 2 * BATCH])
    assert device.n_launches == 0


def test_batches_halve_where_memory_runs_out():
    expected = encode(encoder("cpu"))
    with simulated_device() as device:
        made = encoder("cuda")
        device.capacity = 1_500_000
        made.batch_size = "auto"
        found = made.encode_image(images())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert device.caches_emptied > 0


def test_a_device_without_memory_for_a_model_is_told_what_to_do():
    problem = make_problem(n_classes=4, shots=4, dim=16)
    with simulated_device(capacity=1000) as device:
        with pytest.raises(OutOfMemoryError, match=r"Fitting 16 images of 4 classes ran out of memory on cuda.*'cpu'"):
            classifier("cuda", text_features=problem.text).fit(problem.X, problem.y)
        assert device.in_use <= device.capacity


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), "bfloat16"), ((7, 5), "float32")])
def test_precision_follows_what_the_device_computes_natively(capability, dtype):
    with simulated_device(compute_capability=capability):
        assert str(encoder("cuda", precision="auto")._load().dtype) == f"torch.{dtype}"


def test_auto_is_the_device_and_a_second_one_is_refused(device):
    problem = make_problem(n_classes=4, shots=4, dim=16, n_test=2)
    clf = classifier("auto", baselines.ZeroShotClassifier, text_features=problem.text).fit(problem.X, problem.y)
    clf.predict(problem.X_test)
    assert device.n_bytes("to_device") > 0
    with pytest.raises(ValueError, match="torch sees 1 CUDA device"):
        clf.set_params(device="cuda:1").fit(problem.X, problem.y)


def test_tensors_of_the_device_are_inputs_like_any_others(device):
    problem = make_problem(n_classes=4, shots=4, dim=16, n_test=2)
    clf = classifier("cuda", baselines.TipAdapterClassifier, text_features=problem.text)
    expected = clf.fit(problem.X, problem.y).predict_proba(problem.X_test)
    moved = [torch.as_tensor(array).to("cuda") for array in (problem.text, problem.X, problem.y, problem.X_test)]
    text, X, y, queries = moved
    weights, shares = torch.ones(len(y), device="cuda"), torch.full((4,), 0.25, device="cuda")
    for given in (text, dict(enumerate(text))):
        fitted = clf.set_params(text_features=given).fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(fitted.predict_proba(queries), expected)
    np.testing.assert_allclose(fitted.predict_proba(queries, class_prior=shares), expected)
    assert fitted.score(X, y) == fitted.score(problem.X, problem.y)
    assert fitted.partial_fit(X, y).predict_proba(queries).shape == expected.shape


def test_an_encoder_may_answer_with_tensors_of_the_device(device):
    class Own:
        logit_scale = 100.0

        def encode_image(self, items):
            return torch.as_tensor(np.stack(items)).to("cuda").flatten(1).float().requires_grad_()

        def encode_text(self, prompts):
            return torch.ones(len(prompts), 12, device="cuda").cumsum(1)

    pixels = np.random.default_rng(0).integers(0, 255, (8, 2, 2, 3), dtype=np.uint8)
    clf = baselines.TipAdapterClassifier(Own(), device="cuda").fit(list(pixels), ["a", "b"] * 4)
    assert clf.predict(list(pixels)).tolist() == ["a", "b"] * 4


def test_threads_see_the_device_too(device):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(2, device="cuda").is_cuda))
    thread.start()
    thread.join()
    assert found == [True]
