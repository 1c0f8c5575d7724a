"""A fitted model in a server: answers from many threads, processes that are forked once it is loaded."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import make_problem
from simulated_device import simulated_device

from skxma import XMAdapterClassifier
from skxma.baselines import TipAdapterClassifier
from skxma.datasets import load_emoji

N_THREADS = 8


@pytest.mark.parametrize("parameters", [{}, {"evidence": "paper", "n_epochs": 2, "retrieval": "top"}])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_model_answers_eight_threads_as_it_answers_one(parameters, device):
    problem = make_problem(n_classes=4, shots=4, dim=16, n_test=40)
    queries = np.array_split(problem.X_test, 4 * N_THREADS)

    def answers():
        clf = XMAdapterClassifier("precomputed", text_features=problem.text, random_state=0, device=device)
        # the first answer, too, is given by eight threads at once
        clf.set_params(**parameters).fit(problem.X, problem.y)
        with ThreadPoolExecutor(N_THREADS) as pool:
            return np.concatenate(list(pool.map(clf.predict_proba, queries))), clf.predict_proba(problem.X_test)

    if device == "cpu":
        found, expected = answers()
    else:
        with simulated_device():
            found, expected = answers()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_images_are_answered_in_eight_threads_as_in_one():
    emoji = load_emoji()
    shots = emoji.sets == "noto"
    clf = TipAdapterClassifier("tiny", device="cpu", precision="fp32", memory=False)
    clf.fit(emoji.images[shots][:20], emoji.target[shots][:20])
    queries = [[image] for image in emoji.images[~shots][: 2 * N_THREADS]]
    expected = [clf.predict_proba(one) for one in queries]
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(clf.predict_proba, queries))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


# A server that loads before it forks: the keys of the model are many, and no worker may copy them.
PREFORK = """
    import os, re, sys
    import numpy as np, torch
    from skxma.baselines import TipAdapterClassifier

    def private():
        text = open("/proc/self/smaps_rollup").read()
        return sum(int(kb) for kb in re.findall(r"Private_(?:Dirty|Clean): +(\\d+) kB", text)) * 1024

    rng = np.random.default_rng(0)
    X = rng.standard_normal((16384, 512)).astype(np.float32)
    clf = TipAdapterClassifier("precomputed", device="cpu").fit(X, np.arange(len(X)) % 2)
    expected = clf.predict_proba(X[:4])
    size = clf.image_cache_.keys.nbytes
    for _ in range(3):
        child = os.fork()
        if child == 0:
            before = private()
            same = np.allclose(clf.predict_proba(X[:4]), expected)
            print(same, private() - before < size / 2, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_that_are_forked_from_a_server_share_the_model():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PREFORK)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["True"] * 6, done.stderr


def test_cuda_in_a_forked_process_is_refused_with_the_way_out(monkeypatch):
    problem = make_problem(n_classes=4, shots=4, dim=16, n_test=2)
    clf = TipAdapterClassifier("precomputed", text_features=problem.text, device="cuda")
    with simulated_device() as device:
        expected = clf.fit(problem.X, problem.y).predict_proba(problem.X_test)
        monkeypatch.setattr("torch.cuda._is_in_bad_fork", lambda: True)
        device.reset()
        with pytest.warns(UserWarning, match=r"forked.*'spawn'.*goes on with the CPU"):
            found = clf.predict_proba(problem.X_test)
        with pytest.raises(ValueError, match=r"forked.*device='cpu'"):
            TipAdapterClassifier("precomputed", device="cuda").fit(problem.X, problem.y)
        TipAdapterClassifier("precomputed", device="auto").fit(problem.X, problem.y).predict(problem.X_test)
        assert device.n_launches == device.n_bytes("to_device") == 0
    np.testing.assert_allclose(found, expected, atol=1e-6)
