"""Optional dependencies, imported before work begins."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from skxma.errors import MissingDependencyError


def require(module: str, *, what: str, extra: str | None = None) -> Any:
    """Import an optional dependency; the error names what needs it and how to install it.

    Parameters
    ----------
    module : str
        Its name, such as "matplotlib.pyplot".
    what : str
        The subject of the message, in the words of the interface that needs it.
    extra : str, optional
        The extra of skxma that installs it; None for a package outside of the extras.

    Returns
    -------
    module : module

    Raises
    ------
    skxma.errors.MissingDependencyError
        If it cannot be imported; a subclass of ImportError.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        install = package if extra is None else f"'skxma[{extra}]'"
        raise MissingDependencyError(
            f"{what} needs {package}, which cannot be imported ({error}). Install it: pip install {install}"
        ) from error
