"""Libraries' own look-ups, kept off the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from skxma.encoder._checkpoints import fetch_file
from skxma.errors import WeightsError

T = TypeVar("T")


@contextmanager
def hub_offline() -> Iterator[None]:
    """Keep what a library looks up by itself (a text tower's configuration, a tokenizer) off the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def load_cached_first(
    load: Callable[[bool], T], repo: str, config: str, *, cache_dir: str | None, local_files_only: bool, copied_as: str
) -> T:
    """Load a repository from the hub's cache if it is there, else fetch it.

    Weights that are there need no network, and don't change under a fitted model.

    Parameters
    ----------
    load : callable
        Loads, given whether to look in the cache alone; an OSError says that files are not there.
    repo : str
        "organization/name".
    config : str
        A file that the repository must have; it is asked for first, so that the error names a remedy.
    cache_dir : str or None
        The hub's cache folder.
    local_files_only : bool
        Whether to refuse to download.
    copied_as : str
        The name of the encoder once the repository was copied to the folder DIR.

    Returns
    -------
    loaded : object
        What `load` returned.

    Raises
    ------
    WeightsError
        If the repository can't be had.
    """
    try:
        with hub_offline():
            return load(True)
    except (OSError, ValueError):
        fetch_file(repo, (config,), cache_dir=cache_dir, local_files_only=local_files_only, copied_as=copied_as)
        if local_files_only:
            raise
    return load(False)


def loading_error(name: str, error: Exception) -> WeightsError:
    """Return the error of a model that its library could not build.

    Parameters
    ----------
    name : str
        The encoder's name, as it was given.
    error : Exception
        The library's.

    Returns
    -------
    error : WeightsError
    """
    return WeightsError(
        f"The encoder {name!r} could not be loaded: its weights are damaged or don't fit its configuration "
        f"({type(error).__name__}: {error!s:.600}). Delete the files and fetch them anew, or correct the configuration."
    )


def require_file(folder: Path, name: str, encoder: str) -> Path:
    """Return a folder's file.

    Parameters
    ----------
    folder : pathlib.Path
    name : str
        Of the file.
    encoder : str
        The encoder's name, as it was given.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    WeightsError
        If there is none.
    """
    path = folder / name
    if not path.is_file():
        raise WeightsError(f"The encoder {encoder!r}: the folder {str(folder)!r} holds no {name}.")
    return path
