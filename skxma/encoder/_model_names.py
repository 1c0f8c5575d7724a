"""Resolve a model name to the place its weights come from."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from skxma.encoder import _timm
from skxma.encoder._checkpoints import TINY_FOLDER, identify_files, identify_folder
from skxma.encoder._open_clip import _open_clip
from skxma.encoder._source import Source
from skxma.errors import EncoderNotFoundError, WeightsError

LIBRARIES = ("timm", "transformers", "sentence-transformers")


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
    library = library_of(model)
    if library is not None:
        return _find_in_library(model, library, model.removeprefix(f"{library}:"))
    architecture, _, tag = model.partition("/")
    pretrained = _open_clip().pretrained
    if pretrained.get_pretrained_cfg(architecture, tag):
        return Source(model, architecture=architecture, tag=tag)
    raise EncoderNotFoundError(_suggest(model, architecture, tag))


def library_of(model: str) -> str | None:
    """Return the library that a model's name begins with; None for open_clip's.

    Parameters
    ----------
    model : str
        As in `find_source`.

    Returns
    -------
    library : str or None
        One of `LIBRARIES`.
    """
    prefix, colon, _ = model.partition(":")
    return prefix if colon and prefix in LIBRARIES else None


def _find_in_library(model: str, library: str, name: str) -> Source:
    """Parse a name of timm, transformers or sentence-transformers: a folder, a repository, or timm's own."""
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return Source(model, identity=identify_files(folder), library=library)
    looks_like_a_path = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_a_path:
        raise WeightsError(f"The encoder {model!r}: no such folder: {str(folder)!r} (looked from {str(Path.cwd())!r}).")
    if library == "timm" and "/" not in name:
        _timm.check_name(model, name)
        return Source(model, architecture=name, library=library)
    if not name or name.count("/") != 1 or not all(name.split("/")):
        raise EncoderNotFoundError(
            f"The encoder {model!r} names neither a repository of the hub, {library}:organization/name, nor a folder "
            f"that exists, {library}:/path/to/folder."
        )
    return Source(model, repo=name, library=library)


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
        f"{repo!r}, {where!r}, 'timm:NAME', 'transformers:NAME', 'sentence-transformers:NAME', 'photo', 'tiny'."
    )
