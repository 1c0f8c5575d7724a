"""The opinions that are fused: what zero-shot, the text cache and the image cache in a metric say of each class.

Each expert scores (n, C). For the support samples themselves the scores are leave-one-out: no sample is scored by
anything that saw its label, except the own class of a lone sample, which is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.metric import MetricSupport, Views, leave_one_out_view, view
from skxma._statistics import BLOCK_ENTRIES, class_means, lone_nodes
from skxma.caches import Projection

TEXT_EXPERTS = ("text_cache", "centred_text")
IMAGE_EXPERTS = ("image_cache", "prototype", "gaussian")
SHARPNESS = 2.0
RIDGE = 1.0


@dataclass(frozen=True)
class Scores:
    """Leave-one-out scores of the support set by J experts.

    Attributes
    ----------
    names : tuple of str
    scores : Tensor of shape (J, N, C)
        The own class of a lone sample holds the mean of its simulated scores.
    own : Tensor of shape (J, N, Q)
        Scores of the own class at the Q nodes of the quadrature; equal at all nodes but for lone samples.
    node_weights : Tensor of shape (Q,)
    lone : bool Tensor of shape (N,)
        Samples that are the only one of their class.
    """

    names: tuple[str, ...]
    scores: Tensor
    own: Tensor
    node_weights: Tensor
    lone: Tensor


@dataclass(frozen=True)
class ImageScale:
    """What turns views into image scores: sharpness β and the spread by which Gaussian scores are divided."""

    beta: float
    gaussian: float


def image_scores(views: Views, support: MetricSupport, mass: Tensor, scale: ImageScale) -> Tensor:
    """Image cache, prototype and Gaussian (3, n, C) from views; `mass` (n, C) or (C,), 0 where a class has no keys."""
    present = mass > 0
    cache = F.class_log_evidence(views.key, support.labels, support.weights, mass, scale.beta)
    scores = torch.stack([cache, views.prototype, views.gaussian / scale.gaussian])
    return F.fill_absent(scores, present)


def query_image_scores(support: MetricSupport, scale: ImageScale, queries: Tensor) -> Tensor:
    """Image scores (3, n, C) of new pictures that the metric has mapped (n, R)."""
    return image_scores(view(support, queries), support, support.mass, scale)


def leave_out_mass(support: MetricSupport, rows: Tensor, lone: Tensor) -> Tensor:
    """Mass of each class (n, C) without the sample that asks; that of a lone sample's class is 0."""
    labels = support.labels[rows]
    rest = torch.where(lone, 0.0, support.mass[labels] - support.weights[rows])
    return support.mass.repeat(len(rows), 1).scatter_(1, labels[:, None], rest[:, None])


