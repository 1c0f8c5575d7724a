"""The two key-value caches of XMAdapter as arrays, and retrieval from them; training happens elsewhere."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from skxma import functional as F
from skxma._runtime.forks import register_after_fork

__all__ = ["ImageCache", "TextCache"]

Floats = NDArray[np.float32]
Integers = NDArray[np.intp]
ScorerT = TypeVar("ScorerT")


_reads_fitted_arrays: ContextVar[bool] = ContextVar("_reads_fitted_arrays", default=False)
_copies: dict[tuple[int, torch.device, torch.dtype | None], tuple[weakref.ref[NDArray[Any]], Tensor]] = {}
register_after_fork(_copies.clear)


@contextmanager
def reading_fitted_arrays() -> Iterator[None]:
    """Keep what `to_tensors` copies to a device or converts, in predictions, for the next ones.

    Fitted arrays are replaced and not written to, so that a copy is right as long as its array is there.
    """
    token = _reads_fitted_arrays.set(True)
    try:
        yield
    finally:
        _reads_fitted_arrays.reset(token)


def to_tensors(*arrays: NDArray[Any], like: Tensor) -> tuple[Tensor, ...]:
    """Convert arrays to tensors on the device of `like`; floats get its dtype, all others keep theirs."""
    keeps = _reads_fitted_arrays.get()
    return tuple(_to_tensor(a, like, keeps) for a in arrays)


def _to_tensor(array: NDArray[Any], like: Tensor, keeps: bool) -> Tensor:
    is_float = array.dtype.kind == "f"
    # elsewhere tensor and array are one
    is_copied = like.device.type != "cpu" or (is_float and array.dtype.itemsize != like.element_size())
    convert = _kept_copy if keeps and is_copied else _copy
    return convert(array, like.device, like.dtype if is_float else None)


def _copy(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None) -> Tensor:
    return torch.as_tensor(array, device=device, dtype=dtype)


def _kept_copy(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """Copy an array to a device, or return the copy from an earlier call; it goes when the array does."""
    key = id(array), device, dtype
    kept = _copies.get(key)
    if kept is not None and kept[0]() is array:
        return kept[1]
    tensor = _copy(array, device, dtype)
    _copies[key] = weakref.ref(array), tensor
    weakref.finalize(array, _copies.pop, key, None).atexit = False
    return tensor


class CachedScorerMixin(Generic[ScorerT]):
    """Mixin for fitted models of arrays: keeps the scorer of tensors that the first prediction makes for the next ones.

    Pickles and model files lack it, so that a model fitted on a GPU loads on a CPU.
    """

    def _make_scorer(self, like: Tensor) -> ScorerT:
        raise NotImplementedError

    def scorer(self, like: Tensor) -> ScorerT:
        """Return the model as tensors with the device and dtype of `like`."""
        wanted = like.device, like.dtype
        kept: tuple[Any, ScorerT] | None = self.__dict__.get("_kept_scorer")
        if kept is None or kept[0] != wanted:
            kept = wanted, self._make_scorer(like)
            # the model is a frozen dataclass, and its scorer no part of its value
            object.__setattr__(self, "_kept_scorer", kept)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept_scorer"}


@dataclass(frozen=True)
class ImageCache:
    """Image embeddings as keys, their labels as values.

    Attributes
    ----------
    keys : ndarray of shape (N, D), float32
        L2-normalized embeddings of the support images, in an order that depends on their content alone.
    labels : ndarray of shape (N,), intp
        Class index of each key.
    weights : ndarray of shape (N,), float32
        Sample weights, with mean 1 over the keys in use; 0 for a key that is set aside and retrieves nothing.
    n_classes : int
    weight_unit : float
        What the caller's weights were divided by.
    features : ndarray of shape (N, D), float32, or None
        The embeddings that the keys were before training; None where they still are the keys.
    groups : ndarray of shape (N,), intp, or None
        Number of the group of each key: samples that depend on one another. None where each stands for itself.
    blocks : tuple of int, or None
        Widths of the parts of a key, where several encoders have made one each; all parts of a key have one length.
    """

    keys: Floats
    labels: Integers
    weights: Floats
    n_classes: int
    weight_unit: float = 1.0
    features: Floats | None = None
    groups: Integers | None = None
    blocks: tuple[int, ...] | None = None

    @property
    def embeddings(self) -> Floats:
        """Embeddings of the support images (N, D), untrained."""
        return self.keys if self.features is None else self.features

    @classmethod
    def build(
        cls,
        features: Floats,
        labels: Integers,
        n_classes: int,
        sample_weight: NDArray[Any] | None = None,
        text: Floats | None = None,
        groups: Integers | None = None,
        blocks: tuple[int, ...] | None = None,
    ) -> tuple[ImageCache, Integers]:
        """Build a cache of N' samples; equal images with equal labels become one key with the sum of their weights.

        An image that occurs twice would otherwise retrieve itself when it is left out. Samples of weight 0 are not
        kept. The order of the keys depends neither on the order of the samples nor on the names of their classes.

        Parameters
        ----------
        features : ndarray of shape (N', D), L2-normalized
        labels : ndarray of shape (N',)
        n_classes : int
        sample_weight : ndarray of shape (N',), optional
        text : ndarray of shape (C, D), optional
            Orders classes that hold the same images.
        groups : ndarray of shape (N',), optional
            Number of each sample's group.
        blocks : tuple of int, optional
            Widths of the encoders' parts of an embedding.

        Returns
        -------
        cache : ImageCache
        position : ndarray of shape (N',)
            Index of the key that each sample became; -1 for one of weight 0.
        """
        weights = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        kept = np.flatnonzero(weights > 0)
        # scaled so that the sum of huge weights does not overflow; a power of two changes no digit
        exponent = np.frexp(weights.max())[1]
        weights = np.ldexp(weights, -exponent)
        # adding 0.0 turns -0.0 into 0.0, so that rows which are equal have equal bytes
        rows = np.ascontiguousarray(features if len(kept) == len(labels) else features[kept], dtype=np.float32)
        rows = rows + np.float32(0)
        # the first byte must be that of the largest digits: rounding, which changes with the size of a batch, then
        # changes no order, nor the folds that follow it
        if sys.byteorder == "little":
            rows.byteswap(inplace=True)
        as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, image = np.unique(as_bytes, return_inverse=True)
        pairs, first, inverse = np.unique(image * n_classes + labels[kept], return_index=True, return_inverse=True)
        del rows, as_bytes  # as large as the support set
        merged = np.bincount(inverse, weights=weights[kept], minlength=len(first))
        ranks = class_ranks(*np.divmod(pairs, n_classes), merged, n_classes, text)
        order = np.lexsort((ranks[pairs % n_classes], pairs // n_classes))
        position = np.full(len(labels), -1, dtype=np.intp)
        position[kept] = np.argsort(order)[inverse]
        chosen, merged = kept[first[order]], merged[order]
        unit = float(merged.mean())
        made = cls(
            features[chosen].astype(np.float32, copy=False),
            labels[chosen].astype(np.intp),
            (merged / unit).astype(np.float32),
            n_classes,
            weight_unit=float(np.ldexp(unit, exponent)),
            groups=None if groups is None else joined_groups(groups[kept], inverse)[order],
            blocks=blocks,
        )
        return made, position

    @property
    def values(self) -> Floats:
        """Cache values (N, C): one-hot labels times sample weights."""
        values = np.zeros((len(self.labels), self.n_classes), dtype=np.float32)
        values[np.arange(len(self.labels)), self.labels] = self.weights
        return values

    def value_rows(self, like: Tensor) -> Tensor:
        """Cache values (N, C) as a tensor like another, made where they are used."""
        labels, weights = to_tensors(self.labels, self.weights, like=like)
        return weights.new_zeros(len(labels), self.n_classes).scatter_(1, labels[:, None], weights[:, None])

    @property
    def shots(self) -> Integers:
        """Number of keys of each class, shape (C,)."""
        return np.bincount(self.labels, minlength=self.n_classes)

    def known_classes(self, text: Floats | None) -> NDArray[np.bool_]:
        """Mask (C,) of the classes that have a key in use or a text; of others nothing is known.

        Parameters
        ----------
        text : ndarray of shape (C, D) or None
            Zero rows are classes without text; None where no class has any.
        """
        has_images: NDArray[np.bool_] = np.bincount(self.labels[self.weights > 0], minlength=self.n_classes) > 0
        return has_images if text is None else has_images | text.any(axis=1)

    def unknown_classes(self, text: Floats | None, like: Tensor) -> Tensor | None:
        """Mask (C,) of all but the `known_classes`, as `functional.rule_out` takes it: None where there are none."""
        known = self.known_classes(text)
        return None if known.all() else to_tensors(~known, like=like)[0]

    @property
    def singleton(self) -> NDArray[np.bool_]:
        """Mask (N,) of keys whose class has none but those of their group: left out, they leave nothing of it.

        The answer to a left-out sample is one to a new image if the sample is no singleton.
        """
        groups = np.arange(len(self.labels)) if self.groups is None else self.groups
        pairs = np.unique(np.stack([self.labels, groups], 1), axis=0)
        alone: NDArray[np.bool_] = np.bincount(pairs[:, 0], minlength=self.n_classes) == 1
        return alone[self.labels]

    @property
    def independent_shots(self) -> NDArray[np.float64]:
        """Number of independent samples of each class, shape (C,): a group counts as one."""
        shots: NDArray[np.float64] = np.zeros(self.n_classes)
        np.add.at(shots, self.labels, self.independence)
        return shots

    @property
    def independence(self) -> NDArray[np.float64]:
        """Part of an independent sample that each key is, shape (N,): one over the size of its group."""
        if self.groups is None:
            return np.ones(len(self.labels))
        _, group, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
        return 1 / sizes[group]

    def split(self, features: Tensor) -> list[Tensor]:
        """Split embeddings (n, D) into each encoder's own, L2-normalized; those of one encoder stay as they are."""
        if self.blocks is None:
            return [features]
        return [F.normalize(part) for part in features.split(list(self.blocks), dim=1)]

    def affinity(self, queries: Tensor) -> Tensor:
        """Image affinity ``A_img = f Fᵀ`` (n, N) of L2-normalized queries (n, D)."""
        return F.affinity(queries, *to_tensors(self.keys, like=queries))

    def evidence(self, queries: Tensor, beta: float) -> Tensor:
        """Tip-Adapter's evidence ``exp(−β (1 − f Fᵀ)) L`` (n, C) of L2-normalized queries (n, D)."""
        labels, weights = to_tensors(self.labels, self.weights, like=queries)
        return F.one_hot_evidence(self.affinity(queries), labels, weights, self.n_classes, beta)

    def class_order(self, text: Tensor | None) -> Integers:
        """Order the classes (C,) by their first key, then by their text (C, D), so independently of their names."""
        first = np.full(self.n_classes, len(self.labels))
        np.minimum.at(first, self.labels, np.arange(len(self.labels)))
        rows = [[]] * self.n_classes if text is None else text.tolist()
        return np.array(sorted(range(self.n_classes), key=lambda c: (first[c], rows[c])), dtype=np.intp)

    def rename_classes(self, names: Integers) -> ImageCache:
        """Return the cache with class c renamed to ``names[c]``."""
        return replace(self, labels=names[self.labels])

    def keep(self, chosen: NDArray[np.bool_]) -> ImageCache:
        """Return the cache with only the keys where `chosen` (N,) is True; the number of classes stays."""
        weights = self.weights[chosen]
        unit = weights.mean()
        return replace(
            self,
            keys=self.keys[chosen],
            labels=self.labels[chosen],
            weights=weights / unit,
            weight_unit=self.weight_unit * float(unit),
            groups=None if self.groups is None else self.groups[chosen],
        )

    def set_aside(self, chosen: NDArray[np.bool_]) -> ImageCache:
        """Return the cache with all keys, of which those where `chosen` (N,) is True have weight 0."""
        weights = np.where(chosen, np.float32(0), self.weights)
        unit = weights[~chosen].mean()
        return replace(self, weights=weights / unit, weight_unit=self.weight_unit * float(unit))


def joined_groups(groups: Integers, keys: Integers) -> Integers:
    """Groups of the keys (K,) that samples with groups (N,) became: groups which share a key are one.

    Parameters
    ----------
    groups : ndarray of shape (N,)
    keys : ndarray of shape (N,)
        Key of each sample.
    """
    _, group = np.unique(groups, return_inverse=True)
    n_keys = int(keys.max()) + 1
    edges = coo_matrix((np.ones(len(keys)), (keys, n_keys + group)), shape=(n_keys + len(group),) * 2)
    joined: Integers = connected_components(edges, directed=False)[1][:n_keys].astype(np.intp)
    return joined


def class_ranks(
    images: Integers, labels: Integers, weights: NDArray[Any], n_classes: int, text: Floats | None
) -> Integers:
    """Rank the classes (C,) by their images, the weights of these and their text, so independently of their names.

    Parameters
    ----------
    images : ndarray of shape (N,)
        Number of each key's image, ascending.
    labels, weights : ndarray of shape (N,)
    n_classes : int
    text : ndarray of shape (C, D) or None
    """
    keys_of_class = [np.flatnonzero(labels == c) for c in range(n_classes)]
    contents = [
        (images[keys].tolist(), weights[keys].tolist(), [] if text is None else text[c].tolist())
        for c, keys in enumerate(keys_of_class)
    ]
    ranks = np.empty(n_classes, dtype=np.intp)
    ranks[sorted(range(n_classes), key=contents.__getitem__)] = np.arange(n_classes)
    return ranks


@dataclass(frozen=True)
class Projection:
    """A small network, ``normalize(x W + b + relu(x U + a) V)``: MetaNet or Img2TxtNet, trained or in closed form.

    Attributes
    ----------
    weight : ndarray of shape (D, d) or None
        None stands for the identity.
    bias : ndarray of shape (d,)
    hidden : tuple of (U (D, h), a (h,), V (h, d)) or None
    """

    weight: Floats | None
    bias: Floats
    hidden: tuple[Floats, Floats, Floats] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map (n, D) to L2-normalized (n, d)."""
        return self.to_tensors(x)(x)

    def to_tensors(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the map with its arrays as tensors, for many calls with inputs like one."""
        weight = None if self.weight is None else to_tensors(self.weight, like=like)[0]
        (bias,) = to_tensors(self.bias, like=like)
        hidden = None if self.hidden is None else to_tensors(*self.hidden, like=like)

        def project(x: Tensor) -> Tensor:
            mapped = (x if weight is None else x @ weight) + bias
            if hidden is not None:
                u, a, v = hidden
                mapped = mapped + torch.relu(x @ u + a) @ v
            return F.normalize(mapped)

        return project


@dataclass(frozen=True)
class TextCache:
    """Class text features as keys, indexed by the labels of the image cache.

    Attributes
    ----------
    keys : ndarray of shape (C, d), float32
        L2-normalized output of the MetaNet (the text features themselves in the calibrated form); a class without
        text has zeros.
    img2txt : Projection
        Maps a query's image embedding to the space of the keys.
    metanet : Projection or None
        Maps the class text features to the keys; None stands for the identity.
    modality_means : tuple of two ndarray of shape (D,), or None
        Means of the images and of the texts, for affinities of centered features.
    """

    keys: Floats
    img2txt: Projection
    metanet: Projection | None = None
    modality_means: tuple[Floats, Floats] | None = None

    @property
    def present(self) -> NDArray[np.bool_]:
        """Mask (C,) of the classes that have a text."""
        return np.asarray(np.any(self.keys != 0, axis=1))

    def class_affinity(self, queries: Tensor) -> Tensor:
        """Text affinity per class, ``Img2Txt(f) · MetaNet(T)ᵀ`` (n, C), of L2-normalized queries (n, D)."""
        return F.affinity(self.img2txt(queries), *to_tensors(self.keys, like=queries))

    def affinity(self, queries: Tensor, labels: Integers) -> Tensor:
        """Text affinity per key, ``A_txt`` (n, N): class affinities indexed by the labels (N,) of the image cache."""
        return F.text_affinity(self.img2txt(queries), *to_tensors(self.keys, labels, like=queries))
