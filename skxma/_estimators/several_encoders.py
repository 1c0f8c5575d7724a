"""Several encoders as one: embeddings side by side, texts by the first encoder that knows them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skxma._estimators.encoder_parameter import fingerprint_of, is_several
from skxma.embeddings import Embeddings, Floats, embedding_array, host_array, is_embeddings, unit_blocks
from skxma.encoder._class_weights import class_weights, has_text
from skxma.encoder._loaded_model import LOGIT_SCALE

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier


class SeveralEncoders:
    """Encoders of the same images, whose embeddings stand side by side in a row.

    The first encoder that knows texts comes first in a row, whatever its place in the list; the others follow in the
    order of the list, and of them images alone are encoded.

    Parameters
    ----------
    encoders : sequence of encoders

    Attributes
    ----------
    order : list of int
        Places in the given list of the encoders, in the order of the row.
    """

    def __init__(self, encoders: Sequence[Any]) -> None:
        known = next((place for place, one in enumerate(encoders) if has_text(one)), 0)
        self.order = [known, *(place for place in range(len(encoders)) if place != known)]
        self.encoders = [encoders[place] for place in self.order]
        self.skipped_: list[tuple[Any, ...]] = []

    @property
    def first(self) -> Any:
        """The encoder of the texts."""
        return self.encoders[0]

    @property
    def has_text(self) -> bool:
        """True if any of the encoders knows texts."""
        return has_text(self.first)

    @property
    def fingerprint(self) -> str:
        """The encoders' fingerprints, joined."""
        return " + ".join(fingerprint_of(one) for one in self.encoders)

    @property
    def logit_scale(self) -> float:
        """The factor of cosines of the first encoder, or CLIP's."""
        return float(getattr(self.first, "logit_scale", LOGIT_SCALE))

    @property
    def memory(self) -> Any:
        """Place where the first encoder keeps embeddings; False for one that does not say."""
        return getattr(self.first, "memory", False)

    @property
    def blocks(self) -> tuple[int, ...] | None:
        """Widths of the encoders' embeddings; None where an encoder does not say."""
        widths = [getattr(one, "n_features", None) for one in self.encoders]
        return None if None in widths else tuple(int(width) for width in widths if width is not None)

    def check_images(self, X: Any) -> None:
        """Refuse items that are no images, if an encoder can tell before its weights are loaded."""
        for one in self.encoders:
            if hasattr(one, "check_images"):
                one.check_images(X)
                return

    def encode_image(self, X: Any, *, n_views: int = 1, random_state: Any = None) -> Embeddings:
        """Encode images by each encoder.

        Parameters
        ----------
        X : sequence of images
        n_views : int, default=1
        random_state : int, RandomState or None, default=None

        Returns
        -------
        embeddings : Embeddings of shape (n_samples, n_features)
            With the widths of the encoders' parts as `blocks`.
        """
        extra = {} if n_views == 1 else {"n_views": n_views, "random_state": random_state}
        for one in self.encoders if extra else ():
            if "n_views" not in inspect.signature(one.encode_image).parameters:
                raise ValueError(f"n_views={n_views}, but {type(one).__name__} makes no augmented views; use 1.")
        parts, skipped = [], {}
        for one in self.encoders:
            parts.append(np.asarray(host_array(one.encode_image(X, **extra))))
            skipped.update({item[0]: item for item in getattr(one, "skipped_", [])})
        self.skipped_ = [skipped[index] for index in sorted(skipped)]
        joined = join_embeddings(parts)
        joined[sorted(skipped)] = np.nan
        joined.fingerprint = self.fingerprint
        return joined

    def encode_text(self, prompts: Sequence[str]) -> Any:
        """Encode prompts by the first encoder."""
        return self.first.encode_text(prompts)

    def zero_shot_weights(self, class_names: Sequence[Any], templates: Any = "simple") -> Floats:
        """Encode classes by the first encoder, each as the mean of its prompts."""
        return class_weights(self.first, class_names, templates)


def knows_several(clf: BaseFewShotClassifier, X: Any) -> bool:
    """Return True if a classifier was fitted with several encoders, or would be with X."""
    if hasattr(clf, "image_cache_"):
        return clf.image_cache_.blocks is not None
    given = getattr(clf, "blocks", None)
    return is_several(clf.encoder) or getattr(X, "blocks", None) is not None or (given is not None and len(given) > 1)


