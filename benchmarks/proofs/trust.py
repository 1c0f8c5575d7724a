"""Outcomes of the tests: faults, bad inputs, properties, mutants, coverage, and the soak.

    python benchmarks/proofs/trust.py [--docs] [--marked] [--folder DIR [--read]]

Runs all tests once, the slow ones too, or with ``--marked`` the faults, bad inputs and properties alone, and counts
what really ran: a fault is a test marked `fault`, a bad input a test marked `bad_input` or each of the files and
examples that one goes through, an example one that hypothesis drew and that passed. The mutants and the soak are those
that `mutation.py` and `soak.py --out benchmarks/proofs/soak.json`, in the same folder, measured. ``--docs`` writes
docs/proofs.md, with the day on which each figure was measured; what this run did not measure stays as it is there. The
status is 1 where a test failed, coverage is below 95 % or fewer than 90 % of the mutants are noticed. Needs
`pip install ".[test,proofs]"`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import device
import mutation
import soak
from survivors import REASONS, unexplained

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proofs.md"
SOAK = Path(__file__).parent / "soak.json"
DEVICE = Path(__file__).parent / "device.json"
LEAST_COVERAGE, LEAST_MUTANTS = 0.95, 0.90
STATISTICS = "hypothesis-statistics-"
MARKED = "fault or bad_input or property"
INTRODUCTION = """\
# Proofs

Everything that the tests try in order to break skxma, and the outcome on the day that each row names. Written by
`python benchmarks/proofs/trust.py --docs`, which runs all tests; the mutants are run by
`benchmarks/proofs/mutation.py`, the soak by `benchmarks/proofs/soak.py`, the device by `benchmarks/proofs/device.py`.

{rows}

- **Faults** (`pytest -m fault`): kills during encoding and saving, full and read-only disks, damaged, foreign and
  forged files, two processes on one store. Survived means that nothing finished was lost, nothing half written was
  left, and the next run went on.
- **Bad inputs** (`pytest -m bad_input`): files that are truncated, bombs, of another kind, strange or no files at all,
  each encoded in a process of its own with little memory and little time; wrong embeddings, labels and weights. Clear
  means the right answer, or an error that names what was given.
- **Properties** (`pytest -m property`): what must hold for all inputs, on examples that hypothesis draws.
- **Mutants**: every change that cosmic-ray can make to the mathematics, except to annotations, which do not run, or a
  sample of them that is spread evenly over the lines of a module. One is noticed when a test fails, or never ends.
- **The soak**: two processes that share a store too small for them fit, predict, save, load, grow, shrink and search,
  each time on new images.
- **The device** (`tests/test_on_device.py`): no GPU, but tensors that say that they are on one, compute on the CPU and
  follow CUDA's rules: operands of two devices raise, a tensor of the device becomes no array, copies and waits are
  counted. Values are those of the CPU. What only hardware shows is in `tests/test_gpu.py`, which runs where there is
  one.
