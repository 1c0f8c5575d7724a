"""The rivals keep one contract, and those with a closed form are what their formulas say."""

import pickle

import numpy as np
import pytest
import torch
from problems import make_problem
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from skxma import baselines
from skxma.baselines import (
    APEClassifier,
    APETClassifier,
    CLAPClassifier,
    CLIPAdapterClassifier,
    CrossModalLinearProbe,
    GDAClassifier,
    LogisticRegressionProbe,
    LPPlusPlusClassifier,
    MultiModalAdapterClassifier,
    ProKeRClassifier,
    RLAClassifier,
    StatAClassifier,
    TaskResClassifier,
    TIMOClassifier,
    TipAdapterClassifier,
    TipAdapterFClassifier,
    ZeroShotClassifier,
)

ALL = [getattr(baselines, name) for name in baselines.__all__]
SHORT = {
    CLAPClassifier: {"n_epochs": 30},
    CLIPAdapterClassifier: {"n_epochs": 20},
    CrossModalLinearProbe: {"n_steps": 100},
    LPPlusPlusClassifier: {"n_epochs": 60},
    MultiModalAdapterClassifier: {"width": 16, "n_epochs": 10},
    RLAClassifier: {"n_epochs": 30, "learning_rate": 1e-2},
    TaskResClassifier: {"n_epochs": 20},
}
IGNORES_PICTURES = (ZeroShotClassifier, StatAClassifier)


def make(kind, **parameters):
    return kind(**{"encoder": "precomputed", "random_state": 0, **SHORT.get(kind, {}), **parameters})


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=5, shots=4, dim=16)


each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


@each
def test_keeps_scikit_learns_contract(kind):
    check_estimator(make(kind, random_state=None))


@each
def test_same_seed_same_bits_through_clone_and_pickle(kind, problem):
    fitted = make(kind, text_features=problem.text).fit(problem.X, problem.y)
    logits = fitted.decision_function(problem.X_test)
    again = clone(fitted).fit(problem.X, problem.y)
    assert np.array_equal(logits, again.decision_function(problem.X_test))
    assert np.array_equal(logits, pickle.loads(pickle.dumps(fitted)).decision_function(problem.X_test))


@each
def test_nothing_of_torch_is_in_the_fitted_state(kind, problem):
    fitted = make(kind, text_features=problem.text).fit(problem.X, problem.y)
    held = [v for value in vars(fitted).values() for v in (value if isinstance(value, (list, tuple)) else [value])]
    assert not any(isinstance(value, (torch.Tensor, torch.nn.Module)) for value in held)
    assert fitted.n_trained_ >= 0


@each
@pytest.mark.parametrize("with_text", [True, False])
def test_beats_chance_by_far_and_gives_probabilities(kind, with_text, problem):
    fitted = make(kind, text_features=problem.text if with_text else None).fit(problem.X, problem.y)
    probabilities = fitted.predict_proba(problem.X_test)
    assert np.allclose(probabilities.sum(1), 1)
    assert (probabilities >= 0).all()
    assert fitted.score(problem.X_test, problem.y_test) > 0.6


@each
def test_naming_classes_otherwise_changes_nothing(kind, problem):
    order = np.array([3, 0, 4, 1, 2])
    place = np.argsort(order)
    fitted = make(kind, text_features=problem.text).fit(problem.X, problem.y)
    renamed = make(kind, text_features=problem.text[order]).fit(problem.X, place[problem.y])
    expected = fitted.predict_proba(problem.X_test)[:, order]
    assert np.allclose(renamed.predict_proba(problem.X_test), expected, atol=1e-3)


@each
def test_order_of_samples_changes_nothing(kind, problem):
    shuffled = np.random.default_rng(0).permutation(len(problem.y))
    fitted = make(kind, text_features=problem.text).fit(problem.X, problem.y)
    other = make(kind, text_features=problem.text).fit(problem.X[shuffled], problem.y[shuffled])
    assert np.array_equal(fitted.decision_function(problem.X_test), other.decision_function(problem.X_test))


