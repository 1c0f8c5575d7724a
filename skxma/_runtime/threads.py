"""How many threads a piece of work is worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

SMALL_WORK = 1e9


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Compute on one thread what one thread does in a blink.

    Hundreds of small products on several threads wait for one another; on a machine that is busy with something else
    that made a fit of half a second last fifteen.

    Parameters
    ----------
    work : float
        Multiplications, roughly.
    """
    before = torch.get_num_threads()
    if work > SMALL_WORK or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def blas_for(work: float) -> Iterator[None]:
    """Hold the BLAS of numpy and scipy to one thread as well, for a fit.

    Its threads wait for the next product by spinning: the same fit took twice the processor, and on a busy machine
    several times as long.

    Parameters
    ----------
    work : float
        Multiplications, roughly.
    """
    if work > SMALL_WORK:
        yield
        return
    with _blas().limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The BLAS libraries that are loaded; to look for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")
