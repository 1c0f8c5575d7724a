"""Adding classes to a fitted model and removing them: the cost of `partial_fit` and `drop`; nothing is forgotten.

    python benchmarks/growing.py

A model of 100 classes x 16 shots x 512 dimensions with class text and a vocabulary, to which a class of 16 images is
added. Seconds are of the wall, and of the processor in brackets; the best of five.
"""

import copy
import time

import numpy as np

from skxma import XMAdapterClassifier

CLASSES, SHOTS, WIDTH, WORDS = 100, 16, 512, 409
TRIES = 5


def unit(a):
    return (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32)


def timed(call):
    """Wall and processor seconds, the least of some tries."""
    walls, processors = [], []
    for _ in range(TRIES):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return f"{min(walls):5.2f} s ({min(processors):.2f})"


def main():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((CLASSES + 1, WIDTH))
    text = dict(enumerate(unit(centers + rng.standard_normal((CLASSES + 1, WIDTH)))))
    words = unit(rng.standard_normal((WORDS, WIDTH)))

    def images_of(labels):
        return unit(centers[labels] + 5.0 * rng.standard_normal((len(labels), WIDTH)))

    y, y_test = np.arange(CLASSES).repeat(SHOTS), np.arange(CLASSES + 1).repeat(20)
    X, X_test, new = images_of(y), images_of(y_test), images_of(np.full(SHOTS, CLASSES))
    old = y_test < CLASSES
    clf = XMAdapterClassifier("precomputed", text_features=text, vocabulary=words)
    print(f"fit                     {timed(lambda: clf.fit(X, y))}")
    print(f"accuracy on {CLASSES} classes: {clf.score(X_test[old], y_test[old]):.3f}")
    for warm in (False, True):
        clf.set_params(warm_start=warm)
        grown = copy.deepcopy(clf).partial_fit(new, np.full(SHOTS, CLASSES))
        took = timed(lambda: copy.deepcopy(clf).partial_fit(new, np.full(SHOTS, CLASSES)))
        print(f"partial_fit{', warm_start' * warm:12s} {took}", end="   ")
        print(f"accuracy on the old classes {grown.score(X_test[old], y_test[old]):.3f}", end=", ")
        print(f"on the new one {grown.score(X_test[~old], y_test[~old]):.3f}", flush=True)
    clf.set_params(warm_start=False)
    print(f"drop                    {timed(lambda: copy.deepcopy(clf).drop([0]))}")


if __name__ == "__main__":
    main()
