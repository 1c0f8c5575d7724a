"""The same seed on the same device gives the same bits: in another process, and with another number of threads."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier

FORMS = {
    "calibrated": {},
    "paper": {"evidence": "paper", "n_epochs": 2},
    "no-text": {"text_features": None, "vocabulary": None},
    "rejecting": {"false_rejection_rate": 0.1},
    "pool": {"unlabeled_label": -1},
}
SMALL = {"n_classes": 6, "shots": 4, "dim": 32}
# in single precision; given all threads below, as larger work always is
LARGE = {"n_classes": 60, "shots": 8, "dim": 256, "n_test": 2, "noise": 2.0, "text_noise": 2.0}
# how far any answer may then be apart on another number of threads
TOLERANCE = 1e-4

RUN = """
    import sys, numpy as np, torch
    import skxma._runtime.threads
    sys.path[:0] = [sys.argv[1], sys.argv[1] + "/_estimators"]
    from test_determinism import FORMS, LARGE, SMALL, answers
    assert torch.get_num_threads() == int(sys.argv[3])
    small = [answers(form, SMALL) for form in FORMS]
    skxma._runtime.threads.SMALL_WORK = 0
    large = [answers(form, LARGE) for form in ("calibrated", "paper")] if sys.argv[4] == "large" else []
    np.savez(sys.argv[2], **{f"{i} {name}": found[name] for i, found in enumerate(small + large) for name in found})
"""


def answers(form, size):
    problem = make_problem(**size)
    parameters = {"text_features": problem.text, "vocabulary": problem.words, **FORMS[form]}
    y = np.where(np.arange(len(problem.y)) % 2, problem.y, -1) if form == "pool" else problem.y
    clf = XMAdapterClassifier("precomputed", device="cpu", random_state=0, **parameters).fit(problem.X, y)
    fitted = {name: np.asarray(getattr(clf, name)) for name in ("hardness_", "label_noise_", "alpha_", "fusion_ratio_")}
    return {"proba": clf.predict_proba(problem.X_test), "one": clf.predict_proba(problem.X_test[:1]), **fitted}


def in_a_process(folder, name, threads, size):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    target = folder / f"{name}.npz"
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(RUN),
        str(Path(__file__).parents[1]),
        str(target),
        str(threads),
        size,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(target))


def differing(a, b):
    """The largest difference of each answer that is not the same in every bit."""
    assert a.keys() == b.keys()
    return {name: float(np.abs(a[name] - b[name]).max()) for name in a if a[name].tobytes() != b[name].tobytes()}


two_processors = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor")


@two_processors
@pytest.mark.weekly
def test_processes_and_numbers_of_threads_give_the_same_bits(tmp_path):
    first = in_a_process(tmp_path, "first", 1, "small")
    assert differing(first, in_a_process(tmp_path, "again", 1, "small")) == {}
    assert differing(first, in_a_process(tmp_path, "two", 2, "small")) == {}


@two_processors
@pytest.mark.weekly
def test_what_takes_all_threads_gives_the_same_bits_on_as_many_and_nearly_so_on_others(tmp_path):
    one, two, again = (in_a_process(tmp_path, str(i), threads, "large") for i, threads in enumerate((1, 2, 2)))
    assert differing(two, again) == {}
    apart = differing(one, two)
    assert max(apart.values(), default=0) <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_the_same_seed_gives_the_same_bits_in_one_process(form):
    a, b = answers(form, SMALL), answers(form, SMALL)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes()


def test_another_seed_gives_another_paper_model():
    problem = make_problem(**SMALL)
    given = {"text_features": problem.text, "evidence": "paper", "n_epochs": 3, "batch_size": 16}
    a, b = (XMAdapterClassifier("precomputed", random_state=s, **given).fit(problem.X, problem.y) for s in (0, 1))
    assert not np.array_equal(a.predict_proba(problem.X_test), b.predict_proba(problem.X_test))
