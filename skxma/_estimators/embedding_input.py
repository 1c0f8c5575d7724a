"""From images, names and encoders to embeddings."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import validate_data

from skxma._estimators.encoder_parameter import fingerprint_of, is_precomputed, is_several
from skxma._estimators.several_encoders import (
    SeveralEncoders,
    check_blocks_of_fit,
    is_list_of_embeddings,
    join_embeddings,
    resolve_blocks,
)
from skxma._labels.by_label import Name
from skxma._labels.class_table import ClassTable, no_names_message
from skxma._runtime.device import resolve_device
from skxma._runtime.warning import warn
from skxma.embeddings import (
    Embeddings,
    Floats,
    embedding_array,
    host_array,
    is_embeddings,
    is_frame,
    unit_blocks,
    unit_rows,
)
from skxma.encoder._bare_model import refuse_bare_model
from skxma.encoder._class_weights import class_weights, has_text, prompt_features, text_shapes_metric
from skxma.encoder._detached import DetachedEncoder
from skxma.encoder._loaded_model import LOGIT_SCALE
from skxma.errors import EncoderMismatchError, ImageError
from skxma.store._workers import warn_of_unshared_embeddings

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

NUMBERS = "fiub"
"""Kinds of numpy's types that embeddings without an encoder may have, as scikit-learn's estimators take them."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the support images, and where they come from.

    Attributes
    ----------
    features : ndarray of shape (n, D)
        L2-normalized; rows of NaN for images that an encoder with ``on_error="skip"`` could not read.
    fingerprint : str or None
        Of their encoder, as far as it is known.
    names : ndarray of shape (D,) or None
        Column names of the data frame that held them.
    blocks : tuple of int or None
        Widths of the encoders' parts of a row; None for one encoder.
    """

    features: Floats
    fingerprint: str | None
    names: NDArray[Any] | None = None
    blocks: tuple[int, ...] | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """Fitted attributes that describe a valid X."""
        found = {"n_features_in_": self.features.shape[1], "encoder_fingerprint_": self.fingerprint}
        return found if self.names is None else {**found, "feature_names_in_": self.names}


@dataclass(frozen=True)
class EmbeddingInput:
    """The encoder of an estimator and what it needs to run: turns X and class names into embeddings.

    Attributes
    ----------
    estimator : BaseFewShotClassifier
        Whose parameters these are; scikit-learn names it in errors. Nothing is set on it.
    encoder : str or object
    device : str or torch.device
        One that is present.
    """

    estimator: BaseFewShotClassifier
    encoder: Any
    device: Any

    @classmethod
    def of(cls, estimator: BaseFewShotClassifier) -> EmbeddingInput:
        """The input of an estimator; a fitted one that came from a machine with more devices goes on with the CPU."""
        device = estimator.device
        try:
            resolve_device(device)
        except ValueError as error:
            if not hasattr(estimator, "classes_"):
                raise
            warn(f"{error} This fitted model goes on with the CPU.")
            device = "cpu"
        return cls(estimator, estimator.encoder, device)

    @property
    def precomputed(self) -> bool:
        """True if X must hold embeddings."""
        return is_precomputed(self.encoder)

    @property
    def has_text(self) -> bool:
        """True if names can be encoded."""
        return not self.precomputed and has_text(self.resolved_encoder)

    @property
    def text_shapes_metric(self) -> bool:
        """False if the encoder says that texts tell nothing of the directions along which images differ."""
        return self.precomputed or text_shapes_metric(self.text_encoder)

    @property
    def text_encoder(self) -> Any:
        """The encoder of the texts."""
        encoder = self.resolved_encoder
        return encoder.first if isinstance(encoder, SeveralEncoders) else encoder

    @property
    def fingerprint(self) -> str:
        """The encoder's own, or the name of its class."""
        return fingerprint_of(self.resolved_encoder)

    @property
    def logit_scale(self) -> float:
        """The encoder's own, or CLIP's."""
        return LOGIT_SCALE if self.precomputed else float(getattr(self.resolved_encoder, "logit_scale", LOGIT_SCALE))

    @property
    def compute_device(self) -> torch.device:
        """Device of the mathematics: CUDA or the CPU. MPS has no float64, and everything but encoding is light."""
        device = resolve_device(self.device)
        return device if device.type == "cuda" else torch.device("cpu")

    @cached_property
    def resolved_encoder(self) -> Any:
        """The encoder: made from a name, or the caller's object. Weights stay in the encoder's own cache."""
        if is_several(self.encoder):
            return SeveralEncoders([self._make_encoder(one) for one in self.encoder])
        return self._make_encoder(self.encoder)

    def _make_encoder(self, encoder: Any) -> Any:
        refuse_bare_model(encoder)
        if not isinstance(encoder, str):
            return clone(encoder) if isinstance(encoder, BaseEstimator) else encoder
        from skxma.encoder._clip_encoder import CLIPEncoder

        settings = {name: getattr(self.estimator, name) for name in ("precision", "memory", "verbose")}
        return CLIPEncoder(encoder, device=self.device, **settings)

    def joined(self, X: Any) -> Any:
        """Return the embeddings of several encoders, a list of an array for each, as one array; else X as it is."""
        if not (self.precomputed or is_several(self.encoder)):
            return X
        if not is_list_of_embeddings(X, NUMBERS if self.precomputed else "f"):
            return X
        if not hasattr(self.estimator, "blocks"):
            raise ValueError(
                f"X is a list of {len(X)} arrays, the embeddings of several encoders; {type(self.estimator).__name__} "
                "takes one encoder, XMAdapterClassifier several."
            )
        return join_embeddings(X, None if self.precomputed else self.resolved_encoder.order)

    def _blocks_of(self, X: Any) -> tuple[int, ...] | None:
        """Widths of the encoders' parts of embeddings X (n, D) of a fit; None for one encoder."""
        given = getattr(self.estimator, "blocks", None)
        found = getattr(X, "blocks", None)
        if found is not None and not hasattr(self.estimator, "blocks"):
            raise ValueError(
                f"X holds embeddings of {len(found)} encoders; {type(self.estimator).__name__} takes those of one, "
                "XMAdapterClassifier of several."
            )
        if found is None and is_several(self.encoder):
            found = self.resolved_encoder.blocks
            if found is None and given is None:
                raise ValueError(
                    f"X is one array for {len(self.encoder)} encoders, which do not tell their n_features; pass a list "
                    "of arrays, one per encoder, or the widths as blocks=[...]."
                )
        # what scikit-learn has not checked may be no array
        return None if given is None and found is None else resolve_blocks(given, found, np.shape(X)[-1])

    def holds_embeddings(self, X: Any) -> bool:
        """Return True if X needs no encoder."""
        return self.precomputed or is_embeddings(X)

    def embed_support(self, X: Any) -> Embedded:
        """Embeddings of the support images (n, D)."""
        n_views = self.estimator.n_views
        if self.precomputed:
            if n_views > 1:
                raise ValueError(f"n_views={n_views} needs images; with encoder='precomputed' use n_views=1.")
            # scikit-learn's check writes what it finds on the estimator that it is given
            unfitted = copy.copy(self.estimator)
            blocks = self._blocks_of(X)
            rows = self._check_embeddings(X, unfitted, reset=True, blocks=blocks)
            made_by = X.fingerprint if isinstance(X, Embeddings) else None
            return Embedded(rows, made_by, getattr(unfitted, "feature_names_in_", None), blocks)
        if is_embeddings(X):
            fitted = copy.copy(self.estimator)
            fitted.n_features_in_, fitted.encoder_fingerprint_ = X.shape[1], self.fingerprint
            fitted.__dict__.pop("feature_names_in_", None)
            blocks = self._blocks_of(X)
            rows = self._check_embeddings(X, fitted, reset=False, blocks=blocks)
            return Embedded(rows, fitted.encoder_fingerprint_, blocks=blocks)
        given = getattr(self.estimator, "blocks", None)
        if given is not None and not is_several(self.encoder):
            raise ValueError(
                f"blocks={list(given)} are widths of several encoders' embeddings, and the images are encoded by one; "
                "leave it out, or pass a list of encoders."
            )
        # False for an encoder of the user's own, which may share embeddings in a way of its own
        warn_of_unshared_embeddings(getattr(self.resolved_encoder, "memory", False))
        features = self.encode_images(X, n_views)
        blocks = resolve_blocks(given, features.blocks, features.shape[1])
        return Embedded(np.asarray(features), self.fingerprint, blocks=blocks)

    def embed_queries(self, X: Any) -> Floats:
        """Embeddings of new images (n, D), by the encoder of the fit."""
        clf = self.estimator
        X = self.joined(X)
        if self.holds_embeddings(X):
            cache = getattr(clf, "image_cache_", None)
            blocks = None if cache is None else cache.blocks
            check_blocks_of_fit(getattr(X, "blocks", None), blocks)
            return self._check_embeddings(X, clf, reset=False, blocks=blocks)
        for one in self.encoder if is_several(self.encoder) else [self.encoder]:
            if isinstance(one, DetachedEncoder):
                one.encode_image()
        check_images_first(self.resolved_encoder, X)
        self.check_encoder_of_fit()
        features = self.encode_images(X)
        unread = np.flatnonzero(np.isnan(features).any(axis=1))
        if len(unread):
            raise ImageError(
                f"{len(unread)} images could not be read (items {_first(unread)}), so there is nothing to predict "
                "from; leave them out."
            )
        return np.asarray(features)

    def check_encoder_of_fit(self) -> None:
        """Refuse an encoder other than that of the fit; loads its weights."""
        wanted, found = self.estimator.encoder_fingerprint_, self.fingerprint
        if found != wanted:
            raise EncoderMismatchError(
                f"The model was fitted with {wanted}, but encoder={self.encoder!r} is now {found}. Give it the encoder "
                "of the fit with set_params(encoder=...), or fit again."
            )

    def encode_images(self, X: Any, n_views: int = 1) -> Embeddings:
        """L2-normalized embeddings (n, D) of images; NaN for those that the encoder was told to skip."""
        encoder = self.resolved_encoder
        extra: dict[str, Any] = {}
        if n_views > 1:
            if "n_views" not in inspect.signature(encoder.encode_image).parameters:
                raise ValueError(f"n_views={n_views}, but {type(encoder).__name__} makes no augmented views; use 1.")
            extra = {"n_views": n_views, "random_state": self.estimator.random_state}
        # the encoder is frozen, whatever mode the caller computes in
        with torch.no_grad():
            encoded = encoder.encode_image(X, **extra)
        rows, blocks = _as_array(encoded), getattr(encoded, "blocks", None)
        skipped = [index for index, *_ in getattr(encoder, "skipped_", [])]
        lost = np.setdiff1d(np.flatnonzero(~np.isfinite(rows).all(axis=1)), skipped)
        if len(lost):
            raise ImageError(
                f"{type(encoder).__name__}.encode_image gave NaN or infinity for {len(lost)} of {len(rows)} images "
                f"(items {_first(lost)}). Leave these images out, or encode them in a higher precision.",
                index=int(lost[0]),
            )
        return Embeddings(unit_blocks(rows, blocks), blocks=blocks)

    def encode_names(self, names: Sequence[Name | None], templates: Any) -> Floats:
        """L2-normalized text embeddings (C, D) of names in templates; zero rows for None."""
        encoder = self.resolved_encoder
        with torch.no_grad():
            rows = class_weights(encoder, names, templates)
        lost = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(lost):
            raise ValueError(
                f"{type(encoder).__name__} gave NaN or infinity for the text of {len(lost)} of {len(names)} names, "
                f"the first of them {names[lost[0]]!r}. Give them other names, or encode in a higher precision."
            )
        return rows

    def embed_classes(self, table: ClassTable, templates: Any, n_features: int) -> Floats | None:
        """L2-normalized text features (C, D) of the classes, zero rows for those without; None if no class has any."""
        text: NDArray[Any] | None = table.text
        if text is None and not self.has_text:
            self._refuse_unknown_classes(table)
        elif text is None:
            if table.names is None:
                warn(no_names_message(table.classes))
                return None
            text = self.encode_names(table.names, templates)
        if text is None:
            return None
        if text.shape[-1] != n_features:
            raise ValueError(
                f"text_features has {text.shape[-1]} columns, the embeddings have {n_features}; "
                "both must come from one encoder."
            )
        rows = unit_rows(text if text.ndim == 2 else unit_rows(text).sum(1))
        return rows if rows.any() else None

    def _refuse_unknown_classes(self, table: ClassTable) -> None:
        """Refuse a class that the caller names and that has no image, where the encoder knows no texts."""
        if self.precomputed or table.names is None or self.estimator.class_names is None:
            return
        absent = np.setdiff1d(np.arange(len(table.classes)), table.indices)
        labels = table.classes.tolist()
        unknown = [labels[i] for i in absent if table.names[i] is not None]
        if unknown:
            raise ValueError(
                f"class_names names {len(unknown)} classes that have neither images nor a text, the first of them "
                f"{unknown[0]!r}: the encoder encodes images alone. Give images of them, leave them out, or take an "
                "encoder of images and texts."
            )

    def embed_prompts(self, table: ClassTable, templates: Any) -> Floats | None:
        """L2-normalized text features (C, P, D) of each prompt of the classes, zero rows where there are fewer than P.

        None where `embed_classes` finds no text.
        """
        if table.text is not None:
            return unit_rows(table.text if table.text.ndim == 3 else table.text[:, None])
        if table.names is None or not self.has_text:
            return None
        with torch.no_grad():
            return prompt_features(self.resolved_encoder, table.names, templates)

    def _check_embeddings(
        self, X: Any, estimator: BaseFewShotClassifier, reset: bool, blocks: tuple[int, ...] | None = None
    ) -> Floats:
        """Validate embeddings as scikit-learn does and scale their rows to unit length; zero rows stay zero."""
        if not self.precomputed:
            # the columns of an encoder's frame have no names that anybody chose
            X = embedding_array(X)
        X = host_array(X)
        made_by = X.fingerprint if isinstance(X, Embeddings) else None
        if np.ma.is_masked(X):
            # scikit-learn would go on with what is under the mask
            raise ValueError("Input X holds masked values; leave these rows out, or fill them.")
        if reset or not _is_valid(X, estimator):
            try:
                X = validate_data(estimator, X, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=False)
            except (TypeError, ValueError) as error:
                if problem := _no_embeddings(X):
                    raise ValueError(problem) from error
                raise
        finite = np.isfinite(X)
        if not finite.all():
            unusable = np.flatnonzero(~finite.all(axis=1))
            what = "NaN" if np.isnan(X).any() else "infinity"
            raise ValueError(
                f"Input X contains {what} in {len(unusable)} of {len(X)} rows ({_first(unusable)}): no embedding of an "
                "image. Leave these samples out, or encode their images again."
            )
        if not reset and made_by is not None and estimator.encoder_fingerprint_ not in (None, made_by):
            raise EncoderMismatchError(
                f"The model was fitted with embeddings of {estimator.encoder_fingerprint_!r}, these come from "
                f"{made_by!r}. Encode with the same weights, or fit again."
            )
        return unit_blocks(X, blocks)


