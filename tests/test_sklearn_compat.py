"""Private names of scikit-learn are imported in one module, which works without those of its latest release."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skxma

PACKAGE = Path(skxma.__file__).parent
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "_sklearn_compat.py"]


def private_imports(source):
    """Names that a module imports from scikit-learn's private modules, or that are private themselves."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *others = name.split(".")
            if first == "sklearn" and any(other.startswith("_") for other in others):
                yield name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from sklearn.utils import _safe_indexing, indexable", ["sklearn.utils._safe_indexing"]),
        ("import sklearn.utils._param_validation", ["sklearn.utils._param_validation"]),
        ("def f():\n    from sklearn.utils._tags import Tags", ["sklearn.utils._tags.Tags"]),
        ("from sklearn.utils import Tags", []),
        ("from skxma._sklearn_compat import Interval", []),
    ],
)
def test_private_imports_are_found(source, found):
    assert list(private_imports(source)) == found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_imports_private_names_of_scikit_learn(path):
    assert list(private_imports(path.read_text(encoding="utf-8"))) == []


def test_scikit_learn_without_callbacks_gives_an_empty_mixin():
    code = """
import sys
sys.modules["sklearn.callback"] = None
from skxma._sklearn_compat import CallbackSupportMixin, callback_context
assert CallbackSupportMixin.__module__ == "skxma._sklearn_compat"
assert not hasattr(CallbackSupportMixin, "set_callbacks")
assert callback_context(CallbackSupportMixin(), 1) is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
