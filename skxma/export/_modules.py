"""Fitted classifiers as modules of torch: the scorer that predicts, between plain tensors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.embedding_input import EmbeddingInput
from skxma._estimators.encoder_parameter import is_several, name_of
from skxma.encoder._clip_encoder import CLIPEncoder
from skxma.encoder._image_tower import ImageTower, exact_encoder
from skxma.encoder._model_names import library_of

EXPORT_PARTS = ("model", "head")
UNKNOWN = -1


def to_module(clf: BaseFewShotClassifier, part: str = "model") -> nn.Module:
    """Return a fitted classifier as a module of torch, ready for :func:`torch.export.export`.

    It computes in single precision, the encoder too (as with ``precision="fp32"``), on the CPU until it is moved.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        A fitted `XMAdapterClassifier` or a rival of `skxma.baselines`.
    part : {"model", "head"}, default="model"
        "head" takes embeddings (n, D) of float, which need not be normalized; "model" takes pixels (n, height, width,
        3) of uint8, RGB, already of the encoder's size.

    Returns
    -------
    module : torch.nn.Module
        Returns the probabilities (n, C) in the order of `classes_`, the open-set scores (n,) where the classifier has
        them, and the answers (n,): positions in `classes_`, or -1 for an image that is refused.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        The classifier is not fitted.
    TypeError
        It is no classifier of skxma.
    ValueError
        An unknown part, or ``part="model"`` where the encoder is not a `CLIPEncoder` with a model
        of open_clip.
    skxma.errors.EncoderMismatchError
        The encoder's weights are not those of the fit.

    Examples
    --------
    >>> from skxma import XMAdapterClassifier
    >>> from skxma.datasets import load_emoji
    >>> from skxma.export import to_module
    >>> emoji = load_emoji()
    >>> shots = emoji.sets == "noto"
    >>> clf = XMAdapterClassifier("tiny").fit(emoji.images[shots], emoji.target[shots])
    >>> probabilities, open_set_scores, answers = to_module(clf, "head")(torch.as_tensor(clf.encode(emoji.images)))
    >>> probabilities.shape
    torch.Size([200, 40])
    """
    check_exportable(clf, part)
    head = ClassifierHead(clf)
    return head if part == "head" else ImageClassifier(ImageTower(encoder_of_fit(clf)), head)


class ClassifierHead(nn.Module):
    """A fitted classifier from embeddings to answers.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted.
    """

    like: Tensor

    def __init__(self, clf: BaseFewShotClassifier) -> None:
        super().__init__()
        # what the caller fits later must not change the module
        self.classifier = copy.copy(clf)
        self.threshold = reject_threshold(clf)
        self.register_buffer("like", torch.empty(0), persistent=False)
        self._make_scorer()

    def forward(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities (n, C), open-set scores (n,) if there are any, and answers (n,) of embeddings (n, D)."""
        # the squares of large or small numbers are beyond single precision, and far sooner beyond half
        largest = embeddings.abs().amax(dim=1, keepdim=True)
        scaled = embeddings / largest.clamp_min(torch.finfo(embeddings.dtype).tiny)
        logits, scores = self.score(F.normalize_blocks(scaled, self.classifier.image_cache_.blocks))
        answers = logits.argmax(1)
        probabilities = torch.softmax(logits, dim=1)
        if scores is None:
            return probabilities, answers
        return probabilities, scores, torch.where(scores > self.threshold, UNKNOWN, answers)

    def _make_scorer(self) -> None:
        self.score: Callable[[Tensor], tuple[Tensor, Tensor | None]]
        if has_open_set_scores(self.classifier):
            self.score = self.classifier.model_.scorer(self.like).logits_and_open_set
        else:
            logits = self.classifier._scorer(self.like)
            self.score = lambda embeddings: (logits(embeddings), None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClassifierHead:
        """Follow a move to another device or type, which torch brings to its modules through this method."""
        super()._apply(fn, recurse)
        self._make_scorer()
        return self


class ImageClassifier(nn.Module):
    """A fitted classifier from pixels to answers.

    Parameters
    ----------
    tower : ImageTower
    head : ClassifierHead
    """

    def __init__(self, tower: ImageTower, head: ClassifierHead) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return what the head does, of pixels (n, height, width, 3) of uint8."""
        answers: tuple[Tensor, ...] = self.head(self.tower(pixels))
        return answers


def check_exportable(clf: BaseFewShotClassifier, part: str) -> None:
    """Refuse what cannot be exported before any weights are loaded."""
    if part not in EXPORT_PARTS:
        raise ValueError(f"part={part!r} must be 'head' (embeddings to answers) or 'model' (pixels to answers).")
    if not isinstance(clf, BaseFewShotClassifier):
        raise TypeError(
            f"Expected a fitted XMAdapterClassifier or a rival of skxma.baselines, got {type(clf).__name__}; of a "
            "search pass best_estimator_, of a pipeline its last step with part='head'."
        )
    check_is_fitted(clf)
    inputs = EmbeddingInput.of(clf)
    if part == "head":
        return
    if inputs.precomputed:
        raise ValueError(
            "part='model' needs an encoder, and this classifier was fitted with encoder='precomputed'; pass "
            "part='head', which takes embeddings."
        )
    if is_several(clf.encoder):
        raise ValueError(
            "part='model' needs one encoder, and this classifier was fitted with several; pass part='head', and export "
            "each encoder by its own means."
        )
    encoder = inputs.resolved_encoder
    library = library_of(encoder.name) if isinstance(encoder, CLIPEncoder) else None
    if not isinstance(encoder, CLIPEncoder) or library is not None:
        found = name_of(encoder) if library is None else f"model of {library}"
        raise ValueError(
            f"part='model' needs a CLIPEncoder with a model of open_clip, but the encoder is a {found}; pass "
            "part='head' and export that encoder by its own means."
        )


def encoder_of_fit(clf: BaseFewShotClassifier) -> CLIPEncoder:
    """A classifier's encoder in single precision on the CPU, if it is that of the fit."""
    encoder: CLIPEncoder = exact_encoder(EmbeddingInput.of(clf).resolved_encoder)
    EmbeddingInput(clf, encoder, "cpu").check_encoder_of_fit()
    return encoder


def has_open_set_scores(clf: BaseFewShotClassifier) -> bool:
    """Tell whether a classifier scores how unlike all classes an image is."""
    return hasattr(clf, "open_set_score")


def reject_threshold(clf: BaseFewShotClassifier) -> float:
    """Open-set score above which a classifier refuses an image; infinite where it refuses none."""
    return math.inf if getattr(clf, "false_rejection_rate", None) is None else float(clf.reject_threshold_)