@each
@pytest.mark.parametrize("with_text", [True, False])
def test_weight_two_is_a_sample_twice_and_weight_zero_is_none(kind, with_text, problem):
    text = problem.text if with_text else None
    counts = np.random.default_rng(1).integers(0, 3, len(problem.y))
    counts[::4] = 1
    repeated = np.repeat(np.arange(len(problem.y)), counts)
    weighted = make(kind, text_features=text).fit(problem.X, problem.y, sample_weight=counts)
    doubled = make(kind, text_features=text).fit(problem.X[repeated], problem.y[repeated])
    logits = weighted.decision_function(problem.X_test)
    assert np.allclose(logits, doubled.decision_function(problem.X_test))
    plain = make(kind, text_features=text).fit(problem.X, problem.y).decision_function(problem.X_test)
    assert np.allclose(logits, plain) == (kind in IGNORES_PICTURES and with_text)


@each
@pytest.mark.parametrize("with_text", [True, False])
def test_a_class_without_images_and_a_class_without_text(kind, with_text, problem):
    some = problem.y != 2
    names = (
        {label: str(label) if label != 1 else None for label in range(5)}
        if with_text
        else {label: str(label) for label in range(5)}
    )
    text = {label: row if label != 1 else None for label, row in enumerate(problem.text)} if with_text else None
    fitted = make(kind, class_names=names, text_features=text).fit(problem.X[some], problem.y[some])
    probabilities = fitted.predict_proba(problem.X_test)
    assert probabilities.shape[1] == 5
    assert np.isfinite(probabilities).all()
    others = ~np.isin(problem.y_test, [1, 2])
    assert np.mean(fitted.predict(problem.X_test[others]) == problem.y_test[others]) > 0.4


@each
def test_one_image_a_class(kind):
    problem = make_problem(n_classes=4, shots=1, dim=12)
    fitted = make(kind, text_features=problem.text).fit(problem.X, problem.y)
    assert np.isfinite(fitted.decision_function(problem.X_test)).all()
    assert fitted.score(problem.X_test, problem.y_test) > 0.4


@each
def test_new_classes_join_by_partial_fit(kind, problem):
    first = problem.y < 3
    text = dict(enumerate(problem.text))
    grown = make(kind, text_features=text, class_names={i: str(i) for i in range(5)})
    grown.fit(problem.X[first], problem.y[first]).partial_fit(problem.X[~first], problem.y[~first])
    whole = make(kind, text_features=text, class_names={i: str(i) for i in range(5)}).fit(problem.X, problem.y)
    assert np.allclose(grown.decision_function(problem.X_test), whole.decision_function(problem.X_test), atol=1e-6)


@each
def test_images_and_names_are_read_by_the_encoder(kind):
    from skxma.datasets import load_emoji

    emoji = load_emoji(sets=("noto", "twemoji"))
    few = emoji.target <= "c"
    train, test = few & (emoji.sets == "noto"), few & (emoji.sets == "twemoji")
    fitted = make(kind, encoder="tiny").fit(emoji.images[train], emoji.target[train])
    assert fitted.score(emoji.images[test], emoji.target[test]) > 0.3


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def zero_shot(problem, features):
    return 100 * features.astype(float) @ problem.text.astype(float).T


def one_hot(problem):
    return np.eye(5)[problem.y]


def test_zero_shot_sees_only_text(problem):
    fitted = make(ZeroShotClassifier, text_features=problem.text).fit(problem.X, problem.y)
    assert np.allclose(fitted.decision_function(problem.X_test), zero_shot(problem, problem.X_test), atol=1e-4)
    assert np.allclose(fitted.predict_proba(problem.X_test), fitted.zero_shot(problem.X_test))


def test_tip_adapter_is_its_formula(problem):
    fitted = make(TipAdapterClassifier, text_features=problem.text, alpha=2.0, beta=3.0).fit(problem.X, problem.y)
    cosines = problem.X_test.astype(float) @ problem.X.astype(float).T
    expected = zero_shot(problem, problem.X_test) + 2 * np.exp(-3 * (1 - cosines)) @ one_hot(problem)
    assert np.allclose(fitted.decision_function(problem.X_test), expected, atol=1e-4)


def test_tip_adapter_f_starts_as_tip_adapter_and_moves_its_keys(problem):
    plain = make(TipAdapterClassifier, text_features=problem.text).fit(problem.X, problem.y)
    start = make(TipAdapterFClassifier, text_features=problem.text, n_epochs=0).fit(problem.X, problem.y)
    assert np.allclose(start.decision_function(problem.X_test), plain.decision_function(problem.X_test), atol=1e-4)
    trained = make(TipAdapterFClassifier, text_features=problem.text).fit(problem.X, problem.y)
    assert trained.loss_curve_[-1] < trained.loss_curve_[0]
    assert not np.allclose(trained.keys_, start.keys_, atol=1e-3)


