"""Refuse a CLIP without its preprocessing and its tokenizer, which looks like an encoder and is none."""

from __future__ import annotations

_LIBRARIES = {"open_clip", "clip"}


def refuse_bare_model(encoder: object) -> None:
    """Refuse a model of open_clip or of OpenAI's clip, whose `encode_image` takes tensors, not images.

    Parameters
    ----------
    encoder : object
        What was given as an encoder.

    Raises
    ------
    TypeError
        If it is such a model; the message names encoders that wrap it.
    """
    libraries = [base.__module__.partition(".")[0] for base in type(encoder).__mro__]
    found = next((library for library in libraries if library in _LIBRARIES), None)
    if found is None:
        return
    raise TypeError(
        f"The encoder is a bare {found} model ({type(encoder).__name__}), which takes tensors and tokens and holds "
        "neither its preprocessing nor its tokenizer. Pass the name of its weights, CLIPEncoder('architecture/tag') or "
        "CLIPEncoder('local-dir:/path/to/folder'); or an object with encode_image(images) and encode_text(prompts) "
        "around it, as the guide's page on encoders shows."
    )
