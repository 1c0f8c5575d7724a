"""Everyday words whose text embeddings show along which directions an encoder's meanings vary."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def common_words() -> tuple[str, ...]:
    """Everyday nouns and scenes: diverse rather than complete, what a photograph, a sign or a texture may show."""
    return tuple(files("skxma._assets").joinpath("common_words.txt").read_text(encoding="utf-8").splitlines())
