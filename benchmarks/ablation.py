"""The default estimator with one part switched off at a time."""

from dataclasses import replace
from typing import ClassVar

from skxma import XMAdapterClassifier

DEFAULT = "default"


class Ablated(XMAdapterClassifier):
    """The default with another configuration of its fit."""

    changes: ClassVar = {}

    def _evidence(self, task):
        evidence = super()._evidence(task)
        return replace(evidence, config=replace(evidence.config, **self.changes))


class NoLeaveOneOut(Ablated):
    """Each sample retrieves itself while the weights are learned."""

    changes: ClassVar = {"leave_one_out": False}


class NoWhitening(Ablated):
    """The scatter within the classes is left as it is."""

    changes: ClassVar = {"shrinkages": (1.0,)}


class OneMetric(Ablated):
    """The best metric alone."""

    changes: ClassVar = {"max_metrics": 1}


class NoScreening(Ablated):
    """Labels that look wrong are kept."""

    changes: ClassVar = {"drop_wrong_labels": False}


class NoVocabulary(XMAdapterClassifier):
    """No words shape the metric, whatever the data set offers."""

    def _evidence(self, task):
        return replace(super()._evidence(task), vocabulary=None)


def variants():
    """Estimators by the names of their rows, the default first."""
    return {
        DEFAULT: XMAdapterClassifier(),
        "no text cache": XMAdapterClassifier(fusion_ratio=1.0),
        "no image cache": XMAdapterClassifier(fusion_ratio=0.0),
        "fixed ratio of one half": XMAdapterClassifier(fusion_ratio=0.5),
        "no hard-sample weights": XMAdapterClassifier(hard_sample_weight=0.0),
        "no residual": XMAdapterClassifier(n_epochs=0),
        "no leave-one-out": NoLeaveOneOut(),
        "no whitening": NoWhitening(),
        "one metric alone": OneMetric(),
        "no wrong-label screening": NoScreening(),
        "no vocabulary": NoVocabulary(),
        "paper's form, 20 epochs": XMAdapterClassifier(evidence="paper", n_epochs=20),
        "paper's form, no training": XMAdapterClassifier(evidence="paper", n_epochs=0),
    }
