"""The estimator in embeddings mode: scikit-learn's contract, properties, parameters."""

import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem, unit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from skxma import XMAdapterClassifier
from skxma.embeddings import Embeddings
from skxma.errors import EncoderMismatchError


def classifier(problem=None, **parameters):
    text = {} if problem is None else {"text_features": problem.text, "vocabulary": problem.words}
    return XMAdapterClassifier("precomputed", random_state=0, **{**text, **parameters})


EVIDENCES = [{}, {"evidence": "paper", "n_epochs": 3}]


@parametrize_with_checks([classifier(**parameters) for parameters in EVIDENCES])
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("parameters", EVIDENCES)
@pytest.mark.parametrize("shots", [1, 2, 5])
def test_it_learns(parameters, shots):
    problem = make_problem(shots=shots)
    clf = classifier(problem, **parameters).fit(problem.X, problem.y)
    zero_shot = (clf.zero_shot(problem.X_test).argmax(1) == problem.y_test).mean()
    assert clf.score(problem.X_test, problem.y_test) >= zero_shot - 0.02
    proba = clf.predict_proba(problem.X_test)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (clf.classes_[proba.argmax(1)] == clf.predict(problem.X_test)).all()
    assert (clf.decision_function(problem.X_test).argmax(1) == proba.argmax(1)).all()


def test_fitted_state_is_numpy_and_named_as_promised():
    problem = make_problem()
    clf = classifier(problem).fit(problem.X, problem.y)
    n = len(problem.y)
    assert clf.hardness_.shape == clf.label_noise_.shape == clf.set_aside_.shape == (n,)
    assert isinstance(clf.image_cache_.keys, np.ndarray)
    assert clf.image_cache_.keys.shape == (n, 16)
    assert clf.text_cache_.keys.shape == (5, 16)
    for name in ("alpha_", "beta_", "fusion_ratio_", "logit_scale_", "noise_rate_"):
        assert isinstance(getattr(clf, name), float), name
    assert 0 <= clf.fusion_ratio_ <= 1
    assert clf.n_features_in_ == 16
    assert isinstance(clf.loss_curve_, list)
    fitted = [name for name in vars(clf) if name.endswith("_")]
    assert not any("torch" in type(getattr(clf, name)).__module__ for name in fitted)


@pytest.mark.parametrize("evidence", ["calibrated", "paper"])
def test_numbers_are_used_as_they_are(evidence):
    problem = make_problem()
    clf = classifier(problem, evidence=evidence, alpha=0.7, beta=3.0, fusion_ratio=0.25).fit(problem.X, problem.y)
    assert (clf.alpha_, clf.beta_, clf.fusion_ratio_) == pytest.approx((0.7, 3.0, 0.25))


@pytest.mark.parametrize("parameters", EVIDENCES)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(15)))
def test_sample_order_never_matters(parameters, order):
    problem = make_problem(n_classes=3, shots=5, n_test=5)
    order = np.array(order)
    a = classifier(problem, **parameters).fit(problem.X, problem.y)
    b = classifier(problem, **parameters).fit(problem.X[order], problem.y[order])
    np.testing.assert_array_equal(a.predict_proba(problem.X_test), b.predict_proba(problem.X_test))
    np.testing.assert_array_equal(a.hardness_[order], b.hardness_)


@pytest.mark.parametrize("parameters", EVIDENCES)
@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(4)))
def test_class_order_never_matters(parameters, order):
    problem = make_problem(n_classes=4, shots=3, n_test=5)
    order = np.array(order)
    a = classifier(problem, **parameters).fit(problem.X, problem.y)
    renamed = classifier(problem, text_features=problem.text[order], **parameters)
    b = renamed.fit(problem.X, np.argsort(order)[problem.y])
    pa, pb = a.predict_proba(problem.X_test), b.predict_proba(problem.X_test)
    np.testing.assert_allclose(pa[:, order], pb, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, 99))
def test_batch_size_never_matters(cut):
    problem = make_problem()
    clf = FITTED
    whole = clf.predict_proba(problem.X_test)
    parts = np.r_[clf.predict_proba(problem.X_test[:cut]), clf.predict_proba(problem.X_test[cut:])]
    np.testing.assert_allclose(whole, parts, atol=1e-6)


_problem = make_problem()
FITTED = classifier(_problem).fit(_problem.X, _problem.y)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 4),
    st.sampled_from([1e-20, 1.0, 1e20]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1000),
)
def test_probabilities_are_finite_for_any_finite_embeddings(n_classes, shots, scale, zero_row, duplicate, seed):
    problem = make_problem(n_classes, shots, dim=5, n_test=4, seed=seed)
    X = problem.X.astype(np.float64) * scale
    if zero_row:
        X[0] = 0
    if duplicate:
        X[-1] = X[0]
    clf = classifier(problem).fit(X, problem.y)
    queries = np.r_[problem.X_test * scale, np.zeros((1, 5))]
    proba = clf.predict_proba(queries)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(1), 1)


