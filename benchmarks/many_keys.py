"""A support set of hundreds of thousands of images: fitting it, and predictions that do not read all of its keys.

    python benchmarks/many_keys.py [--keys 200000] [--classes 100] [--dim 512] [--queries 2000]

On made-up embeddings around ten places for each class. Predictions with ``retrieval="top"`` stand beside those of the
same model with "exact", which reads all keys, and beside the bare product of the queries and the keys, in the pieces
in which their cosines fit into 16 MB. Queries are new images, and keys with a little noise, which must find
themselves. Times are the processor's.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from scale import peak_gb, seconds

from skxma import XMAdapterClassifier

PLACES = 10
NOISE, TEXT_NOISE, COPY_NOISE = 0.22, 2.0, 0.5
COSINES = 2**22


def problem(n_keys, n_classes, dim, n_queries, seed=0):
    """Keys, their labels, class texts, queries and theirs; the noise is larger along some axes than along others."""
    rng = np.random.default_rng(seed)
    spectrum = np.linspace(2, 0.2, dim, dtype=np.float32)
    classes = rng.standard_normal((n_classes, dim), dtype=np.float32)
    places = classes[:, None] + rng.standard_normal((n_classes, PLACES, dim), dtype=np.float32)

    def draw(n):
        y = rng.integers(n_classes, size=n)
        X = rng.standard_normal((n, dim), dtype=np.float32)
        X *= NOISE * dim**0.5 * spectrum
        X += places[y, rng.integers(PLACES, size=n)]
        return X, y

    X, y = draw(n_keys)
    text = classes + TEXT_NOISE * rng.standard_normal((n_classes, dim), dtype=np.float32)
    return X, y, text, *draw(n_queries)


def bare_product(queries, keys):
    for piece in queries.split(max(1, COSINES // len(keys))):
        piece @ keys.T


def compare(clf, exact, name, queries):
    """Time both ways to answer, and their largest difference; the first prediction makes a model ready."""
    times = []
    for one in (clf, exact):
        one.predict(queries[:1])
        times.append(seconds(one.predict_proba, queries))
    (top, found), (whole, wanted) = times
    print(
        f"{name}: top {1000 * top / len(queries):.2f} ms each, exact {1000 * whole / len(queries):.2f} ms "
        f"({whole / top:.1f} times as long); largest difference of a probability {np.abs(found - wanted).max():.4f}, "
        f"other answers {100 * (found.argmax(1) != wanted.argmax(1)).mean():.2f} %",
        flush=True,
    )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=2000)
    arguments = parser.parse_args()
    X, y, text, queries, y_queries = problem(arguments.keys, arguments.classes, arguments.dim, arguments.queries)
    print(f"{arguments.keys} keys x {arguments.dim}, {arguments.classes} classes, {torch.get_num_threads()} threads")
    print(f"the embeddings take {X.nbytes / 2**30:.1f} GB; peak memory {peak_gb():.1f} GB before the fit")
    clf = XMAdapterClassifier("precomputed", text_features=text, retrieval="top")
    fit, _ = seconds(clf.fit, X, y)
    print(f"fit {fit:.0f} s, peak memory {peak_gb():.1f} GB")
    ready, _ = seconds(clf.predict, queries[:1])
    single, _ = seconds(clf.predict, queries[:1])
    print(f"first prediction {ready:.1f} s, one more {1000 * single:.0f} ms", flush=True)

    exact = XMAdapterClassifier("precomputed", text_features=text, retrieval="exact")
    exact.__dict__.update(vars(clf), model_=replace(clf.model_, key_clusters=None))
    probability = compare(clf, exact, "new images", queries)
    print(f"{100 * (probability.argmax(1) == y_queries).mean():.1f} % right")
    rng = np.random.default_rng(1)
    copies = X[rng.integers(len(X), size=len(queries))]
    copies = copies + COPY_NOISE * rng.standard_normal(copies.shape, dtype=np.float32)
    compare(clf, exact, "nearly keys ", copies)
    some = torch.as_tensor(queries[:500])
    bare, _ = seconds(bare_product, some, torch.as_tensor(X))
    print(f"the bare product {1000 * bare / len(some):.2f} ms a query")
    print(f"peak memory {peak_gb():.1f} GB")


if __name__ == "__main__":
    main()