def support_image_scores(
    support: MetricSupport,
    leave_out: float,
    beta: float | None,
    leave_one_out: bool = True,
    rows: Tensor | None = None,
    scale: ImageScale | None = None,
) -> tuple[Scores, ImageScale]:
    """Leave-one-out scores of support samples in one metric, and the scale that new pictures will be scored with.

    Parameters
    ----------
    support : MetricSupport
    leave_out : float
        See `metric.Metric`.
    beta : float or None
        Sharpness; None takes 2/σ.
    leave_one_out : bool
        False lets samples retrieve themselves, to see what that would cost.
    rows : integer Tensor of shape (n,), optional
        Which samples; all by default.
    scale : ImageScale, optional
        A scale that was found already; `beta` is not read then.
    """
    rows = torch.arange(len(support.labels), device=support.labels.device) if rows is None else rows
    labels = support.labels[rows]
    lone = (torch.bincount(support.labels, minlength=len(support.mass))[labels] == 1) & leave_one_out
    if scale is None:
        known_beta, known_spread = SHARPNESS / support.sigma if beta is None else beta, None
    else:
        known_beta, known_spread = scale.beta, scale.gaussian
    blocks, unscaled = [], ImageScale(known_beta, 1.0)
    for some in torch.arange(len(rows), device=rows.device).split(max(1, BLOCK_ENTRIES // len(support.keys))):
        if leave_one_out:
            views = leave_one_out_view(support, leave_out, rows[some])
            mass = leave_out_mass(support, rows[some], lone[some])
        else:
            views, mass = view(support, support.keys[rows[some]]), support.mass
        blocks.append((image_scores(views, support, mass, unscaled), views.gaussian))
    scores = torch.cat([block for block, _ in blocks], dim=1)
    if known_spread is None:
        known_spread = gaussian_spread(torch.cat([raw for _, raw in blocks]), labels, lone, support.mass > 0)
    scores[2] /= known_spread
    scale = ImageScale(known_beta, known_spread)
    return _with_own(scores, support, rows, lone, scale), scale


def gaussian_spread(scores: Tensor, labels: Tensor, lone: Tensor, present: Tensor) -> float:
    """Deviation of the Gaussian scores (n, C) that stand for something, 1 where there is none.

    Classes without support (`present` (C,) is False) and the own class of lone samples do not count.
    """
    keep = present.expand_as(scores).scatter(1, labels[:, None], (present[labels] & ~lone)[:, None])
    seen = scores[keep]
    spread = float(seen.std(correction=0)) if len(seen) > 1 else 0.0
    return spread if spread > F.EPS else 1.0


def _with_own(scores: Tensor, support: MetricSupport, rows: Tensor, lone: Tensor, scale: ImageScale) -> Scores:
    """Attach the own-class scores at the nodes: simulated for lone samples, as they are for the others."""
    nodes, weights = (torch.as_tensor(a, dtype=scores.dtype, device=scores.device) for a in lone_nodes(support.sigma))
    labels = support.labels[rows]
    own = scores.gather(2, labels[None, :, None].expand(len(scores), -1, 1)).repeat(1, 1, len(nodes))
    squared = support.keys[rows[lone]].square().sum(1)[:, None]
    own[0, lone] = torch.log(torch.exp(scale.beta * (nodes - 1)) + F.EVIDENCE_FLOOR)
    own[1, lone] = nodes
    own[2, lone] = (nodes - 0.5) * squared / scale.gaussian
    scores = scores.scatter(2, labels[None, :, None].expand(len(scores), -1, 1), (own @ weights)[:, :, None])
    return Scores(IMAGE_EXPERTS, scores, own, weights, lone)


def ridge_img2txt(features: Tensor, targets: Tensor, weights: Tensor) -> tuple[Projection, Tensor]:
    """Img2TxtNet in closed form: ``f + b + (f − mean f) A`` towards the text of the class.

    b is the mean of ``T_y − f`` over the samples, A the ridge regression (λ = 1) of what is left; both are 0 where no
    sample has a weight.

    Parameters
    ----------
    features : Tensor of shape (N, D)
    targets : Tensor of shape (N, D)
        Text features of the samples' classes.
    weights : Tensor of shape (N,)

    Returns
    -------
    net : Projection
    left_out : Tensor of shape (N, D)
        L2-normalised outputs for the samples, each by the A that did not see it (hat matrix).
    """
    x, y, v = features.double(), targets.double(), weights.double()[:, None]
    total = v.sum().clamp_min(F.EPS)
    mean = (v * x).sum(0) / total
    shift = (v * (y - x)).sum(0) / total
    centred, rest = x - mean, y - x - shift
    gram = centred.T @ (v * centred)
    gram.diagonal().add_(RIDGE)
    factor = torch.linalg.cholesky(gram)
    matrix = torch.cholesky_solve(centred.T @ (v * rest), factor)
    leverage = v * (centred * torch.cholesky_solve(centred.T, factor).T).sum(1, keepdim=True)
    held_out = (centred @ matrix - leverage * rest) / (1 - leverage)
    linear = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) + matrix
    net = Projection(linear.float().cpu().numpy(), (shift - mean @ matrix).float().cpu().numpy())
    return net, F.normalise(x + shift + held_out).to(features.dtype)


def centres(features: Tensor, labels: Tensor, weights: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Where the two modalities lie: the means (D,) of images and of texts, over the classes that have both.

    Every class counts the same, so that neither frequent classes nor a text near all pictures pulls. Where no class has
    both, each mean is over the classes that have the one.
    """
    means, mass = class_means(features, labels, weights, len(text))
    seen, told = mass > 0, text.any(1)
    both = seen & told
    if not bool(both.any()):
        return means[seen].mean(0), text[told].mean(0)
    return means[both].mean(0), text[both].mean(0)


def text_scores(features: Tensor, mapped: Tensor, text: Tensor, means: tuple[Tensor, Tensor]) -> Tensor:
    """Zero-shot cosines, text-cache affinities and centred cosines (3, n, C).

    Parameters
    ----------
    features : Tensor of shape (n, D)
    mapped : Tensor of shape (n, D)
        Their Img2Txt images.
    text : Tensor of shape (C, D)
        Zero rows are classes without text.
    means : tuple of Tensor of shape (D,)
        See :func:`centres`.
    """
    known = text.any(1)
    centred = F.affinity(F.normalise(features - means[0]), F.normalise(text - means[1]))
    return F.fill_absent(torch.stack([F.affinity(features, text), F.affinity(mapped, text), centred]), known)
