"""What surrounds the package agrees with itself: the version, the files and sessions that guides name, the pins."""

import re
import tomllib
from pathlib import Path

import pytest

import skxma

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "noxfile.py").is_file(), reason="the repository is not beside the tests")

GUIDES = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "noxfile.py")),
    ROOT / ".pre-commit-config.yaml",
    *(ROOT / ".github").rglob("*.yml"),
    *(ROOT / ".github").rglob("*.md"),
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "layout.md",
    ROOT / "docs" / "proofs.md",
    ROOT / "docs" / "changes" / "README.md",
]
A_PATH = re.compile(r"(?<![\w/.-])(?:tests|benchmarks|docs|examples|skxma|\.ci|\.github)/[\w./-]*\w")
GENERATED = ("docs/_build",)


def settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.relative_to(ROOT)))
def test_guides_name_files_that_exist(guide):
    named = A_PATH.findall(guide.read_text(encoding="utf-8"))
    assert [path for path in named if not path.startswith(GENERATED) and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.relative_to(ROOT)))
def test_guides_name_sessions_that_exist(guide):
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    known = re.findall(r"^@nox\.session.*\ndef (\w+)", noxfile, re.MULTILINE)
    named = re.findall(r"\bnox .*?-s ([a-z]\w*)", guide.read_text(encoding="utf-8"))
    assert set(named) <= set(known)


def test_contributing_explains_every_session():
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    known = re.findall(r"^@nox\.session.*\ndef (\w+)", noxfile, re.MULTILINE)
    rows = re.findall(r"^\| (`nox -s .*?) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"`(?:nox -s )?(\w+)`", " ".join(rows))) == sorted(known)


def test_the_weekly_workflow_runs_sessions_that_exist():
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    names = re.findall(r"- name: (\w+)", (ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    assert {"coverage", "bench", "mutants"} <= set(names)
    assert [name for name in names if f"\ndef {name}(" not in noxfile] == []


def test_the_layout_names_every_room_once():
    text = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    rooms = text.partition("## Rooms")[2].partition("Beside the package")[0]
    named = re.findall(r"^\| `([\w.]+)/?` \|", rooms, re.MULTILINE)
    there = [
        path.name for path in (ROOT / "skxma").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    assert sorted(named) == sorted(set(there) - {"__init__.py", "__main__.py"})


def test_the_package_has_few_rooms():
    there = [path for path in (ROOT / "skxma").iterdir() if path.name not in ("py.typed", "__pycache__")]
    folders = sorted(path.name for path in there if path.is_dir())
    files = sorted(path.name for path in there if not path.is_dir())
    assert len(folders) <= 16, folders
    assert len(files) <= 16, files
    assert [name for name in files if not name.endswith(".py")] == []


def test_the_version_stands_in_one_place():
    project = settings()
    assert "version" in project["project"]["dynamic"]
    source = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert f'__version__ = "{skxma.__version__}"' in source
    package = [path for path in (ROOT / "skxma").rglob("*.py") if path.name != "_version.py"]
    assert [path for path in package if re.search(r"^__version__\b.*=", path.read_text("utf-8"), re.MULTILINE)] == []
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_example_of_deployment_pins_what_ci_uses():
    pins = set((ROOT / ".ci" / "constraints.txt").read_text().splitlines())
    assert set((ROOT / "examples" / "deploy" / "requirements.txt").read_text().split()) <= pins


@pytest.mark.parametrize("place", [".", "examples/deploy"])
def test_containers_run_as_a_user(place):
    lines = (ROOT / place / "Dockerfile").read_text(encoding="utf-8").splitlines()
    last = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert last.index("USER") < last.index("ENTRYPOINT")


def test_hooks_are_the_releases_that_ci_uses():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE))
    hooks = re.findall(r"github\.com/[\w-]+/([\w-]+)\s+rev: v(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert len(hooks) == 3
    assert {name.removesuffix("-pre-commit"): version for name, version in hooks}.items() <= pins.items()
    run = (ROOT / ".ci" / "run").read_text()
    assert [pin for pin in re.findall(r"([\w-]+)==(\S+)", run) if pins.get(pin[0]) != pin[1]] == []


def test_fragments_of_the_changelog_have_a_known_type():
    towncrier = settings()["tool"]["towncrier"]
    types = "|".join(one["directory"] for one in towncrier["type"])
    names = [path.name for path in (ROOT / towncrier["directory"]).iterdir() if path.name != "README.md"]
    assert [name for name in names if not re.fullmatch(rf"(\d+|\+[\w-]+)\.({types})(\.\d+)?\.md", name)] == []
    assert towncrier["start_string"] in (ROOT / towncrier["filename"]).read_text(encoding="utf-8")
