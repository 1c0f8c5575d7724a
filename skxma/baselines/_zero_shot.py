"""Zero-shot CLIP."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma.baselines._base import zero_shot_logits


class ZeroShotClassifier(BaseFewShotClassifier):
    """Zero-shot CLIP [1]_: the class whose text is nearest. The labeled images say only which classes there are.

    ``logit_scale · f Tᵀ``. Without text, class means stand for it (a nearest-mean classifier).

    Parameters
    ----------
    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
       arXiv:2103.00020.

    Examples
    --------
    >>> from skxma.baselines import ZeroShotClassifier
    >>> clf = ZeroShotClassifier("precomputed", text_features=[[1.0, 0.0], [0.0, 1.0]])
    >>> clf.fit([[0.9, 0.1], [0.2, 0.8]], [0, 1]).predict([[0.6, 0.5]])
    array([0])
    """

    def _fit_support(self, task: Task) -> dict[str, Any]:
        return {"n_trained_": 0}

    def _logits(self, features: Tensor) -> Tensor:
        return zero_shot_logits(self, features)
