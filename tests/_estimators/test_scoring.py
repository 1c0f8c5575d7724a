import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skxma._estimators import scoring
from skxma._runtime import threads
from skxma.caches import ImageCache


@pytest.fixture
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    # the limit of small work would set one thread too
    monkeypatch.setattr(scoring, "SMALL_WORK", 0)
    monkeypatch.setattr(threads, "SMALL_WORK", 0)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rows():
    return np.eye(12, dtype=np.float32)


def scores(rows, scorer, rows_per_thread=3):
    cache, _ = ImageCache.build(rows, np.arange(len(rows)), len(rows))
    like = torch.empty(0)
    return scoring.score(rows, lambda like: scorer, like, cache, lambda like: scoring.Chunking(1, rows_per_thread))


def test_chunks_of_many_queries_are_scored_by_threads_and_come_back_in_order(two_threads, rows):
    meeting = threading.Barrier(2, timeout=60)

    def scorer(chunk):
        # nobody passes alone, and each thread has one thread of torch
        meeting.wait()
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
        return 2 * chunk

    np.testing.assert_array_equal(scores(rows, scorer), 2.0 * rows)
    assert torch.get_num_threads() == 2


def test_an_error_in_one_chunk_is_the_callers(two_threads, rows):
    def scorer(chunk):
        if chunk[0, 3]:
            raise ValueError("the second chunk")
        return chunk

    with pytest.raises(ValueError, match="the second chunk"):
        scores(rows, scorer)
    assert torch.get_num_threads() == 2


def test_no_thread_goes_without_a_chunk(two_threads, rows):
    sizes = []

    def scorer(chunk):
        sizes.append(len(chunk))
        return chunk

    scores(rows, scorer, rows_per_thread=10)
    assert sizes == [6, 6]


def test_torch_shares_a_chunk_among_its_threads_unless_told_how_many_rows_a_thread_takes(two_threads, rows):
    seen = []

    def scorer(chunk):
        seen.append((len(chunk), torch.get_num_threads()))
        return chunk

    scores(rows, scorer, rows_per_thread=None)
    assert seen == [(12, 2)]


@pytest.mark.parametrize(("entries", "n_threads"), [(12 * 12, 2), (12 * 12 + 1, 1)])
def test_all_threads_read_large_keys_for_one_query(two_threads, rows, monkeypatch, entries, n_threads):
    monkeypatch.setattr(scoring, "SMALL_WORK", 1e9)
    monkeypatch.setattr(threads, "SMALL_WORK", 1e9)
    monkeypatch.setattr(scoring, "LARGE_KEYS", entries)
    seen = []

    def scorer(chunk):
        seen.append((len(chunk), torch.get_num_threads()))
        return chunk

    scores(rows, scorer, rows_per_thread=12)
    assert seen == [(12, n_threads)]


def test_a_thread_that_starts_meanwhile_gets_all_threads(two_threads, rows):
    found = []

    def scorer(chunk):
        if not found:
            found.append(None)
            other = threading.Thread(target=lambda: found.append(threads.torch_threads()))
            other.start()
            other.join(60)
        return chunk

    scores(rows, scorer)
    assert found == [None, 2]


@pytest.mark.parametrize(
    ("n_clusters", "device", "wanted"),
    [(0, "cpu", (0, scoring.ROWS_PER_THREAD)), (0, "meta", (0, None)), (400, "cpu", (100, None))],
)
def test_chunks_are_dealt_to_threads_where_a_processor_reads_all_keys(n_clusters, device, wanted):
    scorer = SimpleNamespace(index=SimpleNamespace(n_clusters=n_clusters))
    model = SimpleNamespace(scorer=lambda like: scorer)
    found = scoring.Chunking.of(model, torch.empty(0, device=device))
    assert (found.width, found.rows_per_thread) == wanted


OUTLIVES = """
import threading
import time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import torch
from skxma import XMAdapterClassifier
from skxma._estimators import scoring
from skxma._runtime import threads
from skxma.encoder._prefetch import prefetch

torch.set_num_threads(2)
scoring.SMALL_WORK = threads.SMALL_WORK = 0
X = np.random.default_rng(0).standard_normal((12, 8))
clf = XMAdapterClassifier("precomputed").fit(X, [0, 1, 2] * 4)
expected = clf.predict_proba(X)

def outlive():
    threading.main_thread().join()
    with ThreadPoolExecutor(1) as pool:
        try:
            while True:
                pool.submit(int)
                time.sleep(0.01)
        except RuntimeError:
            # from now on no pool takes work
            np.testing.assert_array_equal(clf.predict_proba(X), expected)
            read = [future.result() for _, future in prefetch(abs, [-1, -2, -3], n_threads=2, window=2)]
            assert read == [1, 2, 3]
            print("predicted and read")

threading.Thread(target=outlive).start()
"""


@pytest.mark.fault
def test_a_thread_that_outlives_the_main_thread_predicts_and_reads_as_before():
    done = subprocess.run([sys.executable, "-c", OUTLIVES], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("predicted and read\n", "")
