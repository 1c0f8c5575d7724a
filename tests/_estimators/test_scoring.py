import threading

import numpy as np
import pytest
import torch

from skxma._estimators import scoring
from skxma.caches import ImageCache


@pytest.fixture
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(scoring, "SMALL_WORK", 0)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rows():
    return np.eye(12, dtype=np.float32)


def scores(rows, scorer, monkeypatch):
    cache, _ = ImageCache.build(rows, np.arange(len(rows)), len(rows))
    # three queries to a piece, for each of two threads
    monkeypatch.setattr(scoring, "CHUNK_ENTRIES", 2 * 3 * len(rows))
    return scoring.score(rows, lambda like: scorer, torch.empty(0), cache, lambda like: 1)


def test_pieces_of_many_queries_are_scored_by_threads_and_come_back_in_order(two_threads, rows, monkeypatch):
    meeting = threading.Barrier(2, timeout=60)

    def scorer(piece):
        # nobody passes alone, and each thread has one thread of torch
        meeting.wait()
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
        return 2 * piece

    np.testing.assert_array_equal(scores(rows, scorer, monkeypatch), 2.0 * rows)
    assert torch.get_num_threads() == 2


def test_an_error_in_one_piece_is_the_callers(two_threads, rows, monkeypatch):
    def scorer(piece):
        if piece[0, 3]:
            raise ValueError("the second piece")
        return piece

    with pytest.raises(ValueError, match="the second piece"):
        scores(rows, scorer, monkeypatch)
    assert torch.get_num_threads() == 2
