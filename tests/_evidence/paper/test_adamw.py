import numpy as np
import pytest
import torch
from problems import make_problem

from skxma._evidence.paper.adamw import PaperTrainer, train_paper
from skxma._evidence.paper.config import PaperConfig
from skxma._evidence.paper.fit import leave_one_out_logits
from skxma._evidence.paper.loss import SingletonAffinity, leave_one_out_loss
from skxma._evidence.paper.module import CrossModalCache, LinearNet
from skxma._evidence.paper.nets_backward import LinearNetsBackward, split_by_net
from skxma.caches import ImageCache

LIKE = torch.empty(0, dtype=torch.float64)
BATCH = 12


def make_model(shots=(4, 4, 4, 4, 4), with_text=True, narrow=None, absent=0, **changes):
    """A model of unequal weights whose parameters are all moved from where they start; features; zero-shot logits."""
    problem = make_problem(n_classes=5, shots=max(shots), dim=48)
    keep = np.concatenate([np.flatnonzero(problem.y == c)[:k] for c, k in enumerate(shots)])
    weights = np.linspace(0.5, 2, len(keep))
    cache, _ = ImageCache.build(problem.X[keep], problem.y[keep], 5, weights)
    text = torch.as_tensor(problem.text).double()
    text[:absent] = 0
    changes = {
        "alpha": 1.3,
        "beta": 3.0,
        "fusion_ratio": None,
        "logit_scale": 20.0,
        "hard_sample_weight": 1.0,
        "text_dim": narrow,
        "n_epochs": 3,
        "learning_rate": 1e-2,
        "weight_decay": 1e-2,
        "batch_size": BATCH,
        "seed": 0,
        **changes,
    }
    model = CrossModalCache(cache, text if with_text else None, PaperConfig(**changes), LIKE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    features = torch.as_tensor(cache.keys).double()
    return model, features, 20 * features @ torch.as_tensor(problem.text).double().T


def net_parameters(model):
    linear = isinstance(model.img2txt, LinearNet)
    names = ("weight", "bias") if linear else ("outer", "bias", "inner", "inner_bias")
    return [getattr(net, name) for net in (model.img2txt, model.metanet) for name in names]


def net_gradients(trainer):
    if isinstance(trainer.nets, LinearNetsBackward):
        return list(trainer.nets.gradients)
    return [of for of_net in split_by_net(trainer.nets.gradients) for of in of_net]


@pytest.mark.parametrize("with_text", [True, False])
@pytest.mark.parametrize("shots", [(4, 4, 4, 4, 4), (1, 4, 2, 4, 3), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize(("narrow", "absent"), [(None, 0), (9, 0), (None, 2), (9, 2)])
def test_gradients_are_those_of_the_loss(with_text, shots, narrow, absent):
    model, features, zero_shot = make_model(shots, with_text, narrow, absent)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(len(features), generator=generator)[:BATCH]
    weights = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    simulated = SingletonAffinity(torch.tensor([0.2, 0.5]).double(), torch.tensor([0.4, 0.6]).double())
    image, text = model.affinities(features[rows])
    scalars = (model.alpha, model.beta, model.ratio())
    wanted = (weights * leave_one_out_loss(model.support, zero_shot[rows], rows, image, text, scalars, simulated)).sum()
    parameters = [model.keys, *([model.ratio_logit, *net_parameters(model)] if with_text else [])]
    of_keys, *of_others = torch.autograd.grad(wanted, parameters)

    with torch.no_grad():
        trainer = PaperTrainer(model, features, zero_shot)
        one_each = simulated if bool(model.support.singleton.any()) else None
        loss, hardness = trainer.backward(trainer.place[rows], weights, one_each)
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(trainer.grad_keys, of_keys[trainer.order])
    if with_text:
        torch.testing.assert_close([trainer.grad_ratio_logit, *net_gradients(trainer)], of_others)
    torch.testing.assert_close(hardness, leave_one_out_logits(model, features, zero_shot)[1][rows])


@pytest.mark.parametrize("narrow", [None, 9])
def test_epochs_are_those_of_adamw_on_the_loss(narrow):
    model, features, zero_shot = make_model((3, 4, 2, 4, 3), narrow=narrow)
    by_hand, _, _ = make_model((3, 4, 2, 4, 3), narrow=narrow)
    weights = model.support.weights
    curve = train_paper(PaperTrainer(model, features, zero_shot), weights, range(3))

    nets = net_parameters(by_hand)
    groups = [{"params": [by_hand.keys, by_hand.ratio_logit], "lr": 1e-2}, {"params": nets, "lr": 1e-1}]
    optimizer = torch.optim.AdamW(groups, eps=1e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    generator, unused = (
        torch.Generator().manual_seed(0),
        SingletonAffinity(torch.zeros(1).double(), torch.ones(1).double()),
    )
    hard = leave_one_out_logits(by_hand, features, zero_shot)[1]
    for wanted in curve:
        scaled = (hard - hard.min()) / (hard.max() - hard.min())
        importance, total, hard = weights * (1 + scaled) / (1 + scaled).mean(), 0.0, hard.clone()
        for rows in torch.randperm(16, generator=generator).split(BATCH):
            hard[rows] = leave_one_out_logits(by_hand, features, zero_shot)[1][rows]
            image, text = by_hand.affinities(features[rows])
            scalars = (by_hand.alpha, by_hand.beta, by_hand.ratio())
            loss = leave_one_out_loss(by_hand.support, zero_shot[rows], rows, image, text, scalars, unused)
            loss = (importance[rows] * loss).sum() / importance[rows].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows) / 16
        assert wanted == pytest.approx(total, rel=1e-9)
    for got, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)


def test_the_model_has_what_was_learned_when_it_is_asked_for():
    model, features, zero_shot = make_model()
    before = [p.detach().clone() for p in model.parameters()]
    trainer, seen = PaperTrainer(model, features, zero_shot), []

    def epochs():
        for epoch in range(2):
            yield epoch
            trainer.write_back()
            seen.append(model.keys.detach().clone())

    train_paper(trainer, model.support.weights, epochs())
    assert not torch.equal(seen[0], before[0])
    assert not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(seen[1], model.keys.detach())
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_held_ratio_stays():
    model, features, zero_shot = make_model(fusion_ratio=0.6, weight_decay=0.0)
    before = model.ratio_logit.detach().clone()
    train_paper(PaperTrainer(model, features, zero_shot), model.support.weights, range(2))
    assert torch.equal(model.ratio_logit, before)
    assert float(model.ratio()) == pytest.approx(0.6)
