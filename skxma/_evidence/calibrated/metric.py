"""The cross-modal metric: where words differ, images of different things differ (docs/method.md, steps 1 and 2).

An embedding f becomes ``(f − mean) B P``. The root B is shaped by the covariance of a vocabulary's text embeddings, P
whitens the scatter within the support classes. Leaving a sample out changes P by a rank-one term, so the scores of
every left-out sample have a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from skxma._statistics import SINGLETON_TOLERANCE, Spectrum, class_means, cosine_spread, weighted_mean
from skxma.functional import EPS, leave_self_out

VOCABULARY_ROOT, CLASS_TEXT_ROOT, IDENTITY_ROOT = "words", "classes", "none"
"""Names of the roots B, as model files have them."""

LEAST_OWN_SHARE = 0.1
"""Least share of a mean's squared length that is taken for the class's own and not for scatter: a guard, not tuned,
where the images of a class scatter more than their mean is long. At two and three shots of the emoji none do."""


@dataclass(frozen=True)
class CenteredBasis:
    """The part of a metric that several whitenings share: center, then map into a basis.

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
        centered = features - self.mean
        return centered if self.basis is None else centered @ self.basis


@dataclass(frozen=True)
class Metric:
    """An affine map of embeddings under which cosines and distances are taken.

    Attributes
    ----------
    basis : CenteredBasis
    scale : Tensor of shape (R,) or None
        Stretches the axes of the basis; None stands for ones.
    scatter_weight : float
        Weight of one unit of scatter in the inverse of the whitening, ``(1 − ρ) / ((tr S_W / D) · dof)``, which the
        leave-one-out forms need; 0 where nothing was whitened.
    choice : tuple of str and float or None
        Name of the root B, and ρ; None where nothing was whitened.
    """

    basis: CenteredBasis
    scale: Tensor | None = None
    scatter_weight: float = 0.0
    choice: tuple[str, float | None] = (IDENTITY_ROOT, None)

    def __call__(self, features: Tensor) -> Tensor:
        """Map (n, D) embeddings to (n, R)."""
        return self.stretch(self.basis(features))

    def stretch(self, mapped: Tensor) -> Tensor:
        """Stretch embeddings (n, R) that are in the basis already."""
        return mapped if self.scale is None else mapped * self.scale


def singletons(labels: Tensor, members: Tensor) -> Tensor:
    """`ImageCache.singleton` (N,) of labels (N,), by the members (N, g) of each sample's group (`MetricSupport`)."""
    own_class = (labels[members.clamp_min(0)] == labels[:, None]) & (members >= 0)
    return own_class.sum(1) == torch.bincount(labels)[labels]


