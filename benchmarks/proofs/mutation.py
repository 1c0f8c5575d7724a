"""The mutation score of the mathematics: each small change that cosmic-ray makes to it must fail a test.

    python benchmarks/proofs/mutation.py [MODULE ...] [--survivors] [--sample N]

Runs the mutants of the current source that benchmarks/proofs/mutation.json lacks: it resumes where it was interrupted,
and after a change of one module repeats that module alone. Every mutant runs the tests that call the function it is in,
up to the first that fails: those that noticed its neighbors first, then the quick ones. It does so in a fork of a
process that has collected the tests and put the mutant's code into the function; mutants outside of functions import
everything again. Hypothesis draws the same examples each time and does not shrink. Limits count seconds of the
processor, so that the run may be stopped and continued. `--sample` takes N mutants of each module, spread evenly over
its lines; the results know how many there are in all. The status is 1 where a mutant survives for which survivors.py
has no reason. Needs `pip install ".[test,proofs]"`, and POSIX.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutants import Mutant, Substitute, function_lines, mutants_of, put_in
from survivors import REASONS, digest, explains, path_of, unexplained

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "mutation.json"
LEAST_SECONDS, DAY, ADDRESS_SPACE = 30, 86400, 16 * 2**30
MODULES = {
    "functional": [
        "test_functional",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/paper/test_fit",
        "_evidence/calibrated/test_experts",
        "_estimators/test_rejection",
    ],
    "caches": [
        "test_caches",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/paper/test_fit",
        "_evidence/calibrated/test_fit",
    ],
    "_statistics": [
        "_evidence/calibrated/test_metric",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_experts",
    ],
    "_evidence.fitted": [
        "_evidence/calibrated/test_fusion",
        "_evidence/calibrated/test_closed_forms",
        "_estimators/test_rejection",
    ],
    "_evidence.calibrated.fusion": [
        "_evidence/calibrated/test_fusion",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_fit",
        "_estimators/test_rejection",
        "_estimators/test_warm_start",
    ],
    "_evidence.calibrated.newton": [
        "_evidence/calibrated/test_fusion",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_cross_fit",
        "_evidence/calibrated/test_fit",
        "_estimators/test_warm_start",
    ],
    "_evidence.calibrated.metric": [
        "_evidence/calibrated/test_metric",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_groups",
        "_evidence/calibrated/test_fit",
    ],
    "_evidence.calibrated.experts": [
        "_evidence/calibrated/test_experts",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_groups",
        "_evidence/calibrated/test_fit",
        "_evidence/calibrated/test_text_only",
    ],
    "_evidence.calibrated.cross_fit": [
        "_evidence/calibrated/test_cross_fit",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_fit",
        "_evidence/calibrated/test_text_only",
    ],
    "_evidence.calibrated.averaging": [
        "_evidence/calibrated/test_cross_fit",
        "_evidence/calibrated/test_fusion",
        "_evidence/calibrated/test_fit",
    ],
    "_evidence.calibrated.moderation": [
        "_evidence/calibrated/test_moderation",
        "_evidence/calibrated/test_closed_forms",
        "_evidence/calibrated/test_fit",
    ],
    "_evidence.calibrated.text_only": ["_evidence/calibrated/test_text_only"],
    "_evidence.calibrated.residual": ["_evidence/calibrated/test_residual", "_evidence/calibrated/test_fit"],
}
"""Modules of skxma by their dotted names, and the files in tests/ that must notice their mutants."""
# imported before the forks, so that they need not
HEAVY = [
    "torch",
    "torch.func",
    "torch.testing",
    "numpy.testing",
    "scipy.optimize",
    "scipy.sparse",
    "pandas",
    "joblib",
    "PIL.Image",
    "pytest",
    "hypothesis.strategies",
    "hypothesis.extra.numpy",
    "sklearn.base",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "open_clip",
]
# of a mutant's time these would take half
WITHOUT = [
    f"-pno:{name}" for name in ("cacheprovider", "unraisableexception", "threadexception", "xdist", "pytest_cov")
]


@dataclass(frozen=True)
class Cost:
    """The time of a test, and the functions of the module that it calls, each by its first line; imports aside."""

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
    """A plugin of pytest that runs some of the tests, in an order, and reports which failed."""

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


class Server:
    """A plugin of pytest that hands the collected tests over instead of running them."""

    def __init__(self, use: Callable[[Any], None]) -> None:
        self.use = use

    def pytest_runtestloop(self, session: Any) -> bool:
        """Instead of the tests."""
        self.use(session)
        return True


def run_some(session: Any, names: Sequence[str]) -> str:
    """Run collected tests, in this order, up to the first that fails, which is returned; "" if none does."""
    items = {item.nodeid: item for item in session.items}
    chosen = [items[name] for name in names]
    noted = Chosen(())
    session.config.pluginmanager.register(noted)
    for item, following in zip(chosen, [*chosen[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if noted.failed:
            break
    return noted.failed


def files_of(module: str) -> list[str]:
    """The files of tests of a module."""
    return [f"tests/{name}.py" for name in MODULES[module]]


def silence() -> None:
    """Print nothing from here on, in this process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def start_pytest(files: Sequence[str], plugin: Any) -> int:
    """Run pytest in this process; its exit status."""
    import pytest
    from hypothesis import Phase, settings

    phases = [Phase.explicit, Phase.generate]
    settings.register_profile(
        "mutation", max_examples=30, derandomize=True, database=None, deadline=None, phases=phases
    )
    settings.load_profile("mutation")
    flags = ["-x", "-qq", "-s", "--no-header", "--no-summary", "--tb=no", "--assert=plain", *WITHOUT]
    return int(pytest.main([*flags, *files], plugins=[plugin]))


