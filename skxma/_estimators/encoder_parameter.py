"""The `encoder` parameter: its kinds, and what of it is pickled with a fitted model."""

from __future__ import annotations

import io
import pickle
from typing import Any

from sklearn.base import BaseEstimator

from skxma._runtime.warning import warn
from skxma.encoder._class_weights import has_text, text_shapes_metric
from skxma.encoder._detached import DetachedEncoder

PRECOMPUTED = "precomputed"
SMALL_PICKLE = 2**20
"""Bytes that the weights of an encoder exceed, and that settings, addresses and names of models do not."""


def is_precomputed(encoder: Any) -> bool:
    """Return True if the `encoder` parameter means that X holds embeddings."""
    return isinstance(encoder, str) and encoder == PRECOMPUTED


def is_several(encoder: Any) -> bool:
    """Return True if the `encoder` parameter is a list of encoders."""
    return isinstance(encoder, (list, tuple))


def is_callers_own(encoder: Any) -> bool:
    """Return True if the `encoder` parameter is an object of the caller, which scikit-learn cannot clone."""
    if is_several(encoder):
        return any(is_callers_own(one) for one in encoder)
    return not isinstance(encoder, (str, BaseEstimator, DetachedEncoder))


def name_of(encoder: Any) -> str:
    """The full name of an encoder's class."""
    return f"{type(encoder).__module__}.{type(encoder).__qualname__}"


def fingerprint_of(encoder: Any) -> str:
    """The fingerprint of an encoder, or the full name of its class where it says none."""
    return str(getattr(encoder, "fingerprint", name_of(encoder)))


def without_weights(encoder: Any) -> Any:
    """Return the `encoder` parameter to pickle with a fitted model: itself, or a placeholder for its weights.

    Names and `CLIPEncoder` contain no weights. An object of the caller is kept if it pickles to at most a mebibyte.
    """
    if not is_callers_own(encoder):
        return encoder
    if is_several(encoder):
        return [without_weights(one) for one in encoder]
    reason = _why_not_pickled(encoder)
    if reason is None:
        return encoder
    warn(
        f"The encoder {name_of(encoder)} is left out of the pickled model, because it {reason}. Give it to the model "
        "that is loaded, in this or in another process, with set_params(encoder=...)."
    )
    return DetachedEncoder(name_of(encoder), has_text(encoder), text_shapes_metric(encoder))


class _TooLargeError(Exception):
    """A pickle is larger than it may be."""


class _SmallBuffer(io.RawIOBase):
    """A file that takes `SMALL_PICKLE` bytes and keeps none."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: Any) -> int:
        """Count the bytes."""
        n = memoryview(data).nbytes
        self.size += n
        if self.size > SMALL_PICKLE:
            raise _TooLargeError
        return n


def _why_not_pickled(encoder: Any) -> str | None:
    """Say why an object is not pickled, as the end of a sentence; None where it is, and small."""
    try:
        pickle.Pickler(_SmallBuffer()).dump(encoder)
    except _TooLargeError:
        return f"pickles to more than {SMALL_PICKLE >> 20} MiB"
    except Exception as error:  # objects raise whatever they like
        return f"cannot be pickled ({type(error).__name__}: {error})"
    return None
