"""Priors of the calibrated fit, compared on tasks that no results page shows.

Tasks are drawn from the ImageNet features (5 to 80 classes, random ones or neighbors by their text, with the real text
and with text that is mixed with that of other classes), and from the CIFAR images, emoji and digits through "tiny".

    python benchmarks/priors.py FOLDER one-shot     prior of the cosine of a second image of a class, at one shot
    python benchmarks/priors.py FOLDER scale        prior of the logits' scale, at 1, 2 and 4 shots
    python benchmarks/priors.py FOLDER text-metric [--images DIR ...]
                                                    roots of words and of class texts, at 1 and 2 shots
    python benchmarks/priors.py FOLDER text-only    classes known by text alone beside others, at 1, 4 and 16 shots
    python benchmarks/priors.py FOLDER left-out     left_out_score_ and its interval against the accuracy on new images

FOLDER holds the feature files that docs/results.md names. Of text-metric the CIFAR images through "photo" are a kind
too, and each DIR, a folder of class folders, through "tiny" and "photo", each task with 20 of the classes at most. Each
cell is the mean over the tasks of a kind.
"""

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from ablation import Ablated, NoVocabulary
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma._estimators.vocabulary import common_words
from skxma._evidence.calibrated.config import ScalePrior
from skxma._statistics import SingletonPrior, calibration_error
from skxma.datasets import load_emoji, load_features, load_image_folder
from skxma.embeddings import unit_rows

IMAGENET, CIFAR = "imagenet_4shot_vitb32_openai", ("cifar10_500_vitb32_openai", "cifar10_848_vitb32_laion2b")
CLASS_COUNTS = (5, 10, 20, 40, 80)
MOST_CLASSES, MOST_IMAGES, LEAST_IMAGES = 20, 80, 20


@dataclass(frozen=True)
class Data:
    """Embeddings (n, D), labels from 0 on, class text (C, D), words (m, D) or None."""

    X: np.ndarray
    y: np.ndarray
    text: np.ndarray
    words: np.ndarray | None

    def of_classes(self, classes):
        """The data of some classes."""
        classes = np.sort(classes)
        rows = np.isin(self.y, classes)
        return replace(self, X=self.X[rows], y=np.searchsorted(classes, self.y[rows]), text=self.text[classes])


class ClassTextsAlone(NoVocabulary, Ablated):
    """Class texts shape the metric, and at one shot none stands beside it."""

    changes: ClassVar = {"halves_one_shot_text": False}


class NoTextMetric(NoVocabulary, Ablated):
    """Neither words nor class texts shape the metric."""

    changes: ClassVar = {"text_shapes_metric": False}


@dataclass(frozen=True)
class Task:
    """Data of which some rows are the support set and the others are new images."""

    data: Data
    train: np.ndarray
    test: np.ndarray


def of_features(data, words=None):
    return Data(unit_rows(data.data), data.target, unit_rows(data.text_features), words)


def through(encoder, images, y, names):
    encoder = CLIPEncoder(encoder, precision="fp32")
    labels = np.unique(y, return_inverse=True)[1]
    words, text = (
        unit_rows(np.asarray(encoder.encode_text([f"a photo of a {name}." for name in some])))
        for some in (common_words(), names)
    )
    return Data(unit_rows(np.asarray(encoder.encode_image(list(images)))), labels, text, words)


def weakened(data, share, others, rng):
    """Data whose text is mixed with that of as many other classes."""
    strange = others[rng.choice(len(others), len(data.text), replace=False)]
    return replace(data, text=unit_rows((1 - share) * data.text + share * strange))


def through_photo(folder, images) -> dict[str, Callable[[np.random.Generator], Data]]:
    """Kinds of photographs for which "photo" is there: the CIFAR images, and folders of class folders."""
    cifar = load_features(Path(folder) / f"{CIFAR[0]}.npz")
    made = {"photos, photo": through("photo", cifar.images, cifar.target, cifar.class_names)}
    for place in map(Path, images):
        found = load_image_folder(place)
        rows = [np.flatnonzero(found.target == name)[:MOST_IMAGES] for name in found.target_names]
        some = np.concatenate([own for own in rows if len(own) >= LEAST_IMAGES])
        files, labels = [found.paths[row] for row in some], found.target[some]
        for encoder in ("tiny", "photo"):
            made[f"{place.name}, {encoder}"] = through(encoder, files, labels, np.unique(labels))
    return {name: (lambda rng, data=data: a_few_classes(data, rng)) for name, data in made.items()}


