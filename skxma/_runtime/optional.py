"""Optional dependencies: imported through here, and asked for before work begins."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from skxma.errors import MissingDependencyError


def require(module: str, *, what: str, extra: str | None = None) -> Any:
    """Import an optional dependency, or say what needs it and how it is installed.

    Parameters
    ----------
    module : str
        Its name, "matplotlib.pyplot" say.
    what : str
        The subject of the message, in the words of the interface that asks.
    extra : str, optional
        The extra of skxma that installs it; None for a package that no extra names.

    Returns
    -------
    module : module

    Raises
    ------
    skxma.errors.MissingDependencyError
        It cannot be imported; an ImportError.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        install = package if extra is None else f"'skxma[{extra}]'"
        raise MissingDependencyError(
            f"{what} needs {package}, which cannot be imported ({error}). Install it: pip install {install}"
        ) from error
