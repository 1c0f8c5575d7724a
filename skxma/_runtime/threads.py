"""How many threads a piece of work is worth."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

from skxma._runtime.forks import register_after_fork

SMALL_WORK = 1e9


class _ThreadLimit:
    """How many hold a limit at the moment, and what it was before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n_holders = 0
        self.before: Any = None


_torch, _numpy = _ThreadLimit(), _ThreadLimit()


@contextmanager
def limit_torch_threads(work: float) -> Iterator[None]:
    """Compute on one thread what one thread does in a blink.

    Hundreds of small products on several threads wait for one another; on a machine that is busy with something else
    that made a fit of half a second last fifteen.

    Parameters
    ----------
    work : float
        Multiplications, roughly.
    """
    before, held = torch.get_num_threads(), _torch
    if work > SMALL_WORK or (before == 1 and not held.n_holders):
        yield
        return
    with held.lock:
        if held.n_holders == 0:
            held.before = before
        held.n_holders += 1
        # the number is a thread's own, but a new thread begins with the one that was set last, by whichever thread
        before = max(before, held.before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        # in a process that was forked meanwhile the limit stays
        if held is _torch:
            torch.set_num_threads(before)
            with held.lock:
                held.n_holders -= 1


@contextmanager
def limit_blas_threads(work: float) -> Iterator[None]:
    """Hold the BLAS of numpy and scipy to one thread as well, for a fit.

    Its threads wait for the next product by spinning: the same fit took twice the processor, and on a busy machine
    several times as long. The limit is the process's, so fits in several threads share it: the last of them brings back
    the number that the first found.

    Parameters
    ----------
    work : float
        Multiplications, roughly.
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
                # brings back what this holder found, which may be another's limit
                limit.__exit__(None, None, None)
                held.n_holders -= 1
                _set_blas(held.before if held.n_holders == 0 else [1] * len(held.before))


def _set_blas(numbers: Sequence[int]) -> None:
    """Set the number of threads of each BLAS library whose number is the process's."""
    for library, number in zip(_blas().lib_controllers, numbers, strict=True):
        # of OpenMP's it is the thread's own, and right by now
        if getattr(library, "threading_layer", None) != "openmp":
            library.set_num_threads(number)
    # in threadpoolctl only one thread may set limits, until it has left a limit
    with _blas().limit(limits=None):
        pass


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The BLAS libraries that are loaded; to look for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def _forget_holders() -> None:
    """Begin anew in a forked process, where the threads that held limits are not."""
    global _torch, _numpy
    _torch, _numpy = _ThreadLimit(), _ThreadLimit()


register_after_fork(_forget_holders)
