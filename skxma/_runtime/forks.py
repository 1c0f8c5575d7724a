"""Forked processes: reset the inherited state that they cannot use."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def register_after_fork(renew: Callable[[], None]) -> None:
    """Call a function in every process that is forked from this one, before anything else runs there.

    A lock that another thread held stays locked in the child, where that thread does not exist.

    Parameters
    ----------
    renew : callable
        Recreates locks and counters.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def _hold_torch_to_one_thread() -> None:
    """Use one thread: GNU OpenMP waits forever for threads that were not forked with the calling one."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


register_after_fork(_hold_torch_to_one_thread)
