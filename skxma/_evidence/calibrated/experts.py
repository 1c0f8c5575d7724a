"""The experts that are fused: scores of each class from zero-shot, the text cache and the image cache in a metric.

Each expert scores (n, C); see docs/method.md, step 3. Scores of the support samples themselves are leave-one-out: no
sample is scored by anything that saw its label, except the own class of a singleton, which is simulated (step 6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.metric import MetricSupport, QueryScores, leave_one_out_scores, query_scores
from skxma._runtime import blocks
from skxma._statistics import SingletonPrior, class_means
from skxma.caches import Projection

TEXT_EXPERTS = ("text_cache", "centered_text")
IMAGE_EXPERTS = ("image_cache", "prototype", "gaussian")
IMAGE_CACHE, PROTOTYPE, GAUSSIAN = range(len(IMAGE_EXPERTS))
"""Rows of the image experts. The Gaussian is the last, because it is left out where all samples are singletons."""


def expert_names(has_text: bool, n_image: int, further: Iterable[int] = ()) -> tuple[str, ...]:
    """Names of the experts in the order of their weights.

    Parameters
    ----------
    has_text : bool
        Whether a class has a text.
    n_image : int
        Number of image experts of the first encoder.
    further : iterable of int
        Places of the encoders beside the first, which are an expert each.
    """
    text = TEXT_EXPERTS if has_text else ()
    return ("zero_shot", *text, *IMAGE_EXPERTS[:n_image], *map(encoder_expert, further))


def encoder_expert(block: int) -> str:
    """Name of the expert that an encoder beside the first is, by its place among the encoders."""
    return f"encoder_{block + 1}"


@dataclass(frozen=True)
class LeaveOneOutScores:
    """Leave-one-out scores of the support set by J experts.

    Attributes
    ----------
    names : tuple of str
    scores : Tensor of shape (J, N, C)
        The own class of a singleton holds the mean of its simulated scores.
    own : Tensor of shape (J, N, Q)
        Scores of the own class at the Q nodes of the quadrature; they differ between nodes for singletons only.
    node_weights : Tensor of shape (Q,)
    singleton : bool Tensor of shape (N,)
        Samples that are the only one of their class.
    """

    names: tuple[str, ...]
    scores: Tensor
    own: Tensor
    node_weights: Tensor
    singleton: Tensor

    def among(self, classes: Tensor) -> LeaveOneOutScores:
        """The scores of some classes (K,)."""
        return self if len(classes) == self.scores.shape[2] else replace(self, scores=self.scores[:, :, classes])


@dataclass(frozen=True)
class ImageScale:
    """Numbers that turn query scores into image experts: sharpness β, and the deviation of the Gaussian scores."""

    beta: float
    gaussian: float


def image_scores(
    queries: QueryScores, support: MetricSupport, mass: Tensor, scale: ImageScale, deviations: float
) -> Tensor:
    """Scores of image cache, prototype and Gaussian (3, n, C).

    Parameters
    ----------
    queries : QueryScores
    support : MetricSupport
    mass : Tensor of shape (n, C) or (C,)
        0 where a class has no keys.
    scale : ImageScale
    deviations : float
        Deviations above the row's mean at which such a class is placed.
    """
    cache = F.class_log_evidence(queries.key_cosines, support.labels, support.weights, mass, scale.beta)
    scores = torch.stack([cache, queries.prototype, queries.gaussian / scale.gaussian])
    return F.fill_absent(scores, mass > 0, deviations)


def left_out_image_scores(
    support: MetricSupport,
    scatter_weight: float,
    config: CalibrationConfig,
    rows: Tensor | None = None,
    scale: ImageScale | None = None,
) -> tuple[LeaveOneOutScores, ImageScale]:
    """Leave-one-out scores of support samples in one metric, and the scale with which new images will be scored.

    Parameters
    ----------
    support : MetricSupport
    scatter_weight : float
        See `metric.Metric`.
    config : CalibrationConfig
    rows : integer Tensor of shape (n,), optional
        Samples that are scored; all by default.
    scale : ImageScale, optional
        Scale that was found with other rows; by default it is found here.
    """
    rows = torch.arange(len(support.labels), device=support.labels.device) if rows is None else rows
    labels = support.labels[rows]
    singleton = support.singleton[rows] & config.leave_one_out
    if scale is None:
        beta = config.beta_times_sigma / support.sigma if config.beta is None else config.beta
    else:
        beta = scale.beta
    parts, raw = [], []
    entries = len(support.keys) * support.members.shape[1]
    of_means = support.means @ support.keys.T
    for block in torch.arange(len(rows), device=rows.device).split(max(1, blocks.SCORE_ENTRIES // entries)):
        if config.leave_one_out:
            queries, mass = leave_one_out_scores(support, scatter_weight, rows[block], of_means)
        else:
            queries, mass = query_scores(support, support.keys[rows[block]]), support.mass
        parts.append(image_scores(queries, support, mass, ImageScale(beta, 1.0), config.imageless_deviations))
        raw.append(queries.gaussian)
    scores = torch.cat(parts, dim=1)
    if scale is None:
        scale = ImageScale(beta, gaussian_score_std(torch.cat(raw), labels, singleton, support.mass > 0))
    scores[GAUSSIAN] /= scale.gaussian
    return _simulate_own_class(scores, support, rows, singleton, scale, config.singleton), scale


def gaussian_score_std(scores: Tensor, labels: Tensor, singleton: Tensor, present: Tensor) -> float:
    """Standard deviation of the Gaussian scores (n, C), 1 where they do not vary.

    Classes without support (`present` (C,) is False) and the own class of singletons do not count, because their
    scores stand for nothing.
    """
    counts = present.expand_as(scores).scatter(1, labels[:, None], (present[labels] & ~singleton)[:, None])
    seen = scores[counts]
    std = float(seen.std(correction=0)) if len(seen) > 1 else 0.0
    return std if std > F.EPS else 1.0


def _simulate_own_class(
    scores: Tensor,
    support: MetricSupport,
    rows: Tensor,
    singleton: Tensor,
    scale: ImageScale,
    prior: SingletonPrior,
) -> LeaveOneOutScores:
    """Attach the own-class scores at the nodes: simulated for singletons, equal at all nodes for the others.

    At a simulated cosine t to a second image of the class, the cache says ``log(exp(β (t − 1)) + 1e-8)``, the
    prototype t, and the Gaussian ``|k|² (t − ½)``, the class mean being as long as the key.
    """
    quadrature = prior.quadrature(support.sigma)
    nodes, weights = (torch.as_tensor(a, dtype=scores.dtype, device=scores.device) for a in quadrature)
    index = support.labels[rows][None, :, None].expand(len(scores), -1, 1)
    own = scores.gather(2, index).repeat(1, 1, len(nodes))
    squared = support.keys[rows[singleton]].square().sum(1)[:, None]
    own[IMAGE_CACHE, singleton] = torch.log(F.modulate(nodes, scale.beta) + F.EVIDENCE_FLOOR)
    own[PROTOTYPE, singleton] = nodes
    own[GAUSSIAN, singleton] = (nodes - 0.5) * squared / scale.gaussian
    scores = scores.scatter(2, index, (own @ weights)[:, :, None])
    return LeaveOneOutScores(IMAGE_EXPERTS, scores, own, weights, singleton)


def ridge_img2txt(
    features: Tensor, targets: Tensor, weights: Tensor, ridge: float, members: Tensor | None = None
) -> tuple[Projection, Tensor]:
    """Img2TxtNet in closed form: ``f + b + (f − mean f) A`` towards the text of the class.

    b is the mean of ``T_y − f`` over the samples, A the ridge regression of what is left; both are 0 where no sample
    has a weight. A is shared by all classes, so that it works at one shot.

    Parameters
    ----------
    features : Tensor of shape (N, D)
    targets : Tensor of shape (N, D)
        Text features of the samples' classes.
    weights : Tensor of shape (N,)
    ridge : float
        λ, added to the diagonal of the Gram matrix.
    members : integer Tensor of shape (N, g), optional
        See `MetricSupport`; without it each sample is left out alone.

    Returns
    -------
    net : Projection
    left_out : Tensor of shape (N, D)
        L2-normalized outputs for the samples, each by the A of all others: with the block H of the hat matrix and the
        residuals y of the samples that are left out, their outputs are ``y − (I − H)⁻¹ (y − fit)``.
    """
    x, y, v = features.double(), targets.double(), weights.double()[:, None]
    total = v.sum().clamp_min(F.EPS)
    mean = (v * x).sum(0) / total
    shift = (v * (y - x)).sum(0) / total
    centered, rest = x - mean, y - x - shift
    # G⁻¹ Xᵀ, G = Xᵀ V X + λ I, in the smaller of two forms
    if len(x) < x.shape[1]:
        gram = v[:, 0] * (centered @ centered.T)
        gram.diagonal().add_(ridge)
        solved = torch.linalg.solve(gram, centered).T
    else:
        gram = centered.T @ (v * centered)
        gram.diagonal().add_(ridge)
        solved = torch.cholesky_solve(centered.T, torch.linalg.cholesky(gram))
    matrix = solved @ (v * rest)
    fitted = centered @ matrix
    error = rest - fitted
    if members is None or members.shape[1] == 1:
        error = error / (1 - v * (centered * solved.T).sum(1, keepdim=True))
    else:
        present, index = members >= 0, members.clamp_min(0)
        taken = torch.where(present, v[index, 0], 0.0)
        hat = (centered[index] @ solved.T[index].mT) * taken[:, None, :]
        identity = torch.eye(members.shape[1], dtype=x.dtype, device=x.device)
        place = (index == torch.arange(len(x), device=x.device)[:, None]) & present
        # the row of (I − H)⁻¹ that belongs to the sample itself
        row = torch.linalg.solve((identity - hat).mT, place.to(x)[:, :, None])[..., 0]
        error = (torch.where(present, row, 0.0)[:, None] @ error[index])[:, 0]
    held_out = rest - error
    linear = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) + matrix
    net = Projection(linear.float().cpu().numpy(), (shift - mean @ matrix).float().cpu().numpy())
    return net, F.normalize(x + shift + held_out).to(features.dtype)


def modality_means(features: Tensor, labels: Tensor, weights: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Means (D,) of images and of texts over the classes that have both.

    Every class counts the same, so that neither frequent classes nor a text near all images pulls. Where no class has
    both, each mean is over the classes that have the one.
    """
    means, mass = class_means(features, labels, weights, len(text))
    has_images, has_text = mass > 0, text.any(1)
    both = has_images & has_text
    if not bool(both.any()):
        return means[has_images].mean(0), text[has_text].mean(0)
    return means[both].mean(0), text[both].mean(0)


