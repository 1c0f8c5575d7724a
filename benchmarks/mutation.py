"""The mutation score of the mathematics: each small change that cosmic-ray makes to it must fail a test.

    python benchmarks/mutation.py [MODULE ...] [--survivors]

Runs what benchmarks/mutation.json lacks of the source as it is: it goes on where it was interrupted, and after a
change of one module repeats that module alone. Every mutant runs, in a fork of this process, which imported torch and
scikit-learn already, the tests that call the function it is in, up to the first that fails: those that noticed its
neighbours first, then the quick ones. Hypothesis draws the same examples each time and does not shrink. Limits count
seconds of the processor, so that the run may be stopped and continued. Needs `pip install ".[test,proofs]"`, and POSIX.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "mutation.json"
LEAST_SECONDS, ADDRESS_SPACE = 30, 16 * 2**30
MODULES = {
    "functional": ["test_functional", "test_closed_forms", "test_training", "test_experts", "test_open_set"],
    "caches": ["test_caches", "test_closed_forms", "test_training", "test_calibrated"],
    "calibration": ["test_calibration", "test_closed_forms", "test_calibrated", "test_open_set"],
}
# imported before the forks, so that they need not
HEAVY = ("torch", "torch.testing", "numpy.testing", "scipy.optimize", "scipy.sparse", "sklearn.base", "sklearn.metrics")
HEAVY += (
    "sklearn.model_selection",
    "sklearn.linear_model",
    "hypothesis.strategies",
    "hypothesis.extra.numpy",
    "pytest",
)
# of each mutant's second these would take half
WITHOUT = [
    f"-pno:{name}" for name in ("cacheprovider", "unraisableexception", "threadexception", "xdist", "pytest_cov")
]
HEAVY += ("PIL.Image", "pandas", "joblib", "torch.func")


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
    """What a module does, as a string; it must have ``from __future__ import annotations``."""
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
    """Gives one module another source."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Answer for the one module."""
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        """Run the other source."""
        exec(compile(self.source, f"<mutant of {self.name}>", "exec"), vars(module))


@dataclass(frozen=True)
class Cost:
    """What a test takes, and which functions of the module it calls, each by its first line; imports aside."""

    seconds: float
    functions: set[int]


