"""The task of each way to fit: on first images, on further ones, without some classes, or on what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skxma._estimators.embedding_input import EmbeddingInput
from skxma._estimators.fitted_attributes import kept_attributes, without_fitted
from skxma._estimators.pool_learning import KEPT_POOL, KEPT_POOL_PER_CLASS
from skxma._estimators.sample_names import names_of, names_with, names_without
from skxma._estimators.support_set import SupportSet, check_one_label_each, sample_weights
from skxma._estimators.task import Task, class_mean_directions
from skxma._evidence.semi_supervised.pool import Pool
from skxma._labels.arrays import join_labels, members, split_unlabeled
from skxma._labels.class_table import ClassTable, announced_classes, members_to_drop, resolve_classes
from skxma._labels.groups import group_names
from skxma._runtime.callbacks import CallbackTask
from skxma._runtime.device import explain_out_of_memory
from skxma._runtime.threads import limit_blas_threads, limit_torch_threads
from skxma._runtime.warning import warn
from skxma._sklearn_compat import num_samples
from skxma.caches import ImageCache

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

DOUBLE_ENTRIES = 2**16
"""Numbers of a support set, with its scores, up to which a model computes in double precision."""
FIT_PASSES = 1000
"""Passes over the scores by which the work of a fit is estimated."""


@contextmanager
def first_task(
    clf: BaseFewShotClassifier, X: Any, y: Any, sample_weight: Any, groups: Any, classes: Any = None
) -> Iterator[Task]:
    """The task of a fit on images, with `classes` announced; labels are settled before images are encoded."""
    fitted: dict[str, Any] = {}
    with CallbackTask.fit(clf, X, y, sample_weight, 2, lambda: fitted) as fit_task:
        if y is None:
            raise ValueError(f"{type(clf).__name__} requires y to be passed, but the target y is None.")
        if isinstance(X, (str, os.PathLike)):
            raise ValueError(f"X is the single path {str(X)!r}; pass a list of images, one per label.")
        clf._check_parameters()
        unfitted = without_fitted(clf)
        inputs = EmbeddingInput.of(unfitted)
        X = inputs.joined(X)
        with fit_task.subtask("encode"):
            embedded = inputs.embed_support(X) if inputs.holds_embeddings(X) else None
            check_one_label_each(X, y)
            weights = sample_weights(sample_weight, num_samples(y))
            names = None if groups is None else group_names(groups, num_samples(y))
            y, unlabeled = split_unlabeled(y, clf.unlabeled_label)
            announced = announced_classes(classes, y, unlabeled, clf.unlabeled_label)
            table = _resolved(clf, y, weights, unlabeled, announced=announced)
            embedded = inputs.embed_support(X) if embedded is None else embedded
            features = embedded.features
            unread = np.asarray(np.isnan(features).any(axis=1))
            if unread.any():
                # an encoder with on_error="skip" has warned of them
                weights = np.where(unread, 0.0, weights)
                table = _resolved(clf, y, weights, unlabeled, announced=announced)
                features = np.where(unread[:, None], np.float32(0), features)
        labels = table.classes[table.indices]
        support = SupportSet(features, labels, weights, unlabeled, names, embedded.blocks)
        fitted.update(embedded.attributes, sample_names_=names_of(X))
        with prepared(clf, inputs, support, table, fitted, fit_task) as task:
            _warn_of_labeled_copies(task)
            _warn_of_one_group_each(task)
            yield task


def _warn_of_labeled_copies(task: Task) -> None:
    """Warn of images without labels that are labeled ones too; growing a model meets those whose labels are new."""
    support, position = task.support, task.pool_position
    if support.unlabeled is None or position is None:
        return
    copies = int((support.weights[support.unlabeled] > 0)[position < 0].sum())
    if copies:
        warn(
            f"{copies} of {len(position)} images without labels are copies of labeled ones, left out: a labeled image "
            "that judges the others must not be among them."
        )


def _warn_of_one_group_each(task: Task) -> None:
    """Warn of groups that leave no image to be judged by others of its class, as the labels given once more do."""
    cache = task.cache
    several = len(cache.labels) > len(np.unique(cache.labels))
    if task.support.groups is not None and several and cache.singleton.all():
        warn(
            "groups gives all images of each class one group, so that no image can be judged by others of its class: "
            "there is no left-out accuracy. Groups are images that belong together, such as those of one burst; leave "
            "groups out if there are none."
        )


@contextmanager
def grown_task(
    clf: BaseFewShotClassifier, X: Any, y: Any, sample_weight: Any, groups: Any, classes: Any
) -> Iterator[Task]:
    """The task of a fitted classifier's samples and further ones."""
    clf._validate_params()
    clf._check_parameters()
    inputs = EmbeddingInput.of(clf)
    X = inputs.joined(X)
    check_one_label_each(X, y)
    weights = sample_weights(sample_weight, num_samples(y))
    names = None if groups is None else group_names(groups, num_samples(y))
    y, unlabeled = split_unlabeled(y, clf.unlabeled_label, clf.classes_[0])
    announced = announced_classes(classes, y, unlabeled, clf.unlabeled_label, clf.classes_)
    join_labels(clf.classes_, y)
    fresh = SupportSet(inputs.embed_queries(X), y, weights, unlabeled, names)
    support = SupportSet.from_fitted(clf).append(fresh).append(SupportSet.pool_of_fitted(clf))
    table = _resolved(clf, support.labels, support.weights, support.unlabeled, announced=announced, known=clf.classes_)
    fitted = {**kept_attributes(clf), "sample_names_": names_with(clf, X)}
    if hasattr(clf, "dropped_classes_"):
        back = members(clf.dropped_classes_, support.labels.tolist())
        fitted["dropped_classes_"] = clf.dropped_classes_[~back]
        table = table.without(fitted["dropped_classes_"])
    with prepared(clf, inputs, support, table, fitted, CallbackTask()) as task:
        yield task


