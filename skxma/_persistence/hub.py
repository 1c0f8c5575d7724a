"""Model files on the Hugging Face hub: upload with a card, and download."""

from __future__ import annotations

from pathlib import Path

from skxma.encoder._network import unreachable_reason

HUB_PREFIX = "hf-hub:"
"""Start of the name of a model of the hub, as open_clip has it for encoders."""
MODEL_FILE = "model.skxma"
CARD_FILE = "README.md"


def upload(repo: str, model: Path, card: str, *, private: bool, message: str) -> str:
    """Put a model file and its card on the hub, in one commit: both are there or neither.

    Parameters
    ----------
    repo : str
        "organization/name"; it is created if it does not exist.
    model : pathlib.Path
    card : str
        In Markdown.
    private : bool
        Whether a repository that is created is private.
    message : str
        The commit's.

    Returns
    -------
    url : str
        Address of the repository.

    Raises
    ------
    ValueError
        `repo` is no name of a repository.
    OSError
        The hub cannot be reached, refuses, or the upload broke off.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(library_name="skxma")
    files = [
        CommitOperationAdd(path_in_repo=MODEL_FILE, path_or_fileobj=model),
        CommitOperationAdd(path_in_repo=CARD_FILE, path_or_fileobj=card.encode()),
    ]
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(repo, files, commit_message=message)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name of a hub repository ({error}).") from error
    except Exception as error:  # of the hub's client, and of the one that it uses for requests
        raise OSError(
            f"The model was not uploaded to {repo!r}, where nothing has changed ({type(error).__name__}: {error}). Log "
            "in with `hf auth login`, or try again."
        ) from error
    return str(url)


def fetch(name: str) -> Path:
    """Return a model file of the hub on this disk, downloading it if the hub has a newer one.

    Parameters
    ----------
    name : str
        "hf-hub:organization/name", with "@revision" behind it for another than the main branch.

    Returns
    -------
    path : pathlib.Path
        In the hub's cache.

    Raises
    ------
    ValueError
        It is no name of a repository.
    FileNotFoundError
        There is no such repository or revision, or no model file in it.
    OSError
        The hub cannot be reached, and the file is not in the cache.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    try:
        no_way = unreachable_reason(repo, MODEL_FILE)
        return Path(
            hf_hub_download(
                repo, MODEL_FILE, revision=revision or None, library_name="skxma", local_files_only=no_way is not None
            )
        )
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name of a hub repository ({error}).") from error
    except LocalEntryNotFoundError as error:  # it also is an EntryNotFoundError
        reason = no_way or error.__cause__ or error
        raise OSError(f"{name} is not in the hub's cache, and the hub can't be reached: {reason}.") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise FileNotFoundError(
            f"There is no {MODEL_FILE} in {name} that you may read; clf.push_to_hub({repo!r}) puts one there."
        ) from error
