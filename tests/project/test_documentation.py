"""What the documentation shows is run: docstrings' examples, the guide's snippets and its commands."""

import doctest
import re
import shlex
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import skxma
from skxma.cli.main import main

ROOT = Path(__file__).parents[2]
MODULES = [module.name for module in walk_packages(skxma.__path__, "skxma.")]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guide").glob("*.md"), ROOT / "README.md"])
# what snippets and examples need that is not there with the oldest releases, or without an extra
NEEDS = {
    "tools": "sklearn.callback",
    "active": "skactiveml",
    "skxma.active._query_strategy": "skactiveml",
    "skxma.export._onnx": "onnxscript",
}
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(test: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append, clear_globs=False)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    for test in doctest.DocTestFinder(exclude_empty=True).find(import_module(name)):
        run(test)


NUMBER = re.compile(r"(\d+\.\d+)")


def run_commands(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run ``$ skxma …`` lines, each with what it should print below it."""
    for part in re.split(r"^\$ skxma ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        capsys.readouterr()
        assert main(shlex.split(command)) == 0
        printed, told = (NUMBER.split(shown) for shown in (capsys.readouterr().out, expected))
        assert printed[::2] == told[::2]
        # the last digits of a probability are the machine's
        assert [float(one) for one in printed[1::2]] == pytest.approx([float(one) for one in told[1::2]], abs=0.01)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_of_a_page(page, capsys):
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    scope: dict[str, object] = {}
    for number, (kind, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
        if kind == "console":
            run_commands(text, capsys)
        elif ">>>" in text:
            test = doctest.DocTestParser().get_doctest(text, scope, f"{page.name}[{number}]", str(page), 0)
            with capsys.disabled():
                run(test)
            scope = test.globs
        else:
            compile(text, page.name, "exec")


def test_the_guide_has_snippets():
    guide = [page for page in PAGES if page.parent.name == "guide" and page.stem != "index"]
    if not guide:
        pytest.skip("the docs are not beside the tests")
    assert [page.stem for page in guide if ">>>" not in page.read_text(encoding="utf-8")] == []
