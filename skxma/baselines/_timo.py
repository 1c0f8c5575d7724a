"""TIMO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sampling import stratified_folds
from skxma._sklearn_compat import Interval, StrOptions
from skxma._statistics import class_means, zero_shot_cosines
from skxma.baselines._base import shrunk_inverse
from skxma.baselines._training import frozen
from skxma.caches import to_tensors

ALPHAS = tuple(10.0**power for power in range(-4, 5))
TIMO_FOLDS = 4
"""Shots of a class are dealt out evenly, so that at four of them a fold leaves one out."""


class TIMOClassifier(BaseFewShotClassifier):
    """TIMO [1]_: each prompt of a class weighted by its match to the class's images, and taken as a sample in GDA.

    ``alpha · f · T + f · W + b``. With ``s_cp`` the cosine of a prompt to the mean image of its class, T weights the
    prompts of a class by a softmax over ``gamma · s_cp / |s_c|`` ("image-guided text"), and W and b are those of
    Gaussian discriminant analysis (see :class:`GDAClassifier`) on the images together with the prompts times ``s_cp``
    ("text-guided image"). Nothing is trained.

    The official code [2]_ picks alpha from {1e-4, ..., 1e4} on a full validation set and has gamma at 50, for ImageNet
    at 1 and for Oxford flowers at 100. Here alpha is picked on the support set, by the accuracy on four left-out folds,
    among equals by the log loss, and gamma is 50. A class without images takes the mean of the cosines ``s``; without
    any text there are no prompts, and class means stand for T. At one shot, a class is known by its prompts alone
    while its image is left out, which favors a large alpha.

    It needs several prompts of a class to have something to weight: `templates` with several, several names of a class,
    or `text_features` of shape (n_classes, n_prompts, n_features).

    Parameters
    ----------
    alpha : float or "auto", default="auto"
        Weight of the text.

    gamma : float, default=50.0
        Sharpness of the weights of the prompts; 0 weights them equally.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    alpha_ : float
        The chosen weight.
    text_ : ndarray of shape (n_classes, n_features)
        T, of unit length; 0 for a class without text.
    coef_ : ndarray of shape (n_classes, n_features)
        W.
    intercept_ : ndarray of shape (n_classes,)
        b.

    References
    ----------
    .. [1] Li et al., "Text and Image Are Mutually Beneficial: Enhancing Training-Free Few-Shot Classification with
       CLIP", AAAI 2025, arXiv:2412.11375.
    .. [2] https://github.com/lyymuwu/TIMO
    """

    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"alpha": ALPHAS}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "gamma": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: Any = "auto",
        gamma: float = 50.0,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        n_views: int = 1,
        conformal: str | None = None,
        device: Any = "auto",
        precision: str = "auto",
        memory: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            class_names=class_names,
            templates=templates,
            text_features=text_features,
            n_views=n_views,
            conformal=conformal,
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.alpha = alpha
        self.gamma = gamma

    def _fit_support(self, task: Task) -> dict[str, Any]:
        samples = Samples.of(task)
        alpha = choose_alpha(samples, self.gamma) if isinstance(self.alpha, str) else float(self.alpha)
        head = Head.of(samples, self.gamma)
        return {
            "alpha_": alpha,
            "text_": frozen(head.text),
            "coef_": frozen(head.weight),
            "intercept_": frozen(head.bias),
            "present_": head.present.cpu().numpy(),
            "n_trained_": 0,
        }

    def _logits(self, features: Tensor) -> Tensor:
        held = self.text_, self.coef_, self.intercept_, self.present_
        cosines, scores = Head(*to_tensors(*held, like=features)).scores(features)
        return self.alpha_ * cosines + scores


@dataclass(frozen=True)
class Samples:
    """Images and prompts.

    Attributes
    ----------
    features : Tensor of shape (N, D)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
        A sample that was given once has 1.
    prompts : Tensor of shape (C, P, D)
        Zero rows where a class has fewer than P; P is 0 without any text.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    prompts: Tensor

    @classmethod
    def of(cls, task: Task) -> Samples:
        """The images and prompts of a task."""
        cache, prompts = task.cache, task.prompts()
        features, labels, weights = to_tensors(cache.keys, cache.labels, cache.weights, like=task.like)
        if prompts is None:
            rows = features.new_empty(cache.n_classes, 0, features.shape[1])
        else:
            (rows,) = to_tensors(prompts, like=task.like)
        return cls(features, labels, weights * cache.weight_unit, rows)

    def without(self, left_out: Tensor) -> Samples:
        """All but some images (bool, N)."""
        kept = ~left_out
        return Samples(self.features[kept], self.labels[kept], self.weights[kept], self.prompts)


