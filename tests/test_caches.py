import pickle
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem, unit

from skxma._evidence.calibrated.metric import singletons
from skxma._sampling import group_members
from skxma.caches import CachedScorerMixin, ImageCache, Projection, TextCache, class_ranks, to_tensors
from skxma.embeddings import unit_rows


def test_evidence_is_tip_adapters():
    problem = make_problem()
    cache, _ = ImageCache.build(problem.X, problem.y, 5)
    queries = torch.as_tensor(problem.X_test)
    affinity = problem.X_test @ problem.X.T
    wanted = np.exp(-5.5 * (1 - affinity)) @ np.eye(5)[problem.y]
    np.testing.assert_allclose(cache.evidence(queries, 5.5), wanted, rtol=1e-4)


def test_equal_images_become_one_key():
    problem = make_problem(shots=2)
    twice = np.r_[np.arange(10), 3, 3]
    cache, position = ImageCache.build(problem.X[twice], problem.y[twice], 5)
    assert len(cache.keys) == 10
    assert position[3] == position[10] == position[11]
    assert np.isclose(cache.weights[position[3]] / cache.weights[position[0]], 3)
    np.testing.assert_array_equal(cache.keys[position], problem.X[twice])


def test_one_image_under_two_labels_stays_two_keys():
    problem = make_problem(shots=1)
    cache, position = ImageCache.build(problem.X[[0, 0, 1]], np.array([0, 1, 1]), 2)
    assert len(cache.keys) == 3
    assert cache.labels[position].tolist() == [0, 1, 1]


def test_zero_weight_is_absence():
    problem = make_problem(shots=2)
    weights = np.ones(10)
    weights[4] = 0
    cache, position = ImageCache.build(problem.X, problem.y, 5, weights)
    without, _ = ImageCache.build(np.delete(problem.X, 4, 0), np.delete(problem.y, 4), 5)
    assert position[4] == -1
    np.testing.assert_array_equal(cache.keys, without.keys)
    np.testing.assert_array_equal(cache.weights, without.weights)


@given(st.permutations(range(12)), st.floats(0.1, 100))
def test_order_and_scale_of_the_samples_never_matter(order, factor):
    problem = make_problem(n_classes=3, shots=4, dim=4)
    weights = np.linspace(1, 2, 12)
    order = np.array(order)
    a, _ = ImageCache.build(problem.X, problem.y, 3, weights)
    b, position = ImageCache.build(problem.X[order], problem.y[order], 3, factor * weights[order])
    np.testing.assert_array_equal(a.keys, b.keys)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_allclose(a.weights, b.weights, rtol=1e-6)
    np.testing.assert_array_equal(b.keys[position], problem.X[order])


def test_set_aside_keys_retrieve_nothing():
    problem = make_problem(shots=2)
    cache, _ = ImageCache.build(problem.X, problem.y, 5)
    chosen = np.zeros(10, dtype=bool)
    chosen[2] = True
    aside, kept = cache.set_aside(chosen), cache.keep(~chosen)
    queries = torch.as_tensor(problem.X_test)
    torch.testing.assert_close(aside.evidence(queries, 3.0), kept.evidence(queries, 3.0))
    assert np.isclose(kept.weights.mean(), 1)
    assert np.allclose(kept.weights * kept.weight_unit, 1)


def test_nothing_is_known_of_classes_with_neither_images_in_use_nor_text():
    problem = make_problem(n_classes=3, shots=2)
    cache, _ = ImageCache.build(problem.X[:4], problem.y[:4], 4)
    aside = cache.set_aside(cache.labels == 1)
    text = np.eye(4, 16, dtype=np.float32) * np.array([[1], [0], [1], [0]], dtype=np.float32)
    like = torch.empty(0)
    assert cache.known_classes(None).tolist() == [True, True, False, False]
    assert cache.known_classes(text).tolist() == [True, True, True, False]
    assert aside.known_classes(text).tolist() == [True, False, True, False]
    assert cache.unknown_classes(text, like).tolist() == [False, False, False, True]
    assert cache.unknown_classes(np.ones((4, 16), dtype=np.float32), like) is None


