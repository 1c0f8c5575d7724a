"""Importing, fit and predict at the size of ImageNet, cost as the problem grows, training against Tip-Adapter-F.

    python benchmarks/scale.py [--classes 1000] [--shots 16] [--queries 50000] [--no-growth]
    python benchmarks/scale.py --medium [--classes 1000] [--shots 16] [--queries 50000]

On made-up embeddings of 512 dimensions. Times are the processor's, so that another process does not count; predictions
stand beside the two bare matrix products, queries by keys and affinities by one-hot values. Growth ends in the power of
the size with which time grows. With --medium, the fit and the predictions alone, at torch's matmul precisions
"highest", its default, and "medium", with the largest difference in a probability.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from skxma import XMAdapterClassifier
from skxma.baselines import TipAdapterFClassifier

DIM = 512
# affinities that the bare products make at once
PIECE_ENTRIES = 2**22
IMAGE_NOISE, TEXT_NOISE = 3.0, 2.0
# fits of fewer samples than these get more epochs, so that they take as long
EPOCHS, SAMPLES, TRIES = 10, 4000, 3
GROWTH = {
    "classes": [(c, 4, DIM, 10_000) for c in (50, 100, 200, 400)],
    "shots": [(100, k, DIM, 10_000) for k in (2, 4, 8, 16)],
    "dimensions": [(100, 4, d, 10_000) for d in (128, 256, 512, 1024)],
    "queries": [(100, 4, DIM, q) for q in (10_000, 20_000, 40_000, 80_000)],
}


def problem(n_classes, shots, dim=DIM, n_queries=0, seed=0):
    """Support set, labels, class texts and queries around random class centers."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((n_classes, dim), dtype=np.float32)

    def around(labels, noise):
        return centers[labels] + noise * rng.standard_normal((len(labels), dim), dtype=np.float32)

    y, classes = np.arange(n_classes).repeat(shots), np.arange(n_classes)
    return around(y, IMAGE_NOISE), y, around(classes, TEXT_NOISE), around(np.arange(n_queries) % n_classes, IMAGE_NOISE)


def seconds(work, *arguments):
    """Processor time of a call, and its result."""
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def bare_products(queries, keys, values):
    """Queries by keys and affinities by values, in pieces, so that they fit in memory."""
    for piece in queries.split(max(1, PIECE_ENTRIES // len(keys))):
        piece @ keys.T @ values


def fit_and_predict(n_classes, shots, n_queries):
    X, y, text, queries = problem(n_classes, shots, n_queries=n_queries)
    clf = XMAdapterClassifier("precomputed", text_features=text, vocabulary=text)
    start = time.perf_counter()
    cpu, _ = seconds(clf.fit, X, y)
    wall = time.perf_counter() - start
    print(f"{n_classes} classes x {shots} shots x {DIM}: fit {cpu:.0f} s of processor time, {wall:.0f} s on the clock")
    print(f"peak memory {peak_gb():.1f} GB")
    cpu, labels = seconds(clf.predict, queries)
    values = torch.zeros(len(y), n_classes).scatter_(1, torch.as_tensor(y)[:, None], 1.0)
    bare, _ = seconds(bare_products, torch.as_tensor(queries), torch.as_tensor(X), values)
    right = 100 * (labels == np.arange(n_queries) % n_classes).mean()
    print(
        f"{n_queries} predictions {cpu:.1f} s, the bare products {bare:.1f} s: ratio {cpu / bare:.2f} "
        f"({right:.1f} % right)"
    )
    print(f"peak memory {peak_gb():.1f} GB", flush=True)


def at_medium_precision(n_classes, shots, n_queries):
    X, y, text, queries = problem(n_classes, shots, n_queries=n_queries)
    found = []
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        clf = XMAdapterClassifier("precomputed", text_features=text, vocabulary=text)
        fit = min(seconds(clf.fit, X, y)[0] for _ in range(2))
        predict, probabilities = min((seconds(clf.predict_proba, queries) for _ in range(2)), key=lambda one: one[0])
        found.append(probabilities)
        print(f'"{precision}": fit {fit:.2f} s, {n_queries} predictions {predict:.2f} s of processor time', flush=True)
    print(f"largest difference in a probability {np.abs(found[1] - found[0]).max():.1e}")


def training(n_classes, shots):
    """Processor time of one epoch of both: the time that many add to a fit of one; fits alternate, the least count."""
    X, y, text, _ = problem(n_classes, shots)
    more = max(EPOCHS, EPOCHS * SAMPLES // len(y))
    estimators = (
        XMAdapterClassifier("precomputed", text_features=text, evidence="paper", alpha=1.0, beta=5.5),
        TipAdapterFClassifier("precomputed", text_features=text),
    )
    times = [
        [[seconds(clf.set_params(n_epochs=n).fit, X, y)[0] for n in (1, 1 + more)] for clf in estimators]
        for _ in range(1 + TRIES)
    ]
    # the first try warms up
    few, many = np.min(times[1:], axis=0).T
    ours, theirs = 1000 * (many - few) / more
    print(
        f"an epoch of training, {n_classes} classes x {shots} shots: the paper's form {ours:.1f} ms, "
        f"Tip-Adapter-F {theirs:.1f} ms: ratio {ours / theirs:.2f}",
        flush=True,
    )


def growth():
    print("\ngrows         classes  shots  dimensions  queries   fit s  predict s")
    for name, cases in GROWTH.items():
        times = []
        for n_classes, shots, dim, n_queries in cases:
            X, y, text, queries = problem(n_classes, shots, dim, n_queries)
            clf = XMAdapterClassifier("precomputed", text_features=text)
            fit, _ = seconds(clf.fit, X, y)
            predict, _ = seconds(clf.predict, queries)
            print(
                f"{name:12s}  {n_classes:7d}  {shots:5d}  {dim:10d}  {n_queries:7d}  {fit:6.2f}  {predict:9.2f}",
                flush=True,
            )
            times.append((fit, predict))
        # each case is twice the one before
        fit, predict = np.polyfit(np.arange(len(cases)), np.log2(times), 1)[0]
        print(f"{name:12s}  time grows with the power                    {fit:6.2f}  {predict:9.2f}", flush=True)


def import_time():
    """Seconds that `import skxma` adds to starting Python, the least of five, and the heavy packages it imports."""
    heavy = ("torch", "open_clip", "matplotlib", "sklearn")
    code = f"import skxma, sys; print([name for name in {heavy} if name in sys.modules])"
    least, brought = [], ""
    for program in ("pass", code):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            brought = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
            times.append(time.perf_counter() - start)
        least.append(min(times))
    print(f"import skxma {1000 * (least[1] - least[0]):.0f} ms, imports of {', '.join(heavy)}: {brought.strip()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--medium", action="store_true")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if arguments.medium:
        at_medium_precision(arguments.classes, arguments.shots, arguments.queries)
        return
    import_time()
    fit_and_predict(arguments.classes, arguments.shots, arguments.queries)
    for n_classes, shots in ((100, 4), (100, 16), (arguments.classes, 4)):
        training(n_classes, shots)
    if arguments.growth:
        growth()


if __name__ == "__main__":
    main()
