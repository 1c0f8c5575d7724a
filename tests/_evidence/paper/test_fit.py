import numpy as np
import pytest
import torch
from problems import make_problem

from skxma import functional as F
from skxma._evidence.paper.config import PaperConfig
from skxma._evidence.paper.fit import class_mean_text, fit_paper
from skxma._evidence.paper.loss import SingletonAffinity, leave_one_out_loss
from skxma._evidence.paper.module import CrossModalCache, make_nets
from skxma.caches import ImageCache

LIKE = torch.empty(0)
FIXED = {
    "alpha": None,
    "beta": None,
    "fusion_ratio": None,
    "logit_scale": 20.0,
    "hard_sample_weight": 1.0,
    "text_dim": None,
    "n_epochs": 0,
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
    "batch_size": 256,
    "seed": 0,
}


def config(**changes):
    return PaperConfig(**{**FIXED, **changes})


def fit(problem, text=True, **changes):
    cache, _ = ImageCache.build(problem.X, problem.y, 5)
    return fit_paper(cache, torch.as_tensor(problem.text) if text else None, config(**changes), LIKE)


def test_untrained_with_given_scalars_is_the_formula_of_the_paper():
    problem = make_problem()
    model = fit(problem, alpha=1.3, beta=4.0, fusion_ratio=0.7).model
    f = problem.X_test
    fused = 0.7 * f @ problem.X.T + 0.3 * (f @ problem.text.T)[:, problem.y]
    evidence = np.exp(-4.0 * (1 - fused)) @ np.eye(5)[problem.y]
    wanted = 20.0 * f @ problem.text.T + 1.3 * evidence
    np.testing.assert_allclose(model.scorer(LIKE).logits(torch.as_tensor(f)), wanted, rtol=1e-4, atol=1e-4)
    assert (model.alpha, model.beta, model.fusion_ratio) == (1.3, 4.0, pytest.approx(0.7))


def test_the_loss_of_a_sample_is_that_of_a_cache_without_it_at_its_full_mass():
    problem = make_problem(shots=3)
    cache, _ = ImageCache.build(problem.X, problem.y, 5)
    model = CrossModalCache(cache, torch.as_tensor(problem.text), config(alpha=1.0, beta=3.0, fusion_ratio=0.5), LIKE)
    features = torch.as_tensor(cache.keys)
    zero_shot = 20 * features @ torch.as_tensor(problem.text).T
    rows = torch.arange(15)
    image, text = model.affinities(features)
    scalars = (1.0, 3.0, model.ratio())
    unused = SingletonAffinity(torch.zeros(1), torch.ones(1))
    got = leave_one_out_loss(model.support, zero_shot, rows, image, text, scalars, unused).detach()
    for i in range(15):
        rest = np.arange(15) != i
        fused = 0.5 * image[i, rest] + 0.5 * text[i, cache.labels[rest]]
        evidence = torch.exp(-3 * (1 - fused)) @ torch.as_tensor(cache.values[rest])
        evidence[cache.labels[i]] *= 3 / 2
        logits = zero_shot[i] + evidence
        wanted = torch.nn.functional.cross_entropy(logits[None].detach(), torch.as_tensor(cache.labels[[i]]))
        assert float(got[i]) == pytest.approx(float(wanted), rel=1e-3, abs=1e-5)


def test_gradients_agree_with_finite_differences():
    problem = make_problem(n_classes=3, shots=2, dim=4)
    cache, _ = ImageCache.build(problem.X[:5], problem.y[:5], 3)  # one singleton
    features = torch.as_tensor(cache.keys).double()
    text = torch.as_tensor(problem.text).double()
    model = CrossModalCache(cache, text.float(), config(), LIKE.double())
    simulated = SingletonAffinity(torch.tensor([0.5, 0.6]).double(), torch.tensor([0.5, 0.5]).double())
    rows = torch.arange(5)

    def loss(keys, alpha, beta, ratio):
        image = F.affinity(features, F.normalize(keys))
        affinity = F.affinity(features, text)
        return leave_one_out_loss(
            model.support, 5 * features @ text.T, rows, image, affinity, (alpha, beta, ratio), simulated
        ).sum()

    arguments = (features.clone(), *(torch.tensor(v).double() for v in (1.2, 3.0, 0.4)))
    assert torch.autograd.gradcheck(loss, tuple(a.requires_grad_(True) for a in arguments))


def test_the_scalars_are_found_as_exactly_in_single_precision():
    problem = make_problem(n_classes=40, shots=5, dim=64, noise=1.5, text_noise=2.0)
    cache, _ = ImageCache.build(problem.X, problem.y, 40)
    text = torch.as_tensor(problem.text)
    single, double = (fit_paper(cache, text, config(), like).model for like in (LIKE, LIKE.double()))
    for name in ("alpha", "beta", "fusion_ratio"):
        assert getattr(single, name) == pytest.approx(getattr(double, name), rel=2e-6)


