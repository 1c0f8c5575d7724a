"""Pure functions on tensors: the formulas of cross-modal retrieval, each in one place.

Notation of the field: ``f`` are L2-normalized image features (queries), ``F`` the cache keys, ``L`` the cache values
(one-hot labels times sample weights), ``T`` the text weights; n queries, N support samples, C classes, D dimensions.
XMAdapter is arXiv:2404.12588, Tip-Adapter (whose image cache it shares) arXiv:2111.03930.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "affinity",
    "cache_evidence",
    "class_log_evidence",
    "class_prior_log_likelihood",
    "class_prior_step",
    "fill_absent",
    "fuse",
    "fused_evidence",
    "hard_sample_weights",
    "hardness",
    "noisy_log_likelihood",
    "normalize",
    "open_set_score",
    "residual_logits",
    "shift_class_prior",
    "text_affinity",
    "wrong_label_posterior",
]

EPS = 1e-12
"""Lower bound of denominators; far below every length, mass or variance that means anything."""

EVIDENCE_FLOOR = 1e-8
"""Evidence that every class has, so that its logarithm is finite: the log of about −18 is below all real evidence."""

HELD_OUT = -1e9
"""Affinity of a key that must retrieve nothing: finite, because the gradient of sharpness times infinity is NaN."""

RULED_OUT = 100.0
"""Logits below the least of the others that are a probability of 0: e⁻¹⁰⁰ is no part of 1 in any precision."""


def normalize(x: Tensor, eps: float = EPS) -> Tensor:
    """Scale the rows of ``x`` (..., D) to unit length; rows shorter than `eps` become zeros instead of NaN."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps)


def normalize_blocks(x: Tensor, blocks: Sequence[int] | None) -> Tensor:
    """Scale rows (n, D) to unit length, of several encoders so that the part of each of B has length 1/√B.

    Parameters
    ----------
    x : Tensor of shape (n, D)
    blocks : sequence of int or None
        Widths of the encoders' parts; None for one encoder.
    """
    if blocks is None:
        return normalize(x)
    return torch.cat([normalize(part) for part in x.split(list(blocks), dim=1)], dim=1) * len(blocks) ** -0.5


def column_major(rows: Tensor) -> Tensor:
    """Lay rows (..., N, D) out column by column: few queries times their transpose then read memory as it lies."""
    return rows.mT.contiguous().mT


def affinity(queries: Tensor, keys: Tensor) -> Tensor:
    """Cosine affinity of each query to each key, ``A_img = f Fᵀ``.

    Parameters
    ----------
    queries : Tensor of shape (n, D), L2-normalized
    keys : Tensor of shape (N, D), L2-normalized

    Returns
    -------
    Tensor of shape (n, N), in [-1, 1]
    """
    return queries @ keys.T


def text_affinity(mapped_queries: Tensor, text_keys: Tensor, labels: Tensor) -> Tensor:
    """Affinity to the text cache, ``A_txt = Img2Txt(f) · (L · MetaNet(T))ᵀ``.

    The cache labels index the class rows, so the columns of one class are equal.

    Parameters
    ----------
    mapped_queries : Tensor of shape (n, d)
        ``Img2Txt(f)``, L2-normalized.
    text_keys : Tensor of shape (C, d)
        ``MetaNet(T)``, L2-normalized.
    labels : integer Tensor of shape (N,)

    Returns
    -------
    Tensor of shape (n, N)
    """
    return affinity(mapped_queries, text_keys)[:, labels]


def fuse(image_affinity: Tensor, text_affinity: Tensor, fusion_ratio: Tensor | float) -> Tensor:
    """``A = γ A_img + (1 − γ) A_txt``; both affinities (n, N), the fusion ratio γ in [0, 1]."""
    return fusion_ratio * image_affinity + (1 - fusion_ratio) * text_affinity


def modulate(affinities: Tensor, beta: Tensor | float, out: Tensor | None = None) -> Tensor:
    """Tip-Adapter's modulating function ``φ(A) = exp(−β (1 − A))``, the evidence of one key of weight 1.

    Parameters
    ----------
    affinities : Tensor of any shape
    beta : float
        Sharpness.
    out : Tensor of the same shape, optional
        Receives the result, and may be `affinities` itself; not differentiable then. The arrays of affinities are the
        largest that a prediction makes, so none is made twice.
    """
    if out is None:
        return torch.exp(beta * (affinities - 1))
    return torch.sub(affinities, 1, out=out).mul_(beta).exp_()


