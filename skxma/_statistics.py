"""Statistics that both forms of evidence use: means, cosines, covariances, one minimizer, conformal p-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.special import log_softmax, logsumexp
from scipy.stats import chi2, norm
from torch import Tensor

from skxma import functional as F
from skxma._runtime import blocks
from skxma.embeddings import SAME_IMAGE
from skxma.functional import EPS

Doubles = NDArray[np.float64]
Masks = NDArray[np.bool_]
CALIBRATION_BINS = 15
P_VALUE_ROUNDING = 1e-9
LEAST_LOG_PROBA = -6e4
"""Finite in half precision, whose least number is −65 504."""

N_SIMULATED = 20
"""Equally likely scores of the only image of a class, in place of one."""

ABSENT_RATIO = 4.0
"""The rarest class of a support set over a class without images, where classes need shares."""

SINGLETON_TOLERANCE = 1e-6
"""Share of a class's mass below which the rest of the class is rounding beside one sample that outweighs it."""


NEAR_DUPLICATE, NEAR_DUPLICATE_IN_CLASS = 0.015, 0.25
"""Distances of near-duplicates over the median of all pairs, and of the pairs of one class. Of the first median CIFAR
images of one class lie at .16 and more (encoders "tiny" and "photo"), nearly all emoji of two designers above .04,
brightened copies at .006 to .014. Mirrored copies lie at .05 ("photo") and .13, where distance alone cannot tell."""

N_PROJECTIONS = 8
"""Directions along which the nearest embedding is sought; two of different images are never as near in all of them."""

EQUAL_DISTANCE = 1e-6
"""Distance below which two embeddings differ by rounding alone."""

MEDIAN_SAMPLES = 512
"""Samples among whose pairs the median distance is taken."""

MIN_COSINE_SPREAD = 0.05
"""Lower bound of σ, by which scores are divided: two classes of one sample each have σ = 0."""


def class_means(features: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Weighted class means (C, D) and masses (C,); a class without samples has mean 0."""
    sums, mass = features.new_zeros(n_classes, features.shape[1]), features.new_zeros(n_classes)
    for x, y, v in zip(*(a.split(blocks.CLASS_SUM_ROWS) for a in (features, labels, weights)), strict=True):
        one_hot = features.new_zeros(n_classes, len(y)).scatter_(0, y[None, :], v[None, :])
        sums += one_hot @ x
        mass += one_hot.sum(1)
    return sums / mass.clamp_min(EPS)[:, None], mass


def class_shares(mass: Tensor) -> Tensor:
    """Shares (C,) of the classes by their masses (C,); one without any counts a quarter of the rarest."""
    least = mass[mass > 0].min() / ABSENT_RATIO
    filled = torch.where(mass > 0, mass, least)
    return filled / filled.sum()


def weighted_mean(features: Tensor, weights: Tensor) -> Tensor:
    """Mean (D,) of the rows (N, D) by their weights (N,)."""
    return (weights[:, None] * features).sum(0) / weights.sum()


def zero_shot_cosines(features: Tensor, text: Tensor) -> Tensor:
    """``f Tᵀ`` (n, C); a class whose text is zero gets the row's mean plus one standard deviation."""
    return F.fill_absent(F.affinity(features, text), text.any(1))


def pairwise_cosine_moments(unit: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the cosines between different rows of an (N, D) tensor.

    The sum of all cosines is ``|Σ_i k_i|²``, that of their squares the squared Frobenius norm of the smaller of the
    two Gram matrices ``K Kᵀ`` and ``Kᵀ K``, so no (N, N) array is made where N is larger than D.

    Parameters
    ----------
    unit : Tensor of shape (N, D)
        L2-normalized; a row of zeros has cosine 0 to all others. Summed in double precision.
    """
    n, wide = len(unit), unit.double()
    pairs = max(1, n * (n - 1))
    # the product takes nearly all of the time, and what single precision rounds in its entries does not add up
    gram = (unit.T @ unit if n > unit.shape[1] else unit @ unit.T).double()
    own = wide.square().sum(1)
    # lengths that are 1 up to rounding are 1: N roundings would add up
    own = torch.where((own - 1).abs() < EPS, 1.0, own)
    sums = torch.stack([wide.sum(0).square().sum() - own.sum(), gram.square().sum() - own.square().sum()])
    mean, square = (sums / pairs).tolist()
    return mean, math.sqrt(max(0.0, square - mean**2))


def cosine_spread(keys: Tensor) -> float:
    """σ, the standard deviation of the cosines between different keys (N, R), at least `MIN_COSINE_SPREAD`."""
    return max(pairwise_cosine_moments(F.normalize(keys))[1], MIN_COSINE_SPREAD)


def near_duplicate_distance(features: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    """Distance 1 − cos below which two images are near-duplicates.

    It is `NEAR_DUPLICATE` of the median over all pairs, and at most `NEAR_DUPLICATE_IN_CLASS` of the median over the
    pairs of one class, unless all of these are that near.

    Parameters
    ----------
    features : ndarray of shape (N, D), L2-normalized
    labels : ndarray of shape (N,)
    """
    return _near_duplicate_distance(features, [distance for _, distance in _distances_in_classes(features, labels)])


def are_among(features: NDArray[np.float32], known: NDArray[np.float32]) -> Masks:
    """Mask (M,) of the embeddings whose images are among those of the known embeddings, up to rounding.

    Parameters
    ----------
    features : ndarray of shape (M, D), L2-normalized
    known : ndarray of shape (N, D), L2-normalized
    """
    n_features = features.shape[1]
    found = np.zeros(len(features), dtype=bool)
    if not len(known) or not len(features):
        return found
    # a projection moves no two points apart, so that the tree finds all that could be equal, without M · N products
    some = np.random.default_rng(0).standard_normal((n_features, min(N_PROJECTIONS, n_features)))
    directions = np.linalg.qr(some)[0].astype(np.float32)
    radius = math.sqrt(2 * (1 - SAME_IMAGE))
    tree = KDTree(known @ directions)
    distance, nearest = tree.query(features @ directions, distance_upper_bound=2 * radius)
    near = np.flatnonzero(np.isfinite(distance))
    found[near] = np.linalg.norm(features[near] - known[nearest[near]], axis=1) < radius
    return found


def near_duplicate_groups(features: NDArray[np.float32], labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Group of each sample (N,): samples of one class that are near-duplicates, or joined by a chain of such, are one.

    Equal embeddings are one key anyway, and no near-duplicates.

    Parameters
    ----------
    features : ndarray of shape (N, D), L2-normalized
    labels : ndarray of shape (N,)
    """
    in_classes = _distances_in_classes(features, labels)
    limit = _near_duplicate_distance(features, [distance for _, distance in in_classes])
    pairs = [rows[np.argwhere(np.triu((d < limit) & (d > EQUAL_DISTANCE), 1))] for rows, d in in_classes]
    first, second = np.concatenate(pairs).T
    edges = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(labels),) * 2)
    groups: NDArray[np.intp] = connected_components(edges, directed=False)[1].astype(np.intp)
    return groups