@contextmanager
def kept_task(clf: BaseFewShotClassifier) -> Iterator[Task]:
    """The task of a fitted classifier's labeled samples."""
    support = SupportSet.from_fitted(clf).with_found_groups(clf)
    table = _resolved(clf, support.labels, support.weights, None, known=clf.classes_)
    if hasattr(clf, "dropped_classes_"):
        table = table.without(clf.dropped_classes_)
    with prepared(clf, EmbeddingInput.of(clf), support, table, {}, CallbackTask()) as task:
        yield task


@contextmanager
def reduced_task(clf: BaseFewShotClassifier, classes: Any) -> Iterator[Task]:
    """The task of a fitted classifier's samples without those of some classes."""
    check_is_fitted(clf)
    dropped = members_to_drop(classes, clf.classes_)
    n_kept = int((~members(clf.classes_, dropped.tolist())).sum())
    before = SupportSet.from_fitted(clf).append(SupportSet.pool_of_fitted(clf))
    support = before.without(dropped)
    if n_kept < 2 or not support.labeled_weights.any():
        raise ValueError(f"{n_kept} classes would remain; a classifier needs two, one of them with images.")
    table = _resolved(clf, support.labels, support.weights, support.unlabeled, known=clf.classes_)
    fitted = {
        **kept_attributes(clf),
        "sample_names_": names_without(clf, ~before.is_of(dropped)),
        "dropped_classes_": np.unique(join_labels(getattr(clf, "dropped_classes_", dropped), dropped)),
    }
    with prepared(clf, EmbeddingInput.of(clf), support, table.without(dropped), fitted, CallbackTask()) as task:
        yield task


@contextmanager
def prepared(
    clf: BaseFewShotClassifier,
    inputs: EmbeddingInput,
    support: SupportSet,
    table: ClassTable,
    fitted: dict[str, Any],
    callback_task: CallbackTask,
) -> Iterator[Task]:
    """The task of a support set whose classes are settled, and the surroundings in which it is learned."""
    n_features, n_classes, blocks = support.embeddings.shape[1], len(table.classes), support.blocks
    text = inputs.embed_classes(table, clf.templates, n_features if blocks is None else blocks[0])
    weights = support.labeled_weights
    groups = support.with_near_duplicates(fitted.get("sample_names_")).group_numbers
    cache, position = ImageCache.build(support.embeddings, table.indices, n_classes, weights, text, groups, blocks)
    if support.groups is not None:
        fitted["groups_"] = support.groups[weights > 0]
    small = len(cache.keys) * (n_features + n_classes) <= DOUBLE_ENTRIES
    fitted.update(
        classes_=table.classes,
        class_names_=table.names,
        image_cache_=cache,
        sample_position_=position,
        sample_weight_=weights[weights > 0],
        text_features_=class_mean_directions(cache) if text is None else text,
        encoder_logit_scale_=inputs.logit_scale,
        # batch-invariant to the last digits where that costs nothing
        compute_dtype_="float64" if small else "float32",
    )
    pool = pool_position = None
    if support.unlabeled is not None:
        rows = support.unlabeled
        pool, pool_position = Pool.build(support.embeddings[rows], support.weights[rows], cache)
        # some of a large pool stand for it when the model grows
        most = max(KEPT_POOL, KEPT_POOL_PER_CLASS * n_classes)
        fitted.update(unlabeled_position_=pool_position, unlabeled_cache_=None if pool is None else pool.thinned(most))
    device, dtype = inputs.compute_device, getattr(torch, fitted["compute_dtype_"])
    n = len(cache.keys)
    work = float(n) * n * n_features + float(n) * n_classes * FIT_PASSES
    memory_guard = explain_out_of_memory(f"Fitting {n} images of {n_classes} classes", device)
    with (
        limit_torch_threads(work),
        limit_blas_threads(work),
        memory_guard,
        # the caller may have turned gradients off, as scripts that encode do
        torch.inference_mode(False),
        torch.enable_grad(),
        callback_task.subtask("learn", clf._n_steps()) as learn_task,
    ):
        yield Task(
            cache=cache,
            text=None if text is None else torch.as_tensor(text, device=device, dtype=dtype),
            text_features=fitted["text_features_"],
            prompts=partial(inputs.embed_prompts, table, clf.templates),
            classes=table.classes,
            logit_scale=fitted["encoder_logit_scale_"],
            device=device,
            dtype=dtype,
            inputs=inputs,
            support=support,
            position=position,
            pool=pool,
            pool_position=pool_position,
            fitted=fitted,
            callback_task=learn_task,
        )


def _resolved(
    clf: BaseFewShotClassifier, y: Any, weights: NDArray[np.float64], unlabeled: NDArray[np.bool_] | None, **more: Any
) -> ClassTable:
    """The classes of labels (n_samples,), of which those of weight 0 and those that stand for none do not count."""
    counts = weights > 0 if unlabeled is None else (weights > 0) & ~unlabeled
    kept = None if counts.all() else counts
    marker = clf.unlabeled_label
    return resolve_classes(y, clf.class_names, clf.text_features, kept, marker=marker, **more)