"""


@dataclass
class Outcome:
    """One test that was run."""

    name: str
    outcome: str
    kinds: set[str]
    examples: int = 0
    bad_inputs: int = 0


@dataclass
class Run:
    """The reports of one run of pytest; without coverage of the marked tests alone."""

    outcomes: list[Outcome] = field(default_factory=list)
    lines: float | None = None
    branches: float | None = None
    day: str = ""

    def of(self, kind: str, outcome: str = "passed") -> list[Outcome]:
        """Tests of a kind and an outcome."""
        return [one for one in self.outcomes if kind in one.kinds and one.outcome == outcome]


def run_tests(folder: Path, marked: bool) -> None:
    """Run all tests with coverage, or the marked ones, leaving pytest's and coverage's reports in a folder."""
    command = [sys.executable, "-m", "pytest", "tests", "-m", MARKED if marked else "slow or not slow"]
    command += ["--hypothesis-show-statistics", f"--junit-xml={folder / 'tests.xml'}", "-o", "junit_family=xunit1"]
    if not marked:
        command += ["--cov=skxma", "--cov-branch", f"--cov-report=json:{folder / 'coverage.json'}"]
    environment = {**os.environ, "COVERAGE_FILE": str(folder / "coverage")}
    # that of an earlier run would be taken for this one's
    (folder / "coverage.json").unlink(missing_ok=True)
    with (folder / "tests.log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env=environment)


def read_run(folder: Path) -> Run:
    """Read the reports of a run."""
    root = ET.parse(folder / "tests.xml").getroot()
    drawn: dict[str, int] = {}
    for item in root.iter("property"):
        name = item.get("name", "")
        if name.startswith(STATISTICS):
            said = base64.b64decode(item.get("value", "")).decode()
            drawn[name.removeprefix(STATISTICS)] = sum(map(int, re.findall(r"(\d+) passing", said)))
    day = datetime.fromtimestamp((folder / "tests.xml").stat().st_mtime, UTC).date().isoformat()
    run = Run([outcome_of(case, drawn) for case in root.iter("testcase")], day=day)
    coverage = folder / "coverage.json"
    if coverage.exists():
        totals = json.loads(coverage.read_text())["totals"]
        run.lines = totals["covered_lines"] / totals["num_statements"]
        run.branches = totals["covered_branches"] / totals["num_branches"]
    return run


def outcome_of(case: ET.Element, drawn: dict[str, int]) -> Outcome:
    """One test of pytest's report; its kinds are noted there by tests/conftest.py."""
    noted = {item.get("name"): item.get("value", "") for item in case.iter("property")}
    outcome = next((tag for tag in ("failure", "error", "skipped") if case.find(tag) is not None), "passed")
    name = f"{case.get('file')}::{case.get('name')}"
    examples = drawn.get(name, 0)
    return Outcome(
        name, outcome, set(str(noted.get("kinds", "")).split()), examples, int(noted.get("bad_inputs") or examples or 1)
    )


def rows_of_tests(run: Run) -> Iterator[str]:
    """The rows of faults, bad inputs, properties and coverage."""
    lost = [*run.of("fault", "failure"), *run.of("fault", "error")]
    survived, skipped = run.of("fault"), run.of("fault", "skipped")
    yield (
        f"| faults | {len(survived) + len(lost)} tried, {len(survived)} survived, **{len(lost)} lost**"
        f"{f'; {len(skipped)} not tried here' if skipped else ''} | {run.day} |"
    )
    clear = sum(one.bad_inputs for one in run.of("bad_input"))
    unclear = [*run.of("bad_input", "failure"), *run.of("bad_input", "error")]
    yield f"| bad inputs | {clear + len(unclear)} tried, {clear} clear, **{len(unclear)} not** | {run.day} |"
    held = run.of("property")
    broken = [*run.of("property", "failure"), *run.of("property", "error")]
    yield (
        f"| properties | {len(held) + len(broken)} tried on {sum(one.examples or 1 for one in held)} examples, "
        f"{len(held)} hold, **{len(broken)} do not** | {run.day} |"
    )
    if run.lines is None or run.branches is None:
        yield from (kept_row(name) for name in ("all tests", "coverage"))
        return
    counts = [sum(one.outcome == kind for one in run.outcomes) for kind in ("passed", "failure", "error", "skipped")]
    yield f"| all tests | {counts[0]} passed, {counts[1] + counts[2]} failed, {counts[3]} skipped | {run.day} |"
    yield f"| coverage | {run.lines:.1%} of lines, {run.branches:.1%} of branches | {run.day} |"


def kept_row(name: str) -> str:
    """The row of the page as it is, for what this run did not measure."""
    start = f"| {name} |"
    found = [line for line in PAGE.read_text().splitlines() if line.startswith(start)]
    return found[0] if found else f"{start} not measured | |"


def day_of(path: Path) -> str:
    """The day on which a file of results was last committed; today where it has been changed since."""
    asked = [["diff", "--quiet", "HEAD", "--", str(path)], ["log", "-1", "--format=%cs", "--", str(path)]]
    changed, last = (subprocess.run(["git", *one], cwd=ROOT, capture_output=True, text=True) for one in asked)
    return datetime.now(UTC).date().isoformat() if changed.returncode else last.stdout.strip()


