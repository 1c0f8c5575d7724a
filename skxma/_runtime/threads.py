"""Threads: limits on their number, for work that is too small to gain from many, and work that is dealt to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

from skxma._runtime.forks import register_after_fork

SMALL_WORK = 1e9
T = TypeVar("T")
R = TypeVar("R")


class _ThreadLimit:
    """Number of current holders of a limit, and the setting from before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_holders = 0
        self.before: Any = None


_torch, _numpy = _ThreadLimit(), _ThreadLimit()


def torch_threads() -> int:
    """Return torch's number of threads, or that from before the limits that are held now.

    A thread that starts while another one holds a limit finds the limit, and not the number that it should have.
    """
    held = _torch
    with held.lock:
        return max(torch.get_num_threads(), held.before if held.n_holders else 1)


@contextmanager
def limit_torch_threads(work: float) -> Iterator[None]:
    """Limit torch to one thread for small work.

    On several threads, hundreds of small products wait for one another; on a busy machine a fit of half a second then
    took fifteen.

    Parameters
    ----------
    work : float
        Approximate number of multiplications.
    """
    before, held = torch.get_num_threads(), _torch
    if work > SMALL_WORK or (before == 1 and not held.n_holders):
        yield
        return
    with held.lock:
        if held.n_holders == 0:
            held.before = before
        held.n_holders += 1
        # the number is per thread, but a new thread starts with the one that any thread set last
        before = max(before, held.before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        # in a process that was forked meanwhile, the limit stays
        if held is _torch:
            torch.set_num_threads(before)
            with held.lock:
                held.n_holders -= 1


@contextmanager
def limit_blas_threads(work: float) -> Iterator[None]:
    """Limit the BLAS of numpy and scipy to one thread as well, for a fit.

    Its threads spin while they wait for the next product: the same fit used twice the processor time, and took several
    times as long on a busy machine. The limit applies to the process, so concurrent fits share it: the last of them
    restores the number that the first found.

    Parameters
    ----------
    work : float
        Approximate number of multiplications.
    """
    if work > SMALL_WORK:
        yield
        return
    held = _numpy
    with held.lock:
        if held.n_holders == 0:
            held.before = [library["num_threads"] for library in _blas().info()]
        held.n_holders += 1
        limit = _blas().limit(limits=1)
        limit.__enter__()
    try:
        yield
    finally:
        if held is _numpy:
            with held.lock:
                # this restores what the holder found, which may be the limit of another
                limit.__exit__(None, None, None)
                held.n_holders -= 1
                _set_blas(held.before if held.n_holders == 0 else [1] * len(held.before))


def _set_blas(numbers: Sequence[int]) -> None:
    """Set the number of threads of each BLAS library that keeps one number per process."""
    for library, number in zip(_blas().lib_controllers, numbers, strict=True):
        # OpenMP keeps a number per thread, which is right by now
        if getattr(library, "threading_layer", None) != "openmp":
            library.set_num_threads(number)
    # in threadpoolctl only one thread may set limits, until it has left a limit
    with _blas().limit(limits=None):
        pass


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """Return the BLAS libraries that are loaded; finding them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def _forget_holders() -> None:
    """Reset the holders in a forked process, where the threads that held limits do not exist."""
    global _torch, _numpy
    _torch, _numpy = _ThreadLimit(), _ThreadLimit()


register_after_fork(_forget_holders)


def start_in_thread(pool: ThreadPoolExecutor, function: Callable[[T], R], job: T) -> Future[R]:
    """Start a function in a pool's thread; returns its future.

    Once the main thread has ended, Python lets a pool start nothing more; a thread that outlives it does the work
    itself.
    """
    try:
        return pool.submit(function, job)
    except RuntimeError:
        done: Future[R] = Future()
        try:
            done.set_result(function(job))
        except Exception as error:  # as the pool's thread would have kept it
            done.set_exception(error)
        return done
