"""suggest: which images of a pool to label next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.embedding_input import EmbeddingInput, check_images_first
from skxma._estimators.several_encoders import knows_several
from skxma._estimators.vocabulary import embed_vocabulary
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.metric_selection import one_shot_roots, text_roots
from skxma._labels.by_label import has_index
from skxma._labels.class_table import resolve_classes
from skxma._runtime import blocks
from skxma._sklearn_compat import num_samples, safe_indexing
from skxma._statistics import are_among
from skxma.active._names import NEED_MODEL, STRATEGIES
from skxma.active._strategies import central, cluster, farthest_first, fewest_labels_first, typical
from skxma.caches import Floats, Integers
from skxma.embeddings import unit_rows

MOST_CANDIDATES = 2**16
"""Of a larger pool so many images are drawn, among which the choice is."""
PREDICTED_ROWS = 2**13


@dataclass(frozen=True)
class Candidates:
    """The images of a pool that may be suggested.

    Attributes
    ----------
    rows : ndarray of shape (N,)
        Their positions in the pool.
    features : ndarray of shape (N, D)
        L2-normalized embeddings.
    points : ndarray of shape (N, R)
        The same in the metric, L2-normalized.
    known : ndarray of shape (M, R)
        The support set in the metric; empty before there is one.
    """

    rows: Integers
    features: Floats
    points: Floats
    known: Floats


def suggest(
    clf: BaseFewShotClassifier,
    pool: Any,
    n_samples: int = 10,
    *,
    strategy: str = "auto",
    random_share: float = 0.0,
    random_state: Any = None,
) -> NDArray[np.intp]:
    """Choose the images of a pool that are most worth a label.

    Parameters
    ----------
    clf : classifier of skxma
        Fitted, or not yet: then its encoder, class names and vocabulary are used. Images of its support set are not
        suggested again.
    pool : sequence of images, or array-like of shape (n_pool, n_features)
        Images without labels or their embeddings, as in `fit`. Of more than 65 536 so many are drawn at random, and
        the choice is among them; nothing else of an array is read, so that a :class:`numpy.memmap` may be larger than
        the memory.
    n_samples : int, default=10
        Number of images; fewer are returned where the pool has fewer that are not in the support set.
    strategy : str, default="auto"
        "auto" takes "clusters" before there are labels. With a fitted classifier it goes to the class with the fewest
        labels, again and again, and takes the image with the smallest margin among those that the classifier gives to
        that class; of images that are near to one another or to the support set one is taken before the others.

        By name: "clusters" takes the most central image of each of `n_samples` k-means clusters in the metric of
        ``evidence="calibrated"``, the largest first; "random" draws; "typiclust" and "coreset" are those methods in
        the plain embeddings; "margin" (the smallest first) and "clue" need a fitted classifier.
    random_share : float in [0, 1], default=0.0
        Share of `n_samples` to draw at random from the pool. They come last, and can be set apart: chosen images are
        not drawn like those that are to be classified, but calibration has to be measured on such.
    random_state : int, RandomState instance or None, default=None
        Seed of the clusters and of the draw.

    Returns
    -------
    rows : ndarray of shape (n_samples,)
        Positions in the pool, the most useful first.

    Raises
    ------
    TypeError
        A classifier of another kind.
    ValueError
        An unknown strategy, one that needs a fitted classifier, or a number or share out of range.
    skxma.errors.EncoderMismatchError
        An encoder, or embeddings, other than those of the fit.

    Examples
    --------
    >>> from skxma import XMAdapterClassifier
    >>> from skxma.active import suggest
    >>> from skxma.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> clf = XMAdapterClassifier("tiny", class_names=emoji.target_names)
    >>> rows = suggest(clf, emoji.images, 40, random_state=0)
    >>> clf = clf.fit(emoji.images[rows], emoji.target[rows])
    >>> more = suggest(clf, emoji.images, 40, random_state=0)
    >>> len(set(rows) | set(more))
    80
    """
    _check(clf, n_samples, strategy, random_share)
    pool = EmbeddingInput.of(clf).joined(pool)
    rng = check_random_state(random_state)
    seed = int(rng.randint(2**31 - 1))
    n_random = round(n_samples * random_share)
    candidates = _candidates(clf, pool, rng, plain=strategy in ("typiclust", "coreset"))
    order = rng.permutation(len(candidates.rows))
    n = min(n_samples, len(order))
    n_chosen = 0 if strategy == "random" else max(n - n_random, 0)
    chosen = _choose(clf, candidates, n_chosen, strategy, seed)
    drawn = order[~np.isin(order, chosen)][: n - len(chosen)]
    return candidates.rows[np.concatenate([chosen, drawn]).astype(np.intp)]


def _check(clf: BaseFewShotClassifier, n_samples: Any, strategy: Any, random_share: Any) -> None:
    """Refuse arguments that cannot be meant."""
    if not isinstance(clf, BaseFewShotClassifier):
        raise TypeError(
            f"clf is a {type(clf).__name__}; suggest takes a classifier of skxma, such as XMAdapterClassifier. Of a "
            "search pass best_estimator_, of a pipeline its last step with the pool as that step sees it."
        )
    if not hasattr(clf, "classes_"):
        # as `fit` does, before anything is encoded
        clf._validate_params()
        clf._check_parameters()
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r} is not known; choose one of {', '.join(STRATEGIES)}.")
    if strategy in NEED_MODEL and not hasattr(clf, "classes_"):
        raise ValueError(
            f"strategy={strategy!r} asks the classifier, which is not fitted. Begin with 'auto' or 'clusters', and fit "
            "on the images that it suggests."
        )
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(f"n_samples={n_samples!r}; pass a number of images, at least 1.")
    if not isinstance(random_share, Real) or not 0 <= float(random_share) <= 1:
        raise ValueError(f"random_share={random_share!r}; pass a share from 0 to 1.")


def _candidates(clf: BaseFewShotClassifier, pool: Any, rng: np.random.RandomState, plain: bool) -> Candidates:
    """The images of the pool that can be read and are not in the support set, or some of them."""
    drawn = None
    if num_samples(pool) > MOST_CANDIDATES:
        # before anything is read or encoded: the pool may be a file that is larger than the memory
        drawn = np.sort(rng.choice(num_samples(pool), MOST_CANDIDATES, replace=False))
        pool = safe_indexing(pool, drawn)
    fitted = hasattr(clf, "classes_")
    features = _embed(clf, pool, fitted)
    kept: NDArray[np.bool_] = np.asarray(~np.isnan(features).any(axis=1))
    support = clf.image_cache_.embeddings if fitted else np.empty((0, features.shape[1]), dtype=np.float32)
    kept[kept] = ~are_among(features[kept], support)
    rows = np.flatnonzero(kept)
    features = features if len(rows) == len(features) else features[rows]
    rows = rows if drawn is None else drawn[rows]
    if plain:
        return Candidates(rows, features, features, support)
    mean: Floats = features.mean(0) if len(rows) else np.zeros(features.shape[1], dtype=np.float32)
    # texts shape the space of the first of several encoders alone
    roots = [None] if knows_several(clf, pool) else _roots(clf, features)
    points, known = (_in_metrics(given, mean, roots) for given in (features, support))
    return Candidates(rows, features, points, known)


def _embed(clf: BaseFewShotClassifier, pool: Any, fitted: bool) -> Floats:
    """L2-normalized embeddings (n, D) of the pool; rows of NaN for images that the encoder was told to skip."""
    if fitted:
        inputs = EmbeddingInput.of(clf)
        if inputs.holds_embeddings(pool):
            return inputs.embed_queries(pool)
        check_images_first(inputs.resolved_encoder, pool)
        inputs.check_encoder_of_fit()
        return inputs.encode_images(pool)
    # augmented views are made of the support set alone
    inputs = EmbeddingInput.of(clone(clf).set_params(n_views=1))
    return inputs.embed_support(pool).features


def _roots(clf: BaseFewShotClassifier, features: Floats) -> list[Floats | None]:
    """Roots B of the metrics that calibrated evidence would average at one shot; None for the identity."""
    inputs, width = EmbeddingInput.of(clf), features.shape[1]
    words = embed_vocabulary(getattr(clf, "vocabulary", None), inputs, width)
    # class texts come after a vocabulary, where they count at all, and are not encoded for nothing
    wanted = words is None and inputs.text_shapes_metric and len(features)
    text = _class_texts(clf, inputs, width) if wanted else None
    vocabulary, class_texts = (None if given is None else torch.as_tensor(given) for given in (words, text))
    seen = torch.as_tensor(features)
    roots = one_shot_roots(text_roots(vocabulary, class_texts, seen, torch.ones(len(seen)), CalibrationConfig()))
    return [None if root is None else root.numpy() for _, root in roots]


def _class_texts(clf: BaseFewShotClassifier, inputs: EmbeddingInput, n_features: int) -> Floats | None:
    """L2-normalized text features (C, D) of the classes, zero rows for those without; None if that is too few."""
    if hasattr(clf, "classes_"):
        has_text = clf.class_names_ is not None or clf.text_features is not None
        return clf.text_features_ if has_text else None
    given = clf.class_names if clf.class_names is not None else clf.text_features
    if given is None or num_samples(given) < 2:
        # the text of a single class has no covariance
        return None
    # any label of a class: which it is plays no part in the metric
    labels = given if isinstance(given, Mapping) else given.index if has_index(given) else [0]
    table = resolve_classes([next(iter(labels), 0)], clf.class_names, clf.text_features)
    return inputs.embed_classes(table, clf.templates, n_features)


def _in_metrics(features: Floats, mean: Floats, roots: Sequence[Floats | None]) -> Floats:
    """L2-normalized points (n, R) of embeddings (n, D), whose cosines are the mean of those in all metrics."""
    centered = features - mean
    in_each = [unit_rows(centered if root is None else centered @ root) for root in roots]
    return in_each[0] if len(in_each) == 1 else np.hstack(in_each) / np.float32(len(in_each) ** 0.5)


def _choose(clf: BaseFewShotClassifier, candidates: Candidates, n: int, strategy: str, seed: int) -> Integers:
    """Positions of `n` candidates by a strategy, at most all."""
    points, known = candidates.points, candidates.known
    if n == 0:
        return np.empty(0, dtype=np.intp)
    if strategy == "auto" and hasattr(clf, "classes_"):
        return _least_certain(clf, candidates, n, seed)
    if strategy == "margin":
        return np.argsort(_predict(clf, candidates.features)[1], kind="stable")[:n]
    if strategy == "coreset":
        return farthest_first(points, n, known)
    if strategy == "typiclust":
        chosen = typical(points, n, known, seed)
    else:
        weights = _predict(clf, candidates.features)[2] if strategy == "clue" else None
        chosen = central(points, n, seed, weights)
    # fewer clusters than were asked for, where images are equal
    others = np.setdiff1d(np.arange(len(points)), chosen)
    further = farthest_first(points[others], n - len(chosen), np.concatenate([known, points[chosen]]))
    return np.concatenate([chosen, others[further]])


def _predict(clf: BaseFewShotClassifier, features: Floats) -> tuple[Integers, NDArray[np.float64], NDArray[np.float64]]:
    """Class index, margin and entropy (n,) of embeddings (n, D), a block at a time."""
    predicted = np.empty(len(features), dtype=np.intp)
    margins, entropies = np.empty(len(features)), np.empty(len(features))
    for block in blocks.slices(len(features), PREDICTED_ROWS):
        p = clf.predict_proba(features[block])
        best = np.partition(p, -2, axis=1)[:, -2:]
        predicted[block], margins[block] = p.argmax(1), best[:, 1] - best[:, 0]
        entropies[block] = -(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum(1)
    return predicted, margins, entropies


def _least_certain(clf: BaseFewShotClassifier, candidates: Candidates, n: int, seed: int) -> Integers:
    """`fewest_labels_first`, at most one candidate from each of as many clusters as there will be labels.

    Candidates near to one another, or to a sample of the support set, are so left for later.
    """
    predicted, margins, _ = _predict(clf, candidates.features)
    everything = np.concatenate([candidates.points, candidates.known])
    labels, _ = cluster(everything, min(n + len(candidates.known), len(everything)), seed)
    taken = set(labels[len(candidates.points) :].tolist())
    later: list[int] = []

    def is_free(row: int) -> bool:
        free = labels[row] not in taken
        taken.add(labels[row])
        if not free:
            later.append(row)
        return free

    chosen = fewest_labels_first(predicted, margins, clf.image_cache_.shots, n, is_free)
    return np.concatenate([chosen, np.array(later[: n - len(chosen)], dtype=np.intp)])
