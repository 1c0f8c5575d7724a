"""Learning from images without labels: the pool of a task, and its soft labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._estimators.scoring import Chunking, score, softmax
from skxma._estimators.task import Task
from skxma._evidence.fitted import FitReport, FittedEvidence
from skxma._evidence.semi_supervised.fit import PoolReport, fit_with_pool

KEPT_POOL, KEPT_POOL_PER_CLASS = 1024, 16
"""Images without labels that a model keeps for when it grows, all of a smaller pool: whichever is more, in all or per
class. A bound on the size of a model (2 MiB at 512 features), not tuned."""


def fit_pool(report: FitReport[Any], task: Task, evidence: Any) -> PoolReport | None:
    """Learn from the pool of a task, where labels that it has not seen gain by it.

    Parameters
    ----------
    report : FitReport
        Of the fit without the pool.
    task : Task
    evidence : CalibratedEvidence or PaperEvidence
        Fits the model on some of the labeled samples.

    Returns
    -------
    found : PoolReport or None
        None where there is no pool, or the evidence learns from none.
    """
    if task.pool is None or not evidence.learns_from_pool:
        return None
    words, refit = evidence.vocabulary, evidence.refit(task)
    return fit_with_pool(report, task.pool, task.text, words, task.logit_scale, refit, task.like)


def label_pool(task: Task, model: FittedEvidence, found: PoolReport | None) -> tuple[NDArray[np.float32], int]:
    """Soft labels (n_unlabeled, C) of the samples without a label, and how many of them the model learned from."""
    support, position = task.support, task.pool_position
    assert support.unlabeled is not None
    assert position is not None
    embeddings = support.embeddings[support.unlabeled]
    inside = position >= 0 if found is not None else np.zeros(len(embeddings), dtype=bool)
    soft_labels = np.empty((len(embeddings), len(task.classes)), dtype=np.float32)
    n_used = 0
    if found is not None:
        soft_labels[inside] = found.soft_labels[position[inside]]
        n_used = int(found.used and (found.known[position[inside]] > 0.5).sum())

    # the others are not in the pool: of weight 0, or given with a label too
    logits = score(
        embeddings[~inside],
        lambda like: model.scorer(like).logits,
        task.like,
        model.image_cache,
        lambda like: Chunking.of(model, like),
    )
    soft_labels[~inside] = softmax(logits)
    return soft_labels, n_used