def check_encoders(encoders: Sequence[Any]) -> None:
    """Refuse a list that is empty, or holds what is no encoder, or the same name twice."""
    if not encoders:
        raise ValueError("encoder=[] is an empty list; pass an encoder, or a list of them.")
    for one in encoders:
        if isinstance(one, str) and one == "precomputed":
            raise ValueError(
                "encoder is a list with 'precomputed' in it; for embeddings of several encoders pass "
                "encoder='precomputed' and X as a list of arrays, one per encoder."
            )
        if not (isinstance(one, str) or hasattr(one, "encode_image")):
            raise TypeError(f"encoder holds {one!r:.80}, which is neither the name of an encoder nor one.")
    names = [one for one in encoders if isinstance(one, str)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"encoder holds {twice!r} twice; a second copy of an encoder knows nothing more.")


def is_list_of_embeddings(X: Any, kinds: str = "f") -> bool:
    """Tell a list of embeddings, an array for each encoder, from embeddings and from images; see `is_embeddings`."""
    if not isinstance(X, (list, tuple)) or not len(X):
        return False
    return all(is_embeddings(host_array(part), kinds) for part in X)


def join_embeddings(X: Sequence[Any], order: Sequence[int] | None = None) -> Embeddings:
    """Join embeddings (n, D_b) of several encoders to rows (n, D) in which all parts have one length.

    Parameters
    ----------
    X : sequence of arrays
        One per encoder, of any scale.
    order : sequence of int, optional
        Places in X, in the order of the row.

    Raises
    ------
    ValueError
        Another number of arrays than of encoders, or of rows than in the others.
    """
    if order is not None and len(X) != len(order):
        raise ValueError(f"X is a list of {len(X)} arrays for {len(order)} encoders; give one array per encoder.")
    ordered = X if order is None else [X[place] for place in order]
    parts = [np.asarray(embedding_array(host_array(part))) for part in ordered]
    made_by = [part.fingerprint for part in ordered if isinstance(part, Embeddings) and part.fingerprint is not None]
    fingerprint = " + ".join(made_by) if len(made_by) == len(parts) else None
    rows = [len(part) for part in parts]
    if len(set(rows)) > 1:
        raise ValueError(
            f"X is a list of arrays with {', '.join(map(str, rows))} rows; embeddings of several encoders have one row "
            "per image in every array."
        )
    if len(parts) == 1:
        return Embeddings(parts[0], fingerprint)
    blocks = tuple(part.shape[1] for part in parts)
    return Embeddings(unit_blocks(np.concatenate(parts, axis=1), blocks), fingerprint, blocks=blocks)


def resolve_blocks(given: Any, found: tuple[int, ...] | None, width: int) -> tuple[int, ...] | None:
    """Widths of the encoders' parts of a row, as the caller gives them and as the embeddings or encoders have them.

    Parameters
    ----------
    given : sequence of int or None
        The parameter `blocks`.
    found : tuple of int or None
    width : int
        Columns of the embeddings.

    Raises
    ------
    ValueError
        Widths that differ, or do not sum to the columns.
    """
    if given is None:
        blocks = found
    else:
        blocks = tuple(int(one) for one in given)
        if found is not None and blocks != found:
            raise ValueError(f"blocks={list(blocks)}, but the embeddings of the encoders have widths {list(found)}.")
    if blocks is None:
        return None
    if sum(blocks) != width:
        raise ValueError(
            f"blocks={list(blocks)} sums to {sum(blocks)}, and X has {width} columns; give the width of each encoder's "
            "embeddings, in the order of the columns."
        )
    return None if len(blocks) == 1 else blocks


def check_blocks(blocks: Any) -> None:
    """Refuse a `blocks` parameter that is no list of positive integers."""
    widths = np.asarray(blocks)
    if widths.ndim != 1 or widths.dtype.kind not in "iu" or not len(widths) or widths.min() < 1:
        raise ValueError(f"blocks={blocks!r:.80} is no list of widths, such as [512, 768].")


def check_blocks_of_fit(found: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> None:
    """Refuse embeddings of other encoders than those of the fit, by the widths of their parts."""
    if found is not None and found != wanted:
        of_fit = "of one encoder" if wanted is None else f"of encoders with widths {list(wanted)}"
        raise ValueError(f"X holds embeddings of widths {list(found)}; the model was fitted with embeddings {of_fit}.")
