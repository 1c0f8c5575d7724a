"""What users ask of a device, each with the most that it may wait for the device and copy to and from it."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from problems import make_problem
from sklearn.base import clone

import skxma
from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV, baselines
from skxma.active import suggest
from skxma.datasets import load_emoji
from skxma.model_selection import tune

N_CLASSES, SHOTS, DIM = 4, 4, 16
N_QUERIES = 10_000
N_IMAGES, BATCH = 20, 8
POOLED = {
    baselines.TransCLIPClassifier,
    baselines.StatAClassifier,
    baselines.SSTextUClassifier,
    baselines.SelfTrainingProbe,
    baselines.LabelSpreadingProbe,
}
SHORT: dict[Any, dict[str, int]] = {
    baselines.CrossModalLinearProbe: {"n_steps": 20},
    baselines.MultiModalAdapterClassifier: {"width": 16, "n_epochs": 3},
    baselines.CLAPClassifier: {"n_epochs": 5},
    baselines.CLIPAdapterClassifier: {"n_epochs": 10},
    baselines.RLAClassifier: {"n_epochs": 10},
    baselines.LPPlusPlusClassifier: {"n_epochs": 20},
    baselines.TaskResClassifier: {"n_epochs": 10},
}
RIVALS = [getattr(baselines, name) for name in baselines.__all__]


@cache
def problem() -> Any:
    """Embeddings to learn from and to answer."""
    return make_problem(n_classes=N_CLASSES, shots=SHOTS, dim=DIM, n_test=N_QUERIES // N_CLASSES)


@cache
def labels_of_half() -> np.ndarray:
    """Labels of half of the samples, and -1."""
    y = problem().y
    return np.where(np.arange(len(y)) % SHOTS < SHOTS // 2, y, -1)


@dataclass(frozen=True)
class Operation:
    """One thing that is asked of a device.

    Attributes
    ----------
    name : str
    prepare : callable
        From a device's name to what `run` takes; not measured.
    run : callable
        Returns the arrays that must be those of the CPU.
    n_waits : int
        Most times that the caller may wait for the device.
    to_device, to_host : int
        Most bytes to be copied.
    tolerance : float
        Largest difference to the CPU's arrays.
    slow : bool
    """

    name: str
    prepare: Callable[[str], Any]
    run: Callable[[Any], Any]
    n_waits: int
    to_device: int
    to_host: int
    tolerance: float = 1e-6
    slow: bool = False


def classifier(device: str, kind: Any = XMAdapterClassifier, **parameters: Any) -> Any:
    """An unfitted classifier of embeddings."""
    parameters = {"text_features": problem().text, "random_state": 0, **SHORT.get(kind, {}), **parameters}
    if kind in POOLED:
        parameters["unlabeled_label"] = -1
    return kind("precomputed", device=device, **parameters)


def fit(clf: Any) -> Any:
    """Fit on the labels that the classifier can take."""
    return clf.fit(problem().X, labels_of_half() if getattr(clf, "unlabeled_label", None) == -1 else problem().y)


def answers_after_fit(clf: Any) -> np.ndarray:
    """Fit, and a few probabilities by arrays of the CPU: copies of a prediction are not those of the fit."""
    return fit(clf).set_params(device="cpu").predict_proba(problem().X_test[::500])


def fit_some_classes(clf: Any) -> Any:
    """Fit on images of half of the classes; the others are known by their text alone."""
    rows = problem().y < N_CLASSES // 2
    return clf.partial_fit(problem().X[rows], problem().y[rows], classes=np.arange(N_CLASSES))


def answers_of_text_only(clf: Any) -> np.ndarray:
    """Fit on some classes, and a few probabilities of all by arrays of the CPU."""
    return fit_some_classes(clf).set_params(device="cpu").predict_proba(problem().X_test[::500])


def fitted_some_classes(device: str) -> Any:
    """A classifier fitted on some classes that has answered once."""
    clf = fit_some_classes(classifier(device))
    clf.predict_proba(problem().X_test[:1])
    return clf


def fitted(device: str, **parameters: Any) -> Any:
    """A fitted classifier that has answered once: the first answer copies the model."""
    clf = fit(classifier(device, **parameters))
    clf.predict_proba(problem().X_test[:1])
    return clf


def grow(clf: Any) -> np.ndarray:
    """Add samples of a new class, and take another class out."""
    more = problem().X[:SHOTS][::-1]
    text = dict(enumerate([*problem().text, problem().words[0]]))
    clf.set_params(text_features=text).partial_fit(more, [N_CLASSES] * len(more)).drop([0])
    return clf.set_params(device="cpu").predict_proba(problem().X_test[::500])


def search(clf: Any) -> np.ndarray:
    """Search alpha and beta on folds of the support set."""
    grid = {"alpha": [0.5, 2.0], "beta": [1.0, 5.5]}
    found = XMAdapterSearchCV(clf, grid, cv=2).fit(problem().X, problem().y)
    return np.asarray(found.cv_results_["mean_test_score"])


def tune_on_validation(clf: Any) -> np.ndarray:
    """Search a rival's grid on validation images."""
    rows = slice(None, None, 500)
    found = tune(clf, problem().X, problem().y, problem().X_test[rows], problem().y_test[rows])
    return found.estimator.set_params(device="cpu").predict_proba(problem().X_test[::500])