def test_training_lowers_the_loss_and_changes_every_part():
    problem = make_problem(n_classes=5, shots=6, text_noise=1.5)
    before, after = fit(problem, n_epochs=0).model, fit(problem, n_epochs=30, learning_rate=3e-3)
    assert after.loss_curve[-1] < after.loss_curve[0]
    assert len(after.loss_curve) == 30
    model = after.model
    assert not np.allclose(before.image_cache.keys, model.image_cache.keys, atol=1e-4)
    assert not np.allclose(before.text_cache.keys, model.text_cache.keys, atol=1e-4)
    assert not np.allclose(before.text_cache.img2txt.bias, model.text_cache.img2txt.bias, atol=1e-4)
    assert not np.allclose(model.text_cache.img2txt.hidden[2], 0, atol=1e-4)
    assert before.fusion_ratio != model.fusion_ratio
    np.testing.assert_array_equal(model.image_cache.embeddings, before.image_cache.embeddings)


def test_hard_sample_weights_change_what_is_learned():
    problem = make_problem(shots=6, text_noise=1.5)
    a, b = (fit(problem, n_epochs=5, hard_sample_weight=w).model for w in (0.0, 3.0))
    assert not np.allclose(a.image_cache.keys, b.image_cache.keys)


def test_same_seed_same_bits_and_other_seed_other_nets():
    problem = make_problem(shots=6)
    a, b, c = (fit(problem, n_epochs=4, batch_size=7, seed=s).model for s in (1, 1, 2))
    np.testing.assert_array_equal(a.image_cache.keys, b.image_cache.keys)
    assert not np.array_equal(a.image_cache.keys, c.image_cache.keys)


def test_a_narrow_text_space_keeps_the_affinities_about_right():
    problem = make_problem(dim=32)
    model = fit(problem, text_dim=24).model
    assert model.text_cache.keys.shape == (5, 24)
    _, text = model.scorer(LIKE).affinities(torch.as_tensor(problem.X_test))
    wanted = (problem.X_test @ problem.text.T)[:, model.image_cache.labels]
    assert np.corrcoef(text.numpy().ravel(), wanted.ravel())[0, 1] > 0.7


def test_without_text_class_means_stand_in_and_there_is_no_text_cache():
    problem = make_problem(shots=4, noise=0.3)
    model = fit(problem, text=False, n_epochs=3).model
    assert model.text_cache is None
    assert model.fusion_ratio == 1
    assert (model.scorer(LIKE).logits(torch.as_tensor(problem.X_test)).argmax(1).numpy() == problem.y_test).mean() > 0.9


def test_class_means_leave_each_sample_out_of_its_own():
    problem = make_problem(n_classes=2, shots=3, dim=4)
    f, labels = torch.as_tensor(problem.X), torch.as_tensor(problem.y)
    _, cosines = class_mean_text(f, labels, torch.ones(6), 2)
    wanted = torch.nn.functional.cosine_similarity(f[0], f[[1, 2]].mean(0), dim=0)
    assert float(cosines[0, 0]) == pytest.approx(float(wanted), rel=1e-5)


def test_nets_start_as_the_identity_or_as_one_projection():
    x = torch.randn(4, 6)
    for net in make_nets(x, config()):
        torch.testing.assert_close(net(x), F.normalize(x))
    metanet, img2txt = make_nets(x, config(text_dim=3))
    start = metanet.weight
    torch.testing.assert_close(start.T @ start, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(img2txt.weight, start)
    torch.testing.assert_close(metanet(x), F.normalize(x @ start))


@pytest.mark.parametrize("text_dim", [None, 3])
def test_nets_come_back_from_their_arrays_where_their_form_is_the_same(text_dim):
    x, chosen = torch.randn(4, 6), config(text_dim=text_dim)
    net, other = make_nets(x, chosen)[0], make_nets(x, config(text_dim=2))[0]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += torch.randn(parameter.shape)
    projection = net.to_projection()
    torch.testing.assert_close(projection(x), net(x).detach())
    fresh = make_nets(x, chosen)[0]
    fresh.load_projection(projection)
    torch.testing.assert_close(fresh(x), net(x))
    before = other(x).detach()
    other.load_projection(projection)
    torch.testing.assert_close(other(x), before)


def test_linear_nets_learn():
    problem = make_problem(n_classes=5, shots=8, text_noise=1.5)
    untrained, trained = (fit(problem, text_dim=6, n_epochs=n, learning_rate=1e-2) for n in (0, 20))
    assert trained.loss_curve[-1] < trained.loss_curve[0]
    starts = untrained.model.text_cache.metanet.weight, untrained.model.text_cache.img2txt.weight
    ends = trained.model.text_cache.metanet.weight, trained.model.text_cache.img2txt.weight
    np.testing.assert_array_equal(*starts)
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(starts, ends, strict=True))


@pytest.mark.parametrize("shots", [1, 2])
def test_few_shots_train_without_harm(shots):
    problem = make_problem(shots=shots, text_noise=0.2, noise=0.5)
    zero_shot = (problem.X_test @ problem.text.T).argmax(1) == problem.y_test
    fitted = fit(problem, n_epochs=20).model.scorer(LIKE).logits(torch.as_tensor(problem.X_test)).argmax(1).numpy()
    assert (fitted == problem.y_test).mean() >= zero_shot.mean() - 0.02
