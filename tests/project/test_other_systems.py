"""What only POSIX has is marked, so that the tests can run on Windows; the package asks before it uses it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POSIX = re.compile(
    r"SIGKILL|SIGSTOP|SIGINT\b|send_signal|killpg|os\.kill\(|os\.fork\(|\"fork\"|resource\.|import resource|fcntl|"
    r"get?euid|getuid|/proc/|setpriv|mkfifo|start_new_session"
)


def source_with_helpers(name, sources, seen):
    """Source of a module's function, and of all of the module's names that it uses, in turn."""
    if name in seen or name not in sources:
        return ""
    seen.add(name)
    node, text = sources[name]
    used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    used |= {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
    return text + "".join(source_with_helpers(one, sources, seen) for one in sorted(used))


def unmarked(path):
    """Tests of a file that use what only POSIX has, and do not say so."""
    text = path.read_text(encoding="utf-8")
    sources = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            sources[node.name] = node, ast.get_source_segment(text, node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    sources[target.id] = node, ast.get_source_segment(text, node)
    of_all = sources["pytestmark"][1] if "pytestmark" in sources else ""
    for name, (node, _) in sources.items():
        if name.startswith("test_") and isinstance(node, ast.FunctionDef):
            marks = "\n".join([of_all, *map(ast.unparse, node.decorator_list)])
            whole = source_with_helpers(name, sources, set())
            if POSIX.search(whole) and not re.search(r"\bposix\b|skipif", marks):
                yield f"{path.relative_to(ROOT)}::{name}: {POSIX.search(whole).group()}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/test_*.py")), ids=lambda path: path.name)
def test_tests_that_need_posix_say_so(path):
    if path != Path(__file__):
        assert list(unmarked(path)) == []


def test_no_process_is_started_by_a_function_that_runs_in_a_fork():
    # it deadlocks where another thread holds a lock, and Windows has none
    word = "preexec" + "_fn"
    assert [str(p) for p in ROOT.glob("[!.]*/**/*.py") if word in p.read_text(encoding="utf-8")] == []


def test_files_of_the_package_are_opened_in_a_named_encoding():
    """The system's own encoding differs: text written on one could not be read on another."""
    found = []
    for path in ROOT.glob("skxma/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text"):
                named = any(keyword.arg == "encoding" for keyword in node.keywords)
                # of a file of /proc there are digits and English words
                if not named and "/proc/" not in ast.unparse(node):
                    found.append(f"{path}:{node.lineno}")
    assert found == []