@dataclass(frozen=True)
class MetricSupport:
    """The support set mapped by one metric.

    Attributes
    ----------
    keys : Tensor of shape (N, R)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    means : Tensor of shape (C, R)
        Weighted class means of the keys; zero for a class without support.
    mass : Tensor of shape (C,)
        Sum of the weights of each class.
    members : integer Tensor of shape (N, g)
        Samples that are left out together with each, itself among them, filled up with −1.
    """

    keys: Tensor
    labels: Tensor
    weights: Tensor
    means: Tensor
    mass: Tensor
    members: Tensor

    @classmethod
    def from_keys(
        cls, keys: Tensor, labels: Tensor, weights: Tensor, n_classes: int, members: Tensor | None = None
    ) -> MetricSupport:
        """Describe a support set whose keys (N, R) a metric has mapped; without `members` each is left out alone."""
        means, mass = class_means(keys, labels, weights, n_classes)
        if members is None:
            members = torch.arange(len(labels), device=labels.device)[:, None]
        return cls(keys, labels, weights, means, mass, members)

    @cached_property
    def singleton(self) -> Tensor:
        """Mask (N,) of samples whose class has none but those that are left out together with them."""
        return singletons(self.labels, self.members)

    @cached_property
    def squared_weights(self) -> Tensor:
        """Sum of the squared weights of each class (C,)."""
        return torch.zeros_like(self.mass).scatter_add_(0, self.labels, self.weights**2)

    @cached_property
    def scatter(self) -> Tensor:
        """s², the mean squared distance of a key to the mean of its class, unbiased; a scalar."""
        residual = self.keys - self.means[self.labels]
        freedom = (self.mass - self.squared_weights / self.mass.clamp_min(EPS)).sum().clamp_min(EPS)
        return (self.weights * residual.square().sum(1)).sum() / freedom

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of the cosines between different keys."""
        return cosine_spread(self.keys)


@dataclass(frozen=True)
class QueryScores:
    """Unscaled image scores of a block of queries.

    Attributes
    ----------
    key_cosines : Tensor of shape (n, N)
    prototype : Tensor of shape (n, C)
        Cosines to the class means.
    gaussian : Tensor of shape (n, C)
        ``q·μ − |μ|²/2``, the log-density of a Gaussian of unit covariance around each class mean but for ``|q|²/2``.
    """

    key_cosines: Tensor
    prototype: Tensor
    gaussian: Tensor


def covariance_root(words: Tensor, shrinkage: float) -> Tensor | None:
    """Root ``B = ((1 − r) S_V / (tr S_V / D) + r I)^(1/4)`` of the words' embeddings (M, D).

    Returns
    -------
    Tensor of shape (D, D), or None where the words have no covariance (fewer than two different ones)
    """
    centered = (words - words.mean(0)).double()
    if not centered.square().mean() > EPS:
        return None
    spectrum = Spectrum.of_rows(centered)
    # a multiple of the identity where no word varies: few words leave a product of few directions
    least, varies = shrinkage**0.25, spectrum.values != 0
    vectors, powers = spectrum.vectors[:, varies], spectrum.shrunk_power(shrinkage, 0.25)[varies]
    root = (vectors * (powers - least)) @ vectors.T
    root.diagonal().add_(least)
    return root.to(words.dtype)


def vocabulary_root(words: Tensor, shrinkage: float) -> Tensor | None:
    """`covariance_root` of a vocabulary (M, D), kept for the next fit.

    It takes a fifth of a small fit, and the folds and candidates of a search share one vocabulary.
    """
    array = words.cpu().numpy()
    root = _root_of_bytes(array.tobytes(), array.shape, array.dtype.str, shrinkage)
    return None if root is None else root.to(words)


@lru_cache(maxsize=2)
def _root_of_bytes(data: bytes, shape: tuple[int, ...], dtype: str, shrinkage: float) -> Tensor | None:
    words = torch.as_tensor(np.frombuffer(data, dtype).reshape(shape).copy())
    return covariance_root(words, shrinkage)


def class_text_root(text: Tensor, shrinkage: float) -> Tensor | None:
    """Root B of the class texts (C, D) instead of a vocabulary's; None with fewer than two texts.

    Rows of zeros are classes without text. Only the set of texts matters, not which class each belongs to.
    """
    known = text[text.any(1)]
    return covariance_root(known, shrinkage) if len(known) > 1 else None


def covariance_alignment(words: Tensor, features: Tensor, weights: Tensor) -> float:
    """Variance of images along the words' directions over that along random ones, ``D tr(S_V S_X) / (tr S_V tr S_X)``.

    It is about 1 for words without meaning. Labels play no part.

    Parameters
    ----------
    words : Tensor of shape (M, D)
    features : Tensor of shape (N, D)
        Image embeddings.
    weights : Tensor of shape (N,)

    Returns
    -------
    float
        Infinite where the words or the images do not vary, because then nothing speaks against the words.
    """
    words = (words - words.mean(0)).double()
    images = weights.double().sqrt()[:, None] * (features - weighted_mean(features, weights)).double()
    # tr(S_V S_X) is the squared length of all inner products of words and images
    isotropic = float(words.square().sum() * images.square().sum() / words.shape[1])
    return float((words @ images.T).square().sum()) / isotropic if isotropic > EPS else math.inf


def candidate_metrics(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    n_classes: int,
    root: Tensor | None,
    shrinkages: tuple[float, ...],
    name: str = IDENTITY_ROOT,
) -> Iterator[Metric]:
    """Yield the metrics of one root B, from the least to the most shrunken whitening.

    Without any scatter within the classes (one shot, or equal images) the root alone is the only metric.

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
        Name of the root, for `Metric.choice`.
    """
    unwhitened = CenteredBasis(weighted_mean(features, weights), root)
    x = unwhitened(features)
    means, _ = class_means(x, labels, weights, n_classes)
    residual = weights.double().sqrt()[:, None] * (x - means[labels]).double()
    # dof cancels in P, as S_W enters divided by its own trace; `trace` is (tr S_W / D) · dof
    trace = float(residual.square().sum() / residual.shape[1])
    if not trace > EPS:
        yield Metric(unwhitened, choice=(name, None))
        return
    spectrum = Spectrum.of_rows(residual)
    vectors = spectrum.vectors.to(features.dtype)
    basis = CenteredBasis(unwhitened.mean, vectors if root is None else root @ vectors)
    for rho in shrinkages:
        scale = spectrum.shrunk_power(rho, -0.5).to(features.dtype)
        yield Metric(basis, scale, (1 - rho) / trace, (name, rho))


def query_scores(support: MetricSupport, queries: Tensor) -> QueryScores:
    """Score queries (n, R), already mapped by the metric, against the whole support set."""
    norm = queries.norm(dim=1, keepdim=True).clamp_min(EPS)
    cosines = (queries @ support.keys.T) / norm / support.keys.norm(dim=1).clamp_min(EPS)
    return QueryScores(cosines, *class_mean_scores(queries, support.means))


class ClassMeans:
    """Class means (..., C, R) with their lengths, which many queries are compared with."""

    def __init__(self, means: Tensor) -> None:
        length = means.norm(dim=-1)[..., None, :]
        self.means, self.length, self.half_square = means, length.clamp_min(EPS), length**2 / 2

    def __call__(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of queries (..., n, R) to the means, and Gaussian scores ``q·μ − |μ|²/2``; both (..., n, C)."""
        dots = queries @ self.means.mT
        length = queries.norm(dim=-1, keepdim=True).clamp_min(EPS)
        return dots / length / self.length, dots - self.half_square


