from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import make_problem, make_thin_problem

from skxma._evidence.calibrated import metric_selection
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.fit import fit_calibrated
from skxma._evidence.calibrated.metric import CLASS_TEXT_ROOT, IDENTITY_ROOT, VOCABULARY_ROOT, covariance_root
from skxma._evidence.calibrated.model import CalibratedModel, CalibratedScorer
from skxma._evidence.calibrated.newton import fit_fusions
from skxma.caches import ImageCache

LIKE = torch.empty(0, dtype=torch.float64)


def fit(problem, n_classes=5, text=True, words=True, **changes):
    cache, _ = ImageCache.build(problem.X, problem.y, n_classes)
    return fit_calibrated(
        cache,
        torch.as_tensor(problem.text).double() if text else None,
        torch.as_tensor(problem.words).double() if words else None,
        CalibrationConfig(**changes),
        LIKE,
    )


def accuracy(report, problem):
    logits = report.model.scorer(LIKE).logits(torch.as_tensor(problem.X_test).double())
    return float((logits.argmax(1).numpy() == problem.y_test).mean())


def test_more_shots_do_better_and_beat_zero_shot():
    problem = make_problem(n_classes=8, shots=8, dim=32, noise=1.2, text_noise=1.5, n_test=50)
    zero_shot = ((problem.X_test @ problem.text.T).argmax(1) == problem.y_test).mean()
    few = make_problem(n_classes=8, shots=8, dim=32, noise=1.2, text_noise=1.5, n_test=50)
    keep = np.arange(len(few.y)) % 8 < 2
    few.X, few.y = few.X[keep], few.y[keep]
    assert zero_shot < accuracy(fit(few, 8), few) < accuracy(fit(problem, 8), problem)


def test_without_anything_to_learn_from_zero_shot_stands():
    problem = make_problem(shots=3)
    problem.X, problem.y = problem.X[:3], problem.y[:3]
    report = fit(problem)
    queries = torch.as_tensor(problem.X_test).double()
    wanted = 100 * problem.X_test @ problem.text.T
    np.testing.assert_allclose(report.model.scorer(LIKE).logits(queries), wanted, atol=1e-4)


def test_wrong_labels_are_found_and_set_aside():
    problem = make_problem(n_classes=5, shots=12, dim=32, noise=0.4, text_noise=0.3)
    wrong = np.array([0, 13, 25, 40, 55])
    problem.y[wrong] = (problem.y[wrong] + 1) % 5
    _, position = ImageCache.build(problem.X, problem.y, 5)
    report = fit(problem)
    noise = report.label_noise[position]
    assert set(np.argsort(noise)[-5:]) == set(wrong)
    assert report.noise_rate > 0.02
    assert (report.model.image_cache.weights[position][wrong] == 0).all()
    assert (report.model.image_cache.weights > 0).sum() >= 54


def test_hardness_is_highest_where_the_modalities_disagree():
    problem = make_problem(n_classes=5, shots=6, dim=32, noise=0.2, text_noise=0.1)
    problem.text[[0, 1]] = problem.text[[1, 0]]
    cache, _ = ImageCache.build(problem.X, problem.y, 5)
    hardness = fit(problem).hardness
    swapped = np.isin(cache.labels, [0, 1])
    assert hardness[swapped].mean() > 2 * hardness[~swapped].mean()


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("shots", [1, 3])
def test_class_order_never_matters(text, shots):
    problem = make_problem(shots=shots)
    order = np.array([3, 0, 4, 1, 2])
    other = replace(problem, y=np.argsort(order)[problem.y], text=problem.text[order])
    queries = torch.as_tensor(problem.X_test).double()
    a = fit(problem, text=text).model.scorer(LIKE).logits(queries)
    b = fit(other, text=text).model.scorer(LIKE).logits(queries)
    torch.testing.assert_close(torch.softmax(a[:, order], 1), torch.softmax(b, 1), atol=1e-5, rtol=0)


def test_alpha_zero_is_zero_shot():
    problem = make_problem(shots=3)
    logits = fit(problem, alpha=0.0, n_epochs=0).model.scorer(LIKE).logits(torch.as_tensor(problem.X_test).double())
    cosines = torch.as_tensor(problem.X_test @ problem.text.T).double()
    assert torch.equal(logits.argsort(1), cosines.argsort(1))


def test_fusion_ratio_zero_leaves_the_image_cache_without_a_say():
    problem = make_problem(shots=3)
    report = fit(problem, fusion_ratio=0.0)
    assert all((one.weights[3:] == 0).all() for one in report.model.components)


def test_the_vocabulary_shapes_the_metric_of_one_shot():
    problem = make_problem(shots=1)
    with_words, without = fit(problem), fit(problem, words=False)
    root = covariance_root(torch.as_tensor(problem.words).double(), 0.01).numpy()

    def uses_root(report):
        bases = [one.basis for one in report.model.bases if one.basis is not None]
        return any(np.allclose(basis, root, atol=1e-6) for basis in bases)

    assert uses_root(with_words)
    assert not uses_root(without)


def test_class_texts_in_whose_directions_the_images_do_not_differ_shape_no_metric():
    problem = make_problem(shots=2, dim=512)
    problem.text = np.random.default_rng(99).standard_normal(problem.text.shape)
    assert {one.choice[0] for one in fit(problem, words=False).model.components} == {IDENTITY_ROOT}


