"""An answer of the page: the classes of a query, and the evidence for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skxma._estimators.conformal import can_give
from skxma._evidence.fitted import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

NEIGHBORS_SHOWN = 5


@dataclass(frozen=True)
class ClassScore:
    """Probabilities of a class: from its name alone (None where the model reads no names), and of the model."""

    label: str
    zero_shot: float | None
    final: float


@dataclass(frozen=True)
class Retrieved:
    """A support image that was retrieved.

    Attributes
    ----------
    sample : int
        Which of the images of the fit it is, from 1.
    label : str
    image_affinity, text_affinity : float
        To the query, in both modalities; the second is None where the model reads no names.
    """

    sample: int
    label: str
    image_affinity: float
    text_affinity: float | None


@dataclass(frozen=True)
class Answer:
    """The classes of a query, the most probable first, and the evidence.

    Attributes
    ----------
    is_unknown : bool or None
        Whether the query is like none of the classes; None where the model can't tell.
    scores : list of ClassScore
    certain : list of str or None
        The classes that hold the right one with a probability of `CONFIDENCE_LEVEL`, the most probable first; None
        where the model has too few images to tell.
    retrieved : list of Retrieved
        None of a model that retrieves nothing.
    """

    is_unknown: bool | None
    scores: list[ClassScore]
    certain: list[str] | None
    retrieved: list[Retrieved]


def classify(clf: BaseFewShotClassifier, image: Any) -> Answer:
    """Classify an image, and find the evidence.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted.
    image : path
    """
    # encoded once for all questions
    features = clf.encode([image])
    final = clf.predict_proba(features)[0]
    order = final.argsort()[::-1]
    certain = None
    if can_give(clf, CONFIDENCE_LEVEL):
        held = clf.predict_set(features, CONFIDENCE_LEVEL)[0]
        certain = [str(clf.classes_[c]) for c in order if held[c]]
    zero_shot = clf.zero_shot(features)[0] if reads_names(clf) else [None] * len(final)
    return Answer(
        bool(clf.open_set_score(features)[0] > clf.reject_threshold_) if can_reject(clf) else None,
        [
            ClassScore(str(clf.classes_[c]), None if zero_shot[c] is None else float(zero_shot[c]), float(final[c]))
            for c in order
        ],
        certain,
        retrieve(clf, features) if hasattr(clf, "kneighbors") else [],
    )


def retrieve(clf: BaseFewShotClassifier, features: Any) -> list[Retrieved]:
    """The support images with the highest affinity to a query (1, n_features)."""
    image, text, found = (part[0] for part in clf.kneighbors(features, NEIGHBORS_SHOWN))
    labels = clf.classes_[clf.image_cache_.labels[clf.sample_position_[found]]]
    with_text = reads_names(clf)
    return [
        Retrieved(int(i) + 1, str(label), float(a), float(b) if with_text else None)
        for i, label, a, b in zip(found, labels, image, text, strict=True)
    ]


def reads_names(clf: BaseFewShotClassifier) -> bool:
    """True if the names of the classes have a part in the model."""
    return clf.class_names_ is not None


def can_reject(clf: BaseFewShotClassifier) -> bool:
    """True if the model was fitted with a threshold for images that belong to none of its classes."""
    return hasattr(clf, "open_set_score") and bool(np.isfinite(clf.reject_threshold_))


def shots(clf: BaseFewShotClassifier) -> list[tuple[str, int]]:
    """Each class of a fitted model with the number of images that it was fitted on."""
    position = clf.sample_position_
    counts = np.bincount(clf.image_cache_.labels[position[position >= 0]], minlength=len(clf.classes_))
    return [(str(label), int(n)) for label, n in zip(clf.classes_, counts, strict=True)]
