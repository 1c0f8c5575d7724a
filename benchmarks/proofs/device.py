"""What a CUDA device is asked for, on a simulated one, and whether the tests notice faults of its path.

    python benchmarks/proofs/device.py [--out FILE] [--only TEXT] [--part operations | faults]

Runs every operation of tests/device_operations.py on the CPU and on the simulated device and prints its calls, errors,
waits and bytes beside their bounds; then puts each of `FAULTS` into a copy of the package, and runs
tests/test_on_device.py there, which passes without a fault. The status is 1 where a bound is broken or a fault is not
noticed. Minutes, no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PAIRS = (("n_waits", "waits"), ("to_device", "bytes to the device"), ("to_host", "bytes to the host"))


@dataclass(frozen=True)
class Fault:
    """A change of one line of the package that a GPU would punish and a CPU does not."""

    what: str
    path: str
    right: str
    wrong: str

    def put_into(self, folder: Path) -> None:
        """Change the file below a folder; the line must be there once."""
        place = folder / self.path
        source = place.read_text(encoding="utf-8")
        if source.count(self.right) != 1:
            raise ValueError(f"{self.path} has {self.right!r} {source.count(self.right)} times; change this fault.")
        place.write_text(source.replace(self.right, self.wrong), encoding="utf-8")


FAULTS = (
    Fault(
        "queries are not moved to the device",
        "skxma/_estimators/scoring.py",
        "chunk.to(like.device).to(like.dtype)",
        "chunk.to(like.dtype)",
    ),
    Fault(
        "a result becomes an array on the device",
        "skxma/baselines/_training.py",
        "tensor.detach().cpu().numpy().astype(np.float32)",
        "tensor.detach().numpy().astype(np.float32)",
    ),
    Fault(
        "an index of the device selects on the CPU",
        "skxma/_estimators/xmadapter.py",
        "topk(n_neighbors, dim=1).indices.cpu()",
        "topk(n_neighbors, dim=1).indices",
    ),
    Fault(
        "batches are drawn on the device by a generator of the CPU",
        "skxma/baselines/_training.py",
        "torch.randperm(n, generator=generator).to(device)",
        "torch.randperm(n, generator=generator, device=device)",
    ),
    Fault(
        "a mask is made on the CPU",
        "skxma/_evidence/index/clustered.py",
        "dtype=torch.bool, device=queries.device)",
        "dtype=torch.bool)",
    ),
    Fault(
        "each step of a training waits for its loss",
        "skxma/baselines/_lp_plus_plus.py",
        "curve.append(loss)",
        "curve.append(loss.cpu())",
    ),
    Fault(
        "each prediction copies the model",
        "skxma/caches.py",
        "_kept_copy if keeps and is_copied else _copy",
        "_copy",
    ),
    Fault(
        "each prediction waits for a truth value",
        "skxma/functional.py",
        'present.device.type == "cpu" and bool(present.all())',
        "bool(present.all())",
    ),
    Fault(
        "a batch is read before it is there",
        "skxma/encoder/_loaded_model.py",
        "        computes.wait_stream(self.copies)\n",
        "",
    ),
    Fault(
        "a batch is copied from memory that is not pinned",
        "skxma/encoder/_loaded_model.py",
        "pixels.pin_memory().to(",
        "pixels.to(",
    ),
    Fault(
        "each batch is waited for before the next is copied",
        "skxma/encoder/_clip_encoder.py",
        'n_ahead = 1 if loaded.device.type == "cuda" else 0',
        "n_ahead = 0",
    ),
    Fault(
        "memory of a batch is given back while it is read",
        "skxma/encoder/_loaded_model.py",
        "        batch.record_stream(computes)\n",
        "",
    ),
    Fault(
        "a fitted attribute stays on the device",
        "skxma/baselines/_gda.py",
        '"intercept_": frozen(bias)',
        '"intercept_": bias',
    ),
    Fault(
        "bf16 on a device that only emulates it",
        "skxma/_runtime/device.py",
        "get_device_capability(device) >= (8, 0)",
        "get_device_capability(device) >= (7, 0)",
    ),
    Fault(
        "a batch that did not fit is not halved",
        "skxma/encoder/_clip_encoder.py",
        "if not is_out_of_memory(error):",
        "if is_out_of_memory(error):",
    ),
    Fault(
        "what a user's encoder returns is taken for an array of the CPU",
        "skxma/embeddings.py",
        "tensor = values.detach().cpu()",
        "tensor = values.detach()",
    ),
)


def measured(only: str) -> Iterator[dict[str, Any]]:
    """Measure the operations whose names hold a text."""
    from device_operations import measure, operations

    for operation in operations():
        if only in operation.name:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = measure(operation)
            bounds = {"difference": operation.tolerance, "n_mixed": 0, "n_conversions": 0}
            bounds |= {name: getattr(operation, name) for name, _ in PAIRS}
            yield {"name": operation.name, **asdict(found), "bounds": bounds}


def is_within(found: dict[str, Any]) -> bool:
    """Whether an operation keeps all bounds."""
    return all(found[name] <= most for name, most in found["bounds"].items())


def table(operations: list[dict[str, Any]]) -> list[str]:
    """The operations as a Markdown table."""
    rows = [
        "| operation | calls | errors of two devices | implicit conversions | "
        + " | ".join(title for _, title in PAIRS)
        + " |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in operations:
        pairs = " | ".join(f"{one[name]} of {one['bounds'][name]}" for name, _ in PAIRS)
        rows.append(f"| {one['name']} | {one['n_calls']} | {one['n_mixed']} | {one['n_conversions']} | {pairs} |")
    return rows


def table_of_faults(faults: list[dict[str, Any]]) -> list[str]:
    """The faults as a Markdown table."""
    rows = ["| fault put in by hand | file | noticed by |", "|---|---|---|"]
    return rows + [f"| {one['what']} | `{one['path']}` | {one['noticed_by'] or '**nothing**'} |" for one in faults]


def who_notices(fault: Fault | None) -> str:
    """The first test that fails with a fault, or without; empty where none does."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("skxma", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "fixtures"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        if fault is not None:
            fault.put_into(folder)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "tests/test_on_device.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"`{failed[0].split('::')[1].split(' - ')[0]}`" if done.returncode == 1 and failed else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Operations on a simulated device, and faults that tests must notice.")
    parser.add_argument("--out", metavar="FILE", help="write what was measured there too, as JSON")
    parser.add_argument("--only", metavar="TEXT", default="", help="operations and faults whose names hold a text")
    parser.add_argument("--part", choices=("operations", "faults"), help="one of the two alone")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    if arguments.part != "faults":
        found["operations"] = list(measured(arguments.only))
        print("\n".join(table(found["operations"])), "\n", flush=True)
    if arguments.part != "operations":
        broken = who_notices(None)
        if broken:
            print(f"{broken} fails without any fault", file=sys.stderr)
            return 1
        found["faults"] = [
            {"what": fault.what, "path": fault.path, "noticed_by": who_notices(fault)}
            for fault in FAULTS
            if arguments.only in fault.what
        ]
        print("\n".join(table_of_faults(found["faults"])))
    if arguments.out:
        out = Path(arguments.out)
        before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        out.write_text(json.dumps({**before, **found}, indent=1) + "\n", encoding="utf-8")
    noticed = all(one["noticed_by"] for one in found.get("faults", []))
    return int(not (noticed and all(map(is_within, found.get("operations", [])))))


if __name__ == "__main__":
    sys.exit(main())