def test_gda_is_its_formula(problem):
    fitted = make(GDAClassifier, text_features=problem.text, alpha=0.5).fit(problem.X, problem.y)
    X, dim = problem.X.astype(float), problem.X.shape[1]
    means = np.stack([X[problem.y == c].mean(0) for c in range(5)])
    covariance = np.cov((X - means[problem.y]).T)
    inverse = dim * np.linalg.pinv((len(X) - 1) * covariance + np.trace(covariance) * np.eye(dim))
    weight = means @ inverse
    bias = np.log(1 / 5) - 0.5 * np.einsum("nd,dc,nc->n", means, inverse, means)
    expected = zero_shot(problem, problem.X_test) + 0.5 * (problem.X_test.astype(float) @ weight.T + bias)
    assert np.allclose(fitted.decision_function(problem.X_test), expected, atol=1e-3)


def test_gda_of_one_shot_is_zero_shot():
    problem = make_problem(n_classes=5, shots=1)
    fitted = make(GDAClassifier, text_features=problem.text).fit(problem.X, problem.y)
    assert np.allclose(fitted.predict_proba(problem.X_test), fitted.zero_shot(problem.X_test))


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_timo_is_its_formula(gamma, problem):
    rng = np.random.default_rng(0)
    prompts = problem.text[:, None] + 0.3 * rng.standard_normal((5, 3, 16))
    prompts /= np.linalg.norm(prompts, axis=2, keepdims=True)
    fitted = make(TIMOClassifier, text_features=prompts, alpha=20.0, gamma=gamma).fit(problem.X, problem.y)
    X, query = problem.X.astype(float), problem.X_test.astype(float)
    samples, labels, texts = [X], [problem.y], []
    for c in range(5):
        mean = X[problem.y == c].mean(0)
        score = prompts[c] @ mean / np.linalg.norm(mean)
        weight = np.exp(gamma * score / np.linalg.norm(score))
        text = weight @ prompts[c]
        texts.append(text / np.linalg.norm(text))
        samples.append(score[:, None] * prompts[c])
        labels.append(np.full(3, c))
    samples, labels = np.concatenate(samples), np.concatenate(labels)
    means = np.stack([samples[labels == c].mean(0) for c in range(5)])
    covariance = np.cov((samples - means[labels]).T)
    inverse = 16 * np.linalg.pinv((len(samples) - 1) * covariance + np.trace(covariance) * np.eye(16))
    weight, bias = means @ inverse, np.log(1 / 5) - 0.5 * np.einsum("nd,dc,nc->n", means, inverse, means)
    expected = 20 * query @ np.stack(texts).T + query @ weight.T + bias
    assert np.allclose(fitted.decision_function(problem.X_test), expected, atol=1e-3)


def test_timo_picks_the_weight_of_the_text_by_left_out_answers(problem):
    good = make(TIMOClassifier, text_features=problem.text).fit(problem.X, problem.y)
    bad = make(TIMOClassifier, text_features=problem.text[[1, 2, 3, 4, 0]]).fit(problem.X, problem.y)
    assert bad.alpha_ < good.alpha_
    assert bad.score(problem.X_test, problem.y_test) > 0.6


def test_timo_picks_the_same_weight_where_classes_that_a_fold_leaves_out_have_other_names():
    X, y = np.random.default_rng(12).normal(size=(12, 3)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 4])
    renamed = np.array([0, 4, 2, 3, 1])[y]
    assert make(TIMOClassifier).fit(X, y).alpha_ == make(TIMOClassifier).fit(X, renamed).alpha_


def test_prompts_one_by_one_are_those_of_names_and_templates(problem):
    """Of an encoder, of arrays of different lengths, and averaged for the methods that take one text per class."""
    from skxma import CLIPEncoder
    from skxma.prompts import make_prompts

    names = {0: ["a fox", "a red animal"], 1: "an owl", 2: None}
    encoder = CLIPEncoder("tiny")
    X = encoder.encode_text(["a fox", "an owl", "a bear"])
    y = np.arange(3)
    templates = ["a photo of {}", "a drawing of {}"]
    by_encoder = TIMOClassifier(encoder, class_names=names, templates=templates).fit(X, y)
    prompts = {c: name and np.asarray(encoder.encode_text(make_prompts(name, templates))) for c, name in names.items()}
    assert [len(rows) for rows in list(prompts.values())[:2]] == [4, 2]
    by_array = TIMOClassifier("precomputed", text_features=prompts).fit(np.asarray(X), y)
    assert np.allclose(by_encoder.decision_function(X), by_array.decision_function(np.asarray(X)), atol=1e-4)
    for kind in (ZeroShotClassifier, TIMOClassifier):
        found = kind("precomputed", text_features=prompts).fit(np.asarray(X), y).text_features_
        wanted = ZeroShotClassifier(encoder, class_names=names, templates=templates).fit(X, y).text_features_
        assert np.allclose(found, wanted, atol=1e-5)


