"""Few-shot problems in embeddings, made so that text and images each know something of the classes."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Problem:
    X: np.ndarray
    y: np.ndarray
    text: np.ndarray
    words: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def unit(a):
    return (a / np.linalg.norm(a, axis=-1, keepdims=True)).astype(np.float32)


def make_problem(n_classes=5, shots=4, dim=16, n_test=20, noise=0.8, text_noise=0.5, seed=0):
    """Classes around directions that text knows roughly; images and text lie on either side of a modality gap."""
    rng = np.random.default_rng(seed)
    gap, cone = rng.standard_normal((2, dim))
    scale = np.linspace(1.5, 0.3, dim)
    classes = rng.standard_normal((n_classes, dim)) * scale

    def images(n):
        return unit(classes.repeat(n, 0) + noise * rng.standard_normal((n_classes * n, dim)) + 2 * cone)

    text = unit(classes + text_noise * rng.standard_normal((n_classes, dim)) + 2 * gap)
    words = unit(rng.standard_normal((60, dim)) * scale**2 + 2 * gap)
    labels = np.arange(n_classes)
    return Problem(images(shots), labels.repeat(shots), text, words, images(n_test), labels.repeat(n_test))


def make_thin_problem(shots=80, dim=12, seed=0):
    """Two classes that differ along one thin direction only, on which no metric and no class mean sees much."""
    rng = np.random.default_rng(seed)

    def images(labels):
        X = rng.standard_normal((len(labels), dim))
        X[:, 0] = 0.15 * (2 * labels - 1) + 0.02 * rng.standard_normal(len(labels))
        return unit(X)

    labels, tested = np.arange(2).repeat(shots), np.arange(2).repeat(200)
    text, words = unit(rng.standard_normal((2, dim))), unit(rng.standard_normal((60, dim)))
    return Problem(images(labels), labels, text, words, images(tested), tested)
