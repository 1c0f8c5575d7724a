"""A name at the top of a module means one thing: no function or class of the package is called like another."""

import ast
from collections import defaultdict
from pathlib import Path

import skxma

PACKAGE = Path(skxma.__file__).parent
ALLOWED = {
    "__dir__": "Python looks it up in a module by this name",
    "__getattr__": "Python looks it up in a module by this name",
    "add_parser": "each command of the command line has one",
    "run": "each command of the command line has one",
}


def defined_at_top(module):
    """Names of the functions and classes of a module, in conditions too; several of a name, as overloads, are one."""
    found, blocks = set(), [module.body]
    while blocks:
        for node in blocks.pop():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                handlers = [handler.body for handler in getattr(node, "handlers", [])]
                blocks += [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", []), *handlers]
    return found


def modules_by_name(sources):
    found = defaultdict(list)
    for path, source in sources.items():
        for name in defined_at_top(ast.parse(source)):
            found[name].append(path)
    return {name: sorted(paths) for name, paths in found.items() if len(paths) > 1}


def test_no_two_functions_or_classes_share_a_name():
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    shared = modules_by_name(sources)
    assert {name: paths for name, paths in shared.items() if name not in ALLOWED} == {}
    assert sorted(set(ALLOWED) - set(shared)) == []
    commands = [path for name in ("add_parser", "run") for path in shared[name]]
    assert [path for path in commands if not path.startswith("cli/_")] == []


def test_pairs_are_found_in_conditions_and_overloads_are_none():
    twice = "@overload\ndef f(x): ...\ndef f(x): return x\n"
    hidden = "try:\n    import a\nexcept ImportError:\n    def f(x): return x\nif b:\n    class C: pass\n"
    inner = "def g():\n    def f(): pass\nclass D:\n    def f(self): pass\n"
    assert modules_by_name({"one": twice, "two": inner}) == {}
    assert modules_by_name({"one": twice, "two": hidden, "three": "class C: pass"}) == {
        "f": ["one", "two"],
        "C": ["three", "two"],
    }
