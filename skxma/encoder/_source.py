"""The place that a model's weights come from."""

from __future__ import annotations

from dataclasses import dataclass

from skxma.encoder._checkpoints import FolderIdentity


@dataclass(frozen=True)
class Source:
    """The place that a model's name stands for: a tag, a hub repository, a folder, or installed packages.

    Attributes
    ----------
    name : str
        As it was given.
    architecture, tag : str or None
        Of open_clip's registry; of timm's, the whole name is the architecture.
    repo : str or None
        "organization/name" on the hub.
    identity : FolderIdentity or None
        Of a folder on this disk.
    is_photo : bool
        Whether it is "photo", of installed packages.
    library : str or None
        The prefix that names the library; None is open_clip.
    """

    name: str
    architecture: str | None = None
    tag: str | None = None
    repo: str | None = None
    identity: FolderIdentity | None = None
    is_photo: bool = False
    library: str | None = None