def _is_valid(X: Any, estimator: BaseFewShotClassifier) -> bool:
    """Tell whether scikit-learn's validation would return `X` as it is, which takes it longer than one prediction."""
    return (
        type(X) in (np.ndarray, Embeddings)
        and X.ndim == 2
        and X.dtype in (np.float64, np.float32)
        and len(X) > 0
        and X.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")
    )


def _no_embeddings(X: Any) -> str | None:
    """Say what X is in the place of embeddings and what to pass; None where scikit-learn's own error says enough."""
    if hasattr(X, "collect") and not hasattr(X, "to_numpy"):
        return f"X is a {type(X).__name__} of polars, which has not been computed; pass X.collect()."
    rows = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if not isinstance(rows, (list, tuple, np.ndarray)) or getattr(rows, "ndim", 1) != 1 or not len(rows):
        return None
    first = rows[0]
    if isinstance(first, (str, bytes, os.PathLike)) or hasattr(first, "convert"):
        return (
            f"X holds images, such as {first!r:.80}; encoder='precomputed' expects their embeddings, an array of shape "
            "(n_samples, n_features). Name an encoder to pass images."
        )
    if isinstance(rows, np.ndarray) and isinstance(first, (list, np.ndarray)):
        column = f"X[{X.columns[0]!r}]" if is_frame(X) else "X"
        return f"X holds an array in each row; make one array of them: numpy.stack({column})."
    return None


def check_images_first(encoder: Any, X: Any) -> None:
    """Refuse items that are no images before the encoder's weights are loaded, if the encoder can check them."""
    check = getattr(encoder, "check_images", None)
    if check is not None:
        check(X)


def _as_array(rows: Any) -> NDArray[Any]:
    """Encoded rows (n, D) as an array; tensors may be on any device and of any precision."""
    return np.asarray(host_array(rows))


def _first(items: NDArray[np.intp], most: int = 5) -> str:
    return f"{items[:most].tolist()}{', ...' if len(items) > most else ''}"
