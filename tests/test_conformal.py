"""Conformal p-values and sets as mathematics."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem
from scipy.stats import binom, norm

from skxma import XMAdapterClassifier
from skxma._statistics import (
    Calibration,
    frequency_ratio,
    full_p_value,
    kept_log_proba,
    nonconformity,
    own_nonconformity,
    prediction_sets,
    proved_coverage,
    samples_needed,
    simulated_nonconformity,
)

# ties between samples, between samples and new images, and classes that conform to nothing
tied_scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, np.inf]) | st.floats(0, 8, width=32), min_size=1)


@pytest.mark.property
@settings(deadline=None)
@given(tied_scores, tied_scores, st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4), st.booleans(), st.data())
def test_the_largest_scores_give_the_sets_of_the_p_values(samples, new, levels, simulated, data):
    n = len(samples)
    weights = np.array(data.draw(st.lists(st.sampled_from([0.5, 1.0, 1.7]), min_size=n, max_size=n)))
    # levels at which a p-value lies on the limit
    levels = [*levels, 1 - 1 / (1 + weights.sum()), 1 - (1 + weights[:1].sum()) / (1 + weights.sum())]
    found = calibration(samples, weights=weights)
    if simulated:
        found = replace(found, simulated=np.stack([samples, samples[::-1]], axis=1, dtype=np.float32))
    scores = np.array([*new, *samples])[:, None]
    sets = scores[:, :, None] <= found.largest_scores(levels)
    np.testing.assert_array_equal(sets, prediction_sets(found.p_values([scores]), levels))


def test_too_few_samples_leave_no_class_out():
    found = calibration(np.arange(30.0))
    assert found.largest_scores([0.99, 0.9]).tolist() == [np.inf, 27.0]


def calibration(scores, labels=None, weights=None, models=None):
    n = len(scores)
    zeros = np.zeros(n, dtype=np.intp)
    return Calibration(
        np.asarray(scores, dtype=float),
        zeros if labels is None else np.asarray(labels),
        np.ones(n) if weights is None else np.asarray(weights, dtype=float),
        zeros if models is None else np.asarray(models),
    )


def test_a_p_value_is_the_share_of_scores_at_least_as_large():
    p_values = calibration([1.0, 2.0, 2.0, 3.0]).p_values([np.array([[0.0, 2.0, 4.0, np.inf]])])
    np.testing.assert_allclose(p_values, [[1, 4 / 5, 1 / 5, 1 / 5]])


def test_weight_2_is_the_same_as_two_samples():
    heavy = calibration([1.0, 3.0], weights=[1, 2]).p_values([np.array([[2.0]])])
    np.testing.assert_allclose(heavy, calibration([1.0, 3.0, 3.0]).p_values([np.array([[2.0]])]))


def test_every_sample_is_compared_in_the_model_that_has_not_seen_it():
    of_models = calibration([1.0, 5.0], models=[0, 1])
    np.testing.assert_allclose(of_models.p_values([np.array([[2.0]]), np.array([[4.0]])]), [[2 / 3]])
    np.testing.assert_allclose(of_models.p_values([np.array([[0.5]]), np.array([[6.0]])]), [[2 / 3]])


def test_by_class_a_class_is_compared_with_its_own_samples():
    found = calibration([1.0, 2.0, 9.0], labels=[0, 0, 1]).p_values([np.array([[1.5, 1.5, 1.5]])], by_class=True)
    np.testing.assert_allclose(found, [[2 / 3, 1.0, 1.0]])


def test_scores_of_a_simulated_class_are_those_at_equally_likely_cosines():
    rng = np.random.default_rng(0)
    labels, logits = np.array([0, 2]), rng.normal(size=(2, 3))
    nodes = np.polynomial.hermite_e.hermegauss(5)[0]
    found = simulated_nonconformity(logits, np.array([[3.0] * 5, 2 * nodes]), labels)
    n = found.shape[1]
    replaced = np.repeat(logits[:, None], n, 1)
    replaced[0, :, 0], replaced[1, :, 2] = 3.0, 2 * norm.ppf((np.arange(n) + 0.5) / n)
    expected = own_nonconformity(replaced.reshape(-1, 3), np.repeat(labels, n)).reshape(2, n)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_equally_likely_scores_count_their_share():
    both = Calibration(np.zeros(2), np.array([0, 1]), np.ones(2), np.zeros(2, dtype=int), None,
                       np.array([[1.0, 3.0], [2.0, 2.0]]))  # fmt: skip
    np.testing.assert_allclose(both.p_values([np.array([[2.5, 1.5, 4.0]])]), [[1.5 / 3, 2.5 / 3, 1 / 3]])
    assert both.largest_scores([0.4]).tolist() == [2.0]
    assert full_p_value([[1.0, 3.0], [2.0, 2.0], [1.5, 2.5]], np.ones(3), 2) == pytest.approx(
        ((0.5 + 1 + 1) + (0.5 + 0 + 0.5)) / 2 / 3
    )


def label_shift(logits, labels, models, prior, base):
    """The calibration on left-out logits under a prior, and the ratio of frequencies."""
    log_proba = -nonconformity(logits)
    kept = Calibration(-log_proba[np.arange(len(labels)), labels], labels, np.ones(len(labels)), models,
                       kept_log_proba(log_proba))  # fmt: skip
    ratio = frequency_ratio(prior, labels, kept.weights)
    with np.errstate(divide="ignore"):
        return kept.at_frequencies(np.log(prior / base), ratio), ratio


@pytest.mark.property
@given(st.integers(0, 10**6))
def test_scores_under_a_prior_are_those_of_the_shifted_logits(seed):
    rng = np.random.default_rng(seed)
    labels, models = rng.integers(0, 4, 12), rng.integers(0, 2, 12)
    logits = rng.normal(0, 4, (12, 4))
    base, prior = rng.dirichlet(np.ones(4), 2), rng.dirichlet(np.ones(4)) * (rng.random(4) < 0.8)
    prior[labels[0]] += 0.1
    prior /= prior.sum()
    found, ratio = label_shift(logits, labels, models, prior, base)
    counted = prior[labels] > 0
    with np.errstate(divide="ignore"):
        expected = own_nonconformity((logits + np.log(prior / base)[models])[counted], labels[counted])
    # half precision: a probability p is kept to within p |log p| / 2000
    np.testing.assert_allclose(found.scores[counted], expected, rtol=0.02, atol=0.001)
    np.testing.assert_array_equal(found.weights > 0, counted)
    assert (found.scores >= 0).all()
    new = rng.exponential(size=(3, 4))
    at_least = (found.scores[:, None, None] >= new) * found.weights[:, None, None]
    weighted = (ratio + at_least.sum(0)) / np.maximum(ratio + found.weights.sum(), 1e-12)
    p_values = Calibration(found.scores, labels, found.weights, np.zeros(12, dtype=int)).p_values([new], False, ratio)
    np.testing.assert_allclose(p_values, np.where(prior > 0, weighted, 0))


def test_without_a_shift_the_scores_stay_as_they_are():
    rng = np.random.default_rng(0)
    labels, logits = np.repeat(np.arange(5), 4), rng.normal(0, 9, (20, 5))
    found, ratio = label_shift(logits, labels, np.zeros(20, dtype=int), np.full(5, 0.2), np.full((1, 5), 0.2))
    np.testing.assert_allclose(found.scores, own_nonconformity(logits, labels), atol=1e-12)
    np.testing.assert_allclose(ratio, 1)


@pytest.mark.property
def test_sets_under_a_prior_hold_where_others_fail():
    # of two classes the one whose images look like the other's becomes the frequent one
    rng = np.random.default_rng(0)
    level, labels, prior = 0.9, np.repeat([0, 1], 20), np.array([0.95, 0.05])
    hits = {"with": [], "without": []}
    for _ in range(400):
        new = (rng.random(20) > prior[0]).astype(int)
        logits, new_logits = (
            np.stack([np.zeros(len(y)), rng.normal(np.where(y == 0, 0.3, 3.0), 1.0)], 1) for y in (labels, new)
        )
        zeros = np.zeros(40, dtype=int)
        plain = calibration(own_nonconformity(logits, labels), labels).p_values([nonconformity(new_logits)])
        found, ratio = label_shift(logits, labels, zeros, prior, np.full((1, 2), 0.5))
        shifted = found.p_values([nonconformity(new_logits + np.log(2 * prior))], False, ratio)
        for name, p_values in (("without", plain), ("with", shifted)):
            hits[name].append(prediction_sets(p_values, [level])[np.arange(20), new, 0].mean())
    error = np.std(hits["with"]) / 20
    assert np.mean(hits["without"]) < level - 0.02
    assert level - 3 * error < np.mean(hits["with"])


@pytest.mark.property
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(1, 4), st.integers(0, 10**6))
def test_the_sets_are_those_of_cv_plus(scores, n_models, seed):
    rng = np.random.default_rng(seed)
    models = rng.integers(0, n_models, len(scores))
    new = [rng.choice([*scores, 0.3, 7.0], size=(3, 2)) for _ in range(n_models)]
    p_values = calibration(scores, models=models).p_values(new)
    for level in (0.5, 0.8, 0.9):
        sets = prediction_sets(p_values, [level])[:, :, 0]
        below = sum((np.asarray(s) < new[k]).astype(int) for s, k in zip(scores, models, strict=True))
        np.testing.assert_array_equal(sets, below < level * (len(scores) + 1) - 1e-6)


@pytest.mark.property
@given(st.integers(0, 10**6))
def test_sets_grow_with_the_level_and_hold_the_likeliest_class(seed):
    p_values = np.random.default_rng(seed).uniform(size=(5, 4))
    free, full = (prediction_sets(p_values, [0.3, 0.6, 0.9], likeliest) for likeliest in (None, p_values.argmax(1)))
    assert (free[:, :, :-1] <= free[:, :, 1:]).all()
    assert (free <= full).all()
    assert full[np.arange(5), p_values.argmax(1)].all()
    np.testing.assert_array_equal(full.sum(1), np.maximum(free.sum(1), 1))


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_a_level_needs_so_many_samples_to_leave_a_class_out(level, needed):
    assert samples_needed(level) == needed
    far = [np.array([[np.inf]])]
    assert not prediction_sets(calibration(np.zeros(needed)).p_values(far), [level]).any()
    assert prediction_sets(calibration(np.zeros(needed - 1)).p_values(far), [level]).all()


def test_the_bound_of_cross_conformal_sets():
    assert proved_coverage(0.9, 100, 5) == pytest.approx(0.8 - min(1.6 / 21, 0.95 / 6))
    assert proved_coverage(0.5, 10, 2) == 0.0


def test_nonconformity_orders_classes_as_their_probabilities():
    logits = np.array([[1.0, 3.0, -np.inf], [800.0, 0.0, 700.0]])
    np.testing.assert_array_equal(nonconformity(logits).argsort(1), [[1, 0, 2], [0, 2, 1]])
    np.testing.assert_allclose(own_nonconformity(logits, np.array([1, 1])), [np.log1p(np.exp(-2)), 800.0])


def distance_to_class_mean(X, labels):
    """Score of each sample by the mean of the others of its class; symmetric in the samples."""
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    return np.linalg.norm(X - (same @ X) / np.maximum(same.sum(1), 1)[:, None], axis=1)


@pytest.mark.property
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_full_conformal_prediction_is_exact_for_exchangeable_samples(level):
    # 9 labeled and a new one: both levels are multiples of 1/10, where coverage is exactly the level
    n_draws, n = 2000, 10
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (n_draws, n))
    X = rng.standard_normal((n_draws, n, 2)) + 2 * labels[:, :, None]
    hits = 0
    for samples, own in zip(X, labels, strict=True):
        hits += full_p_value(distance_to_class_mean(samples, own), np.ones(n), n - 1) > 1 - level + 1e-9
    low, high = binom.ppf([0.0005, 0.9995], n_draws, level)
    assert low <= hits <= high


@pytest.mark.parametrize("by_class", [False, True])
def test_p_values_of_a_split_are_those_of_crepes(by_class):
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(0)
    scores, labels = rng.exponential(size=90).round(1), rng.integers(0, 3, 90)
    new = rng.exponential(size=(40, 3)).round(1)
    reference = crepes.ConformalClassifier()
    if by_class:
        columns = []
        for c in range(3):
            reference.fit(scores[labels == c])
            columns.append(reference.predict_p(new[:, [c]], smoothing=False))
        expected = np.hstack(columns)
    else:
        expected = reference.fit(scores).predict_p(new, smoothing=False)
    np.testing.assert_allclose(calibration(scores, labels).p_values([new], by_class), expected)


def test_sets_of_a_split_are_those_of_mapie():
    mapie = pytest.importorskip("mapie.classification")
    problem = make_problem(n_classes=5, shots=8, n_test=40, noise=1.6, seed=1)
    learned = np.arange(len(problem.y)) % 8 < 4
    held = ~learned
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, vocabulary=None, random_state=0)
    clf.fit(problem.X[learned], problem.y[learned])
    levels = [0.5, 0.6, 0.75, 0.8, 0.9]
    reference = mapie.SplitConformalClassifier(clf, confidence_level=levels, conformity_score="lac", prefit=True)
    # MAPIE checks its X with scikit-learn's functions, which embeddings in float64 pass
    X_held, X_test = problem.X[held].astype(np.float64), problem.X_test.astype(np.float64)
    _, expected = reference.conformalize(X_held, problem.y[held]).predict_set(X_test)
    scores = own_nonconformity(clf.decision_function(X_held), problem.y[held])
    p_values = calibration(scores).p_values([nonconformity(clf.decision_function(X_test))])
    found = prediction_sets(p_values, levels)
    assert 1 < found.sum(1).mean() < 5
    np.testing.assert_array_equal(found, expected)
