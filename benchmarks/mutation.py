"""The mutation score of the mathematics: each small change that cosmic-ray makes to it must fail a test.

    python benchmarks/mutation.py [MODULE ...] [--survivors]

Runs what benchmarks/mutation.json lacks of the source as it is: it goes on where it was interrupted, and after a
change of one module repeats that module alone. Every mutant runs the tests in a fork of this process, which imported
torch and scikit-learn already, so most take about a second; one that survives takes all of the tests' time.
Hypothesis draws the same examples each time and does not shrink. Needs `pip install ".[test,proofs]"`, and POSIX.
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
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "mutation.json"
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


def run_tests(module: str, source: str) -> int:
    """Run the module's tests in this process against another source; the exit status of pytest."""
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
    tests = [f"tests/{name}.py" for name in MODULES[module]]
    return int(pytest.main(["-x", "-q", "--no-header", "--tb=no", "--assert=plain", *WITHOUT, *tests]))


def outcome_of(module: str, source: str, seconds: float) -> str:
    """Whether a mutant is "killed" by a failing test, ends in "timeout", or "survived"."""
    gc.freeze()
    child = os.fork()
    if child == 0:
        gc.disable()
        status = 1
        try:
            status = run_tests(module, source)
        finally:
            os._exit(min(status, 125))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "killed"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def digest(*paths: Path) -> str:
    """What tells one state of some files from another."""
    return hashlib.blake2b(b"\0".join(path.read_bytes() for path in paths), digest_size=8).hexdigest()


def test_module(module: str, held: dict[str, Any], again: bool) -> dict[str, Any]:
    """Run the mutants of one module that have no result yet."""
    path = ROOT / "skxma" / f"{module}.py"
    source = path.read_text()
    if held.get("source") != digest(path):
        held = {"source": digest(path), "mutants": {}}
    start = time.monotonic()
    if outcome_of(module, source, 3600) != "survived":
        sys.exit(f"The tests of {module} fail without any mutation: {', '.join(MODULES[module])}.")
    seconds = max(60.0, 10 * (time.monotonic() - start))
    known = held["mutants"]
    mutants = [m for m in mutants_of(source) if m.key not in known or (again and known[m.key][0] == "survived")]
    print(f"{module}: {len(mutants)} mutants to run, {len(known)} known, {seconds:.0f} s each at most", flush=True)
    for i, mutant in enumerate(mutants):
        known[mutant.key] = [outcome_of(module, mutant.source, seconds), mutant.line]
        if known[mutant.key][0] == "survived":
            print(f"survived: skxma/{module}.py:{mutant.line} {mutant.operator}", flush=True)
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
