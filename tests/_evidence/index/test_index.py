import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skxma import functional as F
from skxma._evidence.index.clustered import ClusteredIndex, build_index, classes_to_score
from skxma._evidence.index.clusters import cluster_keys
from skxma._evidence.index.config import IndexConfig
from skxma._evidence.index.exact import ExactIndex, KeyIndex, StackedKeys, class_blocks

seeds = st.integers(0, 2**32 - 1)


def draw_logits(seed):
    """Limits of logits, and two sets of logits between them; some limits are equal, some far apart."""
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 8))
    middle = rng.normal(0, rng.choice([0.5, 3, 30]), (4, n_classes))
    width = rng.exponential(rng.choice([0.01, 1, 20]), (4, n_classes)) * (rng.random((4, n_classes)) < 0.7)
    shares = rng.choice([0.0, 0.5, 1.0], (2, 4, n_classes))
    low, high = middle - width, middle + width
    return [torch.as_tensor(a) for a in (low, high, *(low + shares * (high - low)))]


@settings(max_examples=300, deadline=None)
@given(seeds, st.sampled_from([1e-3, 0.01, 0.1, 0.4]), st.booleans())
def test_what_is_not_read_moves_no_probability_by_more_than_the_tolerance(seed, tolerance, skip_if_certain):
    low, high, true, estimate = draw_logits(seed)
    read = classes_to_score(low, high, tolerance, skip_if_certain)
    answered = torch.where(read, true, estimate)
    gap = (torch.softmax(answered, 1) - torch.softmax(true, 1)).abs().max()
    assert float(gap) <= tolerance + 1e-12


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_where_the_only_possible_class_is_read_the_sum_of_all_is_near_too(seed):
    low, high, true, estimate = draw_logits(seed)
    answered = torch.where(classes_to_score(low, high, 0.01, skip_if_certain=False), true, estimate)
    gap = (torch.logsumexp(answered, 1) - torch.logsumexp(true, 1)).abs().max()
    assert float(gap) <= -np.log(1 - 0.01) + 1e-9


def test_nothing_is_read_where_the_limits_say_all():
    sure = torch.tensor([[0.0, 30.0, 0.0]])
    assert not classes_to_score(sure - 1, sure + 1, 0.01).any()
    assert classes_to_score(sure - 1, sure + 1, 0.01, skip_if_certain=False).tolist() == [[False, True, False]]
    assert classes_to_score(sure - 20, sure + 20, 0.01).all()


