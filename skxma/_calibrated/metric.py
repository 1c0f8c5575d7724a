"""The cross-modal metric: where words differ, pictures of different things differ.

An embedding f becomes ``(f − mean) B P``. B is shaped by the covariance of a vocabulary's text embeddings, P whitens
the scatter within the support classes. Leaving a sample out changes P by a rank-one term, which has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skxma._statistics import ALONE, class_means, spread, weighted_mean
from skxma.functional import EPS, leave_self_out

VOCABULARY_SHRINKAGE = 0.01
TEXT_SHRINKAGE = 0.1
LEAST_ALIGNMENT = 1.3
SHRINKAGES = (0.1, 0.3, 0.6, 0.9, 1.0)
OF_WORDS, OF_CLASSES, NO_ROOT = "words", "classes", "none"


@dataclass(frozen=True)
class Frame:
    """The part of a metric that several whitenings share: centre, then turn into a basis.

    Attributes
    ----------
    mean : Tensor of shape (D,)
    basis : Tensor of shape (D, R) or None
        None stands for the identity.
    """

    mean: Tensor
    basis: Tensor | None

    def __call__(self, features: Tensor) -> Tensor:
        """Map (n, D) embeddings to (n, R)."""
        centred = features - self.mean
        return centred if self.basis is None else centred @ self.basis


@dataclass(frozen=True)
class Metric:
    """An affine map of embeddings under which cosines and distances are taken.

    Attributes
    ----------
    frame : Frame
    scale : Tensor of shape (R,) or None
        Stretches the axes of the frame; None stands for ones.
    leave_out : float
        What one unit of scatter weighs in the inverse of the whitening, ``(1 − ρ) / ((tr S_W / D) · dof)``; 0 where
        nothing was whitened. It is what the leave-one-out forms need of the fit.
    choice : tuple of str and float or None
        Which of the metrics that were tried: whose root B is, and ρ; None where nothing was whitened.
    """

    frame: Frame
    scale: Tensor | None = None
    leave_out: float = 0.0
    choice: tuple[str, float | None] = (NO_ROOT, None)

    def __call__(self, features: Tensor) -> Tensor:
        """Map (n, D) embeddings to (n, R)."""
        return self.stretch(self.frame(features))

    def stretch(self, framed: Tensor) -> Tensor:
        """Map what the frame has mapped already, (n, R) to (n, R)."""
        return framed if self.scale is None else framed * self.scale


@dataclass(frozen=True)
class MetricSupport:
    """The support set seen through one metric.

    Attributes
    ----------
    keys : Tensor of shape (N, R)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    means : Tensor of shape (C, R)
        Weighted class means of the keys; zero for a class without support.
    mass : Tensor of shape (C,)
        Sum of the weights, a class.
    """

    keys: Tensor
    labels: Tensor
    weights: Tensor
    means: Tensor
    mass: Tensor

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of the cosines between different keys, see :func:`spread`."""
        return spread(self.keys)


@dataclass(frozen=True)
class Views:
    """What a block of queries sees: cosines to keys (n, N) and to class means (n, C), Gaussian scores (n, C)."""

    key: Tensor
    prototype: Tensor
    gaussian: Tensor


def vocabulary_root(words: Tensor, shrinkage: float = VOCABULARY_SHRINKAGE) -> Tensor | None:
    """``B = ((1 − r) S_V / (tr S_V / D) + r I)^(1/4)`` of the words' embeddings (M, D).

    Returns
    -------
    Tensor of shape (D, D), or None where the words have no covariance (fewer than two different ones)
    """
    centred = (words - words.mean(0)).double()
    covariance = centred.T @ centred / len(words)
    scale = covariance.diagonal().mean()
    if not scale > EPS:
        return None
    values, vectors = torch.linalg.eigh(covariance / scale)
    spectrum = (1 - shrinkage) * values.clamp_min(0) + shrinkage
    return ((vectors * spectrum**0.25) @ vectors.T).to(words.dtype)


