"""`skxma cache`: what is kept on disk, and forgetting it."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add ``skxma cache info | clear`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "cache",
        help="show or clear the embeddings kept on disk",
        description="The embeddings that memory=True keeps: in the folder named by SKXMA_CACHE, else in the user's "
        "cache folder.",
        epilog="examples: skxma cache info    skxma cache clear --path my-embeddings",
    )
    parser.add_argument("action", choices=["info", "clear"], help="show what is held, or forget all of it")
    parser.add_argument("--path", metavar="DIR", help="another folder, or the database itself")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print what a store holds, or clear it and print what was removed."""
    from skxma.store._kept import kept_files
    from skxma.store._resolve import default_folder
    from skxma.store._sqlite import EmbeddingStore

    store = EmbeddingStore(default_folder() if arguments.path is None else arguments.path)
    held = store.info()
    kept = kept_files(store.file.parent)
    kept_megabytes = sum(path.stat().st_size for path in kept) / 1e6
    if arguments.action == "clear":
        store.clear()
        for path in kept:
            path.unlink(missing_ok=True)
        print(f"removed {held['n_embeddings']} embeddings ({held['n_bytes'] / 1e6:.1f} MB) from {held['path']}")
        if kept:
            print(f"removed {len(kept)} files of what is computed once ({kept_megabytes:.1f} MB)")
        return
    print(f"file        {held['path']}")
    print(f"embeddings  {held['n_embeddings']}")
    print(f"size        {held['n_bytes'] / 1e6:.1f} MB of {held['max_bytes'] / 1e6:.0f} MB at most")
    if kept:
        print(f"once        {len(kept)} files of what every model needs, computed once ({kept_megabytes:.1f} MB)")
    for namespace, number in sorted(held["namespaces"].items()):
        print(f"  {number:8d}  {namespace}")