def save_and_load(clf: Any) -> np.ndarray:
    """Save and pickle a model of the device, and answer on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        clf.save(Path(folder) / "model.skxma")
        loaded = skxma.load(Path(folder) / "model.skxma").set_params(device="cpu")
    pickled = pickle.loads(pickle.dumps(clf)).set_params(device="cpu")
    return np.stack([one.predict_proba(problem().X_test[::500]) for one in (loaded, pickled)])


def explain(clf: Any) -> list[np.ndarray]:
    """Neighbors, zero-shot probabilities, logits, labels with a refusal, and probabilities under other frequencies."""
    some = problem().X_test[::100]
    prior = np.arange(1, N_CLASSES + 1) / sum(range(N_CLASSES + 1))
    return [
        *clf.kneighbors(some),
        clf.zero_shot(some),
        clf.decision_function(some),
        clf.predict(some) == clf.classes_[0],
        clf.predict_proba(some, class_prior=prior),
    ]


def encoder(device: str, **parameters: Any) -> CLIPEncoder:
    """The bundled encoder, loaded, without a memory."""
    made = CLIPEncoder("tiny", **{"device": device, "precision": "fp32", "memory": False, **parameters})
    made.encode_text(["loaded"])
    return made


@cache
def images() -> list[Any]:
    """Bundled images."""
    return list(load_emoji().images[:N_IMAGES])


def encode(made: CLIPEncoder, **parameters: Any) -> np.ndarray:
    """Embed the images in batches."""
    return np.asarray(clone(made).set_params(batch_size=BATCH).encode_image(images(), **parameters))


def encode_text(made: CLIPEncoder) -> np.ndarray:
    """Embed names in prompts."""
    return np.asarray(made.zero_shot_weights(["dog", "cat", "fox"], "a photo of a {}."))


def choose_images(clf: Any) -> np.ndarray:
    """Choose images to label next."""
    return np.asarray(suggest(clf, problem().X_test[::200], n_samples=5, random_state=0))


@dataclass(frozen=True)
class Measured:
    """What an operation asked of the simulated device, and how far its values were from the CPU's."""

    difference: float
    n_calls: int
    n_mixed: int
    n_conversions: int
    n_waits: int
    to_device: int
    to_host: int


def measure(operation: Operation) -> Measured:
    """Run an operation on the CPU and on the simulated device."""
    # a real device needs none
    from simulated_device import simulated_device

    expected = operation.run(operation.prepare("cpu"))
    with simulated_device() as device:
        prepared = operation.prepare("cuda")
        device.reset()
        found = operation.run(prepared)
    pairs = zip(found, expected, strict=True) if isinstance(found, list) else [(found, expected)]
    return Measured(
        max(float(np.abs(np.subtract(ours, theirs, dtype=float)).max()) for ours, theirs in pairs),
        device.n_launches,
        device.count("mixed"),
        device.count("conversion"),
        device.n_waits,
        device.n_bytes("to_device"),
        device.n_bytes("to_host"),
    )


QUERY_BYTES = N_QUERIES * DIM * 4
# small models compute in double precision
RESULT_BYTES = N_QUERIES * N_CLASSES * 8
IMAGE_BYTES = N_IMAGES * 3 * 64 * 64