def test_rla_is_adam_on_its_loss(problem):
    parameters = {"n_epochs": 40, "learning_rate": 1e-2}
    fitted = make(RLAClassifier, text_features=problem.text, **parameters).fit(problem.X, problem.y)
    X, T, y = torch.tensor(problem.X).double(), torch.tensor(problem.text).double(), torch.tensor(problem.y)
    W = torch.eye(16, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([W], lr=1e-2, eps=1e-4)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    for _ in range(40):
        logits = 100 * torch.nn.functional.normalize(X @ W.T, dim=1) @ T.T
        loss = torch.nn.functional.cross_entropy(logits, y) + (W - torch.eye(16)).square().sum() / 4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    assert np.allclose(fitted.adapter_, W.detach(), atol=1e-3)
    mapped = problem.X_test @ fitted.adapter_.T
    expected = 100 * mapped / np.linalg.norm(mapped, axis=1, keepdims=True) @ problem.text.T
    assert np.allclose(fitted.decision_function(problem.X_test), expected, atol=1e-2)
    start = make(RLAClassifier, text_features=problem.text, n_epochs=0).fit(problem.X, problem.y)
    assert np.allclose(start.decision_function(problem.X_test), zero_shot(problem, problem.X_test), atol=1e-4)


def test_proker_is_its_formula(problem):
    fitted = make(ProKeRClassifier, text_features=problem.text, beta=2.0, strength=0.3).fit(problem.X, problem.y)
    X, T, query = (a.astype(float) for a in (problem.X, problem.text, problem.X_test))
    kernel = np.exp(-2 * (1 - X @ X.T))
    dual = np.linalg.solve(kernel / 0.3 + np.eye(len(X)), one_hot(problem) - X @ T.T)
    expected = 100 * (query @ T.T + np.exp(-2 * (1 - query @ X.T)) @ dual)
    assert np.allclose(fitted.decision_function(problem.X_test), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shots", "beta", "strength"), [(1, 3.0, 0.05), (2, 2.6, 0.05), (3, 1.957, 0.05), (32, 1.7, 0.1)]
)
def test_proker_takes_the_published_values_of_its_number_of_shots(shots, beta, strength):
    problem = make_problem(n_classes=3, shots=shots)
    fitted = make(ProKeRClassifier, text_features=problem.text).fit(problem.X, problem.y)
    assert fitted.beta_ == pytest.approx(beta, abs=1e-3)
    assert fitted.strength_ == pytest.approx(strength)


def test_ape_with_all_channels_is_tip_adapter(problem):
    plain = make(TipAdapterClassifier, text_features=problem.text).fit(problem.X, problem.y)
    ape = make(APEClassifier, text_features=problem.text, keep=1.0, gamma=0.0).fit(problem.X, problem.y)
    assert np.allclose(ape.decision_function(problem.X_test), plain.decision_function(problem.X_test), atol=1e-4)


def test_ape_is_its_formula(problem):
    fitted = make(APEClassifier, text_features=problem.text, alpha=2.0, beta=3.0, gamma=0.2, keep=0.5)
    fitted.fit(problem.X, problem.y)
    X, T, query = (a.astype(float) for a in (problem.X, problem.text, problem.X_test))
    samples = [np.vstack([T[c], X[problem.y == c]]) for c in range(5)]
    products = [
        samples[i][m] * samples[j][n] for i in range(5) for j in range(5) if i != j for m in range(5) for n in range(5)
    ]
    criterion = -0.7 * np.mean(products, axis=0) + 0.3 * T.var(0, ddof=1)
    channels = np.argsort(-criterion)[:8]
    assert set(fitted.channels_) == set(channels)
    keys, words, part = (a[:, channels] / np.linalg.norm(a[:, channels], axis=1, keepdims=True) for a in (X, T, query))
    label = one_hot(problem)
    divergence = (label * np.log2((label + 1e-6) / (softmax(keys @ words.T) + 1e-6))).sum(1, keepdims=True)
    evidence = np.exp(-3 * (1 - part @ keys.T)) @ (label * np.exp(0.2 * divergence))
    assert np.allclose(fitted.decision_function(problem.X_test), 100 * query @ T.T + 2 * evidence, atol=1e-3)


def test_ape_t_starts_as_tip_adapter_and_its_residual_stays_on_its_channels(problem):
    plain = make(TipAdapterClassifier, text_features=problem.text).fit(problem.X, problem.y)
    start = make(APETClassifier, text_features=problem.text, n_epochs=0).fit(problem.X, problem.y)
    assert np.allclose(start.decision_function(problem.X_test), plain.decision_function(problem.X_test), atol=1e-4)
    trained = make(APETClassifier, text_features=problem.text, keep=0.25).fit(problem.X, problem.y)
    assert trained.residual_.shape == (5, 4)
    assert trained.n_trained_ == 5 * 4 + len(problem.y)
    assert trained.loss_curve_[-1] < trained.loss_curve_[0]


@pytest.mark.parametrize("kind", [TaskResClassifier, CLAPClassifier])
def test_untrained_prototypes_are_zero_shot(kind, problem):
    start = make(kind, text_features=problem.text, n_epochs=0).fit(problem.X, problem.y)
    assert np.allclose(start.decision_function(problem.X_test), zero_shot(problem, problem.X_test), atol=1e-4)


@pytest.mark.parametrize("kind", [TaskResClassifier, CLAPClassifier])
def test_a_longer_text_is_moved_less(kind, problem):
    def moved(length):
        fitted = make(kind, text_features=problem.text, text_norm=length).fit(problem.X, problem.y)
        rows = fitted.prototypes_ / np.linalg.norm(fitted.prototypes_, axis=1, keepdims=True)
        return np.linalg.norm(rows - problem.text)

    assert 0 < moved(10.0) < moved(1.0)


def test_clap_holds_classes_by_their_zero_shot_probability(problem):
    fitted = make(CLAPClassifier, text_features=problem.text).fit(problem.X, problem.y)
    probabilities = softmax(zero_shot(problem, problem.X))
    expected = [probabilities[problem.y == c, c].mean() for c in range(5)]
    assert np.allclose(fitted.penalty_, expected, atol=1e-4)


def test_clip_adapter_is_its_formula(problem):
    fitted = make(CLIPAdapterClassifier, text_features=problem.text, ratio=0.3).fit(problem.X, problem.y)
    query = problem.X_test.astype(float)
    adapted = np.maximum(np.maximum(query @ fitted.down_, 0) @ fitted.up_, 0)
    mixed = 0.3 * adapted + 0.7 * query
    expected = 100 * mixed / np.linalg.norm(mixed, axis=1, keepdims=True) @ problem.text.T
    assert np.allclose(fitted.decision_function(problem.X_test), expected, atol=1e-3)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]


