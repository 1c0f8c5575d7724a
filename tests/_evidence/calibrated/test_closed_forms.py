"""Closed forms against loops and refits, gradients against finite differences, on problems that hypothesis draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hostile import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import left_out_image_scores, ridge_img2txt
from skxma._evidence.calibrated.fit import leave_support_out
from skxma._evidence.calibrated.fusion import FusionParametrization
from skxma._evidence.calibrated.metric import MetricSupport, candidate_metrics, covariance_root
from skxma._evidence.calibrated.metric_selection import select_metrics
from skxma._evidence.calibrated.newton import sample_likelihoods
from skxma._evidence.calibrated.subsample import probable_label_errors
from skxma._evidence.calibrated.support import prepare_support
from skxma._evidence.fitted import LeftOutPredictions
from skxma._evidence.paper.config import PaperConfig
from skxma._evidence.paper.fit import class_mean_text, leave_one_out_logits
from skxma._evidence.paper.loss import SingletonAffinity, leave_one_out_loss
from skxma._evidence.paper.module import CrossModalCache
from skxma._statistics import SingletonPrior, class_means, cosine_spread, weighted_mean
from skxma.caches import ImageCache

pytestmark = pytest.mark.property
few = settings(max_examples=20, deadline=None)
LIKE = torch.empty(0, dtype=torch.float64)


def unit_rows(rng: Generator, *shape: int) -> Tensor:
    return F.normalize(torch.as_tensor(rng.standard_normal(shape)))


def draw_support(seed: int, least=1, singleton=False) -> tuple[Tensor, Tensor, Tensor, int, Generator]:
    """Features, labels and weights of 2 to 4 unbalanced classes; the last class has one sample where `singleton`."""
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 5))
    shots = rng.integers(least, 5, n_classes)
    if singleton:
        shots[-1] = 1
    labels = torch.arange(n_classes).repeat_interleave(torch.as_tensor(shots))
    weights = torch.as_tensor(rng.uniform(0.5, 2, len(labels)))
    return unit_rows(rng, len(labels), int(rng.integers(2, 7))), labels, weights / weights.mean(), n_classes, rng


@few
@given(seeds, st.booleans())
def test_the_gradient_of_the_evidence_is_that_of_finite_differences(seed, leaves_out):
    rng = np.random.default_rng(seed)
    n, n_keys, n_classes = rng.integers(1, 6, 3)
    affinities = torch.as_tensor(rng.uniform(-1, 1, (n, n_keys)), dtype=torch.float64).requires_grad_()
    beta = torch.tensor(rng.uniform(0.1, 6), dtype=torch.float64, requires_grad=True)
    labels = torch.as_tensor(rng.integers(n_classes, size=n_keys))
    weights = torch.as_tensor(rng.uniform(0, 2, n_keys))
    left_out = torch.as_tensor(rng.integers(n_keys, size=n)) if leaves_out else None

    def evidence(affinities, beta):
        return F.one_hot_evidence(affinities, labels, weights, int(n_classes), beta, left_out)

    assert torch.autograd.gradcheck(evidence, (affinities, beta))
    assert torch.autograd.gradcheck(lambda a: evidence(a, 2.5), (affinities,))
    assert torch.autograd.gradcheck(lambda b: evidence(affinities.detach(), b), (beta,))


@few
@given(seeds)
def test_the_gradient_of_fused_evidence_is_that_of_finite_differences(seed):
    rng = np.random.default_rng(seed)
    n, n_keys, n_classes = rng.integers(1, 6, 3)
    labels = torch.as_tensor(rng.integers(n_classes, size=n_keys))
    weights = torch.as_tensor(rng.uniform(0, 2, n_keys))
    image, text = (torch.as_tensor(rng.uniform(-1, 1, (n, m))).requires_grad_() for m in (n_keys, n_classes))
    ratio, beta = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in rng.uniform(0.1, 0.9, 2))
    rows = torch.as_tensor(rng.integers(n_keys, size=n))
    for left_out in (None, rows):
        assert torch.autograd.gradcheck(
            lambda i, t, r, b, out=left_out: F.fused_evidence(i, t, labels, weights, r, b, out),
            (image, text, ratio, beta),
        )


@few
@given(seeds, st.integers(1, 3))
def test_the_derivatives_of_the_likelihoods_are_those_of_their_definition(seed, n_sets):
    rng = np.random.default_rng(seed)
    n_experts, n, n_classes, n_nodes = rng.integers(1, 5), rng.integers(1, 7), rng.integers(2, 6), rng.integers(1, 4)
    scores = torch.as_tensor(rng.standard_normal((2, n, n_experts, n_classes)))
    own = torch.as_tensor(rng.standard_normal((2, n, n_experts, n_nodes)))
    nodes = torch.as_tensor(rng.dirichlet(np.ones(n_nodes)))
    labels = torch.as_tensor(rng.integers(n_classes, size=n))
    weights = torch.as_tensor(rng.uniform(0, 3, (2, n_sets, n_experts))).requires_grad_()
    logit_rate = torch.as_tensor(rng.uniform(-5, 0, (2, n, n_sets))).requires_grad_()
    # labels that cannot be wrong are scored without noise
    rate = torch.where(torch.as_tensor(rng.random(n) < 0.3)[:, None], 0.0, torch.sigmoid(logit_rate))
    found = sample_likelihoods(scores, own, nodes, labels, weights.detach(), rate.detach())

    log_p = torch.empty(2, n, n_sets, n_nodes, dtype=torch.float64)
    for m, i, k, q in itertools.product(range(2), range(n), range(n_sets), range(n_nodes)):
        row = (weights[m, k] @ scores[m, i]).clone()
        row[labels[i]] = weights[m, k] @ own[m, i, :, q]
        log_p[m, i, k, q] = torch.log_softmax(row, 0)[labels[i]]
    value = torch.log((1 - rate[..., None]) * log_p.exp() + rate[..., None] / n_classes) @ nodes
    certain = sample_likelihoods(scores, own, nodes, labels, weights.detach(), torch.zeros_like(rate))
    torch.testing.assert_close(certain.value, (log_p @ nodes).detach())
    torch.testing.assert_close(found.value, value)
    by_weights, by_rate = torch.autograd.grad(value.sum(), (weights, logit_rate), retain_graph=True)
    torch.testing.assert_close(found.gradient.sum(1), by_weights)
    torch.testing.assert_close(found.by_noise, by_rate)
    if not bool(rate.any()):
        flat = torch.autograd.functional.hessian(
            lambda w: sample_likelihoods(scores, own, nodes, labels, w, rate.detach()).value.sum(), weights.detach()
        )
        for m, k in itertools.product(range(2), range(n_sets)):
            torch.testing.assert_close(found.curvature[m, :, k].sum(0), -flat[m, k, :, m, k])
    assert float(torch.linalg.eigvalsh(found.curvature).min()) > -1e-9


@few
@given(seeds, st.sampled_from([None, 0.0, 0.7]), st.sampled_from([None, 0.0, 0.3, 1.0]), st.integers(0, 2))
def test_relative_weights_are_what_their_parameters_say(seed, alpha, fusion_ratio, n_text):
    rng = np.random.default_rng(seed)
    n_image = int(rng.integers(1, 4))
    n = n_text + n_image
    v = torch.as_tensor(rng.standard_normal((3, 1 + n)))
    parametrization = FusionParametrization(np.ones(1 + n), n_text, n_image, alpha, fusion_ratio)
    relative = parametrization.relative_weights(v)
    zero, text, image = relative.values[:, 0], relative.values[:, 1 : 1 + n_text], relative.values[:, 1 + n_text :]
    torch.testing.assert_close(zero, v[:, 0].exp())
    torch.testing.assert_close(image.sum(1), n * relative.alpha * relative.fusion_ratio)
    torch.testing.assert_close(text.sum(1), n * relative.alpha * (1 - relative.fusion_ratio))
    if alpha is not None:
        assert relative.alpha.tolist() == [alpha] * 3
    if fusion_ratio is not None and n_text:
        np.testing.assert_allclose(relative.fusion_ratio, fusion_ratio)
    if alpha is None and (fusion_ratio is None or not n_text):
        torch.testing.assert_close(relative.values, v.exp())
        torch.testing.assert_close(relative.penalty, (relative.values - v).sum(1))
    if alpha != 0 and n_text and fusion_ratio not in (0.0, 1.0):
        # experts of a group whose sum is held keep their relations
        torch.testing.assert_close(
            (image[:, 1:] / image[:, :1]).log(), v[:, 2 + n_text :] - v[:, 1 + n_text : 2 + n_text]
        )


@few
@given(seeds, st.sampled_from([None, 0.0, 0.7]), st.sampled_from([None, 0.0, 0.3, 1.0]), st.integers(0, 2))
def test_the_derivatives_of_relative_weights_are_those_of_finite_differences(seed, alpha, fusion_ratio, n_text):
    rng = np.random.default_rng(seed)
    n = n_text + int(rng.integers(1, 4))
    v = torch.as_tensor(rng.standard_normal(1 + n))
    parametrization = FusionParametrization(np.ones(1 + n), n_text, n - n_text, alpha, fusion_ratio)
    relative = parametrization.relative_weights(v)
    step = 1e-6 * torch.eye(1 + n, dtype=torch.float64)
    above, below = (parametrization.relative_weights(v + sign * step) for sign in (1, -1))
    torch.testing.assert_close(relative.jacobian, (above.values - below.values).T / 2e-6, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(relative.penalty_gradient, (above.penalty - below.penalty) / 2e-6, atol=1e-7, rtol=1e-6)
    # u of the curvature is replaced by the larger of u and 1 where a weight is free
    bend = (above.penalty_gradient - below.penalty_gradient).T / 2e-6
    assert float(torch.linalg.eigvalsh(relative.penalty_curvature - bend).min()) > -1e-6


def test_without_anything_learned_every_weight_is_its_prior():
    for n_text in (0, 1, 2):
        relative = FusionParametrization(np.ones(4 + n_text), n_text, 3).relative_weights(torch.zeros(4 + n_text))
        torch.testing.assert_close(relative.values, torch.ones(4 + n_text))
        assert float(relative.alpha) == 1


def paper(**changes) -> PaperConfig:
    held = {"alpha": None, "beta": None, "fusion_ratio": None, "logit_scale": 5.0, "hard_sample_weight": 1.0}
    training = {"text_dim": None, "n_epochs": 0, "learning_rate": 1e-3, "weight_decay": 0.0, "batch_size": 8, "seed": 0}
    return PaperConfig(**{**held, **training, **changes})


@settings(max_examples=8, deadline=None)
@given(seeds, st.booleans())
def test_the_gradients_of_keys_nets_and_ratio_are_those_of_finite_differences(seed, narrow):
    features, labels, weights, n_classes, rng = draw_support(seed, singleton=True)
    text = unit_rows(rng, n_classes, features.shape[1])
    cache = ImageCache(*(a.numpy() for a in (features.float(), labels, weights.float())), n_classes)
    model = CrossModalCache(cache, text, paper(text_dim=2 if narrow else None), LIKE)
    simulated = SingletonAffinity(
        torch.tensor([0.4, 0.6], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    )
    rows = torch.arange(len(labels))
    with torch.no_grad():
        for parameter in model.parameters():
            # a net at its start has no gradient in its inner weights
            parameter += 0.3 * torch.as_tensor(rng.standard_normal(parameter.shape))
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*values):
        def run():
            image, text_affinity = model.affinities(features)
            scalars = (model.alpha, model.beta, model.ratio())
            return leave_one_out_loss(
                model.support, 5 * features @ text.T, rows, image, text_affinity, scalars, simulated
            ).sum()

        wrapped = Wrapped(model, run)
        return torch.func.functional_call(wrapped, {f"model.{n}": v for n, v in zip(names, values, strict=True)}, ())

    leaves = tuple(v.detach().clone().requires_grad_() for v in values)
    assert torch.autograd.gradcheck(loss, leaves, atol=1e-5)
    assert all(bool(gradient.any()) for gradient in torch.autograd.grad(loss(*leaves), leaves[:3]))


class Wrapped(torch.nn.Module):
    """A module whose forward is another function of its parameters."""

    def __init__(self, model, run):
        super().__init__()
        self.model, self.run = model, run

    def forward(self):
        return self.run()


def excess_of_means(keys, labels, weights, n_classes):
    """What the squared own mean is expected to be longer by without each sample (N,)."""
    means, _ = class_means(keys, labels, weights, n_classes)
    of_class = [weights[labels == c] for c in range(n_classes)]
    freedom = sum(float(w.sum() - (w**2).sum() / w.sum()) for w in of_class if len(w))
    scatter = float((weights[:, None] * (keys - means[labels]) ** 2).sum()) / freedom
    excess = []
    for i, c in enumerate(labels.tolist()):
        others = weights[(labels == c) & (torch.arange(len(labels)) != i)]
        with_it, without = ((w**2).sum() / w.sum() ** 2 for w in (of_class[c], others))
        excess.append(scatter * max(0.0, float(without - with_it)))
    return excess


def refit_view(
    x: Tensor, labels: Tensor, weights: Tensor, i: int, rho: float, trace: float, n_classes: int, excess: float = 0.0
):
    """Cosines to keys and means, and Gaussian scores of sample i, by a whitening that is fitted without it."""
    rest = torch.arange(len(labels)) != i
    means, mass = class_means(x[rest], labels[rest], weights[rest], n_classes)
    residual = x[rest] - means[labels[rest]]
    scatter = residual.T @ (weights[rest][:, None] * residual)
    inner = torch.linalg.inv((1 - rho) * scatter / trace + rho * torch.eye(x.shape[1], dtype=x.dtype))

    def product(a, b):
        return torch.einsum("nd,de,me->nm", a, inner, b)

    own = product(x[[i]], x[[i]])[0, 0].sqrt()
    lengths = product(x[rest], x[rest]).diagonal().sqrt()
    squared = product(means, means).diagonal().clone()
    y = labels[i]
    squared[y] = torch.maximum(squared[y] - excess, squared[y] / 10)
    cosines = product(x[[i]], x[rest])[0] / own / lengths
    dots = product(x[[i]], means)[0]
    prototype = torch.where(mass > 0, dots / own / squared.clamp_min(1e-300).sqrt(), 0.0)
    return rest, cosines, prototype, dots - squared / 2, mass


@few
@given(seeds, st.booleans(), st.sampled_from([0.1, 0.3, 0.6, 0.9]))
def test_left_out_image_scores_are_those_of_refitting_without_the_sample(seed, with_words, rho):
    features, labels, weights, n_classes, rng = draw_support(seed, least=2)
    width = features.shape[1]
    root = covariance_root(unit_rows(rng, 12, width), 0.01) if with_words else None
    (metric,) = candidate_metrics(features, labels, weights, n_classes, root, (rho,))
    support = MetricSupport.from_keys(metric(features), labels, weights, n_classes)
    beta = float(rng.uniform(1, 6))
    scores, scale = left_out_image_scores(support, metric.scatter_weight, CalibrationConfig(beta=beta))
    x = (features - weighted_mean(features, weights)) @ (torch.eye(width, dtype=LIKE.dtype) if root is None else root)
    means, _ = class_means(x, labels, weights, n_classes)
    trace = float((weights[:, None] * (x - means[labels]) ** 2).sum() / width)
    excess = excess_of_means(metric(features), labels, weights, n_classes)
    for i in range(len(labels)):
        rest, cosines, prototype, gaussian, _ = refit_view(x, labels, weights, i, rho, trace, n_classes, excess[i])
        for c in range(n_classes):
            held = labels[rest] == c
            evidence = (weights[rest][held] * torch.exp(beta * (cosines[held] - 1))).sum() / weights[rest][held].sum()
            torch.testing.assert_close(scores.scores[0, i, c], torch.log(evidence + F.EVIDENCE_FLOOR))
        torch.testing.assert_close(scores.scores[1, i], prototype)
        torch.testing.assert_close(scores.scores[2, i] * scale.gaussian, gaussian)


@few
@given(seeds, st.booleans())
def test_left_out_logits_of_a_fit_are_its_experts_refitted_without_the_sample(seed, with_text):
    features, labels, weights, n_classes, rng = draw_support(seed, least=2)
    width = features.shape[1]
    text = unit_rows(rng, n_classes, width) if with_text else None
    held = CalibrationConfig(max_metrics=1, shrinkages=(0.3,), beta=2.0)
    cache = ImageCache(*(a.numpy() for a in (features.float(), labels, weights.float())), n_classes)
    support = prepare_support(cache, text, held, LIKE)
    selection = select_metrics(support, [("none", None)], held)
    best, logits = selection.best, leave_support_out(selection, support, held).fitted.logits.sum(0)
    f, v = support.features, support.weights
    x = f - weighted_mean(f, v)
    means, _ = class_means(x, labels, v, n_classes)
    trace = float((v[:, None] * (x - means[labels]) ** 2).sum() / width)
    w = torch.as_tensor(best[0].fusion.weights)
    excess = excess_of_means(best[0].metric(f), labels, v, n_classes)
    for i in range(len(labels)):
        rest, cosines, prototype, gaussian, mass = refit_view(x, labels, v, i, 0.3, trace, n_classes, excess[i])
        one_hot = torch.nn.functional.one_hot(labels[rest], n_classes).double() * v[rest][:, None]
        cached = torch.log(torch.exp(2.0 * (cosines - 1)) @ one_hot / mass + F.EVIDENCE_FLOOR)
        image = torch.stack([cached, prototype, gaussian / best[0].scale.gaussian])
        if text is None:
            left_means, _ = class_means(x[rest], labels[rest], v[rest], n_classes)
            squared, y = left_means.square().sum(1), int(labels[i])
            squared[y] = torch.maximum(squared[y] - excess_of_means(x, labels, v, n_classes)[i], squared[y] / 10)
            first = (left_means @ x[i] / x[i].norm() / squared.clamp_min(1e-300).sqrt())[None]
        else:
            first = text_experts_without(i, f, labels, v, text, n_classes)
        torch.testing.assert_close(logits[i], w @ torch.cat([first, image]), atol=1e-7, rtol=1e-6)


def text_experts_without(i: int, f: Tensor, labels: Tensor, v: Tensor, text: Tensor, n_classes: int) -> Tensor:
    """Zero-shot, text cache refitted without sample i (its means held), and centered cosines, which see no label."""
    mean, shift = weighted_mean(f, v), weighted_mean(text[labels] - f, v)
    rest = torch.arange(len(labels)) != i
    centered, target = f[rest] - mean, text[labels][rest] - f[rest] - shift
    root = v[rest].sqrt()[:, None]
    width = f.shape[1]
    # ridge regression as least squares with the penalty as rows
    design = torch.cat([root * centered, torch.eye(width, dtype=f.dtype)])
    wanted = torch.cat([root * target, torch.zeros(width, width, dtype=f.dtype)])
    matrix = torch.linalg.lstsq(design, wanted).solution
    mapped = F.normalize(f[i] + shift + (f[i] - mean) @ matrix)
    class_mean, _ = class_means(f, labels, v, n_classes)
    centered_query = F.normalize(f[i] - class_mean.mean(0))
    return torch.stack([text @ f[i], text @ mapped, F.normalize(text - text.mean(0)) @ centered_query])


@few
@given(seeds, st.booleans())
def test_img2txt_is_ridge_regression_by_least_squares(seed, all_have_text):
    f, labels, v, n_classes, rng = draw_support(seed)
    # samples of a class without text have no weight here
    v = v if all_have_text else torch.where(labels > 0, v, 0.0)
    targets = unit_rows(rng, n_classes, f.shape[1])[labels]
    net, left_out = ridge_img2txt(f, targets, v, 1.0)
    queries = unit_rows(rng, 5, f.shape[1])
    mean, shift = weighted_mean(f, v), weighted_mean(targets - f, v)
    width = f.shape[1]
    design = torch.cat([v.sqrt()[:, None] * (f - mean), torch.eye(width, dtype=f.dtype)])
    wanted = torch.cat([v.sqrt()[:, None] * (targets - f - shift), torch.zeros(width, width, dtype=f.dtype)])
    matrix = torch.linalg.lstsq(design, wanted).solution
    torch.testing.assert_close(
        net(queries), F.normalize(queries + shift + (queries - mean) @ matrix), atol=1e-5, rtol=0
    )
    assert left_out.norm(dim=1) == pytest.approx(1)


@few
@given(seeds, st.booleans(), st.floats(0.1, 3), st.floats(0.5, 8), st.floats(0, 1))
def test_left_out_logits_of_the_papers_form_are_those_of_a_cache_without_the_sample(
    seed, with_text, alpha, beta, ratio
):
    features, labels, weights, n_classes, rng = draw_support(seed)
    text = unit_rows(rng, n_classes, features.shape[1]) if with_text else None
    cache = ImageCache(*(a.numpy() for a in (features.float(), labels, weights.float())), n_classes)
    settings = paper(alpha=alpha, beta=beta, fusion_ratio=ratio)
    model = CrossModalCache(cache, text, settings, LIKE)
    f = torch.as_tensor(cache.keys).double()
    zero_shot = torch.as_tensor(rng.standard_normal((len(labels), n_classes)))
    got, _ = leave_one_out_logits(model, f, zero_shot)
    for i in range(len(labels)):
        rest = np.arange(len(labels)) != i
        image = f[i] @ F.normalize(f[rest]).T
        own_text = torch.ones(n_classes, dtype=f.dtype) if text is None else text @ f[i]
        fused = (ratio if with_text else 1.0) * image + (1 - ratio if with_text else 0.0) * own_text[labels[rest]]
        evidence = torch.exp(-beta * (1 - fused)) @ torch.as_tensor(cache.values[rest]).double()
        torch.testing.assert_close(got[i], zero_shot[i] + alpha * evidence, atol=1e-6, rtol=1e-6)


@few
@given(seeds)
def test_class_means_in_the_place_of_text_are_refitted_without_the_sample(seed):
    f, labels, v, n_classes, _ = draw_support(seed, least=2)
    means, cosines = class_mean_text(f, labels, v, n_classes)
    for i in range(len(labels)):
        rest = torch.arange(len(labels)) != i
        left, _ = class_means(f[rest], labels[rest], v[rest], n_classes)
        own = int(labels[i])
        wanted = means @ f[i]
        wanted[own] = torch.nn.functional.cosine_similarity(f[i], left[own], dim=0)
        torch.testing.assert_close(cosines[i], wanted)


@few
@given(seeds)
def test_singleton_affinities_have_the_spread_of_the_affinities_between_keys(seed):
    features, labels, weights, n_classes, _ = draw_support(seed)
    cache = ImageCache(*(a.numpy() for a in (features.float(), labels, weights.float())), n_classes)
    model = CrossModalCache(cache, None, paper(), LIKE)
    between = [
        float(a @ b) for i, a in enumerate(model.keys.detach()) for j, b in enumerate(model.keys.detach()) if i != j
    ]
    simulated = SingletonAffinity.from_keys(F.normalize(model.keys.detach()), SingletonPrior())
    sigma, mean = np.std(between), np.mean(between)
    nodes, _ = np.polynomial.hermite_e.hermegauss(5)
    wanted = np.minimum(mean + np.minimum(sigma * (3 + 2 * nodes), 0.95), 1)
    np.testing.assert_allclose(simulated.nodes, wanted, atol=1e-6)
    assert float(simulated.weights.sum()) == pytest.approx(1)


@few
@given(seeds, st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_the_vocabulary_root_is_the_fourth_root_of_what_is_stated(seed, shrinkage):
    rng = np.random.default_rng(seed)
    words = torch.as_tensor(rng.standard_normal((int(rng.integers(2, 12)), int(rng.integers(1, 7)))))
    root = covariance_root(words, shrinkage)
    covariance = np.atleast_2d(np.cov(words.numpy().T, bias=True))
    scaled = covariance / (np.trace(covariance) / len(covariance))
    wanted = (1 - shrinkage) * scaled + shrinkage * np.eye(len(covariance))
    np.testing.assert_allclose(np.linalg.matrix_power(root.numpy(), 4), wanted, atol=1e-8)
    np.testing.assert_allclose(root, root.T, atol=1e-12)


@few
@given(seeds)
def test_the_spread_is_that_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    keys = torch.as_tensor(rng.standard_normal((int(rng.integers(2, 9)), int(rng.integers(1, 9)))))
    pairs = [
        float(torch.nn.functional.cosine_similarity(keys[i], keys[j], dim=0))
        for i in range(len(keys))
        for j in range(len(keys))
        if i != j
    ]
    assert cosine_spread(keys) == pytest.approx(max(np.std(pairs), 0.05), abs=1e-7)


@few
@given(seeds, st.booleans())
def test_hardness_is_the_mean_gap_over_the_own_class(seed, leaves_out):
    rng = np.random.default_rng(seed)
    n_classes, n = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    labels = torch.as_tensor(rng.integers(n_classes, size=n))
    image, text = torch.as_tensor(rng.uniform(-1, 1, (n, n))), torch.as_tensor(rng.uniform(-1, 1, (n, n_classes)))
    held = F.leave_self_out(image, torch.arange(n)) if leaves_out else image
    got = F.hardness(held, text, labels, labels)
    for i in range(n):
        gaps = [
            abs(float(image[i, j] - text[i, labels[i]]))
            for j in range(n)
            if labels[j] == labels[i] and not (leaves_out and i == j)
        ]
        assert float(got[i]) == pytest.approx(np.mean(gaps) if gaps else 0)


@few
@given(seeds)
def test_the_standardized_gap_is_centered_for_each_sample_and_scaled_over_all(seed):
    rng = np.random.default_rng(seed)
    n, n_classes = int(rng.integers(1, 6)), int(rng.integers(2, 5))
    image, text = rng.standard_normal((n, n_classes)), 3 + rng.standard_normal((n, n_classes))
    labels = rng.integers(n_classes, size=n)
    got = F.standardized_gap(*map(torch.as_tensor, (image, text, labels)))
    for i, label in enumerate(labels):
        in_image = (image[i, label] - np.mean(image[i])) / np.std(image)
        in_text = (text[i, label] - np.mean(text[i])) / np.std(text)
        assert float(got[i]) == pytest.approx(abs(in_image - in_text))


@few
@given(seeds)
def test_absent_classes_are_filled_row_by_row(seed):
    rng = np.random.default_rng(seed)
    scores = torch.as_tensor(rng.standard_normal((2, 3, int(rng.integers(1, 6)))))
    present = torch.as_tensor(rng.random(scores.shape if rng.random() < 0.5 else scores.shape[-1:]) < 0.6)
    got = F.fill_absent(scores, present)
    wide = present.expand_as(scores)
    for i in np.ndindex(2, 3):
        seen = scores[i][wide[i]]
        wanted = float(seen.mean() + seen.std(correction=0)) if len(seen) else 0.0
        for c in range(scores.shape[-1]):
            assert float(got[(*i, c)]) == pytest.approx(float(scores[(*i, c)]) if wide[(*i, c)] else wanted)


@few
@given(seeds)
def test_hard_samples_weigh_as_stated(seed):
    rng = np.random.default_rng(seed)
    hard, strength = rng.uniform(0, 3, int(rng.integers(2, 9))), float(rng.uniform(0, 4))
    wanted = 1 + strength * (hard - hard.min()) / (hard.max() - hard.min())
    np.testing.assert_allclose(F.hard_sample_weights(torch.as_tensor(hard), strength), wanted / wanted.mean())


@few
@given(seeds)
def test_open_set_scores_and_log_odds_are_their_sums(seed):
    rng = np.random.default_rng(seed)
    logits = torch.as_tensor(rng.standard_normal((4, int(rng.integers(2, 6)))))
    labels = torch.as_tensor(rng.integers(logits.shape[1], size=4))
    own, others = F.split_own_class(logits, labels)
    for i, label in enumerate(labels.tolist()):
        row = [math.exp(v) for v in logits[i].tolist()]
        assert float(F.open_set_score(logits)[i]) == pytest.approx(-math.log(sum(row)))
        assert float(own[i]) == float(logits[i, label])
        assert float(others[i]) == pytest.approx(math.log(sum(row) - row[label]))


@few
@given(seeds, st.floats(0.01, 0.99))
def test_the_threshold_is_exceeded_by_the_stated_share(seed, rate):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((int(rng.integers(1, 9)), int(rng.integers(1, 4)))).astype(np.float32)
    weights = rng.uniform(0.1, 1, scores.shape[1]).astype(np.float32)
    logits = torch.zeros(len(scores), 2)
    answers = LeftOutPredictions.from_logits(logits, torch.as_tensor(scores), torch.as_tensor(weights))
    mass = np.tile(weights, len(scores)) / (weights.sum() * len(scores))
    threshold = answers.rejection_threshold(rate)
    assert threshold in scores
    p_value = [
        (1 + len(scores) * mass[scores.ravel() >= s].sum()) / (1 + len(scores)) for s in (threshold, threshold + 1e-4)
    ]
    assert p_value[1] <= max(rate, 1 / (1 + len(scores))) + 1e-5
    assert p_value[0] > rate - 1e-5
    threshold = answers.open_set_quantile(rate)
    assert threshold in scores
    assert mass[scores.ravel() > threshold].sum() <= rate + 1e-5
    assert mass[scores.ravel() >= threshold].sum() >= rate - 1e-5


@few
@given(seeds)
def test_equal_images_of_a_class_are_merged_as_a_dictionary_merges(seed):
    rng = np.random.default_rng(seed)
    n, n_classes = int(rng.integers(1, 12)), int(rng.integers(1, 4))
    features = rng.integers(-1, 2, (n, 2)).astype(np.float32)
    features[rng.random((n, 2)) < 0.2] *= np.float32(-1)
    labels = rng.integers(n_classes, size=n)
    weights = rng.integers(0, 4, n).astype(float)
    weights[0] = 1
    cache, position = ImageCache.build(features, labels, n_classes, weights)
    merged: dict[tuple, float] = {}
    for row, label, weight in zip(features + 0.0, labels, weights, strict=True):
        if weight:
            merged[*row.tolist(), int(label)] = merged.get((*row.tolist(), int(label)), 0) + weight
    found = [(*(row + 0.0).tolist(), int(label)) for row, label in zip(cache.keys, cache.labels, strict=True)]
    assert sorted(found) == sorted(merged)
    assert cache.weight_unit == pytest.approx(np.mean(list(merged.values())))
    for key, weight in zip(found, cache.weights, strict=True):
        assert weight * cache.weight_unit == pytest.approx(merged[key])
    for i in range(n):
        assert (position[i] == -1) == (weights[i] == 0)
        if weights[i]:
            assert found[position[i]] == (*(features[i] + 0.0).tolist(), int(labels[i]))
    assert cache.shots.tolist() == [sum(key[-1] == c for key in merged) for c in range(n_classes)]


@few
@given(seeds)
def test_less_than_half_of_a_class_is_ever_doubted(seed):
    rng = np.random.default_rng(seed)
    n, n_classes = int(rng.integers(1, 20)), 3
    labels = rng.integers(n_classes, size=n)
    cache = ImageCache(np.zeros((n, 1), np.float32), labels, np.ones(n, np.float32), n_classes)
    posterior = rng.random(n).astype(np.float32)
    got = probable_label_errors(cache, posterior, CalibrationConfig(min_shots_to_drop=0))
    for c in range(n_classes):
        wrong = posterior[labels == c] > 0.5
        wanted = wrong if 2 * wrong.sum() < len(wrong) else np.zeros_like(wrong)
        np.testing.assert_array_equal(got[labels == c], wanted)