class Watcher:
    """A plugin of pytest that finds the cost of each test, and which of them failed."""

    def __init__(self, filename: str, first_line: dict[int, int]) -> None:
        self.filename, self.first_line = filename, first_line
        self.costs: dict[str, Cost] = {}
        self.failed: list[str] = []

    def pytest_runtest_protocol(self, item: Any) -> None:
        """Before a test: watch from here."""
        self.called: set[int] = set()
        self.start = time.process_time()
        sys.settrace(self._call)
        threading.settrace(self._call)

    def _call(self, frame: Any, event: str, argument: Any) -> None:
        if frame.f_code.co_filename == self.filename:
            self.called.add(self.first_line.get(frame.f_code.co_firstlineno, 0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """After each of a test's three phases."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "teardown":
            sys.settrace(None)
            self.costs[report.nodeid] = Cost(time.process_time() - self.start, self.called)


class Chosen:
    """A plugin of pytest that runs some of the tests, in an order, and tells which failed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rank = {name: i for i, name in enumerate(names)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Take those that were chosen."""
        items[:] = sorted((i for i in items if i.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """After each of a test's three phases."""
        if report.failed:
            self.failed = report.nodeid


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


def run_tests(module: str, source: str, files: Sequence[str], plugin: Any) -> int:
    """Run tests in this process against another source of a module; the exit status of pytest."""
    import pytest
    from hypothesis import Phase, settings

    phases = [Phase.explicit, Phase.generate]
    settings.register_profile(
        "mutation", max_examples=30, derandomize=True, database=None, deadline=None, phases=phases
    )
    settings.load_profile("mutation")
    sys.meta_path.insert(0, Substitute(f"skxma.{module}", source))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    flags = ["-x", "-q", "--no-header", "--tb=no", "--assert=plain", *WITHOUT]
    return int(pytest.main([*flags, *files], plugins=[plugin]))


def in_a_fork(job: Callable[[], Any], seconds: int) -> tuple[Any, bool]:
    """What a job returns in a process of its own, by way of JSON, and whether it took too long; None if it died."""
    gc.freeze()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        gc.disable()
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        try:
            said = json.dumps(job()).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(said)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    return json.loads(said) if said else None, late


def costs_of(module: str, source: str) -> dict[str, Cost]:
    """Run all tests of a module without a mutation."""

    def job() -> dict[str, Any]:
        watcher = Watcher(f"<mutant of skxma.{module}>", function_lines(source))
        files = [f"tests/{name}.py" for name in MODULES[module]]
        status = run_tests(module, source, files, watcher)
        costs = {name: [cost.seconds, sorted(cost.functions)] for name, cost in watcher.costs.items()}
        return {"status": status, "failed": watcher.failed, "costs": costs}

    found, _ = in_a_fork(job, 3600)
    if found is None or found["status"]:
        sys.exit(f"The tests of {module} fail without any mutation: {found and found['failed']}.")
    return {name: Cost(seconds, set(functions)) for name, (seconds, functions) in found["costs"].items()}


def outcome_of(module: str, source: str, names: Sequence[str], seconds: int) -> tuple[str, str]:
    """Whether a mutant is "killed" by a failing test, and which, ends in "timeout", or "survived"."""

    def job() -> list[Any]:
        chosen = Chosen(names)
        files = list(dict.fromkeys(name.partition("::")[0] for name in names))
        return [run_tests(module, source, files, chosen), chosen.failed]

    found, late = in_a_fork(job, seconds)
    if late:
        return "timeout", ""
    return ("survived", "") if found is not None and found[0] == 0 else ("killed", found[1] if found else "")


def digest(*paths: Path) -> str:
    """What tells one state of some files from another."""
    return hashlib.blake2b(b"\0".join(path.read_bytes() for path in paths), digest_size=8).hexdigest()


def test_module(module: str, held: dict[str, Any], again: bool) -> dict[str, Any]:
    """Run the mutants of one module that have no result yet."""
    path = ROOT / "skxma" / f"{module}.py"
    source = path.read_text()
    if held.get("source") != digest(path):
        held = {"source": digest(path), "mutants": {}}
    known, first_line = held["mutants"], function_lines(source)
    mutants = [m for m in mutants_of(source) if m.key not in known or (again and known[m.key][0] == "survived")]
    if not mutants:
        return held
    costs = costs_of(module, source)
    kills: dict[int, Counter[str]] = {}
    print(f"{module}: {len(mutants)} mutants to run, {len(known)} known, {len(costs)} tests", flush=True)
    for i, mutant in enumerate(sorted(mutants, key=lambda m: m.line)):
        function = first_line.get(mutant.line, 0)
        before = kills.setdefault(function, Counter())
        # what is in no function runs at import
        touching = [name for name in costs if not function or function in costs[name].functions]
        touching.sort(key=lambda name: (-before[name], costs[name].seconds))
        outcome, killer = "survived", ""
        if touching:
            limit = LEAST_SECONDS + 10 * int(sum(costs[name].seconds for name in touching))
            outcome, killer = outcome_of(module, mutant.source, touching, limit)
        known[mutant.key] = [outcome, mutant.line]
        before[killer] += 1
        if outcome == "survived":
            print(f"survived: skxma/{module}.py:{mutant.line} {mutant.key}", flush=True)
        if i % 20 == 19:
            save({**load(), module: held})
            print(f"  {i + 1} of {len(mutants)}", flush=True)
    return held


def load() -> dict[str, Any]:
    """The results so far; empty where there are none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(results: dict[str, Any]) -> None:
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, sort_keys=True))
    part.replace(RESULTS)


def score(results: dict[str, Any]) -> dict[str, tuple[int, int, bool]]:
    """Of each module: mutants that a test noticed, all mutants, whether the source is the one that was measured."""
    found = {}
    for module, held in results.items():
        outcomes = [outcome for outcome, _ in held["mutants"].values()]
        current = held["source"] == digest(ROOT / "skxma" / f"{module}.py")
        found[module] = len(outcomes) - outcomes.count("survived"), len(outcomes), current
    return found


def import_what_is_not_mutated() -> None:
    """Import what the tests need besides skxma."""
    from skxma._torchvision import ensure_importable

    ensure_importable()
    for name in (*HEAVY, "open_clip"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "skxma"]:
        del sys.modules[name]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Mutation score of the mathematics.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--survivors", action="store_true", help="run those again that survived, after new tests")
    arguments = parser.parse_args(argv)
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    import_what_is_not_mutated()
    for module in arguments.modules or MODULES:
        save({**load(), module: test_module(module, load().get(module, {}), arguments.survivors)})
    for module, (noticed, total, _) in score(load()).items():
        print(f"{module}: {noticed} of {total} mutants noticed, {noticed / total:.1%}")


if __name__ == "__main__":
    main()
