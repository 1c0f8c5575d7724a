"""Few-shot splits keep their numbers and keep images apart; tuning sees validation images alone."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate

from skxma.baselines import GDAClassifier, LogisticRegressionProbe, TipAdapterClassifier, ZeroShotClassifier
from skxma.model_selection import FewShotSplit, UnlabeledInTraining, tune

sizes = st.lists(st.integers(12, 20), min_size=2, max_size=6)
protocols = st.sampled_from([None, "few", "full", 1, 3])
seeds = st.integers(0, 2**20)
quick = settings(max_examples=60, deadline=None)


@quick
@given(sizes, st.integers(1, 6), protocols, seeds)
def test_each_image_is_on_one_side_and_each_class_has_its_shots(counts, shots, validation, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    wanted = {None: 0, "few": min(shots, 4)}.get(validation, validation)
    for draw in FewShotSplit(shots, 2, validation=validation, random_state=seed).draw(y, y):
        assert sorted(np.concatenate(draw)) == list(range(len(y)))
        assert (np.bincount(y[draw.train], minlength=len(counts)) == shots).all()
        kept = np.bincount(y[draw.validation], minlength=len(counts))
        assert (kept == ((np.array(counts) - shots) // 2 if validation == "full" else wanted)).all()
        assert (np.bincount(y[draw.test], minlength=len(counts)) >= 1).all()


@quick
@given(sizes, st.integers(1, 4), protocols, st.integers(1, 4), seeds)
def test_views_of_one_image_stay_together(counts, shots, validation, n_views, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    shuffled = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(labels)), n_views))
    y = labels[shuffled]
    for draw in FewShotSplit(shots, 2, validation=validation, random_state=seed).draw(y, y, groups=shuffled):
        groups = [set(shuffled[side]) for side in draw]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert (np.bincount(y[draw.train]) == shots * n_views).all()


@quick
@given(seeds)
def test_groups_of_several_classes_are_never_cut(seed):
    rng = np.random.default_rng(seed)
    groups, y = rng.integers(0, 60, 400), rng.integers(0, 3, 400)
    for train, test in FewShotSplit(3, 2, random_state=seed).split(y, y, groups):
        assert not set(groups[train]) & set(groups[test])
        for label in range(3):
            assert len(set(groups[train][y[train] == label])) >= 3


@quick
@given(sizes, seeds)
def test_fewer_shots_are_among_more(counts, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    drawn = [next(FewShotSplit(k, 1, random_state=seed).split(y, y))[0] for k in (1, 2, 4, 8)]
    for fewer, more in itertools.pairwise(drawn):
        assert set(fewer) < set(more)


def test_a_seed_repeats_its_splits_and_splits_differ():
    y = np.repeat(["a", "b"], 30)
    split = FewShotSplit(4, 3, random_state=7)
    first, second = ([train.tolist() for train, _ in split.split(y, y)] for _ in range(2))
    assert first == second
    assert len({tuple(train) for train in first}) == 3
    assert first != [train.tolist() for train, _ in clone(split).set_params(random_state=8).split(y, y)]


@pytest.mark.parametrize(("validation", "needed"), [(None, 4), ("few", 7), ("full", 5), (2, 6)])
def test_a_class_that_is_too_small_is_named(validation, needed):
    y = np.repeat(["many", "scarce"], [20, needed - 1])
    with pytest.raises(ValueError, match=rf"'scarce' has {needed - 1} images, .* needs {needed}"):
        next(FewShotSplit(3, validation=validation).split(y, y))
    enough = np.append(y, "scarce")
    next(FewShotSplit(3, validation=validation).split(enough, enough))


def test_labels_are_needed():
    with pytest.raises(ValueError, match="needs y"):
        next(FewShotSplit().split([1, 2], None))


@pytest.mark.parametrize("wrong", [{"n_shots": 0}, {"n_splits": 0}, {"validation": "some"}, {"validation": 0}])
def test_wrong_parameters_are_refused(wrong):
    y = np.repeat([0, 1], 5)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        next(FewShotSplit(**wrong).split(y, y))


def test_works_in_scikit_learns_searches():
    problem = make_problem(n_classes=3, shots=12)
    split = FewShotSplit(2, 3, random_state=0)
    assert split.get_n_splits() == 3
    clf = TipAdapterClassifier("precomputed", text_features=problem.text)
    scores = cross_validate(clf, problem.X, problem.y, cv=split)["test_score"]
    by_hand = [
        clone(clf).fit(problem.X[train], problem.y[train]).score(problem.X[test], problem.y[test])
        for train, test in split.split(problem.X, problem.y)
    ]
    assert scores.tolist() == by_hand
    search = GridSearchCV(clf, {"alpha": [0.0, 1.0]}, cv=split).fit(problem.X, problem.y)
    assert search.n_splits_ == 3


@pytest.mark.parametrize("missing", [None, np.nan, ""], ids=["None", "NaN", "blank"])
def test_a_missing_group_is_a_group_of_one_as_in_a_fit(missing):
    y = np.repeat(["a", "b"], 4)
    groups = np.array([missing, missing, missing, 7, 7, missing, missing, missing], dtype=object)
    for train, test in FewShotSplit(2, n_splits=5, random_state=0).split(y, y, groups):
        assert (np.bincount(np.searchsorted(["a", "b"], y[train]), minlength=2) >= 2).all()
        assert len({3, 4} & set(train)) in (0, 2)
        assert len(train) + len(test) == 8
    y = np.where(np.arange(8) == 0, "?", y)
    for train, _ in UnlabeledInTraining(GroupKFold(2), unlabeled_label="?").split(y, y, groups):
        assert 0 in train


def test_groups_of_integers_are_drawn_in_their_own_order():
    y, groups = np.repeat([0, 1], 12), np.arange(24)
    with_groups = list(FewShotSplit(2, n_splits=2, random_state=0).split(y, y, groups))
    without = list(FewShotSplit(2, n_splits=2, random_state=0).split(y, y))
    for one, other in zip(with_groups, without, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.bad_input
def test_too_few_groups_of_a_class_are_told_from_too_few_images():
    y = np.repeat(["a", "b"], 4)
    with pytest.raises(ValueError, match=r"class 'a' has 1 group of images, but"):
        next(FewShotSplit(1).split(y, y, ["burst"] * 8))
    with pytest.raises(ValueError, match=r"class 'a' has 4 images, but"):
        next(FewShotSplit(4).split(y, y))


def test_groups_reach_the_splits_with_and_without_metadata_routing():
    problem = make_problem(n_classes=3, shots=12)
    groups = np.arange(len(problem.y)) // 2
    clf = TipAdapterClassifier("precomputed", text_features=problem.text)
    split = FewShotSplit(2, 2, random_state=0)
    plain = cross_validate(clf, problem.X, problem.y, groups=groups, cv=split, return_indices=True)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = cross_validate(clf, problem.X, problem.y, params={"groups": groups}, cv=split, return_indices=True)
    for result in (plain, routed):
        for train, test in zip(result["indices"]["train"], result["indices"]["test"], strict=True):
            assert not set(groups[train]) & set(groups[test])


class Recorder(ZeroShotClassifier):
    """Remembers what it was fitted on and scored on."""

    seen: ClassVar[list[tuple[str, int]]] = []

    def fit(self, X, y, sample_weight=None):
        Recorder.seen.append(("fit", len(X)))
        return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        Recorder.seen.append(("predict", len(X)))
        return super().predict_proba(X)


def test_tuning_fits_on_support_images_and_scores_on_validation_images_only():
    problem = make_problem(n_classes=3, shots=9)
    draw = next(FewShotSplit(2, 1, validation="few", random_state=0).draw(problem.X, problem.y))
    X, y = problem.X, problem.y
    Recorder.seen.clear()
    tuned = tune(
        Recorder("precomputed", text_features=problem.text),
        X[draw.train],
        y[draw.train],
        X[draw.validation],
        y[draw.validation],
        {"templates": ["simple", "photo"]},
    )
    assert set(Recorder.seen) == {("fit", 6), ("predict", 6)}
    assert tuned.n_candidates == 3
    assert tuned.parameters == {}


def test_tuning_finds_what_validation_images_favor():
    problem = make_problem(n_classes=4, shots=12, text_noise=3.0, seed=3)
    draw = next(FewShotSplit(4, 1, validation="full", random_state=0).draw(problem.X, problem.y))
    X, y = problem.X, problem.y
    weak = GDAClassifier("precomputed", text_features=problem.text, alpha=0.0)
    tuned = tune(weak, X[draw.train], y[draw.train], X[draw.validation], y[draw.validation])
    before = weak.fit(X[draw.train], y[draw.train]).score(X[draw.validation], y[draw.validation])
    assert tuned.score > before
    assert tuned.parameters["alpha"] > 0
    assert tuned.estimator.alpha == tuned.parameters["alpha"]
    assert len(tuned.estimator.image_cache_.keys) == len(draw.train)
    assert weak.alpha == 0.0


def test_equal_accuracies_go_to_the_likelier_labels():
    problem = make_problem(n_classes=2, shots=4, noise=0.1)
    flat = LogisticRegressionProbe("precomputed", C=1e-3)
    tuned = tune(flat, problem.X, problem.y, problem.X_test, problem.y_test, {"C": [1e-4, 10.0, 1e-2]})
    assert tuned.score == 1
    assert tuned.parameters == {"C": 10.0}


def test_tuning_wants_validation_images_and_searches_nothing_without_a_grid():
    problem = make_problem(n_classes=3, shots=4)
    clf = ZeroShotClassifier("precomputed", text_features=problem.text)
    with pytest.raises(ValueError, match="no validation images"):
        tune(clf, problem.X, problem.y, problem.X[:0], problem.y[:0])
    assert tune(clf, problem.X, problem.y, problem.X_test, problem.y_test).n_candidates == 1


@pytest.mark.parametrize("kind", [GDAClassifier, TipAdapterClassifier, LogisticRegressionProbe])
def test_search_grids_name_parameters_of_their_estimator(kind):
    assert set(kind.search_grid) <= set(kind().get_params())
