"""Words whose text embeddings show along which directions an encoder's meanings vary."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skxma._estimators.embedding_input import EmbeddingInput
from skxma.embeddings import Floats, host_array, unit_rows
from skxma.encoder._kept_texts import kept_class_weights

VOCABULARY_TEMPLATE = "photo"


@cache
def common_words() -> tuple[str, ...]:
    """Everyday nouns and scenes: diverse rather than complete, what a photograph, a sign or a texture may show."""
    return tuple(files("skxma._estimators").joinpath("common_words.txt").read_text(encoding="utf-8").splitlines())


def embed_vocabulary(words: Any, inputs: EmbeddingInput, n_features: int) -> Floats | None:
    """L2-normalized embeddings (m, n_features) of a `vocabulary` parameter, or None for none."""
    if words is None:
        return None
    if isinstance(words, str) and words == "common" and not (inputs.has_text and inputs.text_shapes_metric):
        return None
    if isinstance(words, str):
        if words != "common":
            raise ValueError(f"vocabulary={words!r} is not known; pass 'common' or a list of words.")
        return _embed_common(inputs)
    if len(words) and all(isinstance(word, str) for word in words):
        if inputs.precomputed:
            raise ValueError(
                "vocabulary holds words, which encoder='precomputed' cannot encode; pass their embeddings."
            )
        if not inputs.has_text:
            raise ValueError(
                "vocabulary holds words, but the encoder encodes images alone; leave vocabulary at 'common', or take "
                "an encoder of images and texts."
            )
        return inputs.encode_names(list(words), VOCABULARY_TEMPLATE)
    rows = check_array(host_array(words), dtype=[np.float64, np.float32], input_name="vocabulary")
    if rows.shape[1] != n_features:
        raise ValueError(
            f"vocabulary has {rows.shape[1]} columns, the embeddings have {n_features}; "
            "both must come from one encoder."
        )
    return unit_rows(rows)


def _embed_common(inputs: EmbeddingInput) -> Floats:
    """Embeddings (m, D) of the common words: the same for every model, and so computed once per machine."""
    words = list(common_words())
    return kept_class_weights(
        inputs.text_encoder, words, VOCABULARY_TEMPLATE, lambda: inputs.encode_names(words, VOCABULARY_TEMPLATE)
    )
