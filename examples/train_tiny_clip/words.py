"""A token table that starts from public word vectors, so that unseen words lie near seen ones."""

from pathlib import Path

import numpy as np
import torch
from sources import package, read_json

# The table's spread at the start: wide enough that AdamW's steps shift a word without erasing where it came from.
SPREAD = 0.1


def token_table(work: Path, tokenizer, width: int, seed: int = 0) -> torch.Tensor:
    """Return (vocab, width) start values: GloVe's principal axes for tokens that are whole words, else noise."""
    words, vectors = _known_words(work, tokenizer)
    centered = vectors - vectors.mean(0)
    axes = np.linalg.svd(centered, full_matrices=False)[2][:width]
    table = np.random.default_rng(seed).normal(0, 1, (tokenizer.vocab_size, width)).astype(np.float32)
    projected = centered @ axes.T
    table[words, : projected.shape[1]] = projected / projected.std()
    return torch.from_numpy(SPREAD * table)


def _known_words(work: Path, tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of the tokens that are words with a vector, and the unit vectors; read once, kept in `work`."""
    cache = work / "words.npz"
    if not cache.exists():
        table = read_json(next(package("words", work).glob("wink-embeddings*.json")))
        vectors = table["vectors"]
        known = {i: t[: -len("</w>")] for t, i in tokenizer.encoder.items() if t.endswith("</w>")}
        known = {i: word for i, word in known.items() if word in vectors}
        found = np.array([vectors[w][: table["dimensions"]] for w in known.values()], dtype=np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        np.savez(cache, ids=np.array(list(known)), vectors=found)
    stored = np.load(cache)
    return stored["ids"], stored["vectors"]
