"""From what a user gives to embeddings: the part of an estimator that meets images, encoders and class names."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skxma._labels import ClassTable, no_names_message
from skxma._runtime.device import PRECISIONS, resolve_device
from skxma._runtime.doc_links import DocumentedMixin
from skxma._runtime.warning import warn
from skxma._sklearn_compat import HasMethods, StrOptions
from skxma.embeddings import Embeddings, Floats, embedding_array, is_embeddings, unit_rows
from skxma.encoder._bare_model import refuse_bare_model
from skxma.encoder._class_weights import class_weights
from skxma.encoder._detached import DetachedEncoder
from skxma.errors import EncoderMismatchError, ImageError

PRECOMPUTED = "precomputed"


def check_images_first(encoder: Any, X: Any) -> None:
    """Find what is no image before an encoder's weights are loaded or fetched, where it can tell."""
    check = getattr(encoder, "check_images", None)
    if check is not None:
        check(X)


class EncodedInput(DocumentedMixin, BaseEstimator):
    """An estimator whose X is images or, with ``encoder="precomputed"``, embeddings."""

    encoder: Any
    templates: Any
    device: Any
    precision: str
    memory: Any
    verbose: Any
    n_features_in_: int
    encoder_fingerprint_: str | None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "encoder": [str, HasMethods(["encode_image", "encode_text"])],
        "class_names": ["array-like", dict, None],
        "templates": [str, "array-like"],
        "text_features": ["array-like", dict, None],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", *PRECISIONS})],
        "memory": "no_validation",
        "verbose": ["verbose"],
    }

    def _is_precomputed(self) -> bool:
        return isinstance(self.encoder, str) and self.encoder == PRECOMPUTED

    def _make_encoder(self) -> Any:
        """The object that encodes: made of a name, or the caller's own. Weights stay in the encoder's own cache."""
        refuse_bare_model(self.encoder)
        if not isinstance(self.encoder, str):
            return clone(self.encoder) if isinstance(self.encoder, BaseEstimator) else self.encoder
        from skxma.encoder._clip_encoder import CLIPEncoder

        return CLIPEncoder(
            self.encoder,
            device=self._present_device(),
            precision=self.precision,
            memory=self.memory,
            verbose=self.verbose,
        )

    def _present_device(self) -> Any:
        """The `device` parameter; for a fitted model that came from a machine with more devices, the CPU."""
        try:
            resolve_device(self.device)
        except ValueError as error:
            if not hasattr(self, "classes_"):
                raise
            warn(f"{error} This fitted model goes on with the CPU.")
            return "cpu"
        return self.device

    def _fingerprint(self) -> str:
        encoder = self._make_encoder()
        return str(getattr(encoder, "fingerprint", f"{type(encoder).__module__}.{type(encoder).__qualname__}"))

    def _check_embeddings(self, X: Any, reset: bool) -> Floats:
        """Validate embeddings as scikit-learn does and scale their rows to unit length; zero rows stay zero."""
        if not self._is_precomputed():
            # the columns of an encoder's frame have no names that anybody chose
            X = embedding_array(X)
        made_by = X.fingerprint if isinstance(X, Embeddings) else None
        if np.ma.is_masked(X):
            # scikit-learn would go on with what is under the mask
            raise ValueError("Input X holds masked values; leave these rows out, or fill them.")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=False)
        unusable = np.flatnonzero(~np.isfinite(X).all(axis=1))
        if len(unusable):
            some = f"{unusable[:5].tolist()}{', ...' if len(unusable) > 5 else ''}"
            what = "NaN" if np.isnan(X).any() else "infinity"
            raise ValueError(
                f"Input X contains {what} in {len(unusable)} of {len(X)} rows ({some}): no embedding of a picture. "
                "Leave these samples out, or encode their pictures again."
            )
        if reset:
            self.encoder_fingerprint_ = made_by
        elif made_by is not None and self.encoder_fingerprint_ not in (None, made_by):
            raise EncoderMismatchError(
                f"The model was fitted with embeddings of {self.encoder_fingerprint_!r}, these come from {made_by!r}. "
                "Encode with the same weights, or fit again."
            )
        return unit_rows(X)

    def _encode_images(self, X: Any, n_views: int = 1) -> Floats:
        encoder = self._make_encoder()
        extra: dict[str, Any] = {}
        if n_views > 1:
            if "n_views" not in inspect.signature(encoder.encode_image).parameters:
                raise ValueError(f"n_views={n_views}, but {type(encoder).__name__} makes no augmented views; use 1.")
            extra = {"n_views": n_views, "random_state": getattr(self, "random_state", None)}
        return unit_rows(np.asarray(encoder.encode_image(X, **extra)))

    def _refuse_unread(self, features: Floats) -> None:
        """No answer is given for pictures that an encoder with ``on_error="skip"`` could not read."""
        unread = np.flatnonzero(np.isnan(features).any(axis=1))
        if len(unread):
            some = f"{unread[:5].tolist()}{', ...' if len(unread) > 5 else ''}"
            raise ImageError(
                f"{len(unread)} pictures could not be read (items {some}), so there is nothing to predict from; "
                "leave them out."
            )

    def _support_features(self, X: Any) -> Floats:
        """Embeddings of the support images (n, D); remembers their width and their encoder."""
        n_views = getattr(self, "n_views", 1)
        if self._is_precomputed():
            if n_views > 1:
                raise ValueError(f"n_views={n_views} needs images; with encoder='precomputed' use n_views=1.")
            return self._check_embeddings(X, reset=True)
        if is_embeddings(X):
            self.encoder_fingerprint_ = self._fingerprint()
            self.n_features_in_ = X.shape[1]
            return self._check_embeddings(X, reset=False)
        features = self._encode_images(X, n_views)
        self.n_features_in_ = features.shape[1]
        self.encoder_fingerprint_ = self._fingerprint()
        return features

    def _query_features(self, X: Any) -> Floats:
        """Embeddings of new images (n, D), by the encoder of the fit."""
        check_is_fitted(self)
        if self._is_precomputed() or is_embeddings(X):
            return self._check_embeddings(X, reset=False)
        if isinstance(self.encoder, DetachedEncoder):
            self.encoder.encode_image()
        check_images_first(self._make_encoder(), X)
        found = self._fingerprint()
        if found != self.encoder_fingerprint_:
            raise EncoderMismatchError(
                f"The model was fitted with {self.encoder_fingerprint_}, but encoder={self.encoder!r} is now {found}. "
                "Give it the encoder of the fit with set_params(encoder=...), or fit again."
            )
        features = self._encode_images(X)
        self._refuse_unread(features)
        return features

    def _class_text(self, table: ClassTable) -> Floats | None:
        """L2-normalised text features (C, D) of the classes, zero rows for those without; None if no class has any."""
        text: NDArray[Any] | None = table.text
        if text is None and not self._is_precomputed():
            if table.names is None:
                warn(no_names_message(table.classes))
                return None
            text = class_weights(self._make_encoder(), table.names, self.templates)
        if text is None:
            return None
        if text.shape[1] != self.n_features_in_:
            raise ValueError(
                f"text_features has {text.shape[1]} columns, the embeddings have {self.n_features_in_}; "
                "both must come from one encoder."
            )
        rows = unit_rows(text)
        return rows if rows.any() else None

    def __copy__(self) -> Self:
        """A shallow copy keeps the encoder, which what is stored may leave out."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of a fitted model an encoder that carries weights; names and `CLIPEncoder` carry none."""
        state: dict[str, Any] = dict(super().__getstate__())
        encoder = state.get("encoder")
        if hasattr(self, "classes_") and not isinstance(encoder, (str, BaseEstimator, DetachedEncoder)):
            state["encoder"] = DetachedEncoder(f"{type(encoder).__module__}.{type(encoder).__qualname__}")
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if not self._is_precomputed():
            tags.input_tags.two_d_array = False
            tags.input_tags.one_d_array = True
            tags.input_tags.string = True
            tags.input_tags.three_d_array = True
        return tags
