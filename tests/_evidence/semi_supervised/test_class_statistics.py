import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem, unit

from skxma._evidence.calibrated.metric import covariance_root
from skxma._evidence.semi_supervised.class_statistics import PoolExperts, SoftLabeledPool, em_steps
from skxma._evidence.semi_supervised.config import PoolConfig, pool_prior_weights
from skxma._evidence.semi_supervised.pool import Pool
from skxma._runtime import blocks
from skxma.caches import ImageCache

CONFIG = PoolConfig()


def random_pool(seed, m=30, dim=8, n_classes=3):
    rng = np.random.default_rng(seed)
    features = torch.as_tensor(unit(rng.standard_normal((m, dim)) + 1)).double()
    logits = torch.as_tensor(2 * rng.standard_normal((m, n_classes)))
    return SoftLabeledPool(features, logits, torch.as_tensor(rng.uniform(0.2, 1, m)))


def nothing(pool):
    return pool.features[:0], torch.zeros(0, dtype=torch.long), pool.features.new_zeros(0)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_scores_without_the_own_contribution_are_those_of_means_without_it(seed):
    pool = random_pool(seed)
    experts, own = em_steps(pool, nothing(pool), None, pool_prior_weights(10, CONFIG), CONFIG)
    i = seed % len(own)
    rest = torch.arange(len(own)) != i
    queries = (pool.features - experts.center) @ experts.projection
    means = (own[rest].T @ queries[rest]) / own[rest].sum(0)[:, None]
    by_hand = PoolExperts(experts.center, experts.projection, means, experts.present, experts.spreads)
    torch.testing.assert_close(experts(pool.features, own)[:, i], by_hand(pool.features[i : i + 1])[:, 0])


def test_labeled_images_count_at_their_labels_and_the_scatter_within_classes_is_whitened():
    problem = make_problem(n_classes=3, shots=8, dim=6)
    features, labels = torch.as_tensor(problem.X).double(), torch.as_tensor(problem.y)
    sure = 1e3 * torch.nn.functional.one_hot(labels, 3).double()
    pool = SoftLabeledPool(features, sure, torch.ones(len(labels)).double())
    labeled = features, labels, torch.ones(len(labels)).double()
    experts, own = em_steps(pool, labeled, None, (1.0, 0.0, 0.0), CONFIG)
    torch.testing.assert_close(own.sum(0), torch.full((3,), 8.0).double())
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    torch.testing.assert_close(experts.means, (means - experts.center) @ experts.projection)
    residual = (features - means[labels]).double()
    covariance = residual.T @ residual
    covariance = 0.4 * covariance / covariance.diagonal().mean() + 0.6 * torch.eye(6)
    whitened = experts.projection.T @ covariance @ experts.projection
    torch.testing.assert_close(whitened, torch.eye(6).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("with_root", [True, False])
def test_blocks_change_nothing(monkeypatch, with_root):
    pool = random_pool(3, m=50)
    root = covariance_root(torch.as_tensor(make_problem(dim=8).words).double(), 0.01) if with_root else None
    whole, own = em_steps(pool, nothing(pool), root, pool_prior_weights(8, CONFIG), CONFIG)
    monkeypatch.setattr(blocks, "POOL_ENTRIES", 60)
    parts, own_of_parts = em_steps(pool, nothing(pool), root, pool_prior_weights(8, CONFIG), CONFIG)
    torch.testing.assert_close(parts(pool.features), whole(pool.features))
    torch.testing.assert_close(own_of_parts, own)


@given(st.floats(0, 200), st.floats(0, 200))
def test_more_images_per_class_are_trusted_more(few, many):
    few, many = sorted((few, many))
    assert pool_prior_weights(few, CONFIG)[0] >= pool_prior_weights(many, CONFIG)[0] > 0
    assert pool_prior_weights(few, CONFIG)[1] <= pool_prior_weights(many, CONFIG)[1] <= 2


def test_a_pool_has_no_image_twice_and_none_that_has_a_label():
    problem = make_problem(shots=3)
    cache, _ = ImageCache.build(problem.X[:5], problem.y[:5], 5)
    given_twice = np.concatenate([problem.X[3:8], problem.X[6:8]])
    pool, position = Pool.build(given_twice, np.arange(1.0, 8.0), cache)
    assert len(pool.keys) == 3
    np.testing.assert_array_equal(position[:2], -1)
    np.testing.assert_array_equal(pool.keys[position[2:]], given_twice[2:])
    np.testing.assert_allclose(pool.weights[position[2:5]], [3, 4 + 6, 5 + 7])
    assert Pool.build(problem.X[:2], np.ones(2), cache)[0] is None


def test_a_thinned_pool_weighs_the_same():
    keys = unit(np.random.default_rng(0).standard_normal((100, 4)))
    pool = Pool(keys, np.linspace(1, 2, 100))
    thin = pool.thinned(10)
    assert len(thin.keys) == 10
    assert thin.weights.sum() == pytest.approx(pool.weights.sum())
    assert pool.thinned(100) is pool