@pytest.mark.parametrize("parameters", EVIDENCES)
def test_same_seed_same_bits_in_another_process(parameters, tmp_path):
    problem = make_problem()
    file = tmp_path / "problem.joblib"
    joblib.dump((problem, parameters), file)
    script = (
        "import sys, joblib, numpy as np; sys.path.insert(0, sys.argv[2]); from skxma import XMAdapterClassifier\n"
        "p, q = joblib.load(sys.argv[1])\n"
        "c = XMAdapterClassifier('precomputed', random_state=0, text_features=p.text, vocabulary=p.words, **q)\n"
        "np.save(sys.argv[1] + '.npy', c.fit(p.X, p.y).predict_proba(p.X_test))"
    )
    subprocess.run([sys.executable, "-c", script, str(file), str(Path(__file__).parents[1])], check=True)
    clf = classifier(problem, **parameters).fit(problem.X, problem.y)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), np.load(f"{file}.npy"))


def test_weights_are_repetitions():
    problem = make_problem(shots=3)
    weights = np.arange(len(problem.y)) % 3
    repeated = np.repeat(np.arange(len(problem.y)), weights)
    a = classifier(problem).fit(problem.X, problem.y, sample_weight=weights)
    b = classifier(problem).fit(problem.X[repeated], problem.y[repeated])
    np.testing.assert_allclose(a.predict_proba(problem.X_test), b.predict_proba(problem.X_test), atol=1e-10)


@pytest.mark.parametrize("seed", range(1, 6))
def test_weight_pulls_towards_a_sample(seed):
    problem = make_problem(n_classes=2, shots=3, noise=1.5, text_noise=3.0, seed=seed)
    query = problem.X[:1]
    heavy = np.ones(6)
    heavy[0] = 4
    # of two classes the decision is the second's; the query is of the first
    plain = classifier(problem).fit(problem.X, problem.y).decision_function(query)[0]
    pulled = classifier(problem).fit(problem.X, problem.y, sample_weight=heavy).decision_function(query)[0]
    assert pulled < plain


@pytest.mark.parametrize("counts", [(1, 5, 3), (1, 1, 8), (2, 1, 1)])
def test_unbalanced_classes(counts):
    problem = make_problem(n_classes=3, shots=8)
    keep = np.concatenate([np.flatnonzero(problem.y == c)[:n] for c, n in enumerate(counts)])
    clf = classifier(problem).fit(problem.X[keep], problem.y[keep])
    zero_shot = (clf.zero_shot(problem.X_test).argmax(1) == problem.y_test).mean()
    assert clf.score(problem.X_test, problem.y_test) >= zero_shot - 0.05


def test_a_class_with_text_and_no_image_can_be_predicted():
    problem = make_problem(n_classes=4, shots=4, text_noise=0.1, noise=0.4)
    seen = problem.y != 2
    clf = classifier(problem).fit(problem.X[seen], problem.y[seen])
    assert clf.classes_.tolist() == [0, 1, 2, 3]
    found = clf.predict(problem.X_test[problem.y_test == 2])
    assert (found == 2).mean() > 0.5


def test_classes_without_text_are_known_by_their_images():
    problem = make_problem(n_classes=4, shots=4, text_noise=0.1, noise=0.4)
    text = {i: None if i == 1 else row for i, row in enumerate(problem.text)}
    clf = classifier(problem, text_features=text).fit(problem.X, problem.y)
    assert clf.score(problem.X_test, problem.y_test) > 0.9


def test_without_text_class_means_stand_for_it():
    problem = make_problem(noise=0.4)
    clf = classifier().fit(problem.X, problem.y)
    assert clf.text_cache_ is None
    assert clf.fusion_ratio_ == 1
    means = unit(np.stack([problem.X[problem.y == c].mean(0) for c in range(5)]))
    assert (clf.zero_shot(problem.X_test).argmax(1) == (problem.X_test @ means.T).argmax(1)).all()
    assert clf.score(problem.X_test, problem.y_test) > 0.9


def test_a_thousand_classes_at_one_shot():
    problem = make_problem(n_classes=1000, shots=1, dim=64, n_test=1, noise=0.3, text_noise=0.3)
    clf = classifier(problem).fit(problem.X, problem.y)
    zero_shot = (clf.zero_shot(problem.X_test).argmax(1) == problem.y_test).mean()
    assert clf.predict_proba(problem.X_test).shape == (1000, 1000)
    assert clf.score(problem.X_test, problem.y_test) >= zero_shot