def make_keys(n=6000, n_classes=5, dim=24, seed=0, dtype=torch.float32):
    """Keys of classes that each have eight places, weights, and queries from the same places."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(n_classes, 8, dim, generator=generator, dtype=dtype)

    def draw(count):
        labels = torch.randint(n_classes, (count,), generator=generator)
        which = torch.randint(8, (count,), generator=generator)
        return F.normalize(places[labels, which] + torch.randn(count, dim, generator=generator, dtype=dtype)), labels

    keys, labels = draw(n)
    weights = 0.5 + torch.rand(n, generator=generator, dtype=dtype)
    return keys, labels, weights, draw(200)[0]


def by_formula(keys, labels, weights, n_classes, queries, beta):
    contributions = weights * torch.exp(beta * (queries @ keys.T - 1))
    return torch.stack([contributions[:, labels == c].sum(1) for c in range(n_classes)], 1)


@pytest.mark.parametrize("tile", [7, 1000, 2**21])
def test_tiles_add_up_to_the_formula(tile):
    keys, labels, weights, queries = make_keys(n=60, dtype=torch.float64)
    got = ExactIndex(keys, labels, weights, 5, IndexConfig(tile_entries=tile, tile_rows=6)).evidence(queries[:20], 3.0)
    torch.testing.assert_close(got, by_formula(keys, labels, weights, 5, queries[:20], 3.0))


@pytest.fixture
def read(monkeypatch):
    """How many contributions of keys were made at a time, from here on."""
    sizes = []
    contributions = KeyIndex._contributions

    def watch(self, *arguments):
        found = contributions(self, *arguments)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(KeyIndex, "_contributions", watch)
    return sizes


def test_no_array_is_as_large_as_all_cosines(read):
    keys, labels, weights, queries = make_keys()
    config = IndexConfig(tile_entries=4000)
    clusters = cluster_keys(keys, labels, 5, config)
    order = torch.as_tensor(clusters.order)
    clustered = ClusteredIndex(keys[order], labels[order], weights[order], 5, clusters, config)
    for made in (ExactIndex(keys, labels, weights, 5, config), clustered):
        read.clear()
        made.bounded_evidence(queries, 5.0, [torch.log])
        assert max(read) <= 4000
        assert read


def clustered_index(keys, labels, weights, n_classes=5):
    return build_index(keys, labels, weights, n_classes, cluster_keys(keys, labels, n_classes))


def test_clusters_hold_every_key_once_and_one_class_each():
    keys, labels, _, _ = make_keys()
    clusters = cluster_keys(keys, labels, 5)
    assert sorted(clusters.order) == list(range(6000))
    assert clusters.starts[0] == 0
    assert clusters.starts[-1] == 6000
    sizes = np.diff(clusters.starts)
    assert sizes.min() >= 1
    assert 64 <= sizes.mean() <= 256
    for start, stop in zip(clusters.starts, clusters.starts[1:], strict=False):
        assert len(set(labels[clusters.order[start:stop]].tolist())) == 1


def test_keys_of_a_cluster_are_nearer_to_each_other_than_to_the_class():
    keys, labels, weights, _ = make_keys()
    made = clustered_index(keys, labels, weights)
    within = [made.unit[a:b] @ made.unit[a:b].T for a, b in zip(made.starts, made.starts[1:], strict=False)]
    of_class = [keys[labels == c] @ keys[labels == c].T for c in range(5)]
    mean = [float(torch.cat([a.flatten() for a in arrays]).mean()) for arrays in (within, of_class)]
    assert mean[0] > mean[1] + 0.2


def test_a_class_without_keys_has_no_cluster():
    keys, labels, weights, queries = make_keys(n=300)
    made = clustered_index(keys, labels, weights, n_classes=7)
    assert set(made.class_of_cluster.tolist()) == set(range(5))
    estimate, doubt = made.estimate(queries, 4.0)
    assert not estimate[:, 5:].any()
    assert not doubt[:, 5:].any()


@pytest.mark.parametrize("beta", [2.0, 7.0, 9.0])
def test_the_evidence_lies_within_the_limits(beta):
    keys, labels, weights, queries = make_keys(n=20_000, dtype=torch.float64)
    made = clustered_index(keys, labels, weights)
    estimate, doubt = made.estimate(queries, beta)
    truth = ExactIndex(keys, labels, weights, 5).evidence(queries, beta)
    outside = (truth - estimate).abs() > IndexConfig().n_standard_errors * doubt + 1e-12
    assert float(outside.double().mean()) <= 0.001
    assert (doubt > 0).any()


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("beta", [5.0, 7.0, 9.0])
def test_probabilities_are_within_the_tolerance(beta, scale):
    made, logits, queries = make_logits(20_000, scale)
    truth = torch.softmax(logits(made.evidence(queries, beta)), 1)
    answer = torch.softmax(logits(made.bounded_evidence(queries, beta, [logits])), 1)
    assert float((answer - truth).abs().max()) <= IndexConfig().tolerance


def test_few_keys_are_read_where_the_answer_is_clear(read):
    made, logits, queries = make_logits(60_000, 20.0)
    read.clear()
    made.bounded_evidence(queries, 10.0, [logits])
    assert sum(read) < 0.3 * len(queries) * 60_000


def make_logits(n, scale):
    """Clustered keys, what makes logits of their evidence, and queries."""
    keys, labels, weights, queries = make_keys(n=n)
    mass = torch.zeros(5).index_add(0, labels, weights)
    others = torch.randn(len(queries), 5, generator=torch.Generator().manual_seed(1))
    return clustered_index(keys, labels, weights), lambda e: others + scale * F.log_mean_evidence(e, mass), queries


def test_an_image_that_is_a_key_finds_itself():
    keys, labels, weights, _ = make_keys(n=20_000)
    mass = torch.zeros(5).index_add(0, labels, weights)
    made = clustered_index(keys, labels, weights)
    queries = F.normalize(keys[::50] + 0.02 * torch.randn(400, 24, generator=torch.Generator().manual_seed(2)))

    def logits(evidence):
        return 2 * F.log_mean_evidence(evidence, mass)

    beta = 40.0  # so sharp that one key outweighs all others
    truth = torch.softmax(logits(made.evidence(queries, beta)), 1)
    answer = torch.softmax(logits(made.bounded_evidence(queries, beta, [logits])), 1)
    assert float((truth.argmax(1) == labels[::50]).double().mean()) > 0.95
    assert float((answer - truth).abs().max()) <= IndexConfig().tolerance


def test_few_keys_are_read_as_a_whole():
    keys, labels, weights, queries = make_keys(n=100)
    made = clustered_index(keys, labels, weights)
    estimate, doubt = made.estimate(queries, 5.0)
    torch.testing.assert_close(estimate, made.evidence(queries, 5.0))
    assert not doubt.any()


def test_cosines_come_in_the_order_of_the_cache():
    keys, labels, weights, queries = make_keys(n=500)
    made = clustered_index(keys, labels, weights)
    assert isinstance(made, ClusteredIndex)
    torch.testing.assert_close(made.cosines(queries), queries @ keys.T)


def test_clusters_are_the_same_each_time():
    keys, labels, _, _ = make_keys()
    a, b = cluster_keys(keys, labels, 5), cluster_keys(keys, labels, 5)
    np.testing.assert_array_equal(a.order, b.order)
    np.testing.assert_array_equal(a.starts, b.starts)


@pytest.fixture(scope="module", params=[1, 2])
def n_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), seeds, st.sampled_from([3, 50, 2**21]))
def test_classes_of_any_size_add_up_to_the_formula(n_threads, counts, seed, tile):
    rng = np.random.default_rng(seed)
    labels = torch.as_tensor(rng.permutation(np.repeat(np.arange(len(counts)), counts)))
    keys = F.normalize(torch.as_tensor(rng.standard_normal((len(labels), 6))))
    # a key that is set aside has weight 0
    weights = torch.as_tensor(rng.choice([0.0, 0.5, 2.0], len(labels)))
    queries = F.normalize(torch.as_tensor(rng.standard_normal((5, 6))))
    config = IndexConfig(tile_entries=tile, tile_rows=2, block_classes=4)
    made = ExactIndex(keys, labels, weights, len(counts), config)
    wanted = by_formula(keys, labels, weights, len(counts), queries, 3.0)
    torch.testing.assert_close(made.evidence(queries, 3.0), wanted)
    for row, truth in zip(queries, wanted, strict=True):
        torch.testing.assert_close(made.evidence(row[None], 3.0)[0], truth)
    assert made.evidence(queries[:0], 3.0).shape == (0, len(counts))
    torch.testing.assert_close(made.keys, keys)
    torch.testing.assert_close(made.cosines(queries), queries @ keys.T)
    assert len(made.unit) <= (1 + config.padding) * len(keys)


@pytest.mark.parametrize("n_keys", [1, 7, 60, 64])
def test_threads_that_share_the_keys_find_the_same_contributions(n_threads, n_keys):
    keys, labels, weights, queries = make_keys(n=n_keys, dtype=torch.float64)
    wanted = weights * torch.exp(3.0 * (queries[:5] @ keys.T - 1))
    for few in (0, 4, 5):
        index = KeyIndex(keys, labels, weights, 5, IndexConfig(few_queries=few))
        torch.testing.assert_close(index._contributions(queries[:5], slice(None), 3.0), wanted)


def test_stacked_keys_of_several_metrics_give_the_evidence_of_each():
    keys, _, weights, queries = make_keys(n=60, dtype=torch.float64)
    labels = torch.arange(60) % 5
    weights[3] = 0.0
    metrics, betas = (keys, keys.flip(1)), [3.0, 8.0]
    indices = [ExactIndex(unit, labels, weights, 5) for unit in metrics]
    unit = torch.stack([queries, queries.roll(1, 1)])
    wanted = [index.evidence(rows, beta) for index, rows, beta in zip(indices, unit, betas, strict=True)]
    torch.testing.assert_close(StackedKeys.of(indices, betas).evidence(unit), torch.stack(wanted))
    few = IndexConfig(stacked_entries=keys.numel())
    assert StackedKeys.of([ExactIndex(unit, labels, weights, 5, few) for unit in metrics], betas) is None


def test_a_few_large_classes_do_not_fill_up_the_small_ones():
    counts = np.array([1000, 1, 1, 500, 2, 1])
    order, blocks = class_blocks(counts, IndexConfig())
    assert order.tolist() == [0, 3, 4, 1, 2, 5]
    assert [(block.n_shots, block.n_classes) for block in blocks] == [(1000, 1), (500, 1), (2, 1), (1, 3)]
