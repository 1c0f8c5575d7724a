"""The place that a model's weights come from."""

from __future__ import annotations

from dataclasses import dataclass

from skxma.encoder._checkpoints import FolderIdentity


@dataclass(frozen=True)
class Source:
    """The place that a model's name stands for: a tag, a hub repository, a folder, or installed packages."""

    name: str
    architecture: str | None = None
    tag: str | None = None
    repo: str | None = None
    identity: FolderIdentity | None = None
    is_photo: bool = False