@pytest.mark.parametrize("parameters", EVIDENCES)
def test_scikit_learns_tools_take_it(parameters):
    problem = make_problem(shots=6)
    clf = classifier(problem, **parameters)
    assert cross_val_predict(clf, problem.X, problem.y, cv=3, method="predict_proba").shape == (30, 5)
    assert cross_validate(clf, problem.X, problem.y, cv=3)["test_score"].mean() > 0.5
    assert CalibratedClassifierCV(clf, cv=2).fit(problem.X, problem.y).predict_proba(problem.X_test).shape == (100, 5)
    voting = VotingClassifier([("a", clf), ("b", clone(clf).set_params(alpha=0.5))], voting="soft")
    assert voting.fit(problem.X, problem.y).score(problem.X_test, problem.y_test) > 0.5
    scaled = make_pipeline(FunctionTransformer(), clf)
    assert scaled.fit(problem.X, problem.y).score(problem.X_test, problem.y_test) > 0.5


def test_grid_search_finds_what_brute_force_finds():
    problem = make_problem(shots=6, noise=1.5, text_noise=2.0)
    grid = {"alpha": [0.0, "auto"], "beta": [2.0, "auto"], "fusion_ratio": [0.3, "auto"]}
    search = GridSearchCV(classifier(problem, n_epochs=0), grid, cv=3).fit(problem.X, problem.y)
    scores = search.cv_results_["mean_test_score"]
    by_hand = []
    for parameters in search.cv_results_["params"]:
        clf = classifier(problem, n_epochs=0, **parameters)
        by_hand.append(cross_validate(clf, problem.X, problem.y, cv=3)["test_score"].mean())
    np.testing.assert_allclose(scores, by_hand)
    assert search.best_score_ == max(by_hand)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"beta": 0.0}, "beta"),
        ({"fusion_ratio": 1.5}, "fusion_ratio"),
        ({"evidence": "magic"}, "evidence"),
        ({"n_epochs": -1}, "n_epochs"),
        ({"n_views": 2}, "n_views=2 needs images"),
        ({"vocabulary": ["dog", "cat"]}, "vocabulary holds words"),
        ({"vocabulary": "rare"}, "vocabulary='rare'"),
        ({"vocabulary": np.eye(3)}, "vocabulary has 3 columns, the embeddings have 16"),
        ({"text_features": np.eye(5)}, "text_features has 5 columns, the embeddings have 16"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    problem = make_problem()
    with pytest.raises(ValueError, match=message):
        classifier(problem, **parameters).fit(problem.X, problem.y)


def test_wrong_input_is_named():
    problem = make_problem()
    clf = classifier(problem)
    with pytest.raises(NotFittedError, match="not fitted"):
        clf.predict(problem.X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.fit(problem.X, problem.y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(np.full((4, 16), np.nan), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="one class"):
        XMAdapterClassifier("precomputed").fit(problem.X, np.zeros(20, int))
    with pytest.raises(ValueError, match="expecting 16 features"):
        clf.fit(problem.X, problem.y).predict(problem.X[:, :3])
    with pytest.raises(ValueError, match="Negative"):
        clf.fit(problem.X, problem.y, sample_weight=-np.ones(20))


def test_embeddings_of_another_encoder_are_refused():
    problem = make_problem()
    clf = classifier(problem).fit(Embeddings(problem.X, "clip-a"), problem.y)
    assert clf.encoder_fingerprint_ == "clip-a"
    clf.predict(Embeddings(problem.X_test, "clip-a"))
    clf.predict(problem.X_test)
    with pytest.raises(EncoderMismatchError, match=r"clip-a.*clip-b"):
        clf.predict(Embeddings(problem.X_test, "clip-b"))


@pytest.mark.parametrize("parameters", EVIDENCES)
def test_a_saved_model_is_small_and_the_same(parameters, tmp_path):
    problem = make_problem(n_classes=10, shots=8, dim=128)
    clf = classifier(problem, **parameters).fit(problem.X, problem.y)
    file = tmp_path / "model.joblib"
    joblib.dump(clf, file)
    given = problem.text.nbytes + problem.words.nbytes
    assert file.stat().st_size <= 1.5 * model_bytes(clf) + given
    loaded = joblib.load(file)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), loaded.predict_proba(problem.X_test))
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), again.predict_proba(problem.X_test))