def a_few_classes(data, rng):
    """The data of some classes, where there are very many."""
    n = len(data.text)
    return data if n <= MOST_CLASSES else data.of_classes(rng.choice(n, MOST_CLASSES, replace=False))


def kinds(folder) -> dict[str, Callable[[np.random.Generator], Data]]:
    """Functions that draw the data of a task, by the name of the kind."""
    imagenet, *cifar = (load_features(Path(folder) / f"{name}.npz") for name in (IMAGENET, *CIFAR))
    imagenet = of_features(imagenet, unit_rows(imagenet.text_features))
    photos = through("tiny", cifar[0].images, cifar[0].target, cifar[0].class_names)
    emoji, digits = load_emoji(), load_digits()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    enlarged = [np.kron(d, np.ones((8, 8)))[..., None].repeat(3, 2) * 15.9 for d in digits.images]
    drawn = {
        CIFAR[0]: of_features(cifar[0], imagenet.text),
        CIFAR[1]: of_features(cifar[1]),
        "emoji, tiny": through("tiny", emoji.images, emoji.target, np.unique(emoji.target)),
        "digits, tiny": through("tiny", [d.astype(np.uint8) for d in enlarged], digits.target, names),
        "photos, tiny": photos,
    }

    def some_classes(rng, near, share=0.0):
        n = int(rng.choice(CLASS_COUNTS))
        nearest = np.argsort(-(imagenet.text @ imagenet.text[rng.integers(1000)]))
        classes = nearest[:n] if near else rng.choice(1000, n, replace=False)
        data = imagenet.of_classes(classes)
        return weakened(data, share, np.delete(imagenet.text, classes, axis=0), rng) if share else data

    pairs = list(itertools.combinations(range(10), 2))
    return {
        "imagenet": lambda rng: some_classes(rng, near=False),
        "imagenet, near": lambda rng: some_classes(rng, near=True),
        "imagenet, near, weak text": lambda rng: some_classes(rng, near=True, share=0.5),
        "imagenet, useless text": lambda rng: some_classes(rng, near=False, share=0.8),
        **{name: (lambda rng, data=data: data) for name, data in drawn.items()},
        "two photos, tiny": lambda rng: photos.of_classes(pairs[rng.integers(len(pairs))]),
    }


def draw(make, shots, n_tasks) -> Iterator[Task]:
    for seed in range(n_tasks):
        rng = np.random.default_rng([seed, shots])
        data = make(rng)
        per_class = [rng.permutation(np.flatnonzero(data.y == c)) for c in range(len(data.text))]
        if min(map(len, per_class)) <= shots:
            return
        train = np.concatenate([rows[:shots] for rows in per_class])
        yield Task(data, train, np.setdiff1d(np.arange(len(data.y)), train))


def fitted(estimator, task):
    data = task.data
    given = {"encoder": "precomputed", "text_features": data.text, "vocabulary": data.words, "random_state": 0}
    return estimator.set_params(**given).fit(data.X[task.train], data.y[task.train])


def figures(probabilities, y):
    """Accuracy and calibration error in per cent, log loss."""
    right = probabilities.argmax(1) == y
    error = calibration_error(probabilities.max(1), right)
    return 100 * right.mean(), 100 * error, log_loss(y, probabilities, labels=np.arange(probabilities.shape[1]))


def with_config(**changed):
    """An estimator with other settings of its calibrated fit."""
    return type("Changed", (Ablated,), {"changes": changed})()


def compare(made, variants, shots, n_tasks):
    """Print accuracy / calibration error / log loss of each variant for each kind of task."""
    print("accuracy / calibration error (%) / log loss")
    print(f"{'':28s}" + "".join(f"{name:>22s}" for name in variants))
    for n_shots in shots:
        for kind, make in made.items():
            found = {name: [] for name in variants}
            for task in draw(make, n_shots, n_tasks):
                for name, estimator in variants.items():
                    data = task.data
                    if name == LOGISTIC:
                        model = estimator.fit(data.X[task.train], data.y[task.train])
                    else:
                        model = fitted(estimator, task)
                    found[name].append(figures(model.predict_proba(data.X[task.test]), data.y[task.test]))
            if found[next(iter(variants))]:
                cells = ("{:.1f} / {:.1f} / {:.3f}".format(*np.mean(rows, axis=0)) for rows in found.values())
                print(f"{n_shots:2d} {kind:25s}" + "".join(f"{cell:>22s}" for cell in cells), flush=True)


