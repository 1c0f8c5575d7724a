"""Looking into a fitted classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier


class LabelInQuestion(NamedTuple):
    """A support sample whose label is probably wrong.

    Attributes
    ----------
    sample : int
        Which of the samples given to `fit`.
    label : object
        The label it was given.
    probability : float
        That this is wrong.
    suggested : object
        The class that the model gives it without having seen it.
    """

    sample: int
    label: Any
    probability: float
    suggested: Any


def support_labels(clf: BaseFewShotClassifier) -> NDArray[Any]:
    """Labels of the samples given to `fit` (n_samples,); of one that had no weight, any.

    Parameters
    ----------
    clf : BaseFewShotClassifier
        Fitted.

    Returns
    -------
    labels : ndarray of shape (n_samples,)
    """
    labels: NDArray[Any] = clf.classes_[clf.image_cache_.labels[np.maximum(clf.sample_position_, 0)]]
    return labels


def labels_in_question(clf: BaseFewShotClassifier, threshold: float = 0.5) -> list[LabelInQuestion]:
    """Support samples that are probably mislabeled, the most probable first.

    Each sample is judged by the model from which it was left out, see `label_noise_` of
    :class:`~skxma.XMAdapterClassifier`; a class's only sample is never in question.

    Parameters
    ----------
    clf : XMAdapterClassifier
        Fitted, with ``evidence="calibrated"``.
    threshold : float, default=0.5
        Least probability that the label is wrong.

    Returns
    -------
    found : list of LabelInQuestion

    Raises
    ------
    ValueError
        The classifier's evidence estimates no label noise.

    Examples
    --------
    >>> from skxma import XMAdapterClassifier
    >>> from skxma.datasets import load_emoji
    >>> from skxma.inspection import labels_in_question
    >>> emoji = load_emoji()
    >>> given = emoji.target.copy()
    >>> given[7] = "snail"
    >>> clf = XMAdapterClassifier("tiny").fit(emoji.images, given)
    >>> labels_in_question(clf)[0].sample
    7
    """
    check_is_fitted(clf)
    if getattr(clf, "evidence", None) != "calibrated":
        raise ValueError("labels_in_question needs an XMAdapterClassifier with evidence='calibrated'.")
    given = support_labels(clf)
    order = np.argsort(-clf.label_noise_, kind="stable")
    return [
        LabelInQuestion(int(i), given[i], float(clf.label_noise_[i]), clf.left_out_label_[i])
        for i in order
        if clf.label_noise_[i] > threshold
    ]
