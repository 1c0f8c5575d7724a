"""A process that was forked from one that computes: what it inherits and cannot use."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def register_after_fork(renew: Callable[[], None]) -> None:
    """Have a function called in every process that is forked from this one, before it goes on.

    A lock that another thread held stays locked in the child, where that thread is not.

    Parameters
    ----------
    renew : callable
        Makes locks and counts anew.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def _hold_torch_to_one_thread() -> None:
    """Do without OpenMP's threads: GNU's waits for ever for those that were not forked with the one that calls."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


register_after_fork(_hold_torch_to_one_thread)
