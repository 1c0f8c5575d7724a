"""The built-in search against GridSearchCV, and a search on images against one on ready embeddings.

    python benchmarks/search.py

The sweep is over 10 alphas x 10 betas x 5 fusion ratios in 5 folds, of 40 classes x 8 shots x 512 dimensions; the
search on images is of the bundled emoji with the bundled encoder, 50 candidates in 5 folds.
"""

import time

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.datasets import load_emoji

SWEEP = {
    "alpha": np.geomspace(0.1, 50, 10).tolist(),
    "beta": np.geomspace(0.5, 30, 10).tolist(),
    "fusion_ratio": [0.0, 0.25, 0.5, 0.75, 1.0],
}
IMAGE_GRID = {"alpha": [0.3, 1, 3, 10, 30], "beta": [1.0, 5.5], "fusion_ratio": [0.2, 0.4, 0.6, 0.8, 1.0]}


def timed(search, X, y):
    start = time.perf_counter()
    search.fit(X, y)
    return time.perf_counter() - start


def sweep():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((40, 512))
    y = np.arange(40).repeat(8)
    X, text = centers[y] + 4 * rng.standard_normal((320, 512)), centers + 4 * rng.standard_normal((40, 512))
    clf = XMAdapterClassifier("precomputed", text_features=text, evidence="paper", n_epochs=0)
    XMAdapterSearchCV(clf, {"alpha": [1.0], "beta": [1.0], "fusion_ratio": [0.5]}, cv=5).fit(X, y)  # warms up
    built_in, grid = XMAdapterSearchCV(clf, SWEEP, cv=5), GridSearchCV(clf, SWEEP, cv=5)
    fast, slow = timed(built_in, X, y), timed(grid, X, y)
    same = np.array_equal(built_in.cv_results_["mean_test_score"], grid.cv_results_["mean_test_score"])
    print(f"{len(grid.cv_results_['params'])} candidates x 5 folds, the untrained form of the paper:")
    print(f"XMAdapterSearchCV {fast:.1f} s, GridSearchCV {slow:.1f} s: {slow / fast:.0f} times faster")
    print(f"best scores {built_in.best_score_:.4f} and {grid.best_score_:.4f}, all scores equal: {same}", flush=True)


def images():
    emoji = load_emoji(as_paths=True)
    folds = StratifiedKFold(5)
    clf = XMAdapterClassifier("tiny", n_epochs=0)
    CLIPEncoder("tiny").encode_image(emoji.images[:1])  # the weights are loaded once in either case
    whole = timed(GridSearchCV(clf, IMAGE_GRID, cv=folds), emoji.images, emoji.target)
    start = time.perf_counter()
    ready = CLIPEncoder("tiny", memory=False).encode_image(emoji.images)
    encoding = time.perf_counter() - start
    search = timed(GridSearchCV(clf, IMAGE_GRID, cv=folds), ready, emoji.target)
    print("\nGridSearchCV of 50 candidates x 5 folds on 200 images:")
    print(f"{whole:.1f} s; encoding once {encoding:.1f} s + on ready embeddings {search:.1f} s", end=": ")
    print(f"ratio {whole / (encoding + search):.2f}")


if __name__ == "__main__":
    sweep()
    images()
