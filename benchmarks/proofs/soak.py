"""A soak: two processes that share a store fit, predict, save, load, grow, shrink and search until the time is up.

    python benchmarks/proofs/soak.py --minutes 30

Prints, of each process, how fast its memory grew after the warm-up, how many file descriptors it gained, and every
error; the status is 1 where memory grows by 1 MB per minute or more, descriptors stay open or anything failed. Images
are the bundled emoji, new ones drawn from them all the time; the encoder is the bundled one. Reads /proc, so Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORKERS = 2
WARM_UP = 0.2
SAMPLE_SECONDS = 5.0
MAX_SLOPE = 1.0
# small enough that rows are dropped from it all the time
STORE_BYTES = 2**20
CLASSES, SHOTS = 5, 3
EVIDENCES: list[dict[str, Any]] = [
    {"evidence": "calibrated"},
    {"evidence": "calibrated", "false_rejection_rate": 0.1},
    {"evidence": "paper", "n_epochs": 3},
]


class Images:
    """Files of emoji, each changed a little so that no encoder has seen it."""

    def __init__(self, folder: Path, seed: int) -> None:
        from skxma.datasets import load_emoji

        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.emoji = load_emoji()
        self.names = np.unique(self.emoji.target)
        self.n_written = 0

    def draw(self, classes: Sequence[str], shots: int) -> tuple[list[str], list[str]]:
        """Paths and labels of new images, `shots` per class; the files of the calls before are overwritten in time."""
        from PIL import Image

        paths, labels = [], []
        for name in classes:
            for index in self.rng.choice(np.flatnonzero(self.emoji.target == name), shots):
                pixels = np.array(self.emoji.images[index])
                spot = self.rng.integers(0, np.array(pixels.shape[:2]) - 4)
                pixels[spot[0] : spot[0] + 4, spot[1] : spot[1] + 4] = self.rng.integers(0, 256, 3)
                path = self.folder / f"{self.n_written % 200}.png"
                self.n_written += 1
                Image.fromarray(pixels).save(path)
                paths.append(str(path))
                labels.append(str(name))
        return paths, labels


def one_round(images: Images, store: str, folder: Path, turn: int) -> None:
    """Take a model through everything once."""
    import joblib

    import skxma
    from skxma import XMAdapterClassifier, XMAdapterSearchCV, baselines
    from skxma.store._sqlite import EmbeddingStore

    memory = EmbeddingStore(store, max_bytes=STORE_BYTES)
    chosen = list(images.rng.choice(images.names, CLASSES + 1, replace=False))
    known, fresh = chosen[:CLASSES], chosen[CLASSES:]
    X, y = images.draw(known, SHOTS)
    queries, _ = images.draw(known, 2)
    clf = XMAdapterClassifier("tiny", memory=memory, random_state=0, **EVIDENCES[turn % len(EVIDENCES)]).fit(X, y)
    before = clf.predict_proba(queries)
    clf.predict(queries)
    clf.kneighbors(queries)
    joblib.dump(clf, folder / "model.joblib")
    agree(before, joblib.load(folder / "model.joblib").predict_proba(queries))
    clf.save(folder / "model.skxma")
    loaded = skxma.load(folder / "model.skxma").set_params(memory=memory)
    agree(before, loaded.predict_proba(queries))
    more, their = images.draw(fresh, SHOTS)
    loaded.partial_fit(more, their)
    loaded.drop(known[:1])
    if loaded.predict_proba(queries).shape[1] != CLASSES:
        raise AssertionError("one class joined and one left, and the number of classes changed")
    kind = getattr(baselines, baselines.__all__[turn % len(baselines.__all__)])
    kind("tiny", memory=memory, random_state=0).fit(X, y).predict(queries)
    swept = XMAdapterClassifier("tiny", memory=memory, evidence="paper", n_epochs=0, fusion_ratio=0.5)
    XMAdapterSearchCV(swept, {"alpha": [0.5, 2.0], "beta": [2.0, 5.5]}, cv=SHOTS).fit(X, y)
    XMAdapterSearchCV(clf, {"beta": [2.0, "auto"]}, cv=SHOTS).fit(X, y).predict(queries)


def agree(before: NDArray[Any], after: NDArray[Any]) -> None:
    """Refuse a loaded model that answers otherwise."""
    if not np.array_equal(before, after):
        raise AssertionError(f"a loaded model answers otherwise, by {np.abs(before - after).max():.2e}")


def work(folder: Path, number: int, seconds: float) -> None:
    """One process: rounds until the time is up; prints a line of JSON every few seconds, and one for each error."""
    import torch

    torch.set_num_threads(1)
    random.seed(number)
    own = folder / str(number)
    own.mkdir()
    images = Images(own, number)
    start, last, turn = time.monotonic(), -SAMPLE_SECONDS, 0
    while time.monotonic() - start < seconds:
        try:
            one_round(images, str(folder / "store"), own, turn)
        except Exception:
            print(json.dumps({"error": traceback.format_exc()}), flush=True)
        turn += 1
        now = time.monotonic() - start
        if now - last >= SAMPLE_SECONDS:
            last = now
            sample = {"seconds": now, "megabytes": resident_megabytes(), "files": open_files(), "rounds": turn}
            print(json.dumps(sample), flush=True)


def resident_megabytes() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def open_files() -> int:
    """File descriptors of this process, but for the one that lists them."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - a Path would open nothing else


