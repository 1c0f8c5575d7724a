"""Links from an estimator in a notebook to its documentation page."""

from __future__ import annotations

import os
import sys
from typing import Any

# No site is published yet, so that there are links only where the environment names a place, such as a local build.
ENVIRONMENT = "SKXMA_DOCS_URL"


@property  # type: ignore[misc]
def doc_link_template(estimator: Any) -> str:
    """The address of a page, for scikit-learn's HTML representation, "" for no link; the property of a class."""
    base = os.environ.get(ENVIRONMENT, "").strip().rstrip("/")
    # scikit-learn formats the template: braces of the place are its own
    return base.replace("{", "{{").replace("}", "}}") + "/generated/{public_name}.html" if base else ""


def doc_link_parameters(estimator: Any) -> dict[str, str]:
    """Values for the placeholders of the address template; a method."""
    return {"public_name": public_name(type(estimator))}


class DocumentedMixin:
    """Link scikit-learn's HTML representation to the page of the class, if the documentation has a known place."""

    _doc_link_module = "skxma"
    _doc_link_template = doc_link_template
    _doc_link_url_param_generator = doc_link_parameters


def public_name(cls: type) -> str:
    """Return the shortest dotted name under which a class can be imported."""
    parts = cls.__module__.split(".")
    homes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    home = next((home for home in homes if getattr(sys.modules[home], cls.__name__, None) is cls), cls.__module__)
    return f"{home}.{cls.__name__}"
