"""Small changes of a module's source, and two ways to have a process run one: at import, or in an imported module."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One change of a module's source."""

    operator: str
    occurrence: int
    line: int
    source: str

    @property
    def key(self) -> str:
        """What names it among the mutants of one source."""
        return f"{self.operator}:{self.occurrence}"


def mutants_of(source: str) -> Iterator[Mutant]:
    """All mutants that differ from the source in something that runs: annotations do not."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    tree, plain = get_ast(source), without_annotations(source)
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        places = (place for node in ast_nodes(tree) for place in kind().mutation_positions(node))
        for occurrence, (start, _) in enumerate(places):
            changed = mutate_code(source, kind(), occurrence)
            if changed is not None and without_annotations(changed) != plain:
                yield Mutant(name.removeprefix("core/"), occurrence, start[0], changed)


def without_annotations(source: str) -> str:
    """The code of a module, as a string; it must have ``from __future__ import annotations``."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


class Substitute(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Give one module another source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Answer for the one module."""
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        """Run the other source."""
        exec(compile(self.source, f"<mutant of {self.name}>", "exec"), vars(module))


def function_lines(source: str) -> dict[int, int]:
    """The first line, decorators included, of the function or method that each line of a module is in."""
    found: dict[int, int] = {}

    def visit(nodes: Sequence[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                visit(node.body)
            elif isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found.update(dict.fromkeys(range(first, (node.end_lineno or first) + 1), first))

    visit(ast.parse(source).body)
    return found


def functions_in(value: Any) -> list[types.FunctionType]:
    """The functions that a member of a module or a class is made of."""
    if isinstance(value, property):
        return [part for part in (value.fget, value.fset, value.fdel) if part is not None]
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, cached_property):
        value = value.func
    return [value] if isinstance(value, types.FunctionType) else []


def put_in(module: types.ModuleType, source: str) -> None:
    """Give the functions and methods of a module the code and the defaults that another source has for them."""
    fresh = types.ModuleType(module.__name__)
    vars(fresh).update({name: vars(module)[name] for name in ("__package__", "__spec__", "__file__")})
    exec(compile(source, str(module.__file__), "exec"), vars(fresh))

    def replace(old: Any, new: Any) -> None:
        for name, value in list(vars(old).items()):
            other = vars(new).get(name)
            if isinstance(value, type) and value.__module__ == module.__name__:
                replace(value, other)
            for left, right in zip(functions_in(value), functions_in(other), strict=False):
                if left.__code__.co_filename == module.__file__:
                    left.__code__, left.__defaults__ = right.__code__, right.__defaults__
                    left.__kwdefaults__ = right.__kwdefaults__

    replace(module, fresh)
