"""From an estimator in a notebook to its page in the documentation."""

from __future__ import annotations

import os
import sys

# No site is published yet: this is where it is meant to be. The environment names another, such as a local build.
DOCS_URL = "https://skxma.readthedocs.io/en/stable"
ENVIRONMENT = "SKXMA_DOCS_URL"


class DocumentedMixin:
    """Gives scikit-learn's HTML representation the page of the class, as Sphinx's autosummary names it."""

    _doc_link_module = "skxma"

    @property
    def _doc_link_template(self) -> str:
        base = os.environ.get(ENVIRONMENT, DOCS_URL).rstrip("/")
        return base + "/generated/{public_name}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        return {"public_name": public_name(type(self))}


def public_name(cls: type) -> str:
    """The shortest dotted name under which a class can be imported."""
    parts = cls.__module__.split(".")
    homes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    home = next((home for home in homes if getattr(sys.modules[home], cls.__name__, None) is cls), cls.__module__)
    return f"{home}.{cls.__name__}"