def cache_evidence(affinities: Tensor, values: Tensor, beta: Tensor | float) -> Tensor:
    """Evidence that the cache gives for each class, ``exp(−β (1 − A)) L``.

    Parameters
    ----------
    affinities : Tensor of shape (n, N)
        Entries of `HELD_OUT` retrieve nothing (see :func:`leave_self_out`).
    values : Tensor of shape (N, C)
    beta : float
        Sharpness.

    Returns
    -------
    Tensor of shape (n, C), non-negative
    """
    return modulate(affinities, beta) @ values


def one_hot_evidence(
    affinities: Tensor,
    labels: Tensor,
    weights: Tensor,
    n_classes: int,
    beta: Tensor | float,
    left_out: Tensor | None = None,
) -> Tensor:
    """:func:`cache_evidence` of values that are one-hot labels times weights, without the product with their zeros.

    Parameters
    ----------
    affinities : Tensor of shape (n, N)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    beta : float
    left_out : integer Tensor of shape (n,), optional
        The key that each query is itself, which gives no evidence.

    Returns
    -------
    Tensor of shape (n, C)
    """
    beta = _filled(beta, affinities)
    evidence: Tensor = _OneHotEvidence.apply(affinities, beta, labels, weights, n_classes, left_out)
    return evidence


def _filled(value: Tensor | float, like: Tensor) -> Tensor:
    """A scalar tensor like another; a number is written on the device and not copied to it."""
    return value.to(like) if isinstance(value, Tensor) else like.new_full((), value)