@dataclass(frozen=True)
class Head:
    """Texts (C, D), Gaussian weights (C, D) and biases (C,), and which classes these know, bool (C,)."""

    text: Tensor
    weight: Tensor
    bias: Tensor
    present: Tensor

    @classmethod
    def of(cls, samples: Samples, gamma: float) -> Head:
        """Learn from images and prompts."""
        prompts, n_classes = samples.prompts, len(samples.prompts)
        means, mass = class_means(samples.features, samples.labels, samples.weights, n_classes)
        given = prompts.any(2)
        match = matching_scores(means, mass > 0, prompts, given)
        text = guided_text(prompts, given, match, gamma)
        features = torch.cat([samples.features, (match[:, :, None] * prompts)[given]])
        labels = torch.cat([samples.labels, given.nonzero()[:, 0]])
        weights = torch.cat([samples.weights, samples.weights.new_ones(int(given.sum()))])
        centers, total = class_means(features, labels, weights, n_classes)
        inverse = shrunk_inverse(features, labels, weights, centers)
        weight = centers.double() @ inverse
        bias = -math.log(n_classes) - (weight * centers.double()).sum(1) / 2
        return cls(text if bool(given.any()) else F.normalize(means), weight, bias, total > 0)

    def scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the texts and Gaussian scores (n, C) of L2-normalized features (n, D)."""
        gaussian = features @ self.weight.to(features).T + self.bias.to(features)
        return zero_shot_cosines(features, self.text), F.fill_absent(gaussian, self.present)


def matching_scores(means: Tensor, present: Tensor, prompts: Tensor, given: Tensor) -> Tensor:
    """Cosine (C, P) of each prompt to the mean image of its class; their mean where a class has no image."""
    match = (prompts @ F.normalize(means)[:, :, None])[:, :, 0]
    known = given & present[:, None]
    usual = match[known].mean() if bool(known.any()) else match.new_ones(())
    return torch.where(present[:, None], match, usual) * given


def guided_text(prompts: Tensor, given: Tensor, match: Tensor, gamma: float) -> Tensor:
    """Mean of the prompts of each class by a softmax over ``gamma · s / |s|`` (C, D), of unit length; 0 for none."""
    scaled = gamma * F.normalize(match)
    weights = torch.exp(scaled - scaled.amax(1, keepdim=True)) * given if prompts.shape[1] else match
    return F.normalize((weights[:, :, None] * prompts).sum(1))


def choose_alpha(samples: Samples, gamma: float) -> float:
    """The weight of the text with the most right answers on left-out folds; among equals, that of least log loss."""
    folds = torch.as_tensor(stratified_folds(samples.labels.cpu().numpy(), TIMO_FOLDS), device=samples.labels.device)
    # right answers and log loss stay on the device until all are known, for each reading waits for it
    sums = torch.zeros(2, len(ALPHAS), dtype=torch.float64, device=folds.device)
    for fold in folds.unique():
        left_out = folds == fold
        if bool(left_out.all()):
            continue
        cosines, scores = Head.of(samples.without(left_out), gamma).scores(samples.features[left_out])
        labels, weights = samples.labels[left_out], samples.weights[left_out].double()
        for i, alpha in enumerate(ALPHAS):
            logits = (alpha * cosines + scores).double()
            # classes of which the fold has all images are equal, and an answer among equals is right by chance
            winners = (logits == logits.amax(1, keepdim=True)).double()
            right = winners.gather(1, labels[:, None])[:, 0] / winners.sum(1)
            sums[0, i] += (weights * right).sum()
            sums[1, i] += (weights * torch.nn.functional.cross_entropy(logits, labels, reduction="none")).sum()
    n_right, loss = sums.tolist()
    best = min(range(len(ALPHAS)), key=lambda i: (-n_right[i], loss[i]))
    return ALPHAS[best]
