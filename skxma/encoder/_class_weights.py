"""Zero-shot class weights from any encoder with a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skxma._labels.by_label import Name
from skxma.embeddings import Floats, host_array, unit_rows
from skxma.prompts import make_prompts


def has_text(encoder: Any) -> bool:
    """Tell whether an encoder encodes texts: by its `has_text`, or one without by its methods."""
    return bool(getattr(encoder, "has_text", hasattr(encoder, "encode_text")))


def text_shapes_metric(encoder: Any) -> bool:
    """Tell whether the texts of an encoder may shape the metric of its images: by its attribute, true without one."""
    return bool(getattr(encoder, "text_shapes_metric", True))


def class_weights(encoder: Any, names: Sequence[Name | None], templates: Any) -> Floats:
    """Zero-shot weights (C, D) of the classes by any encoder with `encode_text`; zero rows for classes named None."""
    known = [i for i, name in enumerate(names) if name is not None]
    given = [name for name in names if name is not None]
    if hasattr(encoder, "zero_shot_weights"):
        rows = np.asarray(host_array(encoder.zero_shot_weights(given, templates)))
    else:
        rows = np.stack([_unit_texts(encoder, make_prompts(name, templates)).mean(0) for name in given])
    weights = np.zeros((len(names), rows.shape[1]), dtype=np.float32)
    weights[known] = unit_rows(rows)
    return weights


def prompt_features(encoder: Any, names: Sequence[Name | None], templates: Any) -> Floats:
    """L2-normalized embeddings of each prompt of the classes (C, P, D); zero rows past a class's prompts."""
    prompts = [[] if name is None else make_prompts(name, templates) for name in names]
    rows = _unit_texts(encoder, [prompt for group in prompts for prompt in group])
    given = np.arange(max(map(len, prompts))) < np.array([len(group) for group in prompts])[:, None]
    features = np.zeros((*given.shape, rows.shape[1]), dtype=np.float32)
    features[given] = rows
    return features


def _unit_texts(encoder: Any, prompts: list[str]) -> Floats:
    """L2-normalized embeddings (n, D) of prompts; an encoder may return tensors of any device."""
    return unit_rows(np.asarray(host_array(encoder.encode_text(prompts))))