def run_tests(module: str, source: str, files: Sequence[str], plugin: Any) -> int:
    """Run tests in this process, where skxma is not imported yet, against another source of a module."""
    sys.meta_path.insert(0, Substitute(f"skxma.{module}", source))
    silence()
    return start_pytest(files, plugin)


def in_a_fork(job: Callable[[], Any], seconds: int) -> tuple[Any, bool]:
    """Result of a job in a process of its own, by way of JSON, and whether it took too long; None if it died."""
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
        status = run_tests(module, source, files_of(module), watcher)
        costs = {name: [cost.seconds, sorted(cost.functions)] for name, cost in watcher.costs.items()}
        return {"status": status, "failed": watcher.failed, "costs": costs}

    found, _ = in_a_fork(job, 3600)
    if found is None or found["status"]:
        sys.exit(f"The tests of {module} fail without any mutation: {found and found['failed']}.")
    return {name: Cost(seconds, set(functions)) for name, (seconds, functions) in found["costs"].items()}


Run = Callable[[Mutant, Sequence[str]], str]


def import_and_run(module: str) -> Run:
    """A way to run a mutant that imports everything again."""

    def run(mutant: Mutant, names: Sequence[str]) -> str:
        chosen = Chosen(names)
        files = list(dict.fromkeys(name.partition("::")[0] for name in names))
        return chosen.failed or "an import" if run_tests(module, mutant.source, files, chosen) else ""

    return run


def put_in_and_run(module: str, session: Any) -> Run:
    """A way to run a mutant of a function's inside where the tests are collected already."""

    def run(mutant: Mutant, names: Sequence[str]) -> str:
        silence()
        put_in(sys.modules[f"skxma.{module}"], mutant.source)
        return run_some(session, names)

    return run