def test_clip_adapter_without_a_share_is_zero_shot(problem):
    fitted = make(CLIPAdapterClassifier, text_features=problem.text, ratio=0.0).fit(problem.X, problem.y)
    assert np.allclose(fitted.decision_function(problem.X_test), zero_shot(problem, problem.X_test), atol=1e-4)


def test_lp_plus_plus_starts_at_class_sums_and_descends_on_its_loss(problem):
    start = make(LPPlusPlusClassifier, text_features=problem.text, n_epochs=0).fit(problem.X, problem.y)
    cosines = problem.X.astype(float) @ problem.text.astype(float).T
    blend = np.mean([250 * cosines[problem.y == c, c].mean() for c in range(5)])
    assert np.allclose(start.coef_, one_hot(problem).T @ problem.X, atol=1e-5)
    assert np.allclose(start.blend_, blend, rtol=1e-5)


def test_lp_plus_plus_is_gradient_descent_of_autograd(problem):
    fitted = make(LPPlusPlusClassifier, text_features=problem.text, n_epochs=25).fit(problem.X, problem.y)
    X, T, y = torch.tensor(problem.X).double(), torch.tensor(problem.text).double(), torch.tensor(problem.y)
    head = torch.nn.Linear(16, 5).double()
    head.weight.data = torch.eye(5, dtype=torch.float64)[y].T @ X
    head.bias.data.zero_()
    start = make(LPPlusPlusClassifier, text_features=problem.text, n_epochs=0).fit(problem.X, problem.y)
    blend = torch.tensor(start.blend_).double().requires_grad_()
    optimizer = torch.optim.SGD(head.parameters(), 4 * len(X) / float(torch.linalg.eigvalsh(X.T @ X)[-1]), momentum=0.9)
    step = len(X) / (4 * float(((X @ T.T) ** 2).sum(0).max()))
    for epoch in range(25):
        loss = torch.nn.functional.cross_entropy(head(X) + blend * (X @ T.T), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 10 == 9:
            blend.data -= step * blend.grad
    assert np.allclose(fitted.coef_, head.weight.detach(), atol=1e-3)
    assert np.allclose(fitted.blend_, blend.detach(), atol=1e-3)


def test_cross_modal_probe_learns_from_texts_too(problem):
    untrained = make(CrossModalLinearProbe, text_features=problem.text, n_steps=0).fit(problem.X, problem.y)
    assert np.allclose(untrained.decision_function(problem.X_test), zero_shot(problem, problem.X_test), atol=1e-4)
    text = dict(enumerate(problem.text))
    some = problem.y != 2
    fitted = make(CrossModalLinearProbe, text_features=text, n_steps=400, learning_rate=1e-2)
    fitted.fit(problem.X[some], problem.y[some])
    assert (fitted.predict(problem.text) == np.arange(5)).all()


def test_multimodal_adapter_is_masked_attention(problem):
    fitted = make(MultiModalAdapterClassifier, text_features=problem.text, width=8).fit(problem.X, problem.y)
    down, down_bias, *inner, out, out_bias, up, up_bias = (torch.tensor(layer) for layer in fitted.layers_)
    attention = torch.nn.MultiheadAttention(8, 4)
    attention.in_proj_weight.data = torch.cat(inner[::2])
    attention.in_proj_bias.data = torch.cat(inner[1::2])
    attention.out_proj.weight.data, attention.out_proj.bias.data = out, out_bias
    query, text = torch.tensor(problem.X_test), torch.tensor(problem.text)
    tokens = torch.cat([text[:, None].expand(-1, len(query), -1), query[None]]) @ (10 * down.T) + down_bias
    mask = torch.full((6, 6), -torch.inf)
    mask[5, :5] = mask[:5, 5] = 0
    mixed = attention(tokens, tokens, tokens, attn_mask=mask)[0] @ up.T + up_bias
    mixed = torch.nn.functional.normalize(mixed, dim=2)
    image = torch.nn.functional.normalize(0.2 * mixed[5] + 0.8 * query, dim=1)
    words = torch.nn.functional.normalize(0.2 * mixed[:5] + 0.8 * text[:, None], dim=2)
    expected = 100 * torch.einsum("nd,cnd->nc", image, words)
    assert np.allclose(fitted.decision_function(problem.X_test), expected.detach(), atol=1e-2)


def test_multimodal_adapter_wants_a_width_for_its_heads(problem):
    with pytest.raises(ValueError, match="multiple of 4"):
        make(MultiModalAdapterClassifier, width=10).fit(problem.X, problem.y)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_logistic_regression_is_scikit_learns(n_classes):
    from sklearn.linear_model import LogisticRegression

    problem = make_problem(n_classes=n_classes)
    fitted = make(LogisticRegressionProbe, text_features=problem.text).fit(problem.X, problem.y)
    expected = LogisticRegression(C=31.6, max_iter=1000).fit(problem.X.astype(float), problem.y)
    assert np.allclose(fitted.predict_proba(problem.X_test), expected.predict_proba(problem.X_test), atol=1e-2)


@pytest.mark.parametrize("kind", [TaskResClassifier, CLAPClassifier, APETClassifier, LPPlusPlusClassifier])
def test_a_class_without_images_keeps_its_text(kind, problem):
    some = problem.y != 2
    fitted = make(kind, text_features=dict(enumerate(problem.text))).fit(problem.X[some], problem.y[some])
    start = make(kind, text_features=dict(enumerate(problem.text)), n_epochs=0).fit(problem.X[some], problem.y[some])
    change = fitted.decision_function(problem.X_test) - start.decision_function(problem.X_test)
    assert np.allclose(change[:, 2], 0, atol=1e-4)
    assert (np.abs(change[:, [0, 1, 3, 4]]).max(0) > 1e-2).all()
