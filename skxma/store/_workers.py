"""Worker processes of joblib, which share no embeddings unless these are on disk."""

from __future__ import annotations

import multiprocessing

from skxma._runtime.warning import warn
from skxma.store._memory import MemoryStore

# processes that have warned; a worker process that serves many fits warns once
_warned: set[int | None] = set()


def warn_of_unshared_embeddings(memory: object) -> None:
    """Warn, once per process, of a fit on images in a worker process whose embeddings no other process sees.

    Each worker of a search encodes every image again, so that several are slower than one.

    Parameters
    ----------
    memory : object
        The parameter of the encoder or the classifier; False is taken as a choice and not warned of.
    """
    if not (memory is None or isinstance(memory, MemoryStore)):
        return
    process = multiprocessing.current_process()
    # those that joblib starts by default, and that begin with an empty memory
    if not type(process).__module__.startswith("joblib.") or process.pid in _warned:
        return
    _warned.add(process.pid)
    warn(
        "Images are encoded in a worker process, as n_jobs above 1 starts them, and each worker encodes all images for "
        "itself, which is slower than n_jobs=1. Encode first and give embeddings, X = "
        "CLIPEncoder(...).encode_image(images), or share embeddings on disk with memory=True."
    )
