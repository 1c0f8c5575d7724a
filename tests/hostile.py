"""The nastiest few-shot problems that are still finite, for hypothesis to draw, and every classifier to face them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.random import Generator

from skxma import XMAdapterClassifier, baselines
from skxma._estimators.base import BaseFewShotClassifier
from skxma.baselines import (
    APETClassifier,
    CLAPClassifier,
    CLIPAdapterClassifier,
    CrossModalLinearProbe,
    LPPlusPlusClassifier,
    MultiModalAdapterClassifier,
    RLAClassifier,
    TaskResClassifier,
    TipAdapterFClassifier,
)

LARGEST = 1.7e308
SUBNORMAL = 5e-324
SHAPES = ("random", "constant columns", "equal rows", "axes", "sparse", "small integers", "two rows")
SCALES = ("one", "row by row", "huge", "tiny", "subnormal", "float32")
EVIDENCES = {
    "calibrated": {"evidence": "calibrated"},
    "paper": {"evidence": "paper", "n_epochs": 3},
    "training-free": {"evidence": "paper", "n_epochs": 0},
}
RIVALS = [getattr(baselines, name) for name in baselines.__all__]
SHORT = {
    APETClassifier: {"n_epochs": 3},
    CLAPClassifier: {"n_epochs": 5},
    CLIPAdapterClassifier: {"n_epochs": 5},
    CrossModalLinearProbe: {"n_steps": 5},
    LPPlusPlusClassifier: {"n_epochs": 20},
    MultiModalAdapterClassifier: {"width": 16, "n_epochs": 3},
    RLAClassifier: {"n_epochs": 5},
    TaskResClassifier: {"n_epochs": 5},
    TipAdapterFClassifier: {"n_epochs": 3},
}
PROPERTY = [
    pytest.mark.property,
    # scikit-learn's own check of the input adds up numbers of 1e308
    pytest.mark.filterwarnings("ignore:invalid value encountered in reduce"),
    pytest.mark.filterwarnings("ignore:overflow encountered in reduce"),
]
each_evidence = pytest.mark.parametrize("evidence", EVIDENCES)
each_rival = pytest.mark.parametrize("kind", RIVALS, ids=lambda kind: kind.__name__)
seeds = st.integers(0, 2**31 - 1)


@dataclass
class Hostile:
    X: np.ndarray
    y: np.ndarray
    text: np.ndarray | None
    words: np.ndarray | None
    weights: np.ndarray | None
    queries: np.ndarray
    n_classes: int


def draw_rows(rng: Generator, n: int, dim: int, shape: str) -> np.ndarray:
    rows = rng.standard_normal((n, dim))
    if shape == "constant columns":
        rows = np.repeat(rows[:, :1], dim, axis=1)
    elif shape == "equal rows":
        rows[:] = rows[0]
    elif shape == "axes":
        rows = np.eye(dim)[rng.integers(dim, size=n)] * rng.choice([-1.0, 1.0], (n, 1))
    elif shape == "sparse":
        rows *= rng.random((n, dim)) < 0.3
    elif shape == "small integers":
        rows = rng.integers(-1, 2, (n, dim)).astype(float)
    elif shape == "two rows":
        rows = rows[rng.integers(2, size=n) % n]
    return rows


def scale_rows(rng: Generator, rows: np.ndarray, scale: str) -> np.ndarray:
    if scale == "row by row":
        return rows * 10.0 ** rng.integers(-300, 300, (len(rows), 1))
    if scale == "huge":
        return np.clip(rows, -1, 1) * LARGEST
    if scale == "tiny":
        return rows * 1e-300
    if scale == "subnormal":
        return np.round(rows * 3) * SUBNORMAL
    return rows.astype(np.float32) if scale == "float32" else rows


@st.composite
def hostile_rows(draw, n: int, dim: int) -> np.ndarray:
    """Finite rows (n, dim) of one shape and one scale, some of them zero, some equal."""
    rng = np.random.default_rng(draw(seeds))
    rows = draw_rows(rng, n, dim, draw(st.sampled_from(SHAPES)))
    for i in draw(st.sets(st.integers(0, n - 1), max_size=3)):
        rows[i] = 0
    if n > 1 and draw(st.booleans()):
        rows[-1] = rows[0]
    rows = scale_rows(rng, rows, draw(st.sampled_from(SCALES)))
    assert np.isfinite(rows).all()
    return rows


@st.composite
def hostile_problems(
    draw, max_classes=5, max_shots=5, max_dim=6, n_queries=5, weighted=False, with_text=True, plain=False
) -> Hostile:
    """Unbalanced problems of at least two classes; `plain` ones have rows of common length and no zeros.

    There may be text for classes without images, and images of one class alone where there is text.
    """
    rng = np.random.default_rng(draw(seeds))
    has_text = with_text and draw(st.booleans())
    shots = draw(st.lists(st.integers(1, max_shots), min_size=1 if has_text else 2, max_size=max_classes))
    dim = draw(st.integers(1, max_dim))
    unseen = draw(st.integers(2 - min(len(shots), 2), 2)) if has_text else 0

    def rows(n):
        return rng.standard_normal((n, dim)) if plain else draw(hostile_rows(n, dim))

    y = np.repeat(np.arange(len(shots)), shots)
    weights = None
    if weighted and draw(st.booleans()):
        weights = rng.choice([1.0, 0.5, 2.0, 1e-9, 1e9], len(y))
    return Hostile(
        X=rows(len(y)),
        y=y,
        text=rows(len(shots) + unseen) if has_text else None,
        words=rows(draw(st.integers(1, 9))) if draw(st.booleans()) else None,
        weights=weights,
        queries=rows(n_queries),
        n_classes=len(shots) + unseen,
    )


def ours(problem, evidence: str, **parameters) -> XMAdapterClassifier:
    given = {"text_features": problem.text, "vocabulary": problem.words, **EVIDENCES[evidence], **parameters}
    return XMAdapterClassifier("precomputed", random_state=0, **given)


def rival(kind: type[BaseFewShotClassifier], text) -> BaseFewShotClassifier:
    return kind(encoder="precomputed", random_state=0, text_features=text, **SHORT.get(kind, {}))
