"""Tell a machine without a way to the hub from a slow one, in one request."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ECONNREFUSED}
_PAUSE_SECONDS = 1.0


def unreachable_reason(repo: str, name: str) -> str | None:
    """Ask the hub once, with its client's own settings, for the metadata of a file.

    The client itself asks six times, with half a minute of pauses in between, whatever the reason. That is right where
    the network is slow, and in vain where there is none.

    Parameters
    ----------
    repo : str
        "organization/name".
    name : str
        A file; it need not exist.

    Returns
    -------
    reason : str or None
        Why no connection can be made; None where the hub answered, was too slow, or failed in another way.
    """
    found = _ask(repo, name)
    if isinstance(found, socket.gaierror) and found.errno == getattr(socket, "EAI_AGAIN", None):
        # a name server that was busy is worth a second question
        time.sleep(_PAUSE_SECONDS)
        found = _ask(repo, name)
    return None if found is None else str(found)


def _ask(repo: str, name: str) -> OSError | None:
    """Return the error of the system that stands behind a failed request, if no connection could be made."""
    import huggingface_hub

    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, name))
    except Exception as error:
        return next((cause for cause in _causes(error) if _is_no_way(cause)), None)  # type: ignore[return-value]
    return None


def _is_no_way(error: BaseException) -> bool:
    return isinstance(error, socket.gaierror) or (isinstance(error, OSError) and error.errno in _NO_WAY)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from; some clients pass theirs as an argument or as `reason`."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        others = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [other for other in others if isinstance(other, BaseException)]
