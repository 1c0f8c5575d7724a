"""Fitted attributes of a classifier: which they are, and classifiers with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

Classifier = TypeVar("Classifier", bound="BaseFewShotClassifier")


def with_attributes(clf: Classifier, attributes: Mapping[str, Any]) -> Classifier:
    """Another classifier of this class with some attributes."""
    made: Classifier = object.__new__(type(clf))
    made.__dict__.update(attributes)
    return made


def without_fitted(clf: Classifier) -> Classifier:
    """A shallow copy that is not fitted."""
    fitted = [name for name in clf.__dict__ if name.endswith("_") and not name.startswith("_")]
    return with_attributes(clf, {name: value for name, value in clf.__dict__.items() if name not in fitted})


def kept_attributes(clf: BaseFewShotClassifier) -> dict[str, Any]:
    """Fitted attributes that describe a valid X; growing and dropping do not change them."""
    names = ("n_features_in_", "encoder_fingerprint_", "feature_names_in_")
    return {name: getattr(clf, name) for name in names if hasattr(clf, name)}