def alignment(words: Tensor, features: Tensor, weights: Tensor) -> float:
    """How much more pictures vary where words do than elsewhere, ``D tr(S_V S_X) / (tr S_V tr S_X)``.

    No label is looked at. Of words without meaning it is about 1.

    Parameters
    ----------
    words : Tensor of shape (M, D)
    features : Tensor of shape (N, D)
        Embeddings of pictures.
    weights : Tensor of shape (N,)

    Returns
    -------
    float
        Infinite where either does not vary: then nothing speaks against the words.
    """
    centred = (words - words.mean(0)).double()
    of_words = centred.T @ centred
    centred = (features - weighted_mean(features, weights)).double()
    of_pictures = centred.T @ (weights.double()[:, None] * centred)
    isotropic = float(of_words.diagonal().sum() * of_pictures.diagonal().mean())
    return float((of_words * of_pictures).sum()) / isotropic if isotropic > EPS else math.inf


def text_root(text: Tensor) -> Tensor | None:
    """The root of the class texts (C, D) in the place of a vocabulary: what tells just these classes apart.

    Rows of zeros are classes without text. Which text belongs to which class plays no part.
    """
    known = text[text.any(1)]
    return vocabulary_root(known, TEXT_SHRINKAGE) if len(known) > 1 else None


def metrics(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    n_classes: int,
    root: Tensor | None,
    shrinkages: tuple[float, ...] = SHRINKAGES,
    name: str = NO_ROOT,
) -> Iterator[Metric]:
    """The metrics of one vocabulary root, from the least to the most shrunken whitening.

    Without any scatter within the classes (one shot, or equal pictures) the root alone is the only metric.

    Parameters
    ----------
    features : Tensor of shape (N, D)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    root : Tensor of shape (D, D) or None
        ``B``; None stands for the identity.
    shrinkages : tuple of float
        ρ of ``P = ((1 − ρ) S_W / (tr S_W / D) + ρ I)^(−1/2)``; 1 whitens nothing.
    name : str
        Whose root it is, for `Metric.choice`.
    """
    unwhitened = Frame(weighted_mean(features, weights), root)
    x = unwhitened(features)
    means, _ = class_means(x, labels, weights, n_classes)
    residual = (x - means[labels]).double()
    scatter = residual.T @ (weights.double()[:, None] * residual)
    # dof cancels in P: S_W enters divided by its own trace; `trace` is (tr S_W / D) · dof.
    trace = float(scatter.diagonal().mean())
    if not trace > EPS:
        yield Metric(unwhitened, choice=(name, None))
        return
    values, vectors = torch.linalg.eigh(scatter / trace)
    vectors = vectors.to(features.dtype)
    frame = Frame(unwhitened.mean, vectors if root is None else root @ vectors)
    for rho in shrinkages:
        spectrum = (1 - rho) * values.clamp_min(0) + rho
        yield Metric(frame, (spectrum**-0.5).to(features.dtype), (1 - rho) / trace, (name, rho))


