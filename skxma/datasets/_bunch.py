"""The result of a loader, made without importing scikit-learn before there is something to return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.utils import Bunch


def bunch(**fields: Any) -> Bunch:
    """Return fields as a :class:`~sklearn.utils.Bunch`.

    Parameters
    ----------
    **fields : object
    """
    # takes a second, in which a wrong table has long been told
    from sklearn.utils import Bunch

    return Bunch(**fields)
