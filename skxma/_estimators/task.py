"""The few-shot problem that an estimator hands to the mathematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from skxma._estimators.embedding_input import EmbeddingInput
from skxma._estimators.support_set import SupportSet
from skxma._evidence.semi_supervised.pool import Pool
from skxma._labels.arrays import listed
from skxma._runtime.callbacks import CallbackTask
from skxma._runtime.warning import warn
from skxma._statistics import class_means
from skxma.caches import Floats, ImageCache, Integers
from skxma.embeddings import unit_rows


@dataclass(frozen=True)
class Task:
    """A few-shot problem, ready for the mathematics.

    Attributes
    ----------
    cache : ImageCache
        The support set.
    text : Tensor of shape (C, D) or None
        L2-normalized class text features; zero rows for classes without text, None where no class has any.
    text_features : ndarray of shape (C, D)
        The same, with class means where no class has any text.
    prompts : callable
        Returns the text features of each prompt of the classes (C, P, D), zero rows where a class has fewer; None where
        no class has any. Encodes them when it is called.
    classes : ndarray of shape (C,)
        Labels.
    logit_scale : float
        The encoder's.
    device : torch.device
    dtype : torch.dtype
    inputs : EmbeddingInput
        Encodes further words.
    support : SupportSet
        The samples that the cache was built from, and those without a label.
    position : ndarray of shape (n_samples,)
        Key that each sample became; -1 for none.
    pool : Pool or None
        Images without labels.
    pool_position : ndarray of shape (n_unlabeled,) or None
        Row of the pool that each image without a label became; -1 for none.
    fitted : dict
        Attributes that the estimator will have; the classifier adds its own.
    callback_task : CallbackTask
        Tells callbacks about the learning.
    """

    cache: ImageCache
    text: Tensor | None
    text_features: Floats
    prompts: Callable[[], Floats | None]
    classes: NDArray[Any]
    logit_scale: float
    device: torch.device
    dtype: torch.dtype
    inputs: EmbeddingInput
    support: SupportSet
    position: Integers
    pool: Pool | None
    pool_position: Integers | None
    fitted: dict[str, Any]
    callback_task: CallbackTask

    @property
    def like(self) -> Tensor:
        """An empty tensor on the device and in the precision of the task."""
        return torch.empty(0, device=self.device, dtype=self.dtype)

    @property
    def n_features(self) -> int:
        """Width of the embeddings; of several encoders that of the first, to which the texts belong."""
        return int(self.cache.keys.shape[1] if self.cache.blocks is None else self.cache.blocks[0])

    def per_sample(self, of_keys: NDArray[Any]) -> NDArray[Any]:
        """Values of the keys (N,) for the samples (n_samples,); 0 for a sample that became no key."""
        return np.where(self.position >= 0, of_keys[np.maximum(self.position, 0)], of_keys.dtype.type(0))

    def without(self, left_out: NDArray[np.bool_]) -> Task:
        """The task without the samples of some keys (N,); their classes stay, and no callback watches it."""
        cache = self.cache.keep(~left_out)
        place = np.where(left_out, -1, np.cumsum(~left_out) - 1)
        position = np.where(self.position >= 0, place[np.maximum(self.position, 0)], -1)
        gone = position < 0
        if self.support.unlabeled is not None:
            gone &= ~self.support.unlabeled
        support = replace(self.support, weights=np.where(gone, 0.0, self.support.weights))
        text_features = class_mean_directions(cache) if self.text is None else self.text_features
        fitted = {
            **self.fitted,
            "image_cache_": cache,
            "sample_position_": position,
            "sample_weight_": support.weights[position >= 0],
            "text_features_": text_features,
        }
        return replace(
            self,
            cache=cache,
            text_features=text_features,
            support=support,
            position=position,
            fitted=fitted,
            callback_task=CallbackTask(),
        )


def warn_of_unknown_classes(task: Task) -> None:
    """Warn of classes that a fit was told of and knows nothing of."""
    unknown = task.classes[~task.cache.known_classes(task.text_features)].tolist()
    if not unknown:
        return
    one = len(unknown) == 1
    warn(
        f"{'Class' if one else 'Classes'} {listed(unknown)} {'has' if one else 'have'} neither images nor a text, so "
        f"nothing is known of {'it' if one else 'them'}: evidence='calibrated' gives a probability of 0, other methods "
        "a guess. Add images with partial_fit, give a text by text_features or class_names, or leave "
        f"{'it' if one else 'them'} out for now."
    )


def class_mean_directions(cache: ImageCache) -> Floats:
    """L2-normalized class means (C, D), which stand for the text where there is none."""
    keys, labels, weights = map(torch.as_tensor, (cache.keys, cache.labels, cache.weights))
    return unit_rows(class_means(keys, labels, weights, cache.n_classes)[0].numpy())


def torch_seed(random_state: Any) -> int:
    """A seed for torch from a `random_state` parameter."""
    return int(check_random_state(random_state).randint(2**31 - 1))