def predictions(clf: Any) -> np.ndarray:
    """Answer 10 000 queries."""
    return clf.predict_proba(problem().X_test)


def _of_fits() -> list[Operation]:
    made = {
        "calibrated": ({}, 600, False),
        "calibrated, with a vocabulary": ({"vocabulary": problem().words}, 800, True),
        # torch's L-BFGS reads the loss and the slope several times in each of its passes
        "calibrated, without text": ({"text_features": None}, 2000, False),
        "calibrated, clustered keys": ({"retrieval": "top"}, 600, True),
        "calibrated, unlabeled images": ({"unlabeled_label": -1}, 4500, True),
        "paper": ({"evidence": "paper", "n_epochs": 5}, 150, False),
    }
    return [
        Operation(
            f"fit, {name}",
            partial(classifier, **parameters),
            answers_after_fit,
            n_waits,
            400_000,
            200_000,
            slow=slow,
        )
        for name, (parameters, n_waits, slow) in made.items()
    ]


def _of_rivals() -> list[Operation]:
    return [
        operation
        for kind in RIVALS
        for operation in (
            Operation(
                f"fit, {kind.__name__}",
                partial(classifier, kind=kind),
                answers_after_fit,
                90 if kind is baselines.TIMOClassifier else 25,
                20_000,
                20_000,
            ),
            Operation(
                f"10 000 predictions, {kind.__name__}",
                partial(fitted, kind=kind),
                predictions,
                1,
                QUERY_BYTES,
                RESULT_BYTES,
            ),
        )
    ]


def _of_predictions() -> list[Operation]:
    kinds = {
        "calibrated": {},
        "paper": {"evidence": "paper", "n_epochs": 2},
    }
    return [
        Operation(
            f"10 000 predictions, {name}", partial(fitted, **parameters), predictions, 1, QUERY_BYTES, RESULT_BYTES
        )
        for name, parameters in kinds.items()
    ] + [
        Operation(
            "10 000 predictions, text-only classes", fitted_some_classes, predictions, 1, QUERY_BYTES, RESULT_BYTES
        ),
        # which clusters are read is decided on the CPU, chunk by chunk
        Operation(
            "10 000 predictions, clustered keys",
            partial(fitted, evidence="paper", n_epochs=2, retrieval="top"),
            predictions,
            40,
            QUERY_BYTES,
            RESULT_BYTES + 20_000,
        ),
        Operation(
            "10 000 predictions, unlabeled images",
            partial(fitted, unlabeled_label=-1),
            predictions,
            1,
            QUERY_BYTES,
            RESULT_BYTES,
            slow=True,
        ),
    ]


def operations() -> list[Operation]:
    """All that is measured."""
    paper = {"evidence": "paper", "n_epochs": 2}
    rest = [
        # nearly all of the waits are those of the residual, which goes on for as long as it helps
        Operation("fit, text-only classes", classifier, answers_of_text_only, 2500, 400_000, 200_000),
        Operation("partial_fit and drop", partial(fitted, **paper), grow, 300, 200_000, 100_000),
        Operation("search", partial(classifier, evidence="paper", n_epochs=0), search, 400, 200_000, 100_000),
        Operation(
            "tune", partial(classifier, kind=baselines.TipAdapterClassifier), tune_on_validation, 200, 600_000, 100_000
        ),
        Operation("save on the device, load on the CPU", fitted, save_and_load, 0, 0, 0),
        Operation("explanations", fitted, explain, 10, 200_000, 200_000),
        Operation("suggestions", partial(fitted, **paper), choose_images, 10, 50_000, 50_000),
        Operation("images, fp32", encoder, encode, 3, IMAGE_BYTES, N_IMAGES * 512 * 4, 1e-5),
        Operation("images, bf16", partial(encoder, precision="bf16"), encode, 3, IMAGE_BYTES, N_IMAGES * 512 * 4, 1e-5),
        Operation(
            "images, 3 views each",
            encoder,
            partial(encode, n_views=3, random_state=0),
            10,
            3 * IMAGE_BYTES,
            3 * N_IMAGES * 512 * 4,
            1e-5,
        ),
        Operation("prompts", encoder, encode_text, 1, 3 * 77 * 8, 3 * 512 * 4, 1e-5),
    ]
    return _of_fits() + _of_predictions() + _of_rivals() + rest