def follow(process: subprocess.Popen[str], samples: list[dict[str, Any]], errors: list[str]) -> Callable[[], None]:
    """Collect the lines that a worker prints; return a function that waits for its end."""

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if "error" in said:
                errors.append(said["error"])
                print(said["error"], file=sys.stderr)
            else:
                samples.append(said)

    thread = threading.Thread(target=read)
    thread.start()

    def wait() -> None:
        thread.join()
        if process.wait():
            errors.append(f"a worker ended with status {process.returncode}")

    return wait


def growth(samples: list[dict[str, Any]]) -> dict[str, float]:
    """Changes after the warm-up: megabytes per minute by least squares, range of memory, descriptors gained."""
    end = samples[-1]["seconds"]
    settled = [one for one in samples if one["seconds"] >= WARM_UP * end]
    minutes = np.array([one["seconds"] / 60 for one in settled])
    megabytes = np.array([one["megabytes"] for one in settled])
    return {
        "slope": float(np.polyfit(minutes, megabytes, 1)[0]),
        "least": float(megabytes.min()),
        "most": float(megabytes.max()),
        "files_before": settled[0]["files"],
        "files_after": settled[-1]["files"],
        "rounds": samples[-1]["rounds"],
        "minutes": end / 60,
    }


def soak(minutes: float) -> tuple[list[dict[str, float]], list[str]]:
    """Run the workers; return the growth of each, and all errors."""
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number in range(WORKERS):
            command = [sys.executable, __file__, "--worker", str(number), "--folder", folder]
            process = subprocess.Popen([*command, "--minutes", str(minutes)], stdout=subprocess.PIPE, text=True)
            samples: list[dict[str, Any]] = []
            runs.append((samples, follow(process, samples, errors)))
        for _, wait in runs:
            wait()
    return [growth(samples) for samples, _ in runs if len(samples) > 2], errors


def table(found: list[dict[str, float]], errors: list[str]) -> list[str]:
    """The rows of a Markdown table."""
    rows = [
        "| process | minutes | rounds | memory after warm-up | growth | open files, first and last | errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(found, 1):
        rows.append(
            f"| {number} | {one['minutes']:.1f} | {one['rounds']} | {one['least']:.0f} to {one['most']:.0f} MB "
            f"| {one['slope']:+.2f} MB per minute | {one['files_before']}, {one['files_after']} "
            f"| {len(errors)} of all |"
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Fit, predict, save, load, grow and search until the time is up.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", metavar="FILE", help="write what was measured there too, as JSON")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(Path(arguments.folder), arguments.worker, 60 * arguments.minutes)
        return 0
    found, errors = soak(arguments.minutes)
    print("\n".join(table(found, errors)))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"processes": found, "errors": errors}, indent=1) + "\n")
    grew = any(one["slope"] >= MAX_SLOPE or one["files_after"] > one["files_before"] for one in found)
    return int(grew or bool(errors) or len(found) < WORKERS)


if __name__ == "__main__":
    sys.exit(main())
