import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skxma import functional as F
from skxma._evidence.calibrated import residual as module
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.residual import choose_residual, falls_clearly, sample_losses, train_residual
from skxma._sampling import stratified_folds


@given(st.lists(st.integers(0, 4), min_size=4, max_size=40))
def test_folds_deal_out_each_class_evenly(labels):
    labels = np.array(labels)
    folds = stratified_folds(labels)
    for label in np.unique(labels):
        counts = np.bincount(folds[labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1


def test_the_residual_learns_what_the_offset_does_not_know():
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(30)
    centers = torch.randn(3, 8, generator=rng, dtype=torch.float64)
    features = centers[labels] + 0.3 * torch.randn(90, 8, generator=rng, dtype=torch.float64)
    offset, weights = torch.zeros(90, 3, dtype=torch.float64), torch.ones(90, dtype=torch.float64)
    residual, curve = choose_residual(features, labels, weights, offset, CalibrationConfig(n_epochs=20))
    after = sample_losses(offset + features @ residual.T, labels).mean()
    assert float(after) < 0.3 < np.log(3)
    assert curve[-1] < curve[0]
    assert len(curve) <= 25


def test_the_residual_is_left_out_where_nothing_is_to_be_learned():
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(12)
    features = torch.randn(36, 8, generator=rng, dtype=torch.float64)
    offset = 8 * torch.eye(3, dtype=torch.float64)[labels]
    residual, curve = choose_residual(
        features, labels, torch.ones(36, dtype=torch.float64), offset, CalibrationConfig(n_epochs=20)
    )
    assert residual is None
    assert curve == []


def test_a_heavy_penalty_keeps_the_residual_at_zero():
    labels = torch.tensor([0, 1])
    features = torch.eye(2, dtype=torch.float64)
    weights, offset = torch.ones(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    heavy, _ = train_residual(features, labels, weights, offset, 1e6, 50)
    light, _ = train_residual(features, labels, weights, offset, 1e-3, 50)
    assert heavy.abs().max() < 1e-5 < light.abs().max()


def test_a_fall_that_few_samples_make_is_not_clear():
    shares = torch.full((20,), 1 / 20, dtype=torch.float64)
    one_sample = torch.full((20,), -0.1, dtype=torch.float64)
    one_sample[0] = 5.0
    assert one_sample.mean() > 0
    assert not falls_clearly(one_sample, shares)
    assert falls_clearly(torch.linspace(0, 0.5, 20, dtype=torch.float64), shares)
    assert not falls_clearly(-torch.linspace(0, 0.5, 20, dtype=torch.float64), shares)


def test_a_fall_that_is_not_clear_keeps_no_residual(monkeypatch):
    rng = torch.Generator().manual_seed(1)
    features = F.normalize(torch.randn(40, 8, generator=rng, dtype=torch.float64))
    labels, weights = torch.arange(40) % 2, torch.ones(40, dtype=torch.float64)
    given = features, labels, weights, torch.zeros(40, 2, dtype=torch.float64), CalibrationConfig(n_epochs=20)
    assert choose_residual(*given)[0] is None
    monkeypatch.setattr(module, "falls_clearly", lambda *_: True)
    assert choose_residual(*given)[0] is not None


@pytest.mark.parametrize("seed", range(40))
def test_a_fall_is_clear_beyond_its_standard_error(seed):
    rng = np.random.default_rng(seed)
    falls, shares = rng.standard_normal(8) + 0.3, rng.dirichlet(np.ones(8))
    mean = shares @ falls
    clear = mean > np.sqrt(np.sum((shares * (falls - mean)) ** 2))
    assert falls_clearly(torch.as_tensor(falls), torch.as_tensor(shares)) == clear


def test_folds_and_whole_are_trained_with_the_penalty_of_one_sample(monkeypatch):
    given = []

    def train(*arguments):
        given.append(arguments[4])
        return train_residual(*arguments)

    monkeypatch.setattr(module, "train_residual", train)
    labels, weights = torch.arange(40) % 2, torch.ones(40, dtype=torch.float64)
    features = torch.nn.functional.one_hot(labels, 4).double()
    config = CalibrationConfig(n_epochs=20, residual_penalties=(1.0, 0.3))
    choose_residual(features, labels, weights, torch.zeros(40, 2, dtype=torch.float64), config)
    assert given == [1 / 40] * 4 + [0.3 / 40] * 5


@pytest.mark.parametrize("size", [1, 2, 4])
def test_copies_make_no_fall_clearer(size):
    falls = torch.full((20,), -0.1, dtype=torch.float64)
    falls[0] = 5.0
    copied = falls.repeat_interleave(size)
    shares = torch.full_like(copied, 1 / len(copied))
    assert not falls_clearly(copied, shares, np.arange(20).repeat(size))
