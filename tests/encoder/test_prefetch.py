import threading
import time
from itertools import count

import numpy as np
import pytest

from skxma.encoder._prefetch import prefetch, read_batches
from skxma.errors import ImageError


class Reader:
    """Reads a number as an array of it; remembers how far reading ran ahead of what was taken."""

    def __init__(self, bad=()):
        self.bad = set(bad)
        self.started = 0
        self.taken = 0
        self.most_ahead = 0
        self.lock = threading.Lock()

    def __call__(self, job):
        with self.lock:
            self.started += 1
            self.most_ahead = max(self.most_ahead, self.started - self.taken)
        time.sleep(0.001 * (job % 3))
        if job in self.bad:
            raise ImageError(f"image {job}")
        return np.full((2, 2), job % 256, dtype=np.uint8)


def collect(reader, jobs, *, size=4, n_threads=3, overlap=True, on_error=None):
    batches = []
    stream = read_batches(
        reader, jobs, batch_size=lambda: size, n_threads=n_threads, overlap=overlap, on_error=on_error
    )
    for names, pixels in stream:
        reader.taken += len(names)
        batches.append((names, pixels))
    return batches


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(("n_jobs", "size"), [(0, 4), (1, 4), (4, 4), (11, 4), (11, 1), (3, 50)])
def test_batches_come_in_order_and_full(overlap, n_jobs, size):
    batches = collect(Reader(), range(n_jobs), size=size, overlap=overlap)
    assert [name for names, _ in batches for name in names] == list(range(n_jobs))
    assert all(len(names) == size for names, _ in batches[:-1])
    for names, pixels in batches:
        np.testing.assert_array_equal(pixels[:, 0, 0], names)


def test_reading_ahead_is_bounded_whatever_the_number_of_jobs():
    reader = Reader()
    collect(reader, range(300), size=4, n_threads=3)
    # those that wait, those of the stack that is being made, and the one that was just taken
    assert reader.most_ahead <= (4 + 2 * 3) + 4


def test_without_overlap_nothing_is_read_while_the_caller_works():
    reader = Reader()
    stream = read_batches(reader, range(20), batch_size=lambda: 4, n_threads=3, overlap=False, on_error=None)
    for i, _ in enumerate(stream):
        time.sleep(0.01)
        assert reader.started == 4 * (i + 1)


def test_with_overlap_reading_goes_on_while_the_caller_works():
    reader = Reader()
    stream = read_batches(reader, range(20), batch_size=lambda: 4, n_threads=3, overlap=True, on_error=None)
    next(stream)
    deadline = time.monotonic() + 5
    while reader.started <= 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert reader.started > 8


@pytest.mark.parametrize("overlap", [True, False])
def test_unreadable_jobs_are_reported_and_left_out(overlap):
    failed = []
    batches = collect(
        Reader(bad=[2, 9]), range(10), overlap=overlap, on_error=lambda job, error: failed.append((job, str(error)))
    )
    assert failed == [(2, "image 2"), (9, "image 9")]
    assert [names for names, _ in batches] == [[0, 1, 3, 4], [5, 6, 7, 8]]


def test_a_batch_may_shrink_on_the_way():
    sizes = iter([4] * 6)
    stream = read_batches(
        Reader(), range(8), batch_size=lambda: next(sizes, 2), n_threads=2, overlap=True, on_error=None
    )
    assert [len(names) for names, _ in stream] == [4, 2, 2]


def test_leaving_early_starts_no_more_jobs():
    reader = Reader()
    stream = prefetch(reader, count(), n_threads=2, window=6)
    job, future = next(stream)
    assert (job, future.result()[0, 0]) == (0, 0)
    stream.close()
    started = reader.started
    assert started <= 7
    time.sleep(0.02)
    assert reader.started == started
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("skxma")]