class _OneHotEvidence(torch.autograd.Function):
    """The evidence with its gradient in closed form: training makes two (n, N) arrays and no more."""

    @staticmethod
    def forward(
        ctx: Any,
        affinities: Tensor,
        beta: Tensor,
        labels: Tensor,
        weights: Tensor,
        n_classes: int,
        left_out: Tensor | None,
    ) -> Tensor:
        contributions = modulate(affinities, beta, out=torch.empty_like(affinities)).mul_(weights)
        if left_out is not None:
            contributions.scatter_(1, left_out[:, None], 0.0)
        ctx.save_for_backward(affinities, beta, labels, contributions)
        return sum_by_class(contributions, labels, n_classes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # with contribution e = v exp(β (A − 1)): ∂e/∂A = β e and ∂e/∂β = (A − 1) e
        affinities, beta, labels, contributions = ctx.saved_tensors
        grad = gradients[0].index_select(1, labels).mul_(contributions)
        grad_beta = (grad * affinities).sum() - grad.sum() if ctx.needs_input_grad[1] else None
        return grad.mul_(beta), grad_beta, None, None, None, None


def sum_by_class(contributions: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Sum the contributions (n, N) of the keys of each class, giving (n, C)."""
    if contributions.device.type == "cpu" and not torch.compiler.is_compiling():
        return contributions.new_zeros(len(contributions), n_classes).index_add_(1, labels, contributions)
    # index_add_ adds in no fixed order on other devices, so the same seed would not give the same bits; in a traced
    # graph a product is what every runtime has
    return contributions @ contributions.new_zeros(len(labels), n_classes).scatter_(1, labels[:, None], 1.0)


def fused_evidence(
    image: Tensor,
    text: Tensor,
    labels: Tensor,
    weights: Tensor,
    fusion_ratio: Tensor | float,
    beta: Tensor | float,
    left_out: Tensor | None = None,
) -> Tensor:
    """Evidence of the two caches, ``exp(−β (1 − γ A_img − (1 − γ) A_txt)) L``.

    Columns of ``A_txt`` are equal within a class, so the exponential splits into a sum over the images of the class
    and a gate of its text, and no (n, N) affinity to texts is made.

    Parameters
    ----------
    image : Tensor of shape (n, N)
    text : Tensor of shape (n, C)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    fusion_ratio, beta : float
    left_out : integer Tensor of shape (n,), optional
        The key that each query is itself, which gives no evidence.

    Returns
    -------
    Tensor of shape (n, C)
    """
    image_evidence = one_hot_evidence(image, labels, weights, text.shape[1], beta * fusion_ratio, left_out)
    return image_evidence * text_gate(text, fusion_ratio, beta)


def text_gate(text: Tensor, fusion_ratio: Tensor | float, beta: Tensor | float) -> Tensor:
    """Factor ``exp(−β (1 − γ) (1 − A_txt))`` (n, C) by which a class's text scales the evidence of its images."""
    return modulate(text, beta * (1 - fusion_ratio))


def residual_logits(zero_shot_logits: Tensor, evidence: Tensor, alpha: Tensor | float) -> Tensor:
    """``logit_scale · f Tᵀ + α · evidence``; both (n, C), alpha is the residual ratio."""
    return zero_shot_logits + alpha * evidence


def leave_self_out(affinities: Tensor, rows: Tensor) -> Tensor:
    """Hold keys out of the affinities (n, N) of some support samples: each itself, given by `rows` (n,), or (n, g)."""
    return affinities.scatter(1, rows if rows.ndim == 2 else rows[:, None], HELD_OUT)


def hardness(image_affinity: Tensor, text_affinity: Tensor, own: Tensor, labels: Tensor) -> Tensor:
    """Disagreement of the two modalities on the own class of each support sample.

    The mean of ``|A_img − A_txt|`` over the cache entries of the ground-truth class. Entries held out (see
    :func:`leave_self_out`) do not count; a sample without any other entry has hardness 0.

    Parameters
    ----------
    image_affinity : Tensor of shape (n, N)
    text_affinity : Tensor of shape (n, C)
    own : integer Tensor of shape (n,)
        Labels of the samples.
    labels : integer Tensor of shape (N,)
        Labels of the keys.

    Returns
    -------
    Tensor of shape (n,), non-negative
    """
    gap = (image_affinity - text_affinity.gather(1, own[:, None])).abs()
    counts = (own[:, None] == labels[None, :]) & (image_affinity > HELD_OUT)
    return torch.where(counts, gap, 0.0).sum(1) / counts.sum(1).clamp_min(1)


def standardized_gap(image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    """``|A_img − A_txt|`` of samples (n,) with their own class, both affinities (n, C) standardized.

    Each modality is centered at its mean over the classes of a sample and divided by its deviation over all entries,
    because the cosines of the two modalities have different means and spreads (the modality gap).
    """

    def own(a: Tensor) -> Tensor:
        centered = a.gather(1, labels[:, None])[:, 0] - a.mean(1)
        return centered / a.std(correction=0).clamp_min(EPS)

    return (own(image) - own(text)).abs()


def hard_sample_weights(hardness: Tensor, strength: float) -> Tensor:
    """Loss weights ``w_i = 1 + λ · h_i``, h scaled to [0, 1] over the samples, then w to mean 1.

    Parameters
    ----------
    hardness : Tensor of shape (N,)
    strength : float
        λ; 0 gives every sample the weight 1.
    """
    spread = hardness.max() - hardness.min()
    scaled = (hardness - hardness.min()) / spread.clamp_min(EPS)
    weights = 1 + strength * scaled
    return weights / weights.mean()


def class_log_evidence(cosines: Tensor, labels: Tensor, weights: Tensor, mass: Tensor, beta: float) -> Tensor:
    """Logarithm of the image-cache evidence averaged per class, ``log(mean exp(β (cos − 1)) + 1e-8)``.

    The mean, unlike the sum of :func:`cache_evidence`, does not favor the class with more shots.

    Parameters
    ----------
    cosines : Tensor of shape (n, N)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    mass : Tensor of shape (C,) or (n, C)
        Sum of the weights of each class's keys that take part.
    beta : float
    """
    return log_mean_evidence(one_hot_evidence(cosines, labels, weights, mass.shape[-1], beta), mass)


def log_mean_evidence(evidence: Tensor, mass: Tensor) -> Tensor:
    """``log(evidence / mass + 1e-8)`` (n, C) of evidence (n, C) summed over keys whose weights sum to `mass`."""
    return torch.log(evidence / mass.clamp_min(EPS) + EVIDENCE_FLOOR)


def fill_absent(scores: Tensor, present: Tensor | None, deviations: Tensor | float = 1.0) -> Tensor:
    """Give classes that an expert cannot score the row's mean plus some deviations over those that it scores.

    The mean alone would cost 8 points where half of the classes have no images and the text is good.

    Parameters
    ----------
    scores : Tensor of shape (..., C)
    present : bool Tensor broadcastable to `scores`, or None
        Without any False, and with None, the scores come back as they are; a row with nothing present becomes 0.
    deviations : float or Tensor broadcastable to `scores`
        Standard deviations of the row above its mean.
    """
    if present is None:
        return scores
    # it only saves time: a traced graph has no branches on data, and the caller would wait for those of a device
    if not torch.compiler.is_compiling() and present.device.type == "cpu" and bool(present.all()):
        return scores
    present = present.expand_as(scores)
    count = present.sum(-1, keepdim=True).clamp_min(1)
    seen = torch.where(present, scores, 0.0)
    mean = seen.sum(-1, keepdim=True) / count
    variance = (torch.where(present, scores - mean, 0.0) ** 2).sum(-1, keepdim=True) / count
    return torch.where(present, scores, mean + deviations * variance.sqrt())


def stretch_absent(scores: Tensor, present: Tensor, factor: Tensor | float) -> Tensor:
    """Move the scores of absent classes away from the row's mean over the classes that are present.

    Parameters
    ----------
    scores : Tensor of shape (..., C)
    present : bool Tensor broadcastable to `scores`
    factor : float or Tensor broadcastable to `scores`
        What the distance from the mean is multiplied by.
    """
    present = present.expand_as(scores)
    count = present.sum(-1, keepdim=True).clamp_min(1)
    mean = torch.where(present, scores, 0.0).sum(-1, keepdim=True) / count
    return torch.where(present, scores, mean + factor * (scores - mean))


def noisy_log_likelihood(log_probability: Tensor, noise_rate: Tensor | float, n_classes: int) -> Tensor:
    """``log((1 − ε) p + ε / C)``: the likelihood of a label that is wrong with probability ε, given log p."""
    noise_rate = _filled(noise_rate, log_probability)
    return torch.logaddexp(torch.log1p(-noise_rate) + log_probability, torch.log(noise_rate / n_classes))


def wrong_label_posterior(log_probability: Tensor, noise_rate: float, n_classes: int) -> Tensor:
    """Posterior of a wrong label, ``(ε/C) / ((1 − ε) p + ε/C)``, from the log-probability of the given label."""
    if noise_rate <= 0:
        return torch.zeros_like(log_probability)
    evidence = noisy_log_likelihood(log_probability, noise_rate, n_classes)
    return torch.exp(math.log(noise_rate / n_classes) - evidence)


def rule_out(logits: Tensor, unknown: Tensor | None) -> Tensor:
    """Give classes of which nothing is known, neither images nor text, a probability of 0.

    Their logits lie so far below the least of the others that no other probability changes, and stay finite.

    Parameters
    ----------
    logits : Tensor of shape (..., C)
    unknown : bool Tensor of shape (C,), or None
    """
    if unknown is None:
        return logits
    least = torch.where(unknown, torch.inf, logits).amin(-1, keepdim=True)
    return torch.where(unknown, least - RULED_OUT, logits)


def open_set_score(logits: Tensor) -> Tensor:
    """Out-of-distribution score of images: the free energy ``−log Σ_c exp(logit_c)`` of their logits (..., C)."""
    return -torch.logsumexp(logits, dim=-1)


def split_own_class(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Split logits (n, C) into the own class's entry (n,) and the log-sum-exp of the others (n,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -math.inf)
    return own, torch.logsumexp(others, dim=1)


def shift_class_prior(logits: Tensor, prior: Tensor, base: Tensor) -> Tensor:
    """Logits for other class frequencies, ``logit_c + log(π_c / b_c)``: Bayes' rule where only the frequencies differ.

    Parameters
    ----------
    logits : Tensor of shape (n, C)
    prior : Tensor of shape (C,)
        Class frequencies π of the images; a class of frequency 0 gets the logit −∞.
    base : Tensor of shape (C,), positive
        Class frequencies b for which the logits hold.
    """
    return logits + torch.log(prior / base)


def class_prior_log_likelihood(likelihoods: Tensor, prior: Tensor) -> Tensor:
    """``Σ_i log Σ_c π_c p(x_i | c)``, a scalar: how well class frequencies explain a batch of images.

    Parameters
    ----------
    likelihoods : Tensor of shape (n, C)
        ``p(x_i | c)``, up to a factor for each image: the classifier's probabilities over their base frequencies.
    prior : Tensor of shape (C,)
        Class frequencies π.
    """
    return torch.log(likelihoods @ prior).sum()


def class_prior_step(likelihoods: Tensor, prior: Tensor, pseudo_counts: Tensor) -> Tensor:
    """One step of expectation maximization for the class frequencies (C,) of a batch.

    ``π'_c ∝ a_c + Σ_i π_c p(x_i | c) / Σ_k π_k p(x_i | k)`` (Saerens, Latinne & Decaestecker, Neural Computation 14(1),
    2002, with a Dirichlet prior). It never lowers the concave `class_prior_log_likelihood` plus ``Σ_c a_c log π_c``.

    Parameters
    ----------
    likelihoods : Tensor of shape (n, C)
        As in :func:`class_prior_log_likelihood`.
    prior : Tensor of shape (C,), positive
        Class frequencies π so far.
    pseudo_counts : Tensor of shape (C,)
        Images a that each class is taken to have had before.
    """
    expected = prior * (likelihoods.T @ (likelihoods @ prior).reciprocal())
    return (expected + pseudo_counts) / (len(likelihoods) + pseudo_counts.sum())
