"""Every setting of the paper's form."""

from __future__ import annotations

from dataclasses import dataclass, field

from skxma._statistics import SingletonPrior


@dataclass(frozen=True)
class PaperConfig:
    """Settings of a fit of the paper's form; numbers without a unit are dimensionless.

    The first group are the caller's: None for alpha, beta or the fusion ratio is learned. arXiv:2404.12588 states
    neither width nor depth of its nets nor how they are trained; where that is our reading it is said so.
    """

    alpha: float | None = None
    """Residual ratio: logits per unit of evidence."""

    beta: float | None = None
    """Sharpness, per unit of affinity."""

    fusion_ratio: float | None = None
    """Weight γ of the image affinity against the text affinity, from 0 to 1."""

    logit_scale: float = 100.0
    """Logits per unit of zero-shot cosine: CLIP's own learned temperature, which the encoder reports."""

    hard_sample_weight: float = 0.0
    """λ of the loss weights ``1 + λ h``; how h is normalized is our reading."""

    text_dim: int | None = None
    """Width d of the text cache, to which linear nets map; None keeps that of the embeddings, with a hidden layer."""

    n_epochs: int = 20
    """Passes over the support set, as in Tip-Adapter-F; 0 trains nothing."""

    learning_rate: float = 1e-3
    """Learning rate of the keys and the ratio, as in Tip-Adapter-F; cosine decay to 0."""

    weight_decay: float = 1e-2
    """Weight decay of AdamW: torch's default."""

    batch_size: int = 256
    """Samples of a step, as in Tip-Adapter-F."""

    seed: int = 0
    """Seed of the nets' first weights and of the batches."""

    alpha_prior: float = 1.0
    """Start and prior of alpha: Tip-Adapter's default."""

    beta_prior: float = 5.5
    """Start and prior of beta: Tip-Adapter's default."""

    scalar_penalty: float = 0.04
    """Pull of alpha, beta and the ratio to their priors, in nats of the mean loss (our reading)."""

    scalar_starts: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0), (3.0, 0.0, 1.5))
    """Starts (log alpha, log beta, logit ratio, less their priors) of the search for the scalars: a strong and a weak
    cache are minima of their own."""

    scalar_bound: float = 7.0
    """Bound of these coordinates in both directions: a factor of 1100."""

    max_double_pairs: int = 2**24
    """Affinities (n · n) up to which the scalars are learned in double precision. In single precision the search stops
    where the losses' rounding does, thousandths from the minimum."""

    max_scores: int = 2**22
    """Evidence entries (N · C) above which the scalars are learned on an equal part of each class."""

    max_pairs: int = 2**26
    """Affinities (n · N) above which they are."""

    adam_eps: float = 1e-4
    """Term in the denominator of AdamW, as in Tip-Adapter-F."""

    net_learning_rate_factor: float = 10.0
    """Learning rate of the nets relative to the keys'; with 1, two shots of weak text lose three points."""

    net_narrowing: int = 64
    """The hidden layer has D / 64 units where the nets have one (our reading), so that an epoch costs little more than
    the keys'."""

    singleton: SingletonPrior = field(default_factory=SingletonPrior)
    """Prior of the affinity of an image to the only other one of its class."""
