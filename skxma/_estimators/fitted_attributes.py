"""Fitted attributes of an estimator: which they are, and estimators with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_attributes(estimator: Any, attributes: Mapping[str, Any]) -> Any:
    """Another estimator of this class with some attributes."""
    made: Any = object.__new__(type(estimator))
    vars(made).update(attributes)
    return made


def without_fitted(estimator: Any) -> Any:
    """A shallow copy that is not fitted."""
    fitted = [name for name in vars(estimator) if name.endswith("_") and not name.startswith("_")]
    return with_attributes(estimator, {name: value for name, value in vars(estimator).items() if name not in fitted})


def kept_attributes(clf: Any) -> dict[str, Any]:
    """Fitted attributes that describe a valid X; growing and dropping do not change them."""
    names = ("n_features_in_", "encoder_fingerprint_", "feature_names_in_")
    return {name: getattr(clf, name) for name in names if hasattr(clf, name)}
