"""Resolve a model name to the place its weights come from."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from skxma.encoder._checkpoints import TINY_FOLDER, identify_folder
from skxma.encoder._open_clip import _open_clip
from skxma.encoder._source import Source
from skxma.errors import EncoderNotFoundError


def find_source(model: str) -> Source:
    """Parse a model's name, without loading or fetching anything.

    Parameters
    ----------
    model : str
        As in `load`.

    Returns
    -------
    source : Source
        What it stands for.

    Raises
    ------
    EncoderNotFoundError
        If the name is unknown; suggests close ones.
    WeightsError
        If it names a folder without a model.
    """
    if model == "tiny":
        return Source(model, identity=identify_folder(TINY_FOLDER, model))
    if model == "photo":
        return Source(model, is_photo=True)
    if model.startswith("local-dir:"):
        return Source(model, identity=identify_folder(Path(model.removeprefix("local-dir:")), model))
    if model.startswith("hf-hub:"):
        return Source(model, repo=model.removeprefix("hf-hub:"))
    architecture, _, tag = model.partition("/")
    pretrained = _open_clip().pretrained
    if pretrained.get_pretrained_cfg(architecture, tag):
        return Source(model, architecture=architecture, tag=tag)
    raise EncoderNotFoundError(_suggest(model, architecture, tag))


def _suggest(model: str, architecture: str, tag: str) -> str:
    pretrained = _open_clip().pretrained
    tags = pretrained.list_pretrained_tags_by_model(architecture)
    if tags:
        close = get_close_matches(tag.lower(), tags, n=1)
        start = (
            f"The encoder {model!r} names no weights."
            if not tag
            else f"The encoder {model!r}: {architecture} has no {tag!r}."
        )
        hint = f" Did you mean {architecture}/{close[0]!s}?" if close else ""
        return f"{start}{hint} Write {architecture}/<tag>, with one of the tags: {', '.join(tags)}."
    names = sorted({name for name, _ in pretrained.list_pretrained()})
    lower = {name.lower(): name for name in names}
    close = [lower[match] for match in get_close_matches(architecture.lower(), lower, n=3, cutoff=0.5)]
    close_own = get_close_matches(model.lower(), ["tiny", "photo"], n=1)
    if close_own:
        return f"The encoder {model!r} is unknown: did you mean {close_own[0]!r}?"
    known = [(name, pretrained.list_pretrained_tags_by_model(name)) for name in close]
    meant = [f"{name}/{tag}" for name, its in known if tag in its] or [f"{name}/<tag>" for name in close]
    hint = f": did you mean {' or '.join(meant)}?" if close else "."
    where = f"local-dir:{model}" if Path(model).is_dir() else "local-dir:/path/to/folder"
    repo = f"hf-hub:{model}" if tag else "hf-hub:organization/name"
    return (
        f"The encoder {model!r} is unknown{hint} Other names: 'architecture/tag' of open_clip.list_pretrained(), "
        f"{repo!r}, {where!r}, 'photo', 'tiny'."
    )