def test_weights_of_any_size_are_told_by_their_unit():
    problem = make_problem(shots=2)
    given = np.linspace(0.5, 3, 10)
    cache, position = ImageCache.build(problem.X, problem.y, 5, given)
    weights = given[np.argsort(position)]
    chosen = np.arange(10) % 3 == 0
    for some, held in ((cache.keep(chosen), chosen), (cache.set_aside(~chosen), np.ones(10, dtype=bool))):
        np.testing.assert_allclose(some.weights * some.weight_unit, np.where(chosen, weights, 0)[held], rtol=1e-6)
        assert some.weights[some.weights > 0].mean() == pytest.approx(1)


def test_keys_stand_in_the_order_of_their_images():
    problem = make_problem(n_classes=8, shots=6, dim=4)
    cache, _ = ImageCache.build(problem.X, problem.y, 8)
    rows = [(key + np.float32(0)).astype(">f4").tobytes() for key in cache.keys]
    assert rows == sorted(rows)


def test_zeros_of_both_signs_are_one_image_and_the_smallest_difference_makes_two():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [1e-9, 1.0]], dtype=np.float32)
    cache, position = ImageCache.build(rows, np.zeros(3, dtype=int), 1)
    assert len(cache.keys) == 2
    assert position[0] == position[1] != position[2]
    assert cache.weight_unit == 1.5


def test_classes_are_ranked_by_their_images():
    ranks = class_ranks(np.arange(4), np.array([2, 0, 1, 1]), np.ones(4), 3, None)
    assert ranks.tolist() == [1, 2, 0]
    # the same images: the weights decide, then the text
    same = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert class_ranks(*same, np.array([2.0, 1.0, 2.0, 1.0]), 2, None).tolist() == [1, 0]
    assert class_ranks(*same, np.ones(4), 2, np.array([[5.0], [4.0]])).tolist() == [1, 0]


@dataclass(frozen=True)
class Doubled(CachedScorerMixin[list]):
    numbers: np.ndarray

    def _make_scorer(self, like):
        return [*to_tensors(self.numbers, like=like), like.dtype]


def test_a_scorer_is_made_once_for_a_precision_and_is_not_pickled():
    model = Doubled(np.arange(3.0))
    single, double = torch.empty(0), torch.empty(0, dtype=torch.float64)
    first = model.scorer(double)
    assert first[0].dtype == first[1] == torch.float64
    assert model.scorer(torch.ones(4, dtype=torch.float64)) is first
    assert model.scorer(single)[0].dtype == torch.float32
    assert model.scorer(single) is not first
    assert model.scorer(double) is not first
    copy = pickle.loads(pickle.dumps(model))
    assert vars(copy).keys() == {"numbers"}
    assert vars(model).keys() == {"numbers", "_kept_scorer"}


def test_arrays_become_tensors_and_only_floats_take_the_precision():
    x = torch.empty(0, dtype=torch.float64)
    arrays = np.ones(2, np.float32), np.ones(2, np.intp), np.ones(2, bool), np.ones(2, np.uint8)
    assert [a.dtype for a in to_tensors(*arrays, like=x)] == [torch.float64, torch.int64, torch.bool, torch.uint8]


def test_what_was_fitted_stays_as_it_is():
    net = Projection(None, np.zeros(2, dtype=np.float32))
    cache = ImageCache(np.eye(2, dtype=np.float32), np.arange(2), np.ones(2, np.float32), 2)
    assert cache.weight_unit == 1
    for one, name in ((net, "bias"), (TextCache(cache.keys, net), "keys"), (cache, "keys")):
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, None)


