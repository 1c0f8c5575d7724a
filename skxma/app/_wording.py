"""Errors and warnings in words for the page: facts, and what the page's user can do, which is never Python code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from skxma.errors import (
    EncoderMismatchError,
    EncoderNotFoundError,
    ImageError,
    ModelFileError,
    OutOfMemoryError,
    SkxmaError,
    WeightsError,
)

RESTART = "stop skxma app in its terminal (Ctrl-C) and start it again with"
MAX_NAME = 40
EXPECTED = (SkxmaError, ValueError, OSError, ImportError, MemoryError)

_NAME = re.compile(r"\b(?:model=|encoder[= ])(?P<quote>['\"])(?P<name>.*?)(?P=quote)")
_MEANT = re.compile(r"did you mean '?(?P<name>[^\s'?]+)'?", re.IGNORECASE)
_CODE = re.compile(
    r"\w\(|\w=\S|\{\w+:|\b(?:joblib|np|torch|PIL|skxma|open_clip|clf)\.\w|MAX_IMAGE_PIXELS|class_names|set_params"
    r"|\b(?:pass|call|wrap|hf download)\b|\bas joblib writes",
    re.IGNORECASE,
)
_CLAUSE_ENDS = ",:;("
_LEAST_WORDS = 2
_PARTS = re.compile(r"(?<=[.?!])\s+|\n+\s*")
_TOO_LONG = re.compile(r"longer than the (?P<n>\d+) tokens")


def is_expected(error: BaseException) -> bool:
    """Return True if the user of the page can mend the error, rather than skxma's developers."""
    return isinstance(error, EXPECTED)


def words_of(error: BaseException) -> str:
    """An error in words for the page."""
    text = str(error)
    if not is_expected(error):
        return (
            f"Something went wrong in skxma itself ({type(error).__name__}: {text}); the terminal of skxma app shows "
            "more. Your images are as they were."
        )
    if isinstance(error, EncoderNotFoundError):
        found, meant = _NAME.search(text), _MEANT.search(text)
        name = f"the encoder {found['name']!r}" if found else "this encoder"
        hint = f" Did you mean {meant['name']}?" if meant else ""
        better = meant["name"] if meant else "ViT-B-32/openai"
        return f"skxma does not know {name}.{hint} To use another, {RESTART} `skxma app --encoder {better}`."
    if isinstance(error, WeightsError):
        return (
            f"{without_code(text)} Try again where there is a network, or {RESTART} an encoder on this machine: "
            "`skxma app --encoder local-dir:FOLDER`, or `skxma app --encoder photo`, which knows photographs and comes "
            "with `pip install 'skxma[photo]'`, or `skxma app --encoder tiny`, which is bundled and knows drawings."
        )
    if isinstance(error, OutOfMemoryError):
        return (
            f"{without_code(text)} Close other programs, or {RESTART} a smaller encoder (`skxma app --encoder NAME`) "
            "or on the processor (`skxma app --device cpu`)."
        )
    if isinstance(error, EncoderMismatchError):
        return (
            "The model was fitted with other weights than its encoder's name stands for on this machine, so its "
            "answers would mean nothing. Open it where it was fitted, or fit a model of your own."
        )
    if isinstance(error, ModelFileError):
        return f"{without_code(text)} The page opens .skxma files, as `Save the model` and `skxma fit` write them."
    if isinstance(error, MemoryError):
        return f"{without_code(text)} There is too little memory for it; make it smaller."
    if isinstance(error, ImportError):
        return f"{without_code(text)} Install what is missing in the terminal, and start skxma app again."
    if isinstance(error, ImageError) and "decompression bomb" in text:
        return f"{text.partition(':')[0]}: it has too many pixels; make it smaller."
    return without_code(text)


def words_of_warning(text: str, names: Sequence[str] = ()) -> str:
    """A warning in words for the page; `names` are those of its classes."""
    too_long = _TOO_LONG.search(text)
    if too_long is None:
        return without_code(text)
    # a prompt that is quoted in the warning may be cut in its turn
    quoted = [name for name in names if name[:40] in text]
    which = f"The name “{shortened(max(quoted, key=len))}”" if quoted else "A name"
    return (
        f"{which} is longer than the {too_long['n']} tokens (pieces of words) that the encoder reads; the rest of it "
        "is ignored. Shorten it and fit again."
    )


def shortened(name: str) -> str:
    """A name that fits into a sentence."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def without_code(text: str) -> str:
    """The sentences of a message without Python code and without advice to a programmer."""
    text = re.sub(r"\b(?:model|encoder)=(?=['\"])", "the encoder ", text)
    text = re.sub(r"\bdevice=(?=['\"])", "the device ", text)
    kept = " ".join(filter(None, map(_facts, _PARTS.split(text))))
    if not kept:
        return "skxma refuses this; the terminal of skxma app shows more."
    return f"T{kept[1:]}" if kept.startswith("the ") else kept


def _facts(sentence: str) -> str:
    """A sentence up to the clause that holds code or advice to a programmer; empty where too little is left."""
    code = _CODE.search(sentence)
    if code is not None:
        sentence = sentence[: max(0, *map(sentence[: code.start()].rfind, _CLAUSE_ENDS))] if code.start() else ""
        sentence = re.sub(r"[\s,:;(]*(?:\b(?:and|or)|[:;] if\b[^:;]*)?$", "", sentence)
        if len(sentence.split()) < _LEAST_WORDS:
            return ""
    sentence = sentence.rstrip(" ,:;")
    return f"{sentence}." if sentence and sentence[-1] not in ".?!" else sentence