def sample_of(mutants: Sequence[Mutant], size: int | None) -> list[Mutant]:
    """Mutants in the order of their lines: all, or about so many that are spread evenly."""
    ordered = sorted(mutants, key=lambda mutant: mutant.line)
    return ordered if size is None else ordered[:: -(-len(ordered) // size)]


class Module:
    """The mutants of one module that have no result yet, and the tests that may notice them."""

    def __init__(self, name: str, again: bool, sample: int | None) -> None:
        path = path_of(name)
        source = path.read_text()
        held = load().get(name, {})
        if held.get("source") != digest(path):
            held = {"source": digest(path), "mutants": {}}
        self.name, self.held, self.known = name, held, held["mutants"]
        self.first_line, self.lines = function_lines(source), source.splitlines()
        self.unchanged = Mutant("", 0, 0, source)
        every = list(mutants_of(source))
        held["total"] = len(every)
        tried = sample_of(every, sample)
        self.mutants = [m for m in tried if m.key not in self.known or (again and self.is_in_question(m))]
        self.costs = costs_of(name, source) if self.mutants else {}
        self.kills: dict[int, Counter[str]] = {}

    def is_in_question(self, mutant: Mutant) -> bool:
        """Whether a mutant was run and noticed by no test, and nothing says why."""
        return bool(self.known[mutant.key][0] == "survived") and not self.is_explained(mutant)

    def is_inside(self, mutant: Mutant) -> bool:
        """Whether only the code of a function differs."""
        return mutant.line in self.first_line and mutant.operator != "RemoveDecorator"

    def is_explained(self, mutant: Mutant) -> bool:
        """Look for a mutant's reason in survivors.py; a survivor that has one is not tried a second time."""
        return any(explains(reason, self.name, mutant.key, self.lines[mutant.line - 1]) for reason in REASONS)

    def run(self, inside: bool, run: Run) -> None:
        """Run the mutants inside of functions, or the others, each in a fork."""
        mutants = [mutant for mutant in self.mutants if self.is_inside(mutant) == inside]
        for i, mutant in enumerate(mutants, 1):
            function = self.first_line.get(mutant.line, 0)
            before = self.kills.setdefault(function, Counter())
            # what is in no function runs at import
            names = [name for name in self.costs if not function or function in self.costs[name].functions]
            names.sort(key=lambda name: (-before[name], self.costs[name].seconds))
            limit = LEAST_SECONDS + 10 * int(sum(self.costs[name].seconds for name in names))
            outcome, noticed_by = outcome_of(run, mutant, names, limit) if names else ("survived", "")
            self.known[mutant.key] = [outcome, mutant.line]
            before[noticed_by] += 1
            if outcome == "survived":
                print(f"survived: {path_of(self.name).relative_to(ROOT)}:{mutant.line} {mutant.key}", flush=True)
            if i % 20 == 0 or i == len(mutants):
                save({**load(), self.name: self.held})
                print(f"  {self.name}: {i} of {len(mutants)}", flush=True)


def outcome_of(run: Run, mutant: Mutant, names: Sequence[str], seconds: int) -> tuple[str, str]:
    """Tell whether a mutant is "killed" by a failing test, and which, ends in "timeout", or "survived"."""
    failed, late = in_a_fork(lambda: run(mutant, names), seconds)
    if late:
        return "timeout", ""
    return ("survived", "") if failed == "" else ("killed", failed or "")


def test_module(name: str, again: bool, sample: int | None) -> None:
    """Run the mutants of one module, or a sample of them, that have no result yet."""
    module = Module(name, again, sample)
    print(f"{name}: {len(module.mutants)} mutants to run, {len(module.known)} known", flush=True)
    module.run(False, import_and_run(name))

    def use(session: Any) -> None:
        run = put_in_and_run(name, session)
        if module.mutants and outcome_of(run, module.unchanged, list(module.costs), DAY)[0] != "survived":
            raise AssertionError(f"Tests of {name} fail with its own code put in again.")
        module.run(True, run)

    def serve() -> int:
        return start_pytest(files_of(name), Server(use))

    status, _ = in_a_fork(serve, DAY)
    if status is None:
        sys.exit(f"The mutants of {name} were not all run; what was run is kept.")


def load() -> dict[str, Any]:
    """The results so far; empty where there are none."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(results: dict[str, Any]) -> None:
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, sort_keys=True))
    part.replace(RESULTS)


@dataclass(frozen=True)
class Score:
    """Mutants of a module that a test noticed, that were run, and that there are; whether the source is that of now."""

    noticed: int
    tried: int
    total: int
    is_current: bool


def score(results: dict[str, Any]) -> dict[str, Score]:
    """The score of each module."""
    found = {}
    for module, held in results.items():
        outcomes = [outcome for outcome, _ in held["mutants"].values()]
        tried, is_current = len(outcomes), held["source"] == digest(path_of(module))
        found[module] = Score(tried - outcomes.count("survived"), tried, held.get("total", tried), is_current)
    return found


def import_what_is_not_mutated() -> None:
    """Import the packages that the tests need besides skxma."""
    from skxma.encoder._torchvision_compat import ensure_importable

    ensure_importable()
    for name in HEAVY:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "skxma"]:
        del sys.modules[name]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mutation score of the mathematics.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--survivors", action="store_true", help="run those again that survived, after new tests")
    parser.add_argument("--sample", type=int, metavar="N", help="run about N mutants of each module")
    arguments = parser.parse_args(argv)
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    import_what_is_not_mutated()
    for module in arguments.modules or MODULES:
        test_module(module, arguments.survivors, arguments.sample)
    results = load()
    for module, of in score(results).items():
        print(
            f"{module}: {of.noticed} of {of.tried} mutants noticed, {of.noticed / of.tried:.1%}; there are {of.total}"
        )
    left = unexplained(results)
    for place in left:
        print(f"survives without a reason: {place}", file=sys.stderr)
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