def test_text_affinity_indexes_the_class_affinity():
    problem = make_problem()
    net = Projection(np.eye(16, dtype=np.float32), np.zeros(16, dtype=np.float32))
    cache = TextCache(problem.text, net)
    queries = torch.as_tensor(problem.X_test)
    by_class = cache.class_affinity(queries)
    np.testing.assert_allclose(by_class, problem.X_test @ problem.text.T, atol=1e-6)
    assert torch.equal(cache.affinity(queries, problem.y), by_class[:, problem.y])


def test_a_projection_with_a_hidden_layer():
    rng = np.random.default_rng(0)
    w, b, u, a, v = (rng.standard_normal(s).astype(np.float32) for s in ((3, 2), (2,), (3, 4), (4,), (4, 2)))
    x = rng.standard_normal((5, 3)).astype(np.float32)
    wanted = unit(x @ w + b + np.maximum(x @ u + a, 0) @ v)
    np.testing.assert_allclose(Projection(w, b, (u, a, v))(torch.as_tensor(x)), wanted, rtol=1e-5)


def test_present_tells_classes_without_text():
    net = Projection(np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32))
    keys = np.array([[1, 0], [0, 0], [0, -1]], dtype=np.float32)
    assert TextCache(keys, net).present.tolist() == [True, False, True]


@given(st.permutations(range(4)), st.booleans())
def test_the_order_of_the_keys_is_not_that_of_the_class_names(order, with_text):
    problem = make_problem(n_classes=4, shots=3, dim=4)
    problem.X[3:6] = problem.X[:3]  # the second class holds the images of the first
    problem.X[7] = problem.X[1]
    order, text = np.array(order), problem.text if with_text else None
    weights = np.ones(12) if with_text else np.arange(1.0, 13.0)
    a, _ = ImageCache.build(problem.X, problem.y, 4, weights, text)
    named = np.argsort(order)[problem.y]
    b, position = ImageCache.build(problem.X, named, 4, weights, text[order] if with_text else None)
    np.testing.assert_array_equal(a.keys, b.keys)
    np.testing.assert_array_equal(a.weights, b.weights)
    np.testing.assert_array_equal(a.labels, order[b.labels])
    np.testing.assert_array_equal(b.labels[position], named)


def test_classes_are_ordered_by_their_first_key_and_then_by_their_text():
    labels = np.array([2, 0, 2, 0])
    cache = ImageCache(np.zeros((4, 1), np.float32), labels, np.ones(4, np.float32), 5)
    text = torch.tensor([[9.0], [3.0], [9.0], [1.0], [2.0]])
    assert cache.class_order(text).tolist() == [2, 0, 3, 4, 1]
    assert cache.class_order(None).tolist() == [2, 0, 1, 3, 4]
    assert cache.rename_classes(np.array([4, 3, 2, 1, 0])).labels.tolist() == [2, 4, 2, 4]


@given(st.integers(0, 2**32 - 1))
def test_singletons_are_those_that_the_calibrated_evidence_leaves_out_with_their_class(seed):
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 5, 12), rng.integers(0, 6, 12)
    features = unit(rng.normal(size=(12, 4)).astype(np.float32))
    for given_groups in (groups, None):
        cache, _ = ImageCache.build(features, labels, 5, groups=given_groups)
        joined = np.arange(12) if cache.groups is None else cache.groups
        alone = [not ((cache.labels == cache.labels[i]) & (joined != joined[i])).any() for i in range(12)]
        assert cache.singleton.tolist() == alone
        members = torch.as_tensor(group_members(joined))
        assert singletons(torch.as_tensor(cache.labels), members).tolist() == alone


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_rounding_changes_no_order(seed, factor):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((12, 6)), rng.integers(3, size=12)
    caches = [ImageCache.build(unit_rows(some), y, 3)[0] for some in (X, factor * X)]
    np.testing.assert_array_equal(caches[0].labels, caches[1].labels)
    np.testing.assert_allclose(caches[0].keys, caches[1].keys, atol=1e-6)
