"""A joint space of an image classifier's features and text embeddings, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

_RIDGES = np.geomspace(0.1, 100, 13)
_SCALES = np.geomspace(2, 200, 41)


@dataclass(frozen=True)
class Alignment:
    """Maps of features and text embeddings to one space.

    Attributes
    ----------
    to_text : ndarray of shape (d, t)
        Features to text embeddings.
    class_texts : ndarray of shape (C, t)
        Centered text embeddings of the classifier's classes, of length 1.
    text_mean : ndarray of shape (t,)
        What was subtracted from them.
    directions : ndarray of shape (d, k)
        Principal directions of the class vectors, orthonormal.
    scale : float
        The factor of cosines of texts and features at which their softmax predicts unseen classes best.
    """

    to_text: NDArray[np.float32]
    class_texts: NDArray[np.float32]
    text_mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    scale: float


def align(class_vectors: NDArray[np.float32], class_texts: NDArray[np.float32], n_directions: int) -> Alignment:
    """Fit a ridge regression from a classifier's class vectors to the text embeddings of the classes' names.

    No image is needed: a class vector stands for the features of its class. The penalty is that of the largest
    leave-one-out cosine, the scale that of the least leave-one-out log loss among all classes.

    Parameters
    ----------
    class_vectors : ndarray of shape (C, d)
        Rows of the classifier's last layer.
    class_texts : ndarray of shape (C, t)
        Text embeddings of the names.
    n_directions : int
        How many principal directions to keep.

    Returns
    -------
    alignment : Alignment
    """
    centered = np.asarray(class_vectors - class_vectors.mean(axis=0), dtype=np.float64)
    inputs = _unit(centered)
    text_mean = class_texts.mean(axis=0)
    targets = _unit(np.asarray(class_texts - text_mean, dtype=np.float64))
    values, vectors = np.linalg.eigh(inputs @ inputs.T)
    rotated = vectors.T @ targets
    best, held_out, dual = -np.inf, targets, targets
    for ridge in _RIDGES:
        shrunk = vectors / (values + ridge)
        coefficients = shrunk @ rotated
        # the residual of a ridge regression that leaves the row out
        left_out = _unit(targets - coefficients / (shrunk * vectors).sum(axis=1)[:, None])
        score = float((left_out * targets).sum(axis=1).mean())
        if score > best:
            best, held_out, dual = score, left_out, coefficients
    cosines = held_out @ targets.T
    losses = [-np.diag(log_softmax(scale * cosines, axis=1)).mean() for scale in _SCALES]
    directions = np.linalg.svd(centered, full_matrices=False)[2][:n_directions].T
    # which of the two signs a library of linear algebra returns is its own affair
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    directions = directions * np.sign(largest)
    return Alignment(
        to_text=np.asarray(inputs.T @ dual, dtype=np.float32),
        class_texts=targets.astype(np.float32),
        text_mean=text_mean.astype(np.float32),
        directions=np.ascontiguousarray(directions, dtype=np.float32),
        scale=float(_SCALES[int(np.argmin(losses))]),
    )


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