def _distances_in_classes(
    features: NDArray[np.float32], labels: NDArray[np.intp]
) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Rows (n,) of the samples of each class, and their distances (n, n)."""
    order = np.argsort(labels, kind="stable")
    rows_of_classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [(rows, 1 - features[rows] @ features[rows].T) for rows in rows_of_classes]


def _near_duplicate_distance(features: NDArray[np.float32], in_classes: Sequence[NDArray[np.float32]]) -> float:
    """`near_duplicate_distance` of features (N, D), given the distances (n, n) within each class."""
    some = features[:: max(1, len(features) // MEDIAN_SAMPLES)]
    first, second = np.triu_indices(len(some), 1)
    limit = NEAR_DUPLICATE * float(np.median((1 - some @ some.T)[first, second])) if len(first) else 0.0
    distances = np.concatenate([distance[np.triu_indices(len(distance), 1)] for distance in in_classes])
    apart = distances[distances >= limit]
    return min(limit, NEAR_DUPLICATE_IN_CLASS * float(np.median(apart))) if len(apart) else limit


@dataclass(frozen=True)
class SingletonPrior:
    """Prior of the cosine of an image to the only other image of its class, in deviations σ of the keys' cosines.

    A class of one sample has no key left when that sample is left out, so the cosine is simulated (docs/method.md,
    step 6).
    """

    mean: float = 3.0
    """Mean, in σ. Own cosines of 12 feature sets lie at 1.3 to 4.5 σ; ``benchmarks/priors.py`` compares priors on
    tasks drawn from ImageNet with strong and weakened text, the CIFAR images, emoji and digits."""

    std: float = 2.0
    """Standard deviation, in σ. Within one data set it is 0.64 to 1.5 σ; the rest is doubt between data sets."""

    max_cosine: float = 0.95
    """Largest simulated cosine: two different images are never the same, however large σ is."""

    n_nodes: int = 5
    """Nodes of the Gauss–Hermite quadrature; three to five gave the same losses."""

    def quadrature(self, sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Nodes and weights (Q,) for a cosine distributed as ``σ (mean + std · N(0, 1))``, counted from zero."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(self.n_nodes)
        return np.minimum(sigma * (self.mean + self.std * nodes), self.max_cosine), weights / weights.sum()


@dataclass(frozen=True)
class Spectrum:
    """Eigendecomposition of a covariance at unit mean variance, ``S / (tr S / D) = V diag(values) Vᵀ``.

    One decomposition serves every shrinkage ρ of ``(1 − ρ) S / (tr S / D) + ρ I``, whose eigenvectors are the same.

    Attributes
    ----------
    scale : Tensor, a scalar
        ``tr S / D``.
    values : Tensor of shape (D,), double
    vectors : Tensor of shape (D, D), double
        One eigenvector per column.
    """

    scale: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, covariance: Tensor) -> Spectrum:
        """Decompose a covariance or scatter matrix (D, D) in double precision, up to its scale."""
        scale = covariance.diagonal().mean().clamp_min(EPS)
        return cls(scale, *torch.linalg.eigh(covariance / scale))

    @classmethod
    def of_rows(cls, rows: Tensor) -> Spectrum:
        """Decompose the scatter matrix ``Xᵀ X`` of rows X (n, D).

        Few rows span few directions: their singular vectors, completed to a basis, are found ten times as fast.
        """
        rows = rows.double()
        n, width = rows.shape
        if 2 * n > width:
            return cls.of(rows.T @ rows)
        _, lengths, vectors = torch.linalg.svd(rows, full_matrices=True)
        scale = (lengths.square().sum() / width).clamp_min(EPS)
        values = torch.nn.functional.pad(lengths.square() / scale, (0, width - n))
        return cls(scale, values, vectors.T)

    def shrunk_power(self, shrinkage: float, exponent: float) -> Tensor:
        """Eigenvalues (D,) of ``((1 − ρ) S / (tr S / D) + ρ I)`` to a power; −1/2 whitens."""
        # rounding leaves eigenvalues of a singular covariance slightly below 0
        return ((1 - shrinkage) * self.values.clamp_min(0) + shrinkage) ** exponent


@dataclass(frozen=True)
class ClassPriorEstimator:
    """Class frequencies of a batch of images without labels, from the probabilities that a classifier gives them.

    ``benchmarks/class_prior.py`` measures what it gains on unbalanced batches and costs on balanced ones. Its values
    are the first that were tried.
    """

    pseudo_count: float = 5.0
    """Images that each class is taken to have had before, in the mean over classes; their shares are the base."""

    level: float = 0.01
    """Level of the likelihood-ratio test against the base frequencies, below which they stay."""

    error_dispersion: float = 2.0
    """κ: variance over classes, relative to its mean, of the share of wrong answers that a class gets. A weak
    classifier shifts the shares of classes as an unbalanced batch would; with 2 the test leaves balanced batches of
    CIFAR images and digits alone, through CLIPs and through "tiny" (``benchmarks/class_prior.py``)."""

    tolerance: float = 1e-7
    """Change of a frequency at which the steps end."""

    max_steps: int = 1000
    """Most steps."""

    def estimate(self, logits: Tensor, base: Tensor) -> Tensor:
        """Class frequencies (C,) of the images with these logits (n, C), which hold for the frequencies `base` (C,).

        The penalized estimate by `functional.class_prior_step`, or `base` where twice its gain in log-likelihood is
        below the quantile of χ² with C − 1 degrees of freedom, times the overdispersion ``1 + n κ (1 − p)² / (C − 1)``.
        Errors cause it that fall on some classes more than on others; κ is `error_dispersion`, and p the mean
        probability of the likeliest class. The test takes the penalized estimate, so it errs to the side of `base`:
        with as many classes as images, χ² is no longer the law of the unpenalized gain.
        """
        freedom = len(base) - 1
        if freedom == 0:
            return base
        probabilities = torch.softmax(logits.double(), 1)
        likelihoods = probabilities / base
        pseudo_counts = self.pseudo_count * len(base) * base
        prior = base
        for _ in range(self.max_steps):
            before, prior = prior, F.class_prior_step(likelihoods, prior, pseudo_counts)
            if float((prior - before).abs().max()) < self.tolerance:
                break
        gain = F.class_prior_log_likelihood(likelihoods, prior) - F.class_prior_log_likelihood(likelihoods, base)
        errors = 1 - float(probabilities.max(1).values.mean())
        dispersion = 1 + self.error_dispersion * len(logits) * errors**2 / freedom
        return prior if 2 * float(gain) > dispersion * chi2.isf(self.level, freedom) else base


def minimize_lbfgs(
    loss: Callable[[Tensor], Tensor],
    start: ArrayLike,
    like: Tensor,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """Minimize a differentiable function of a few parameters by L-BFGS-B.

    Parameters
    ----------
    loss : callable from Tensor of shape (p,) to scalar Tensor
    start : array-like of shape (p,)
    like : Tensor
        Device and dtype of the parameters that `loss` receives.
    bounds : sequence of p pairs (lower, upper), optional
        None in a pair is unbounded.
    options : mapping, optional
        Of `scipy.optimize.minimize`.

    Returns
    -------
    least : float
    theta : ndarray of shape (p,), float64
    """

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta = torch.tensor(values, dtype=like.dtype, device=like.device, requires_grad=True)
        total = loss(theta)
        (gradient,) = torch.autograd.grad(total, theta)
        # one copy, for each waits for the device
        least, *slope = torch.cat([total.detach()[None], gradient]).double().cpu().numpy()
        return float(least), np.array(slope)

    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return float(found.fun), found.x


def calibration_error(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, in bins of equal width.

    Parameters
    ----------
    confidence : ndarray of shape (n,)
        Probability of the predicted class.
    correct : bool ndarray of shape (n,)
    bins : int, default=15
    """
    cell = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(cell, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


# Conformal prediction. The score of a class is its nonconformity s(x, c) = −log p(c | x), the order of 1 − p (LAC): of
# all sets of one level those by the probability of the class alone are the smallest on average (Sadinle, Lei &
# Wasserman, JASA 2019), and unlike adaptive sets (APS) they need no random number.
@dataclass(frozen=True)
class Calibration:
    """Left-out scores of the labeled samples, with which the scores of new images are compared.

    Attributes
    ----------
    scores : ndarray of shape (N,)
        Nonconformity of each sample's label by a model that has not seen the sample.
    labels : ndarray of shape (N,)
        Class index of each sample.
    weights : ndarray of shape (N,)
        In the unit of a new image.
    models : ndarray of shape (N,)
        Index of the model that has not seen the sample; 0 everywhere where there is one model.
    log_proba : ndarray of shape (N, C), float16, or None
        Log probability of each class for each sample, by the model that has not seen it; None where it was not kept.
    simulated : ndarray of shape (N, T) or None
        Where the only sample of a class is among them: scores at T equally likely cosines to another, in place of
        `scores`.
    """

    scores: Doubles
    labels: NDArray[np.intp]
    weights: Doubles
    models: NDArray[np.intp]
    log_proba: NDArray[np.float16] | None = None
    simulated: NDArray[np.floating[Any]] | None = None

    @property
    def equally_likely_scores(self) -> NDArray[np.floating[Any]]:
        """T scores of each sample (N, T): one, or those that were simulated."""
        return self.scores[:, None] if self.simulated is None else self.simulated

    def weighted_scores(self, rows: NDArray[Any]) -> tuple[Doubles, Doubles]:
        """All scores (n T,) of some of the samples (n,), and their weights."""
        scores = self.equally_likely_scores[rows]
        return scores.ravel().astype(np.float64), np.repeat(self.weights[rows] / scores.shape[1], scores.shape[1])

    def at_frequencies(self, shift: Doubles, ratio: Doubles) -> Calibration:
        """The calibration for new images whose classes have other frequencies.

        A score becomes that of the shifted probabilities, and the weight of a sample is multiplied by the ratio of its
        class: conformal prediction under label shift (Podkopaev & Ramdas 2021).

        Parameters
        ----------
        shift : ndarray of shape (K, C)
            What is added to the logits of each model.
        ratio : ndarray of shape (C,)
            As `frequency_ratio` gives it.
        """
        if self.log_proba is None:
            raise ValueError("These scores are of one class each; a shift needs those of all classes.")
        rows, shifts, each = (
            np.arange(len(self.labels)),
            shift[self.models],
            self.equally_likely_scores.astype(np.float64),
        )
        others = self.log_proba.astype(np.float64)
        others[rows, self.labels] = -np.inf
        with np.errstate(divide="ignore"):
            # the own class from its score, which is not rounded: a shift of 0 leaves the scores as they are
            log_others = np.log(-np.expm1(-each)) + logsumexp(log_softmax(others, axis=1) + shifts, axis=1)[:, None]
        counted = (ratio[self.labels] > 0)[:, None] & np.isfinite(each)
        own = np.where(ratio[self.labels] > 0, shifts[rows, self.labels], 0.0)
        scores = np.full(each.shape, np.inf)
        scores[counted] = np.logaddexp(0, (log_others + each - own[:, None])[counted])
        weights = self.weights * ratio[self.labels]
        return Calibration(scores.mean(1), self.labels, weights, self.models, simulated=scores)

    def p_values(
        self, scores: Sequence[Doubles], by_class: bool = False, new_weights: Doubles | None = None
    ) -> Doubles:
        """Conformal p-values (n, C) of new images.

        ``p(c) = (v_c + Σ_i w_i 1[s_i ≥ s_k(i)(x, c)]) / (v_c + Σ_i w_i)`` with the model k(i) that has not seen sample
        i and ``v_c = 1``: cross-conformal prediction (Vovk 2015), whose sets are those of CV+
        (Romano, Sesia & Candès 2020). With one model it is split conformal prediction.

        Parameters
        ----------
        scores : sequence of ndarray of shape (n, C)
            Nonconformity of each class by each model.
        by_class : bool, default=False
            Whether a class is compared with its own samples alone (Mondrian: coverage in each class).
        new_weights : ndarray of shape (C,), optional
            Weight v of a new image if it is of a class; p is 0 where it is 0. Without them it is 1.
        """
        n, n_classes = scores[0].shape
        at_least = np.zeros((n, n_classes))
        for model, found in enumerate(scores):
            own = self.models == model
            if by_class:
                for c in range(n_classes):
                    at_least[:, c] += weight_at_least(*self.weighted_scores(own & (self.labels == c)), found[:, c])
            else:
                at_least += weight_at_least(*self.weighted_scores(own), found)
        total = np.bincount(self.labels, self.weights, minlength=n_classes) if by_class else self.weights.sum()
        if new_weights is None:
            return (1 + at_least) / (1 + total)
        possible = new_weights > 0
        return np.where(possible, (new_weights + at_least) / np.where(possible, new_weights + total, 1.0), 0.0)

    def largest_scores(self, levels: Sequence[float]) -> Doubles:
        """Largest nonconformity (n_levels,) of a class in the sets of each level, where one model gives them.

        The sets are those of `prediction_sets`: the p-value of a class falls with its nonconformity, in steps that lie
        at the scores of the samples. Infinite where the samples are so few that every class is in every set.
        """
        alphas = 1 - np.asarray(levels, dtype=np.float64) + P_VALUE_ROUNDING
        total = 1 + self.weights.sum()
        scores, weights = self.weighted_scores(np.arange(len(self.labels)))
        p_values = (1 + weight_at_least(scores, weights, scores)) / total
        kept = p_values[:, None] > alphas
        limits: Doubles = np.where(kept, scores[:, None], -np.inf).max(axis=0, initial=-np.inf).astype(np.float64)
        return np.where(1 / total > alphas, np.inf, limits)


def frequency_ratio(prior: Doubles, labels: NDArray[np.intp], weights: Doubles) -> Doubles:
    """Frequencies of classes among new images over those among calibration samples (C,).

    A class without samples gets 1, or 0 where its frequency is 0; the frequencies of the others are taken to sum to 1.

    Parameters
    ----------
    prior : ndarray of shape (C,)
        Class frequencies of the new images.
    labels, weights : ndarray of shape (N,)
        Of the samples.
    """
    shares = np.bincount(labels, weights, minlength=len(prior)) / weights.sum()
    held = shares > 0
    ratio = (prior > 0).astype(np.float64)
    ratio[held] = prior[held] / prior[held].sum() / shares[held]
    return ratio


def weight_at_least(calibration: Doubles, weights: Doubles, scores: Doubles) -> Doubles:
    """Weight of the calibration scores (N,) that are at least as large as each score (any shape)."""
    order = np.argsort(calibration, kind="stable")
    # the weight from each place in the order to the end
    from_here = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    found: Doubles = from_here[np.searchsorted(calibration[order], scores, side="left")]
    return found


def nonconformity(logits: NDArray[np.floating[Any]]) -> Doubles:
    """``−log softmax`` (n, C) of logits (n, C); infinite for a class whose logit is minus infinity."""
    scores: Doubles = -log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return scores


def kept_log_proba(log_proba: Doubles) -> NDArray[np.float16]:
    """Log probabilities (n, C) in half precision, as `Calibration` keeps them: finite, where there is none at all."""
    return np.maximum(log_proba, LEAST_LOG_PROBA).astype(np.float16)


def own_nonconformity(logits: NDArray[np.floating[Any]], labels: NDArray[np.intp]) -> Doubles:
    """Nonconformity (n,) of the labels (n,) by logits (n, C)."""
    return nonconformity(logits)[np.arange(len(labels)), labels]


def full_p_value(scores: ArrayLike, weights: ArrayLike, new: int) -> float:
    """P-value of one of N + 1 samples, each of which has been scored by the others.

    ``p = Σ_i w_i 1[s_i ≥ s_new] / Σ_i w_i``. The samples are exchangeable and the scores symmetric in them, so that
    ``P(p ≤ α) ≤ α`` whatever is learned from the samples (Vovk, Gammerman & Shafer 2005). Of several equally likely
    scores of a sample each counts its share, and p is the mean over those of the sample in question.

    Parameters
    ----------
    scores : array-like of shape (N + 1,) or (N + 1, T)
    weights : array-like of shape (N + 1,)
    new : int
        Position of the sample in question.
    """
    scores, weights = np.asarray(scores), np.asarray(weights)
    scores = scores.reshape(len(scores), -1)
    n = scores.shape[1]
    at_least = weight_at_least(scores.ravel(), np.repeat(weights / n, n), scores[new])
    return float(at_least.mean() / weights.sum())


def simulated_nonconformity(
    logits: NDArray[np.floating[Any]], own: NDArray[np.floating[Any]], labels: NDArray[np.intp]
) -> NDArray[np.floating[Any]]:
    """Nonconformity of the labels at `N_SIMULATED` equally likely cosines.

    Parameters
    ----------
    logits : ndarray of shape (n, C)
        Those of the other classes are read.
    own : ndarray of shape (n, Q)
        Logits of the label at the nodes of the quadrature, between which they are interpolated.
    labels : ndarray of shape (n,)

    Returns
    -------
    scores : ndarray of shape (n, N_SIMULATED), float32
    """
    nodes = np.polynomial.hermite_e.hermegauss(own.shape[1])[0]
    deviations = norm.ppf((np.arange(N_SIMULATED) + 0.5) / N_SIMULATED)
    interpolation = np.stack([np.interp(deviations, nodes, one) for one in np.eye(len(nodes))])
    others = logits.astype(np.float64)
    others[np.arange(len(others)), labels] = -np.inf
    scores: NDArray[np.floating[Any]] = np.logaddexp(
        0, logsumexp(others, axis=1)[:, None] - own @ interpolation
    ).astype(np.float32)
    return scores


def prediction_sets(p_values: Doubles, levels: Sequence[float], likeliest: NDArray[np.intp] | None = None) -> Masks:
    """Sets (n, C, n_levels): the classes whose p-value exceeds one minus the level.

    Parameters
    ----------
    p_values : ndarray of shape (n, C)
    levels : sequence of float
    likeliest : ndarray of shape (n,), optional
        Class that an empty set gets; by default sets may be empty.
    """
    alphas = 1 - np.asarray(levels, dtype=np.float64)
    sets: Masks = p_values[:, :, None] > alphas + P_VALUE_ROUNDING
    return sets if likeliest is None else fill_empty_sets(sets, likeliest)


def fill_empty_sets(sets: Masks, likeliest: NDArray[np.intp]) -> Masks:
    """Sets (n, C, n_levels), of which an empty one gets the likeliest class (n,) of its image."""
    filled = sets.copy()
    filled[np.arange(len(sets)), likeliest] |= ~sets.any(axis=1)
    return filled


def samples_needed(level: float) -> int:
    """Least number of calibration samples for sets that leave a class out: ``⌈1/(1 − level)⌉ − 1``.

    Examples
    --------
    >>> samples_needed(0.9), samples_needed(0.95)
    (9, 19)
    """
    return math.ceil(1 / (1 - level) - P_VALUE_ROUNDING) - 1


def proved_coverage(level: float, n_samples: int, n_folds: int) -> float:
    """Coverage of cross-conformal sets that is proved for exchangeable images (Barber et al. 2021, theorem 4).

    ``1 − 2α − min(2 (1 − 1/K) / (N/K + 1), (1 − K/N) / (K + 1))``, at least 0.

    Parameters
    ----------
    level : float
    n_samples, n_folds : int
        N and K.
    """
    n, k = n_samples, n_folds
    return max(0.0, 1 - 2 * (1 - level) - min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1)))
