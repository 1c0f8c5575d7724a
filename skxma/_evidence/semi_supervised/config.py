"""Every setting of learning from a pool of unlabeled images."""

from __future__ import annotations

from dataclasses import dataclass, field

from skxma._evidence.calibrated.config import CalibrationConfig


@dataclass(frozen=True)
class PoolConfig:
    """Settings of a fit with a pool (docs/method.md, step 9); numbers without a unit are dimensionless.

    The priors were chosen on the feature sets of :class:`~skxma._evidence.calibrated.config.CalibrationConfig`, with
    pools of up to 1500 images.
    """

    shrinkage: float = 0.6
    """ρ of the pool's whitening: a share of the identity in the scatter within the classes."""

    n_rounds: int = 4
    """Rounds of expectation and maximization."""

    half_trust: float = 5.0
    """Pool images per class at which the pool's priors reach a quarter of their limits, ``s = (m / (m + 5))²``."""

    model_discount: float = 0.8
    """Share of the model's weight that goes as s reaches 1: its prior is ``1 − 0.8 s``."""

    prototype_prior: float = 2.0
    """Prior weight of the pool's cosine expert at s = 1, in logits per deviation of its scores."""

    gaussian_prior: float = 1.0
    """Prior weight of the pool's Gaussian expert at s = 1, in logits per deviation of its scores."""

    known_rejected: float = 0.1
    """Fraction of the labeled images whose open-set scores exceed θ, the score of even odds of being of a known
    class."""

    min_gain: float = 0.02
    """Relative decrease of the held-out loss from which on the pool is used."""

    n_folds: int = 4
    """Folds of labeled images that are held out to learn the weights."""

    n_folds_large: int = 2
    """Folds where fits are costly ..."""

    max_work: int = 2**27
    """... which they are above this N · D · C."""

    fold_rows: int = 2**14
    """Pool images of which a fold's fits read no more ..."""

    fold_rows_per_class: int = 64
    """... unless that were fewer than so many per class."""

    spread_rows: int = 4096
    """Pool images from which the deviations of the experts' scores are estimated."""

    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    """Shrinkages of the roots B, penalties, and limits of the minimizer, which the fit without a pool uses too."""


PoolWeights = tuple[float, float, float]
"""Weights of the model's logits, of the pool's cosine expert and of its Gaussian expert."""


def pool_prior_weights(per_class: float, config: PoolConfig) -> PoolWeights:
    """Prior weights of the model's logits and of the pool's two experts, given the pool images per class.

    With ``s = (m / (m + 5))²`` they are ``1 − 0.8 s``, ``2 s`` and ``s``: means of one or two images whose classes are
    guessed know less than the model that guessed, those of many know more.
    """
    s = (per_class / (per_class + config.half_trust)) ** 2
    return 1 - config.model_discount * s, config.prototype_prior * s, config.gaussian_prior * s