def see_support(keys: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> MetricSupport:
    """A support set whose keys (N, R) a metric has mapped."""
    means, mass = class_means(keys, labels, weights, n_classes)
    return MetricSupport(keys, labels, weights, means, mass)


def view(support: MetricSupport, queries: Tensor) -> Views:
    """What queries (n, R), already in the metric, see of the whole support set."""
    norm = queries.norm(dim=1, keepdim=True).clamp_min(EPS)
    cosines = (queries @ support.keys.T) / norm / support.keys.norm(dim=1).clamp_min(EPS)
    return Views(cosines, *view_means(queries, support.means))


def view_means(queries: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of queries (n, R) to class means (C, R), and Gaussian scores ``q·μ − |μ|²/2``; both (n, C)."""
    dots, mean_norm = queries @ means.T, means.norm(dim=1)
    norm = queries.norm(dim=1, keepdim=True).clamp_min(EPS)
    return dots / norm / mean_norm.clamp_min(EPS), dots - mean_norm**2 / 2


@dataclass(frozen=True)
class LeftOut:
    """Support samples in the metric from which each was left out.

    Attributes
    ----------
    keys : Tensor of shape (n, R)
        ``k_i``.
    residual : Tensor of shape (n, R)
        ``r_i = k_i − μ_y``; 0 for a lone sample.
    kappa : Tensor of shape (n, 1)
    along : Tensor of shape (n, 1)
        ``k_i · r_i``.
    norm : Tensor of shape (n, 1)
        Length of ``k_i`` under its metric.
    mean_step : Tensor of shape (n, 1)
        ``v / (W_y − v)``: the own mean without the sample is ``μ_y − mean_step · r_i``.
    lone : bool Tensor of shape (n,)
    """

    keys: Tensor
    residual: Tensor
    kappa: Tensor
    along: Tensor
    norm: Tensor
    mean_step: Tensor
    lone: Tensor

    def inner(self, others: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with `others` (m, R) and their squared lengths, both (n, m), under each sample's metric."""
        shadow = self.residual @ others.T
        squared = others.square().sum(1) + self.kappa * shadow**2
        return self.keys @ others.T + self.kappa * self.along * shadow, squared


def leave_out_each(support: MetricSupport, leave_out: float, rows: Tensor) -> LeftOut:
    """The closed form of refitting the metric without each of the rows (n,).

    With ``r_i = k_i − μ_y``, ``κ_i = a_i / (1 − a_i |r_i|²)`` and ``a_i = leave_out · v_i W_y / (W_y − v_i)``, the
    inner product under the metric refitted without sample i is ``u·v + κ_i (u·r_i)(v·r_i)`` (Sherman–Morrison; the
    mean of the features and the trace are held). Exact up to rounding.
    """
    labels = support.labels[rows]
    keys, v, mass = support.keys[rows], support.weights[rows], support.mass[labels]
    rest = mass - v
    lone = rest <= ALONE * mass
    rest = torch.where(lone, 1.0, rest)
    residual = torch.where(lone[:, None], 0.0, keys - support.means[labels])
    scale = leave_out * v * mass / rest
    kappa = (scale / (1 - scale * residual.square().sum(1)).clamp_min(EPS))[:, None]
    along = (keys * residual).sum(1, keepdim=True)
    norm = (keys.square().sum(1, keepdim=True) + kappa * along**2).sqrt().clamp_min(EPS)
    return LeftOut(keys, residual, kappa, along, norm, (v / rest)[:, None], lone)


def leave_one_out_view(support: MetricSupport, leave_out: float, rows: Tensor) -> Views:
    """What support samples see of the support set, in the metric from which each was left out.

    The own key retrieves nothing (`functional.HELD_OUT`). The own class of a lone sample has 0: the caller puts there
    what it knows.

    Parameters
    ----------
    support : MetricSupport
    leave_out : float
        See `Metric`.
    rows : integer Tensor of shape (n,)
        Which support samples ask.
    """
    out = leave_out_each(support, leave_out, rows)
    dots, squared = out.inner(support.keys)
    cosines = leave_self_out(dots / out.norm / squared.sqrt().clamp_min(EPS), rows)

    dots, squared = out.inner(support.means)
    labels = support.labels[rows]
    own_mean = support.means[labels] - out.mean_step * out.residual
    shadow = (out.residual * own_mean).sum(1, keepdim=True)
    own_dot = (out.keys * own_mean).sum(1, keepdim=True) + out.kappa * out.along * shadow
    own_squared = own_mean.square().sum(1, keepdim=True) + out.kappa * shadow**2
    dots = dots.scatter(1, labels[:, None], own_dot)
    squared = squared.scatter(1, labels[:, None], own_squared)
    prototype = dots / out.norm / squared.sqrt().clamp_min(EPS)
    own = torch.zeros_like(dots, dtype=torch.bool).scatter_(1, labels[:, None], True)
    nothing = own & out.lone[:, None]
    return Views(cosines, prototype.masked_fill(nothing, 0.0), (dots - squared / 2).masked_fill(nothing, 0.0))