def test_a_vocabulary_is_trusted_whatever_the_images_are():
    problem = make_problem(shots=1, dim=512)
    problem.words = np.random.default_rng(99).standard_normal((60, 512))
    assert [one.choice[0] for one in fit(problem).model.components] == [VOCABULARY_ROOT]


def test_at_one_shot_a_vocabulary_shapes_the_metric_alone_and_class_texts_one_of_two():
    problem = make_problem(shots=1)
    assert [one.choice[0] for one in fit(problem).model.components] == [VOCABULARY_ROOT]
    halves = fit(problem, words=False).model.components
    assert {one.choice[0]: one.averaging_weight for one in halves} == {CLASS_TEXT_ROOT: 0.5, IDENTITY_ROOT: 0.5}
    alone = fit(problem, words=False, halves_one_shot_text=False).model.components
    assert [one.choice[0] for one in alone] == [CLASS_TEXT_ROOT]
    problem.text[:] = 0
    problem.text[0, 0] = 1
    assert [one.choice[0] for one in fit(problem, words=False).model.components] == [IDENTITY_ROOT]


@pytest.mark.parametrize("limit", [{"max_metrics": 1}, {"max_work": 1}])
@pytest.mark.parametrize("seed", range(4))
def test_at_one_shot_simulated_scores_choose_no_metric_that_stands_alone(limit, seed):
    problem = make_problem(shots=1, dim=32, seed=seed)
    components = fit(problem, words=False, **limit).model.components
    assert [one.choice[0] for one in components] == [CLASS_TEXT_ROOT]


def test_class_texts_shape_no_metric_where_the_encoder_says_so():
    for shots in (1, 2):
        report = fit(make_problem(shots=shots), words=False, text_shapes_metric=False)
        assert {one.choice[0] for one in report.model.components} == {IDENTITY_ROOT}
        assert report.model.text_cache is not None


def test_keys_of_several_metrics_that_are_asked_at_once_give_the_same_logits():
    problem = make_problem(shots=4)
    report = fit(problem)
    together, apart = report.model.scorer(LIKE), CalibratedScorer(report.model, LIKE)
    assert len(report.model.components) > 1
    assert all(stack.stacked is not None for stack in together.stacks)
    for stack in apart.stacks:
        stack.stacked = None
    queries = torch.nn.functional.normalize(torch.as_tensor(problem.X_test).double())
    torch.testing.assert_close(together.logits(queries), apart.logits(queries))


def test_at_one_shot_the_gaussian_is_left_out():
    assert len(fit(make_problem(shots=1)).model.components[0].weights) == 5
    assert len(fit(make_problem(shots=2)).model.components[0].weights) == 6


def test_the_residual_is_trained_where_it_helps_and_only_then():
    problem = make_thin_problem()
    report, without = (fit(problem, 2, n_epochs=n_epochs) for n_epochs in (20, 0))
    assert report.model.residual.shape == (2, 12)
    assert report.loss_curve[-1] < report.loss_curve[0]
    assert without.model.residual is None
    assert without.loss_curve == []
    assert accuracy(report, problem) > accuracy(without, problem) + 0.05
    assert fit(make_problem(n_classes=2, shots=4), 2, n_epochs=20).model.residual is None
    assert fit(make_problem(n_classes=12, shots=1), 12, n_epochs=20).model.residual is None
    assert fit(make_problem(n_classes=10, shots=16, dim=32, noise=2.0), 10, n_epochs=20).model.residual is None


def test_affinities_are_cosines_and_follow_the_labels():
    problem = make_problem(shots=3)
    model = fit(problem).model
    assert isinstance(model, CalibratedModel)
    image, text = model.scorer(LIKE).affinities(torch.as_tensor(problem.X).double())
    assert float(image.abs().max()) <= 1 + 1e-6
    cache, position = ImageCache.build(problem.X, problem.y, 5)
    assert (image.argmax(1).numpy() == position).all()
    same = cache.labels == cache.labels[0]
    assert torch.equal(text[:, same], text[:, same][:, :1].expand(-1, 3))


def test_weights_learned_from_a_part_of_a_large_support_set_are_about_those_of_all(monkeypatch):
    problem = make_problem(n_classes=6, shots=40, dim=24, noise=1.0, text_noise=1.0, n_test=60)
    whole = fit(problem, 6)
    tried = []
    monkeypatch.setattr(metric_selection, "fit_fusions", lambda *given: tried.extend(given[0]) or fit_fusions(*given))
    part = fit(problem, 6, max_scores=6 * 240 // 2)
    assert {len(problem.labels) for problem in tried} == {120}
    assert all(np.bincount(problem.labels).tolist() == [20] * 6 for problem in tried)
    assert part.hardness.shape == part.label_noise.shape == (240,)
    assert abs(accuracy(part, problem) - accuracy(whole, problem)) < 0.03
    np.testing.assert_allclose(part.hardness.mean(), whole.hardness.mean(), rtol=0.2)


def test_a_large_support_set_takes_the_best_metric_alone_and_no_residual():
    problem = make_problem(n_classes=5, shots=4, noise=1.0)
    assert len(fit(problem, n_epochs=20).model.components) > 1
    large = fit(problem, n_epochs=20, max_work=0)
    assert len(large.model.components) == 1
    assert large.model.residual is None