def class_mean_scores(queries: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and Gaussian scores (n, C) of queries (n, R) to class means (C, R), as `ClassMeans` has them."""
    return ClassMeans(means)(queries)


@dataclass(frozen=True)
class LeftOutSamples:
    """Support samples, each in the metric that is refitted without the g samples of its group.

    Attributes
    ----------
    keys : Tensor of shape (n, R)
        ``k_i``.
    classes : integer Tensor of shape (n, g)
        Class of each sample of the group.
    present : bool Tensor of shape (n, g)
        False for what fills a smaller group up.
    weights : Tensor of shape (n, g)
        Weight of each sample of the group.
    gone : bool Tensor of shape (n, g)
        True for samples whose class has no others.
    residual : Tensor of shape (n, g, R)
        ``r_j = k_j − μ_y``; 0 for the only sample of a class.
    coupling : Tensor of shape (n, g, g)
        ``K_i`` of :func:`leave_each_out`.
    gram : Tensor of shape (n, g, g)
        Inner products of the residuals.
    along : Tensor of shape (n, g)
        ``k_i · r_j``.
    norm : Tensor of shape (n, 1)
        Length of ``k_i`` under its metric.
    mean_steps : Tensor of shape (n, g)
        ``b_j``: a class mean without the group is ``μ − Σ_j b_j r_j``, the sum over the group's samples of the class.
    """

    keys: Tensor
    classes: Tensor
    present: Tensor
    weights: Tensor
    gone: Tensor
    residual: Tensor
    coupling: Tensor
    gram: Tensor
    along: Tensor
    norm: Tensor
    mean_steps: Tensor

    def inner_products(self, others: Tensor, of_means: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Inner products with `others` (m, R) and their squared lengths, both (n, m), under each sample's metric.

        The inner products of the residuals with them, (n, g, m), are returned too, under the metric of all samples.

        Parameters
        ----------
        others : Tensor of shape (m, R)
        of_means : Tensor of shape (C, m), optional
            ``μ·o``: with ``r·o = k·o − μ·o`` they save the product of the residuals, where each is left out alone.
        """
        n, g, _ = self.residual.shape
        dots, lengths = self.keys @ others.T, others.square().sum(1)
        if of_means is not None and g == 1:
            shadow = (dots - of_means[self.classes[:, 0]])[:, None]
        else:
            shadow = (self.residual.flatten(0, 1) @ others.T).view(n, g, len(others))
        if g == 1:
            kappa = self.coupling[:, 0]
            squared = torch.addcmul(lengths, kappa, shadow[:, 0].square())
            return dots.addcmul_(kappa * self.along, shadow[:, 0]), squared, shadow
        squared = lengths + (shadow * (self.coupling @ shadow)).sum(1)
        return dots + ((self.coupling @ self.along[:, :, None]).mT @ shadow)[:, 0], squared, shadow

    def means_without(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with the class means (C, R) without the group, and their squared lengths, both (n, C)."""
        dots, squared, shadow = self.inner_products(means)
        # inner products with the residuals, under each sample's metric
        refitted = torch.eye(shadow.shape[1], dtype=shadow.dtype, device=shadow.device) + self.gram @ self.coupling
        along = (refitted @ self.along[:, :, None])[..., 0]
        index = self.classes[:, :, None]
        of_own_mean = (refitted @ shadow).gather(2, index)[..., 0]
        same = self.classes[:, :, None] == self.classes[:, None, :]
        between = torch.where(same, refitted @ self.gram, 0.0)
        step = self.mean_steps
        dots = dots.scatter_add(1, self.classes, -step * along)
        change = step * (between @ step[:, :, None])[..., 0] - 2 * step * of_own_mean
        return dots, squared.scatter_add(1, self.classes, change).clamp_min(0)


def leave_each_out(support: MetricSupport, scatter_weight: float, rows: Tensor) -> LeftOutSamples:
    """Refit the metric without the group of each of the rows (n,), in closed form.

    With the residuals ``r_j = k_j − μ_y`` of the group as rows of R, and ``A = scatter_weight · (diag(v) + v vᵀ / w)``
    the scatter that they make, w the mass that is left of their class (samples of different classes do not meet in A),
    the inner product under the metric refitted without them is ``u·v + (R u)ᵀ K (R v)``, ``K = (I − A R Rᵀ)⁻¹ A``
    (Woodbury; the mean of the features and the trace are held). Exact up to rounding. Of one sample it is
    ``κ = a / (1 − a |r|²)``, ``a = scatter_weight · v W / (W − v)``.
    """
    members = support.members[rows]
    present, index = members >= 0, members.clamp_min(0)
    keys, classes = support.keys[rows], support.labels[index]
    v = torch.where(present, support.weights[index], 0.0)
    same = (classes[:, :, None] == classes[:, None, :]) & present[:, :, None] & present[:, None, :]
    mass = support.mass[classes]
    rest = mass - (same * v[:, None, :]).sum(2)
    gone = present & (rest <= SINGLETON_TOLERANCE * mass)
    rest = torch.where(present & ~gone, rest, 1.0)
    # a class that is left out whole has no mean without the group, and a single sample of it no scatter
    counts = present & ~(gone & (same.sum(2) == 1))
    residual = torch.where(counts[:, :, None], support.keys[index] - support.means[classes], 0.0)
    joint = torch.where(same & ~gone[:, :, None], v[:, :, None] * v[:, None, :] / rest[:, None, :], 0.0)
    scatter = scatter_weight * (torch.diag_embed(v) + joint)
    gram = residual @ residual.mT
    if members.shape[1] == 1:
        coupling = torch.where(counts[:, :, None], scatter / (1 - scatter * gram).clamp_min(EPS), 0.0)
    else:
        identity = torch.eye(members.shape[1], dtype=keys.dtype, device=keys.device)
        coupling = torch.linalg.solve(identity - scatter @ gram, scatter)
    along = (residual @ keys[:, :, None])[..., 0]
    squared = keys.square().sum(1, keepdim=True) + (along * (coupling @ along[:, :, None])[..., 0]).sum(1, keepdim=True)
    norm = squared.clamp_min(0).sqrt().clamp_min(EPS)
    steps = torch.where(gone, 0.0, v / rest)
    return LeftOutSamples(keys, classes, present, v, gone, residual, coupling, gram, along, norm, steps)


def complete_mean_length(squared: Tensor, support: MetricSupport, rows: Tensor) -> Tensor:
    """Squared lengths (n, 1) that means without left-out samples would be expected to have with them.

    A weighted mean is ``s² Σw² / (Σw)²`` longer than the class's own, s² the scatter within a class, so the mean of
    n − 1 shots is longer than one of n. Left as it is, this makes the own class of a left-out sample look farther off
    than it is for a new image.

    Parameters
    ----------
    squared : Tensor of shape (n, 1)
        Squared lengths of the own means without the sample and its group.
    support : MetricSupport
    rows : integer Tensor of shape (n,)
    """
    labels, members = support.labels[rows], support.members[rows]
    index = members.clamp_min(0)
    of_class = (members >= 0) & (support.labels[index] == labels[:, None])
    v = torch.where(of_class, support.weights[index], 0.0)
    mass, squares = support.mass[labels], support.squared_weights[labels]
    rest = mass - v.sum(1)
    without = (squares - v.square().sum(1)) / rest.clamp_min(EPS) ** 2
    excess = support.scatter * (without - squares / mass**2)
    singleton = rest <= SINGLETON_TOLERANCE * mass
    excess = torch.where(singleton, 0.0, excess.clamp_min(0))[:, None]
    return torch.maximum(squared - excess, LEAST_OWN_SHARE * squared)


def leave_one_out_scores(
    support: MetricSupport, scatter_weight: float, rows: Tensor, of_means: Tensor | None = None
) -> tuple[QueryScores, Tensor]:
    """Score support samples against the support set, each in the metric that is refitted without its group.

    The keys of the group retrieve nothing (`functional.HELD_OUT`). A class of which nothing is left has score 0, which
    the caller replaces.

    Parameters
    ----------
    support : MetricSupport
    scatter_weight : float
        See `Metric`.
    rows : integer Tensor of shape (n,)
        Support samples that are the queries.
    of_means : Tensor of shape (C, N), optional
        Inner products of the class means with the keys, which many calls may share.

    Returns
    -------
    scores : QueryScores
    mass : Tensor of shape (n, C)
        Mass of each class without the group.
    """
    out, labels = leave_each_out(support, scatter_weight, rows), support.labels[rows][:, None]
    dots, squared, _ = out.inner_products(support.keys, of_means)
    own_keys = torch.where(out.present, support.members[rows], rows[:, None])
    # in place: these arrays are the largest of a fit
    cosines = leave_self_out(dots.div_(out.norm).div_(squared.sqrt_().clamp_min_(EPS)), own_keys)

    dots, squared = out.means_without(support.means)
    squared = squared.scatter(1, labels, complete_mean_length(squared.gather(1, labels), support, rows))
    prototype = dots / out.norm / squared.sqrt().clamp_min(EPS)
    empty = torch.zeros_like(dots).scatter_add(1, out.classes, out.gone.to(dots)) > 0
    mass = support.mass.repeat(len(rows), 1).scatter_add_(1, out.classes, -out.weights).masked_fill(empty, 0.0)
    scores = QueryScores(cosines, prototype.masked_fill(empty, 0.0), (dots - squared / 2).masked_fill(empty, 0.0))
    return scores, mass
