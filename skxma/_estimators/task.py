"""The few-shot problem that an estimator hands to the mathematics."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from skxma._runtime.callbacks import FitTask
from skxma._semi_supervised.pool import Pool
from skxma.caches import ImageCache


@dataclass(frozen=True)
class Task:
    """A few-shot problem, ready for the mathematics.

    Attributes
    ----------
    cache : ImageCache
        The support set.
    text : Tensor of shape (C, D) or None
        L2-normalised class text features; zero rows for classes without text, None where no class has any.
    logit_scale : float
        The encoder's.
    device : torch.device
    dtype : torch.dtype
    watched : FitTask
        What callbacks are told of the learning.
    pool : Pool or None
        Pictures without labels.
    """

    cache: ImageCache
    text: Tensor | None
    logit_scale: float
    device: torch.device
    dtype: torch.dtype
    watched: FitTask = field(default_factory=FitTask)
    pool: Pool | None = None

    @property
    def like(self) -> Tensor:
        """An empty tensor on the device and in the precision of the task."""
        return torch.empty(0, device=self.device, dtype=self.dtype)
