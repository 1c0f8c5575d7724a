"""Settings of the calibrated evidence, and the state that a warm start needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skxma._calibrated.metric import (
    SHRINKAGES,
)
from skxma._calibrated.model import CalibratedCache

MEMBERS = 6
MIN_SHOTS_TO_DROP = 3.0


@dataclass(frozen=True)
class Start:
    """The solution of an earlier fit: weights over their priors (J,) in each metric that it chose; its noise rate."""

    relative: dict[tuple[str, float | None], NDArray[np.float64]]
    noise_rate: float

    @classmethod
    def of(cls, model: CalibratedCache, noise_rate: float) -> Start:
        """From a fitted model."""
        return cls({member.choice: member.weights / member.prior for member in model.members}, noise_rate)


@dataclass(frozen=True)
class Settings:
    """What a caller fixes of a calibrated fit; None is learned.

    The last four are for ablations: no sample is ever dropped, `shrinkages` of ``(1.0,)`` whiten nothing, one member
    is the best metric alone, and without leaving out a sample retrieves itself.

    `n_epochs` bounds the training of the residual, 0 leaves it out. With a `start` only the metrics are tried which
    that fit chose, from its weights on in each.
    """

    alpha: float | None = None
    beta: float | None = None
    fusion_ratio: float | None = None
    logit_scale: float = 100.0
    hard_sample_weight: float = 0.0
    n_epochs: int = 0
    drop_wrong_labels: bool = True
    shrinkages: tuple[float, ...] = SHRINKAGES
    members: int = MEMBERS
    leave_one_out: bool = True
    start: Start | None = None
