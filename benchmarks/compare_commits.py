"""Two commits timed beside each other: fits, predictions, encoding and the command line's start; fails on a loss.

    python benchmarks/compare_commits.py HEAD~20 HEAD [--tries 5] [--loss 0.2]

Each commit is checked out in a folder of its own and measured in processes of its own, in turns, so that what else the
machine does falls on both; the least of all tries counts. Times are the processor's, on one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# a call is repeated until this many seconds are gone, and the least time counts
SECONDS = 1.0


def least(work):
    """Least processor time of a call, that of its child processes included, in seconds."""
    work()
    times, until = [], time.perf_counter() + SECONDS
    while not times or time.perf_counter() < until:
        before = processor_time()
        work()
        times.append(processor_time() - before)
    return min(times)


def processor_time():
    """Seconds of this process and of its children that have ended; those of children come in hundredths."""
    return time.process_time() + sum(os.times()[2:4])


def repeated(work, n):
    """A call that calls another several times, for one alone is shorter than what else the machine does."""
    return lambda: [work() for _ in range(n)]


def measure():
    """Times of the skxma that is imported here, by name."""
    from scale import problem

    from skxma import CLIPEncoder, XMAdapterClassifier
    from skxma.datasets import load_emoji

    times = {}
    for n_classes, shots in ((10, 4), (100, 4)):
        X, y, text, queries = problem(n_classes, shots, n_queries=2000)
        clf = XMAdapterClassifier("precomputed", text_features=text, device="cpu")
        size = f"{n_classes} classes x {shots} shots"
        times[f"fit, {size}"] = least(lambda clf=clf, X=X, y=y: clf.fit(X, y))
        times[f"2000 predictions, {size}"] = least(lambda clf=clf, q=queries: clf.predict_proba(q))
        one = repeated(lambda clf=clf, q=queries[:1]: clf.predict_proba(q), 200)
        times[f"200 single predictions, {size}"] = least(one)
    emoji = load_emoji(as_paths=True, sets=["noto", "twemoji"])
    encoder = CLIPEncoder("tiny", device="cpu", memory=False)
    times["80 images encoded with tiny"] = least(lambda: encoder.encode_image(emoji.images))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "m.skxma"
        XMAdapterClassifier("tiny", device="cpu").fit(emoji.images[:8], emoji.target[:8]).save(model)
        for name, words in {
            "skxma predict of one image": ["predict", str(model), str(emoji.images[0])],
            "skxma with wrong usage": ["predict", "--nope"],
        }.items():
            command = [sys.executable, "-m", "skxma", *words]
            times[name] = least(lambda command=command: subprocess.run(command, capture_output=True, check=False))
    return times


def measured(folder):
    """Times of a checkout, in a process of its own."""
    here = str(Path(__file__).resolve().parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), here]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["from"]).is_relative_to(folder), f"measured {found['from']}, not {folder}"
    return found["times"]


def report(before, after, loss):
    """Print both times of each measure, and return the names of those that lost more than a share."""
    lost = []
    for name, was in before.items():
        ratio = after[name] / was
        mark = "LOSS" if ratio > 1 + loss else ""
        print(f"{name:44s} {1000 * was:9.1f} ms {1000 * after[name]:9.1f} ms  {ratio:5.2f} {mark}".rstrip())
        lost += [name] if mark else []
    return lost


def compare(commits, tries, loss, out=None):
    """Measure two commits in turns, and write the times to a file; the number of losses."""
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place).resolve() / name for name in ("before", "after")]
        for folder, commit in zip(folders, commits, strict=True):
            subprocess.run(["git", "worktree", "add", "--detach", "--quiet", folder, commit], cwd=ROOT, check=True)
        try:
            found = [[measured(folder) for folder in folders] for _ in range(tries)]
        finally:
            for folder in folders:
                subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)
    before, after = ({name: min(one[name] for one in of) for name in of[0]} for of in zip(*found, strict=True))
    if out is not None:
        Path(out).write_text(json.dumps({"commits": commits, "before": before, "after": after}, indent=1))
    return len(report(before, after, loss))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="the one before and the one after")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--loss", type=float, default=0.2, help="share of its time by which a measure may grow")
    parser.add_argument("--out", metavar="JSON", help="write the times there")
    parser.add_argument("--measure", action="store_true", help="print the times of the skxma that is imported")
    arguments = parser.parse_args()
    if arguments.measure:
        import skxma

        print(json.dumps({"from": str(Path(skxma.__file__).resolve()), "times": measure()}))
        return 0
    if len(arguments.commits) != 2:
        parser.error("two commits are compared")
    return int(compare(arguments.commits, arguments.tries, arguments.loss, arguments.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