def rows_of_mutants(results: dict[str, Any]) -> Iterator[str]:
    """The row of the mutants, one number for each module."""
    if not results:
        yield "| mutants | not measured: `python benchmarks/proofs/mutation.py` | |"
        return
    parts, noticed, total = [], 0, 0
    for module, of in mutation.score(results).items():
        sample = "" if of.tried == of.total else f" (a sample of {of.total})"
        earlier = "" if of.is_current else " (before its last change)"
        parts.append(f"`{module}` {of.noticed / of.tried:.1%} of {of.tried}{sample}{earlier}")
        noticed, total = noticed + of.noticed, total + of.tried
    left = unexplained(results)
    yield (
        f"| mutants | {noticed} of {total} noticed, **{noticed / total:.1%}**: {', '.join(parts)}; "
        f"{total - noticed - len(left)} survivors explained, {len(left)} not | {day_of(mutation.RESULTS)} |"
    )


def rows_of_soak() -> Iterator[str]:
    """The row of the soak."""
    if not SOAK.exists():
        yield "| soak | not measured: `python benchmarks/proofs/soak.py --out benchmarks/proofs/soak.json` | |"
        return
    held = json.loads(SOAK.read_text())
    found = held["processes"]
    slopes = " and ".join(f"{one['slope']:+.2f}" for one in found)
    gained = " and ".join(str(one["files_after"] - one["files_before"]) for one in found)
    yield (
        f"| soak | {len(found)} processes, {min(one['minutes'] for one in found):.0f} minutes, "
        f"{sum(one['rounds'] for one in found)} rounds: {slopes} MB per minute after warm-up, {gained} open files "
        f"more, {len(held['errors'])} errors | {day_of(SOAK)} |"
    )


def rows_of_device() -> Iterator[str]:
    """The row of the simulated device."""
    if not DEVICE.exists():
        yield "| device | not measured: `python benchmarks/proofs/device.py --out benchmarks/proofs/device.json` | |"
        return
    held = json.loads(DEVICE.read_text(encoding="utf-8"))
    done, faults = held["operations"], held["faults"]
    yield (
        f"| device | {len(done)} operations in {sum(one['n_calls'] for one in done)} calls: "
        f"{sum(one['n_mixed'] for one in done)} errors of two devices, "
        f"{sum(one['n_conversions'] for one in done)} implicit conversions, "
        f"**{sum(not device.is_within(one) for one in done)} beyond a bound**; {len(faults)} faults put in by hand, "
        f"{sum(bool(one['noticed_by']) for one in faults)} noticed | {day_of(DEVICE)} |"
    )


def page(rows: list[str], results: dict[str, Any]) -> str:
    """docs/proofs.md."""
    parts = [INTRODUCTION.format(rows="\n".join(rows))]
    if SOAK.exists():
        held = json.loads(SOAK.read_text())
        parts += ["## The soak\n", *soak.table(held["processes"], held["errors"]), ""]
    if DEVICE.exists():
        held = json.loads(DEVICE.read_text(encoding="utf-8"))
        parts += ["## The device\n", *device.table(held["operations"]), ""]
        parts += [*device.table_of_faults(held["faults"]), ""]
    if results:
        parts += ["## Mutants that survive\n", "| module | line | reason |", "|---|---|---|"]
        parts += [f"| `{reason.module}` | `{reason.text}` | {reason.why} |" for reason in REASONS]
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="What the tests tried and what came of it.")
    parser.add_argument("--docs", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--marked", action="store_true", help="run the faults, bad inputs and properties alone")
    parser.add_argument("--folder", metavar="DIR", help="keep the reports of pytest and coverage there")
    parser.add_argument("--read", action="store_true", help="run nothing, read the reports in the folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not arguments.read:
            run_tests(folder, arguments.marked)
        run = read_run(folder)
    results = mutation.load()
    rows = [
        "| | | measured on |",
        "|---|---|---|",
        *rows_of_tests(run),
        *rows_of_mutants(results),
        *rows_of_soak(),
        *rows_of_device(),
    ]
    print("\n".join(rows))
    failed = [one.name for one in run.outcomes if one.outcome in ("failure", "error")]
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    for place in unexplained(results):
        print(f"mutant that survives without a reason: {place}", file=sys.stderr)
    if arguments.docs:
        PAGE.write_text(page(rows, results))
    scores = mutation.score(results).values()
    noticed = sum(of.noticed for of in scores) >= LEAST_MUTANTS * sum(of.tried for of in scores)
    covered = run.lines is None or run.branches is None or min(run.lines, run.branches) >= LEAST_COVERAGE
    return int(bool(failed) or not covered or not noticed)


if __name__ == "__main__":
    sys.exit(main())
