import contextlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma._runtime.threads import SMALL_WORK, _blas, limit_blas_threads, limit_torch_threads, start_in_thread
from skxma.caches import ImageCache


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_is_done_on_one_thread_and_the_rest_gets_all_back(two_threads):
    with limit_torch_threads(1):
        assert torch.get_num_threads() == 1
    with limit_torch_threads(2 * SMALL_WORK):
        assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="halfway"), limit_torch_threads(1):
        raise RuntimeError("halfway")
    assert torch.get_num_threads() == 2


def test_a_small_fit_holds_the_blas_of_numpy_to_one_thread(monkeypatch):
    blas = _blas()
    if not blas.info():
        pytest.skip("numpy has no BLAS whose threads can be counted")
    with blas.limit(limits=2):
        counts = [library["num_threads"] for library in blas.info()]
        problem = make_problem(n_classes=3, shots=2)
        seen = []
        class_order = ImageCache.class_order
        monkeypatch.setattr(
            ImageCache, "class_order", lambda self, text: seen.append(blas.info()) or class_order(self, text)
        )
        XMAdapterClassifier("precomputed").fit(problem.X, problem.y)
        assert {library["num_threads"] for library in seen[0]} == {1}
        assert [library["num_threads"] for library in blas.info()] == counts
        with limit_blas_threads(2 * SMALL_WORK):
            assert [library["num_threads"] for library in blas.info()] == counts


def test_the_number_of_threads_never_changes_a_prediction(two_threads):
    problem = make_problem(n_classes=10, shots=4, dim=64)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, vocabulary=problem.words)
    on_two = clf.fit(problem.X, problem.y).predict_proba(problem.X_test)
    torch.set_num_threads(1)
    np.testing.assert_array_equal(clf.fit(problem.X, problem.y).predict_proba(problem.X_test), on_two)


@pytest.mark.fault
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_limits_that_overlap_in_two_threads_are_all_taken_back(two_threads, order):
    """The one that began second ends last, or first; its thread was born within the other's limit."""
    blas = _blas()
    if not blas.info():
        pytest.skip("numpy has no BLAS whose threads can be counted")
    with blas.limit(limits=2):
        pass  # who controls the limit is settled anew
    for library in blas.lib_controllers:
        library.set_num_threads(2)
    with blas.limit(limits=None):
        pass
    within = [threading.Event(), threading.Event()]
    leave = [threading.Event(), threading.Event()]
    torch_after, held = {}, []

    def work(i):
        with limit_torch_threads(1), limit_blas_threads(1):
            within[i].set()
            assert leave[i].wait(60)
            held.append([library["num_threads"] for library in blas.info()])
        torch_after[i] = torch.get_num_threads()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread, began in zip(threads, within, strict=True):
        thread.start()
        assert began.wait(60)
    for i in order:
        leave[i].set()
        threads[i].join()
    assert {number for numbers in held for number in numbers} == {1}
    assert {library["num_threads"] for library in blas.info()} == {2}
    assert torch_after == {0: 2, 1: 2}
    with limit_blas_threads(1):
        assert {library["num_threads"] for library in blas.info()} == {1}
    assert {library["num_threads"] for library in blas.info()} == {2}


@pytest.mark.fault
def test_fits_in_several_threads_leave_the_threads_as_they_were(two_threads):
    problem = make_problem(n_classes=3, shots=2)
    blas = _blas()
    before = [library["num_threads"] for library in blas.info()]
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: XMAdapterClassifier("precomputed").fit(problem.X, problem.y), range(8)))
        assert [library["num_threads"] for library in blas.info()] == before
        assert torch.get_num_threads() == 2


FORKED = """
import contextlib, multiprocessing, sys, threading
import numpy as np
import torch
torch.set_num_threads(4)
from skxma import CLIPEncoder, XMAdapterClassifier
from skxma._runtime import threads
from skxma.encoder import _model_cache
from skxma.store._memory import default_memory_store
X = np.random.default_rng(0).integers(0, 255, (8, 40, 40, 3), dtype=np.uint8)
y = list("aaaabbbb")
encoder = CLIPEncoder("tiny", memory=False, precision="fp32", device="cpu")
expected = encoder.encode_image(X)
clf = XMAdapterClassifier(encoder, vocabulary=None).fit(X, y)
torch.ones(600, 600) @ torch.ones(600, 600)

def child(queue):
    with threads.limit_torch_threads(1), threads.limit_blas_threads(1):
        pass
    queue.put((np.abs(encoder.encode_image(X) - expected).max(), clf.fit(X, y).predict(X).tolist() == y,
               torch.get_num_threads()))

fork = multiprocessing.get_context("fork")
queue = fork.Queue()
hold = threading.Event()
def hold_limit():
    with (threads.limit_torch_threads(1), threads.limit_blas_threads(1), threads._torch.lock, threads._numpy.lock,
            _model_cache._loading, default_memory_store()._lock):
        held.set()
        hold.wait()
held = threading.Event()
if sys.argv[1] == "while another thread fits":
    thread = threading.Thread(target=hold_limit)
    thread.start()
    held.wait()
process = fork.Process(target=child, args=(queue,))
if sys.argv[1] == "within a limit":
    def child(queue, inner=child):
        limits.close()
        inner(queue)
    process = fork.Process(target=child, args=(queue,))
    with contextlib.ExitStack() as limits:
        limits.enter_context(threads.limit_torch_threads(1))
        limits.enter_context(threads.limit_blas_threads(1))
        process.start()
else:
    process.start()
try:
    far, right, n_threads = queue.get(timeout=60)
    print(far < 1e-5, right, n_threads, torch.get_num_threads())
except Exception:
    print("hangs")
    process.kill()
hold.set()
"""


@pytest.mark.fault
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("when", ["alone", "within a limit", "while another thread fits"])
def test_a_forked_child_encodes_and_fits_after_its_parent_has(when):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, when],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.stdout.split() == ["True", "True", "1", "4"], run.stderr


@pytest.mark.fault
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_forked_child_encodes_where_nothing_but_the_encoder_was_imported(precision):
    script = (
        "import os, sys\nimport numpy as np\nimport torch\ntorch.set_num_threads(4)\nfrom skxma import CLIPEncoder\n"
        f"encoder = CLIPEncoder('tiny', memory=False, precision='{precision}', device='cpu')\n"
        "X = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)\n"
        "expected = encoder.encode_image(X)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(np.abs(encoder.encode_image(X) - expected).max() < 1e-2, flush=True)\n    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.communicate(timeout=90)[0].split() == ["True"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_pool_that_takes_no_work_leaves_it_to_the_caller():
    with ThreadPoolExecutor(1) as pool:
        assert start_in_thread(pool, abs, -1).result() == 1
    assert start_in_thread(pool, abs, -2).result() == 2
    with pytest.raises(TypeError):
        start_in_thread(pool, abs, "a").result()