def left_out(made, shots, n_tasks):
    """Print how far left_out_score_ is from the accuracy on new images, and how often its interval holds it."""
    print(
        "accuracy, left_out_score_ less it, mean distance, distance by counting alone (points); share in the interval"
    )
    for n_shots in shots:
        for kind, make in made.items():
            rows = []
            for task in draw(make, n_shots, n_tasks):
                clf = fitted(XMAdapterClassifier(), task)
                accuracy = clf.score(task.data.X[task.test], task.data.y[task.test])
                low, high = clf.left_out_interval_
                off = clf.left_out_score_ - accuracy
                # mean distance of a normal variable is .8 of its deviation
                counting = 0.8 * np.sqrt(accuracy * (1 - accuracy) / len(task.train))
                rows.append((100 * accuracy, 100 * off, 100 * abs(off), 100 * counting, low <= accuracy <= high))
            if rows:
                line = "{:2d} {:25s} {:6.1f} {:+6.1f} {:6.1f} {:6.1f} {:6.2f}"
                print(line.format(n_shots, kind, *np.mean(rows, axis=0)), flush=True)


def text_only(made, shots, n_tasks):
    """Print accuracies and log loss where half of the classes have images, for two ways to score the others."""
    variants = {"of the others": XMAdapterClassifier(), "1.5 deviations": with_config(learns_text_only=False)}
    print("accuracy (%) among classes without images / with images / all, on images of these, and log loss of all")
    print(f"{'':28s}" + "".join(f"{name:>32s}" for name in variants))
    for n_shots in shots:
        for kind, make in made.items():
            found = {name: [] for name in variants}
            for seed, task in enumerate(draw(make, n_shots, n_tasks)):
                data, n_classes = task.data, len(task.data.text)
                if n_classes < 4:
                    continue
                imaged = np.random.default_rng(seed).permutation(n_classes) < (n_classes + 1) // 2
                rows = task.train[imaged[data.y[task.train]]]
                for name, estimator in variants.items():
                    given = {"encoder": "precomputed", "text_features": data.text, "vocabulary": data.words}
                    clf = estimator.set_params(**given)
                    clf = clone(clf).partial_fit(data.X[rows], data.y[rows], classes=np.arange(n_classes))
                    probabilities, y = clf.predict_proba(data.X[task.test]), data.y[task.test]
                    right = [
                        (np.where(half, probabilities, 0).argmax(1) == y)[half[y]].mean()
                        for half in (~imaged, imaged, np.ones_like(imaged))
                    ]
                    loss = log_loss(y, probabilities, labels=np.arange(n_classes))
                    found[name].append([*(100 * share for share in right), loss])
            if found[next(iter(variants))]:
                cells = ("{:.1f} / {:.1f} / {:.1f} / {:.3f}".format(*np.mean(r, axis=0)) for r in found.values())
                print(f"{n_shots:2d} {kind:25s}" + "".join(f"{cell:>32s}" for cell in cells), flush=True)


LOGISTIC = "logistic regression"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("table", choices=("one-shot", "text-metric", "scale", "text-only", "left-out"))
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="DIR", help="folders of class folders, of text-metric"
    )
    parser.add_argument("--tasks", type=int, default=10, help="tasks per kind (default: %(default)s)")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    made = kinds(given.folder)
    if given.table == "one-shot":
        priors = {
            f"{mean:g} ± {std:g} sigma": SingletonPrior(mean, std)
            for mean, std in ((2.5, 2), (3, 1.5), (3, 2), (3.5, 2))
        }
        compare(made, {name: with_config(singleton=prior) for name, prior in priors.items()}, (1,), given.tasks)
    elif given.table == "text-metric":
        variants = {
            "words": XMAdapterClassifier(),
            "class texts": NoVocabulary(),
            "class texts alone": ClassTextsAlone(),
            "none": NoTextMetric(),
        }
        compare({**made, **through_photo(given.folder, given.images)}, variants, (1, 2), given.tasks)
    elif given.table == "scale":
        variants = {"likeliest scale": with_config(moderated=False)}
        variants |= {f"native {share:g}": with_config(scale=ScalePrior(native=share)) for share in (0.1, 0.2, 0.5)}
        compare(made, {**variants, LOGISTIC: LogisticRegression(max_iter=1000)}, (1, 2, 4), given.tasks)
    elif given.table == "text-only":
        text_only(made, (1, 4, 16), given.tasks)
    else:
        left_out(made, (2, 4, 8, 16), given.tasks)


if __name__ == "__main__":
    main()
