"""Links from an estimator in a notebook to its documentation page."""

from __future__ import annotations

import os
import sys
from typing import Any

# No site is published yet: this is the planned address. The environment variable names another, such as a local build.
DOCS_URL = "https://skxma.readthedocs.io/en/stable"
ENVIRONMENT = "SKXMA_DOCS_URL"


@property  # type: ignore[misc]
def doc_link_template(estimator: Any) -> str:
    """Address template of a documentation page, for scikit-learn's HTML representation; a property."""
    base = os.environ.get(ENVIRONMENT, DOCS_URL).rstrip("/")
    return base + "/generated/{public_name}.html"


def doc_link_parameters(estimator: Any) -> dict[str, str]:
    """Values for the placeholders of the address template; a method."""
    return {"public_name": public_name(type(estimator))}


class DocumentedMixin:
    """Mixin that links scikit-learn's HTML representation to the page that Sphinx's autosummary makes of the class."""

    _doc_link_module = "skxma"
    _doc_link_template = doc_link_template
    _doc_link_url_param_generator = doc_link_parameters


def public_name(cls: type) -> str:
    """Return the shortest dotted name under which a class can be imported."""
    parts = cls.__module__.split(".")
    homes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    home = next((home for home in homes if getattr(sys.modules[home], cls.__name__, None) is cls), cls.__module__)
    return f"{home}.{cls.__name__}"