class TextExperts:
    """The experts of the class texts, with what does not depend on the images computed once.

    The centered cosine subtracts from image and text the mean of its modality, which removes what makes one text near
    all images. It sees no label.

    Parameters
    ----------
    text : Tensor of shape (C, D)
        Zero rows are classes without text.
    means : tuple of Tensor of shape (D,)
        See :func:`modality_means`.
    """

    def __init__(self, text: Tensor, means: tuple[Tensor, Tensor]) -> None:
        self.text, self.image_mean = F.column_major(text), means[0]
        self.centered = F.column_major(F.normalize(text - means[1]))
        known = text.any(1)
        self.known = None if bool(known.all()) else known

    def __call__(self, features: Tensor, mapped: Tensor) -> Tensor:
        """Zero-shot cosines, text-cache affinities and centered cosines (3, n, C).

        Parameters
        ----------
        features : Tensor of shape (n, D)
        mapped : Tensor of shape (n, D)
            ``Img2Txt(f)``.
        """
        centered = F.affinity(F.normalize(features - self.image_mean), self.centered)
        scores = torch.stack([F.affinity(features, self.text), F.affinity(mapped, self.text), centered])
        return F.fill_absent(scores, self.known)


def text_scores(features: Tensor, mapped: Tensor, text: Tensor, means: tuple[Tensor, Tensor]) -> Tensor:
    """Scores (3, n, C) of the `TextExperts` of texts (C, D) for embeddings and mapped embeddings (n, D)."""
    return TextExperts(text, means)(features, mapped)
