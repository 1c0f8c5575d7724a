"""Public names: what a module exports is in the API reference, and what is there is exported."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import skxma
from skxma.errors import MissingDependencyError

PACKAGE = Path(skxma.__file__).parent
REFERENCE = Path(__file__).parents[2] / "docs" / "api.rst"
# Programs, which have pages of their own; nothing is imported from them.
PROGRAMS = {"app", "cli"}
PUBLIC = ["skxma"] + [
    f"skxma.{path.stem}"
    for path in sorted(PACKAGE.iterdir())
    if path.stem[0] not in "_." and path.stem not in PROGRAMS and (path.suffix == ".py" or path.is_dir())
]


def documented():
    """Yield the modules and names of all entries of the reference."""
    module = ""
    entries = re.compile(r"^\.\. currentmodule:: (\S+)$|^   ([A-Za-z_][\w.]*)$|^\.\. data:: (\w+)$", re.MULTILINE)
    for current, listed, data in entries.findall(REFERENCE.read_text(encoding="utf-8")):
        if current:
            module = current
        else:
            inner, _, name = f"{module}.{listed or data}".rpartition(".")
            yield inner, name


def value(module, name):
    """What a name stands for; None for one that needs a package which is not installed."""
    try:
        return getattr(import_module(module), name)
    except MissingDependencyError:
        return None


def test_public_modules_are_found():
    assert {"skxma", "skxma.baselines", "skxma.functional", "skxma.persistence"} <= set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_says_what_it_exports(module):
    exported = import_module(module).__all__
    for name in exported:
        value(module, name)
    assert sorted(set(exported)) == sorted(exported)
    assert [name for name in exported if name.startswith("_") and name != "__version__"] == []


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the documentation is not beside the tests")
@pytest.mark.parametrize("module", PUBLIC)
def test_exported_names_are_in_the_reference(module):
    known = [value(where, name) for where, name in documented()]
    exported = {name: value(module, name) for name in import_module(module).__all__}
    missing = [name for name, value in exported.items() if not any(value is one for one in known)]
    assert [name for name in missing if name != "__version__"] == []


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the documentation is not beside the tests")
def test_names_in_the_reference_are_exported():
    entries = list(documented())
    assert len(entries) > 60
    assert [f"{module}.{name}" for module, name in entries if name not in import_module(module).__all__] == []


@pytest.mark.parametrize("package", [name for name in PUBLIC if (PACKAGE / name.rpartition(".")[2]).is_dir()])
def test_implementation_modules_of_public_packages_begin_with_an_underscore(package):
    folder = PACKAGE / package.rpartition(".")[2]
    inner = [path for path in folder.rglob("*.py") if path != folder / "__init__.py"]
    assert inner
    hidden = [any(part.startswith("_") for part in path.relative_to(folder).parts) for path in inner]
    assert [path.name for path, is_hidden in zip(inner, hidden, strict=True) if not is_hidden] == []
