"""The two forms of evidence: what each makes of an estimator's parameters, and its fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from skxma._estimators.task import Task, torch_seed
from skxma._estimators.vocabulary import embed_vocabulary
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.fit import fit_calibrated
from skxma._evidence.calibrated.model import CalibratedModel
from skxma._evidence.fitted import FitReport
from skxma._evidence.paper.config import PaperConfig
from skxma._evidence.paper.fit import fit_paper
from skxma._evidence.paper.model import PaperModel
from skxma._evidence.semi_supervised.fit import Refit
from skxma.caches import ImageCache, to_tensors

if TYPE_CHECKING:
    from skxma._estimators.xmadapter import XMAdapterClassifier

RETRIEVE_FROM = 2**17
"""Keys from which on ``retrieval="auto"`` gives up exact probabilities, within 0.01, for time: a round number below the
200 000 of ``benchmarks/many_keys.py``, which prints the gain; where the two break even is not measured."""


@dataclass(frozen=True)
class CalibratedEvidence:
    """Evidence that is calibrated on leave-one-out logits.

    Attributes
    ----------
    config : CalibrationConfig
    vocabulary : Tensor of shape (m, D) or None
        L2-normalized text embeddings of words.
    indexed : bool
        Whether predictions are to read no more keys than they need.
    learns_from_pool : bool
    """

    config: CalibrationConfig
    vocabulary: Tensor | None
    indexed: bool
    learns_from_pool: bool = True

    name: ClassVar[str] = "calibrated"
    leaves_out: ClassVar[bool] = True
    learns_frequencies: ClassVar[bool] = False
    unread: ClassVar[tuple[str, ...]] = ("text_dim", "learning_rate", "weight_decay", "batch_size")

    @classmethod
    def of(cls, clf: XMAdapterClassifier, task: Task) -> CalibratedEvidence:
        """The calibrated evidence of an estimator's parameters, for a task."""
        before = earlier_model(clf, cls.name, task)
        indexed = reads_some_keys(clf, task)
        config = CalibrationConfig(
            alpha=auto_to_none(clf.alpha),
            beta=auto_to_none(clf.beta),
            fusion_ratio=auto_to_none(clf.fusion_ratio),
            logit_scale=task.logit_scale,
            text_shapes_metric=task.inputs.text_shapes_metric,
            hard_sample_weight=clf.hard_sample_weight,
            n_epochs=clf.n_epochs,
            warm_start=None if before is None else before.warm_start(clf.noise_rate_),
        )
        if indexed:
            # every further metric would need an index of its own
            config = replace(config, max_metrics=1)
        words = embed_vocabulary(clf.vocabulary, task.inputs, task.n_features)
        return cls(config, None if words is None else to_tensors(words, like=task.like)[0], indexed)

    def fit(self, task: Task) -> FitReport[CalibratedModel]:
        """Fit on the support set of a task."""
        report = fit_calibrated(task.cache, task.text, self.vocabulary, self.config, task.like)
        return replace(report, model=report.model.with_index(task.like)) if self.indexed else report

    def refit(self, task: Task) -> Refit:
        """A function that fits on some of the samples of a task, without training."""
        untrained = replace(self.config, n_epochs=0, warm_start=None)

        def fit(cache: ImageCache) -> FitReport[CalibratedModel]:
            return fit_calibrated(cache, task.text, self.vocabulary, untrained, task.like)

        return fit


@dataclass(frozen=True)
class PaperEvidence:
    """Evidence of the paper's form.

    Attributes
    ----------
    config : PaperConfig
    before : PaperModel or None
        A fitted model whose training goes on.
    indexed : bool
        Whether predictions are to read no more keys than they need.
    """

    config: PaperConfig
    before: PaperModel | None
    indexed: bool

    name: ClassVar[str] = "paper"
    leaves_out: ClassVar[bool] = False
    unread: ClassVar[tuple[str, ...]] = ("vocabulary",)
    learns_from_pool: ClassVar[bool] = False
    learns_frequencies: ClassVar[bool] = True

    @classmethod
    def of(cls, clf: XMAdapterClassifier, task: Task) -> PaperEvidence:
        """The paper's evidence of an estimator's parameters, for a task."""
        config = PaperConfig(
            alpha=auto_to_none(clf.alpha),
            beta=auto_to_none(clf.beta),
            fusion_ratio=auto_to_none(clf.fusion_ratio),
            logit_scale=task.logit_scale,
            hard_sample_weight=clf.hard_sample_weight,
            text_dim=clf.text_dim,
            n_epochs=clf.n_epochs,
            learning_rate=clf.learning_rate,
            weight_decay=clf.weight_decay,
            batch_size=clf.batch_size,
            seed=torch_seed(clf.random_state),
        )
        return cls(config, earlier_model(clf, cls.name, task), reads_some_keys(clf, task))

    def fit(self, task: Task) -> FitReport[PaperModel]:
        """Fit on the support set of a task."""

        def epochs(n: int, model: Callable[[], PaperModel]) -> Iterator[int]:
            # what an epoch leaves has no threshold yet
            return task.callback_task.steps(
                "epoch", n, lambda: {**task.fitted, "model_": model(), "reject_threshold_": np.inf}
            )

        report = fit_paper(task.cache, task.text, self.config, task.like, self.before, epochs)
        return replace(report, model=report.model.with_index(task.like)) if self.indexed else report


EVIDENCES: dict[str, type[CalibratedEvidence] | type[PaperEvidence]] = {
    evidence.name: evidence for evidence in (CalibratedEvidence, PaperEvidence)
}


def earlier_model(clf: XMAdapterClassifier, evidence: str, task: Task) -> Any:
    """The fitted model that a warm start goes on from, without its pool; None for a cold start.

    It is one of the same evidence on embeddings of the same encoders, as far as these are known.
    """
    if not (clf.warm_start and hasattr(clf, "model_")) or clf.model_.evidence != evidence:
        return None
    made_by = {clf.encoder_fingerprint_, task.fitted.get("encoder_fingerprint_")} - {None}
    before, now = clf.model_.image_cache, task.cache
    if len(made_by) > 1 or before.keys.shape[1] != now.keys.shape[1] or before.blocks != now.blocks:
        return None
    return clf.model_.without_pool()


def reads_some_keys(clf: XMAdapterClassifier, task: Task) -> bool:
    """Return True if predictions read only the keys that they need."""
    return clf.retrieval == "top" or (clf.retrieval == "auto" and len(task.cache.keys) >= RETRIEVE_FROM)


def auto_to_none(parameter: Any) -> float | None:
    """A parameter's number, or None for "auto"."""
    return None if isinstance(parameter, str) else float(parameter)