def model_bytes(clf):
    """Bytes of the different arrays in the caches, and in the nets and metrics that belong to them."""
    arrays = {}

    def walk(item):
        if isinstance(item, np.ndarray):
            arrays[id(item)] = item.nbytes
        elif isinstance(item, (list, tuple)):
            for part in item:
                walk(part)
        elif hasattr(item, "__dataclass_fields__"):
            walk(list(vars(item).values()))

    walk([clf.model_, clf.image_cache_, clf.text_cache_])
    return sum(arrays.values())


def test_skops_round_trip(tmp_path):
    skops = pytest.importorskip("skops.io")
    problem = make_problem()
    clf = classifier(problem).fit(problem.X, problem.y)
    file = tmp_path / "model.skops"
    skops.dump(clf, file)
    unknown = skops.get_untrusted_types(file=file)
    assert all(name.startswith("skxma.") for name in unknown)
    loaded = skops.load(file, trusted=unknown)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), loaded.predict_proba(problem.X_test))


def test_partial_fit_is_fit_on_everything():
    problem = make_problem(n_classes=5, shots=4)
    first = (problem.y < 3) & (np.arange(20) % 4 < 2)
    text = dict(enumerate(problem.text))
    grown = classifier(problem, text_features=text).fit(problem.X[first], problem.y[first])
    grown.partial_fit(problem.X[~first], problem.y[~first])
    order = np.r_[np.flatnonzero(first), np.flatnonzero(~first)]
    whole = classifier(problem, text_features=text).fit(problem.X[order], problem.y[order])
    np.testing.assert_array_equal(grown.classes_, whole.classes_)
    np.testing.assert_allclose(grown.predict_proba(problem.X_test), whole.predict_proba(problem.X_test), atol=1e-6)
    np.testing.assert_allclose(grown.hardness_, whole.hardness_, atol=1e-5)


def test_partial_fit_remembers_weights_and_samples_set_aside():
    problem = make_problem(n_classes=3, shots=12, dim=32, noise=0.4, text_noise=0.3)
    problem.y[[0, 13]] = [1, 2]
    weights = np.linspace(1, 2, 36)
    clf = classifier(problem).fit(problem.X[:-3], problem.y[:-3], sample_weight=weights[:-3])
    assert clf.set_aside_[[0, 13]].all()
    clf.partial_fit(problem.X[-3:], problem.y[-3:], sample_weight=weights[-3:])
    whole = classifier(problem).fit(problem.X, problem.y, sample_weight=weights)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), whole.predict_proba(problem.X_test), atol=1e-6)


def test_neighbors_are_samples_of_the_fit():
    problem = make_problem(shots=4)
    clf = classifier(problem).fit(problem.X, problem.y)
    image, text, index = clf.kneighbors(problem.X, n_neighbors=3)
    assert image.shape == text.shape == index.shape == (20, 3)
    assert (index[:, 0] == np.arange(20)).mean() > 0.9
    np.testing.assert_allclose(image[index[:, 0] == np.arange(20), 0], 1, atol=1e-5)
    assert clf.kneighbors(problem.X[:1], n_neighbors=99)[2].shape == (1, 20)
    for wrong in (0, -1, 2.5, None, True):
        with pytest.raises(ValueError, match=f"n_neighbors={wrong} must be an integer of at least 1"):
            clf.kneighbors(problem.X[:1], n_neighbors=wrong)


def test_search_parameters_survive_clone_and_set_params():
    clf = classifier(alpha=0.5)
    assert clone(clf).set_params(beta=2.0).get_params()["beta"] == 2.0
    assert not [name for name in vars(clf) if name.endswith("_")]


def test_a_parameter_that_is_set_after_a_fit_changes_no_fitted_state():
    problem = make_problem(n_classes=4, shots=4)
    counts = np.isin(np.arange(16), [4, 5, 8, 12], invert=True)
    clf = classifier(problem, evidence="paper", text_dim=8, n_epochs=2).fit(problem.X[counts], problem.y[counts])
    before = clf.predict_proba(problem.X_test, class_prior=[0.4, 0.2, 0.2, 0.2])
    clf.set_params(evidence="calibrated", text_dim=None)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test, class_prior=[0.4, 0.2, 0.2, 0.2]), before)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.text_features_, clf.text_features_)


def test_two_classes_have_a_one_dimensional_decision():
    problem = make_problem(n_classes=2, shots=3)
    clf = classifier(problem, class_names=["no", "yes"]).fit(problem.X, problem.y)
    decision = clf.decision_function(problem.X_test)
    assert decision.shape == (40,)
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), clf.predict_proba(problem.X_test)[:, 1])
    assert ((decision > 0) == clf.predict(problem.X_test)).all()
