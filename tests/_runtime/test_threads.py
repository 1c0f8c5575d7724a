import numpy as np
import pytest
import torch
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma._runtime.threads import SMALL_WORK, _blas, blas_for, threads_for


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_is_done_on_one_thread_and_the_rest_gets_all_back(two_threads):
    with threads_for(1):
        assert torch.get_num_threads() == 1
    with threads_for(2 * SMALL_WORK):
        assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="halfway"), threads_for(1):
        raise RuntimeError("halfway")
    assert torch.get_num_threads() == 2


def test_a_small_fit_holds_the_blas_of_numpy_to_one_thread(monkeypatch):
    blas = _blas()
    if not blas.info():
        pytest.skip("numpy has no BLAS whose threads can be counted")
    with blas.limit(limits=2):
        counts = [library["num_threads"] for library in blas.info()]
        problem = make_problem(n_classes=3, shots=2)
        seen = []
        learn = XMAdapterClassifier._fit_task
        monkeypatch.setattr(
            XMAdapterClassifier, "_fit_task", lambda self, task: seen.append(blas.info()) or learn(self, task)
        )
        XMAdapterClassifier("precomputed").fit(problem.X, problem.y)
        assert {library["num_threads"] for library in seen[0]} == {1}
        assert [library["num_threads"] for library in blas.info()] == counts
        with blas_for(2 * SMALL_WORK):
            assert [library["num_threads"] for library in blas.info()] == counts


def test_the_number_of_threads_never_changes_a_prediction(two_threads):
    problem = make_problem(n_classes=10, shots=4, dim=64)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, vocabulary=problem.words)
    on_two = clf.fit(problem.X, problem.y).predict_proba(problem.X_test)
    torch.set_num_threads(1)
    np.testing.assert_array_equal(clf.fit(problem.X, problem.y).predict_proba(problem.X_test), on_two)
