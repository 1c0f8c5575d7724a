"""Read images in threads ahead of the model, with a bounded number in flight."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from skxma._runtime.threads import start_in_thread
from skxma.errors import ImageError

T = TypeVar("T")
R = TypeVar("R")


def prefetch(
    function: Callable[[T], R], jobs: Iterable[T], *, n_threads: int, window: int
) -> Iterator[tuple[T, "Future[R]"]]:
    """Yield each job with its future, in order, while the next ones run.

    Parameters
    ----------
    function : callable
        What to do with a job.
    jobs : iterable
        Consumed as fast as results are taken, `window` ahead of them: any number takes constant memory.
    n_threads : int
        How many run at once.
    window : int
        How many may be unfinished or not yet taken.

    Yields
    ------
    job : object
        From `jobs`.
    future : concurrent.futures.Future
        Its result, or the error that it raised.
    """
    pending: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="skxma") as pool:
        try:
            for job in jobs:
                pending.append((job, start_in_thread(pool, function, job)))
                if len(pending) >= window:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for _, future in pending:
                future.cancel()


def read_batches(
    read: Callable[[T], NDArray[np.uint8]],
    jobs: Iterable[T],
    *,
    batch_size: Callable[[], int],
    n_threads: int,
    overlap: bool,
    on_error: Callable[[T, ImageError], None],
) -> Iterator[tuple[list[T], NDArray[np.uint8]]]:
    """Yield stacks of images that were read ahead.

    Parameters
    ----------
    read : callable
        Turns a job into an array; all of one shape.
    jobs : iterable
        What to read.
    batch_size : callable
        Returns how many images to stack, asked before each one, for it may shrink on the way.
    n_threads : int
        How many read at once.
    overlap : bool
        Whether to read on while the caller works on a stack. Where the model runs on the processors that read, the two
        only hinder each other: the threads of a matrix product wait for the slowest of them.
    on_error : callable
        Called with a job that can't be read and its error; if it returns, the job is left out.

    Yields
    ------
    jobs : list of length b
        Those of the stack.
    pixels : ndarray of shape (b, ...)
        What `read` returned for them.
    """
    names: list[T] = []
    pixels: list[NDArray[np.uint8]] = []
    if overlap:
        finished = prefetch(read, jobs, n_threads=n_threads, window=batch_size() + 2 * n_threads)
    else:
        finished = _run_in_turns(read, jobs, n_threads=n_threads, batch_size=batch_size)
    for job, future in finished:
        try:
            pixels.append(future.result())
        except ImageError as error:
            on_error(job, error)
            continue
        names.append(job)
        if len(names) >= batch_size():
            yield names, np.stack(pixels)
            names, pixels = [], []
    if names:
        yield names, np.stack(pixels)


def _run_in_turns(
    function: Callable[[T], R], jobs: Iterable[T], *, n_threads: int, batch_size: Callable[[], int]
) -> Iterator[tuple[T, "Future[R]"]]:
    """Yield as `prefetch` does, but start no batch of jobs before the one before it was taken."""
    left = iter(jobs)
    while chunk := list(islice(left, batch_size())):
        yield from prefetch(function, chunk, n_threads=n_threads, window=len(chunk))
