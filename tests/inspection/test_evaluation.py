from statistics import NormalDist

import numpy as np
import pytest

from skxma.inspection._confusion import draw_confusion
from skxma.inspection._evaluation import evaluation, wilson

CLASSES = ["a", "b", "c"]
Y = ["a", "a", "a", "b", "b"]
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.3, 0.5, 0.2]])


def test_figures_by_hand():
    found = evaluation(Y, ["a", "a", "b", "b", "b"], PROBABILITIES, CLASSES)
    assert (found.accuracy.n_right, found.accuracy.n, found.accuracy.value) == (4, 5, 0.8)
    assert found.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert found.n_images.tolist() == [3, 2, 0]
    np.testing.assert_allclose(found.recall, [2 / 3, 1, np.nan])
    np.testing.assert_allclose(found.precision, [1, 2 / 3, np.nan])
    assert found.log_loss == pytest.approx(-np.mean(np.log([0.8, 0.6, 0.2, 0.9, 0.5])))
    assert found.met.tolist() == [True, True, False]


def test_a_refusal_is_an_answer_of_its_own_and_wrong():
    found = evaluation(Y, ["a", "none", "b", "b", "b"], PROBABILITIES, CLASSES)
    assert found.labels.tolist() == ["a", "b", "c", "none"]
    assert found.confusion[0].tolist() == [1, 1, 0, 1]
    assert found.accuracy.n_right == 3
    assert found.met.tolist() == [True, True, False, True]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (3, 7), (10, 10), (870, 1000)])
def test_the_interval_holds_the_shares_that_the_score_test_accepts(n_right, n, level):
    found = wilson(n_right, n, level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    for end in (found.low, found.high):
        # an end is a root of the score test's equation, but for those at 0 and 1
        assert (end - found.value) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_known_interval():
    # Newcombe (1998), table I, method 3: 81 of 263 at 95 %
    found = wilson(81, 263, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_no_trials_have_no_share():
    assert np.isnan([wilson(0, 0).value, wilson(0, 0).low, wilson(0, 0).high]).all()


@pytest.mark.parametrize("m", [2, 60, 150])
def test_matrices_of_any_size_are_drawn(tmp_path, m):
    path = tmp_path / "c.png"
    draw_confusion(np.eye(m, dtype=np.int64), np.arange(m), path, title="accuracy")
    assert path.read_bytes().startswith(b"\x89PNG")
