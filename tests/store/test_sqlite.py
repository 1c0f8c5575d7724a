import copy
import inspect
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone

from skxma import CLIPEncoder
from skxma.store import _sqlite as store_module
from skxma.store._memory import MemoryStore, default_memory_store
from skxma.store._resolve import default_folder, resolve_store
from skxma.store._sqlite import EmbeddingStore


def make_rows(n: int, width: int = 8, seed: int = 0, dtype: str = "float32") -> tuple[list[bytes], np.ndarray]:
    rng = np.random.default_rng(seed)
    return [f"{seed}-{i}".encode() for i in range(n)], rng.normal(size=(n, width)).astype(dtype)


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else EmbeddingStore(tmp_path / "store")


@pytest.mark.parametrize("name", ["get_many", "put_many"])
def test_both_stores_take_keys_and_namespace_in_one_order(name):
    for cls in (MemoryStore, EmbeddingStore):
        parameters = list(inspect.signature(getattr(cls, name)).parameters)
        assert parameters == ["self", "keys", "namespace", "array"][: len(parameters)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_was_put_comes_back_bit_for_bit(store, dtype):
    keys, rows = make_rows(1200, dtype=dtype)
    store.put_many(keys, "a", rows)
    found = store.get_many([b"unknown", *keys], "a")
    assert b"unknown" not in found
    np.testing.assert_array_equal(np.stack([found[key] for key in keys]), rows)
    assert found[keys[0]].dtype == dtype


def test_namespaces_do_not_mix(store):
    keys, rows = make_rows(3)
    store.put_many(keys, "a", rows)
    assert store.get_many(keys, "b") == {}
    store.put_many(keys, "b", -rows)
    np.testing.assert_array_equal(store.get_many(keys, "a")[keys[1]], rows[1])
    np.testing.assert_array_equal(store.get_many(keys, "b")[keys[1]], -rows[1])


def test_a_key_put_again_is_replaced(store):
    keys, rows = make_rows(3)
    store.put_many(keys, "a", rows)
    store.put_many(keys[:1], "a", rows[2:])
    np.testing.assert_array_equal(store.get_many(keys, "a")[keys[0]], rows[2])
    assert store.info()["n_embeddings"] == 3


def test_clear_forgets_everything(store):
    keys, rows = make_rows(3)
    store.put_many(keys, "a", rows)
    store.clear()
    assert store.get_many(keys, "a") == {}
    assert store.info()["n_embeddings"] == 0


def test_empty_calls_are_harmless(store):
    store.put_many([], "a", np.empty((0, 4), dtype=np.float32))
    assert store.get_many([], "a") == {}
    assert store.get_many([b"x"], "a") == {}
    assert store.info()["n_embeddings"] == 0
    store.clear()


@pytest.mark.parametrize(
    ("array", "error", "match"),
    [
        (np.zeros((2, 4)), TypeError, "float64"),
        (np.zeros((1, 4), dtype=np.float32), ValueError, "2 keys"),
        (np.zeros(2, dtype=np.float32), ValueError, "shape"),
    ],
)
def test_wrong_arrays_are_refused(store, array, error, match):
    with pytest.raises(error, match=match):
        store.put_many([b"x", b"y"], "a", array)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=20, unique=True).flatmap(
        lambda keys: st.tuples(st.just(keys), arrays(np.float32, (len(keys), 3)))
    ),
    st.text(max_size=20).filter(lambda text: "\\0" not in text and text.isprintable()),
)
def test_any_keys_namespace_and_values_make_the_round_trip(tmp_path, batch, namespace):
    keys, rows = batch
    for store in (MemoryStore(), EmbeddingStore(tmp_path / "any")):
        store.clear()
        store.put_many(keys, namespace, rows)
        found = store.get_many(keys, namespace)
        assert {key: row.tobytes() for key, row in found.items()} == {
            key: row.tobytes() for key, row in zip(keys, rows, strict=True)
        }


def test_memory_drops_the_least_recently_used():
    keys, rows = make_rows(4)
    store = MemoryStore(max_bytes=3 * rows[0].nbytes)
    store.put_many(keys[:3], "a", rows[:3])
    store.get_many(keys[:1], "a")
    store.put_many(keys[3:], "a", rows[3:])
    assert set(store.get_many(keys, "a")) == {keys[0], keys[2], keys[3]}
    assert store.info() == {"n_embeddings": 3, "n_bytes": 96, "max_bytes": 96}


def test_memory_keeps_its_own_read_only_copy():
    keys, rows = make_rows(1)
    store = MemoryStore()
    store.put_many(keys, "a", rows)
    kept = rows.copy()
    rows[:] = 0
    found = store.get_many(keys, "a")[keys[0]]
    np.testing.assert_array_equal(found, kept[0])
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_copies_of_memory_share_and_pickles_are_empty():
    keys, rows = make_rows(2)
    store = MemoryStore(max_bytes=10_000)
    store.put_many(keys, "a", rows)
    assert copy.deepcopy(store) is store
    assert clone(CLIPEncoder("tiny", memory=store)).memory is store
    again = pickle.loads(pickle.dumps(store))
    assert again.info() == {"n_embeddings": 0, "n_bytes": 0, "max_bytes": 10_000}


def test_memory_is_safe_among_threads():
    store = MemoryStore(max_bytes=50 * 32)
    failures = []

    def work(seed):
        keys, rows = make_rows(40, seed=seed)
        for _ in range(30):
            store.put_many(keys, "a", rows)
            for key, row in store.get_many(keys, "a").items():
                if not np.array_equal(row, rows[keys.index(key)]):
                    failures.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.info()["n_bytes"] == 50 * 32


def test_disk_is_shared_by_path_copy_and_pickle(tmp_path):
    keys, rows = make_rows(3)
    first = EmbeddingStore(tmp_path / "store", max_bytes=10**7)
    first.put_many(keys, "a", rows)
    for other in (EmbeddingStore(tmp_path / "store"), pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        np.testing.assert_array_equal(other.get_many(keys, "a")[keys[2]], rows[2])
    assert pickle.loads(pickle.dumps(first)) == first
    assert len(pickle.dumps(first)) < 500


def test_path_may_name_the_file_itself(tmp_path):
    store = EmbeddingStore(tmp_path / "deep" / "mine.sqlite")
    keys, rows = make_rows(1)
    store.put_many(keys, "a", rows)
    assert (tmp_path / "deep" / "mine.sqlite").is_file()
    assert store.info()["path"] == str(tmp_path / "deep" / "mine.sqlite")
    assert store.info()["namespaces"] == {"a": 1}
    assert EmbeddingStore(tmp_path / "v1.0").file == tmp_path / "v1.0" / "embeddings.sqlite"


def test_nothing_is_created_by_looking(tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    assert store.get_many([b"x"], "a") == {}
    assert store.info()["n_embeddings"] == 0
    store.clear()
    assert list(tmp_path.iterdir()) == []


def test_disk_drops_the_least_recently_used_and_stays_bounded(tmp_path, monkeypatch):
    now = [1e9]
    monkeypatch.setattr(store_module.time, "time", lambda: now[0])
    store = EmbeddingStore(tmp_path / "store", max_bytes=700_000)
    batches = [make_rows(50, width=512, seed=seed) for seed in range(10)]
    for keys, rows in batches:
        store.put_many(keys, "a", rows)
        now[0] += 100
        store.get_many(batches[0][0], "a")
        assert store.info()["n_bytes"] <= 700_000
    assert len(store.get_many(batches[0][0], "a")) == 50
    assert store.get_many(batches[1][0], "a") == {}
    assert len(store.get_many(batches[9][0], "a")) == 50
    assert store.file.stat().st_size <= 800_000


WRITER = """
    import sys, numpy as np
    from skxma.store import EmbeddingStore
    store = EmbeddingStore(sys.argv[1])
    for batch in range(100_000):
        keys = [f"{batch}-{i}".encode() for i in range(16)]
        store.put_many(keys, "a", np.full((16, 256), batch, dtype=np.float32))
        print(batch, flush=True)
"""


@pytest.mark.posix
@pytest.mark.fault
def test_a_killed_writer_loses_nothing_that_was_finished(tmp_path):
    for round_ in range(3):
        path = tmp_path / f"store_{round_}"
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            finished = int(writer.stdout.readline())
            time.sleep(0.05 + 0.04 * round_)
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                if line.endswith("\n"):
                    finished = int(line)
        assert finished > 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = EmbeddingStore(path)
            for batch in range(finished + 1):
                found = store.get_many([f"{batch}-{i}".encode() for i in range(16)], "a")
                assert len(found) == 16
                assert all((row == batch).all() for row in found.values())
            store.put_many([b"after"], "a", np.ones((1, 256), dtype=np.float32))
            assert len(store.get_many([b"after"], "a")) == 1
            # the batch that was being written is there whole or not at all
            assert store.info()["n_embeddings"] % 16 == 1


FILLER = """
    import sys, warnings, numpy as np
    from skxma.store import EmbeddingStore
    warnings.simplefilter("error")
    store = EmbeddingStore(sys.argv[1])
    sys.stdin.readline()
    for batch in range(20):
        keys = [f"{sys.argv[2]}-{batch}-{i}".encode() for i in range(8)]
        store.put_many(keys, "a", np.full((8, 16), batch, dtype=np.float32))
        store.get_many(keys, "a")
"""


@pytest.mark.fault
def test_two_processes_fill_one_store(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(FILLER), str(tmp_path / "store")]
    workers = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, text=True) for name in ("left", "right")]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    store = EmbeddingStore(tmp_path / "store")
    assert store.info()["n_embeddings"] == 2 * 20 * 8
    assert (store.get_many([b"left-7-3", b"right-7-3"], "a")[b"right-7-3"] == 7).all()


@pytest.mark.posix
@pytest.mark.fault
def test_a_store_used_before_a_fork_is_used_after_it(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    store = EmbeddingStore(tmp_path / "store")
    keys, rows = make_rows(4)
    store.put_many(keys, "a", rows)
    worker = multiprocessing.get_context("fork").Process(target=store.put_many, args=(keys, "b", rows))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert store.info()["namespaces"] == {"a": 4, "b": 4}


@pytest.mark.fault
def test_threads_fill_one_store(tmp_path):
    store = EmbeddingStore(tmp_path / "store")

    def put(seed):
        keys, rows = make_rows(8, seed=seed)
        store.put_many(keys, "a", rows)

    threads = [threading.Thread(target=put, args=(seed,)) for seed in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert store.info()["n_embeddings"] == 64


@pytest.mark.fault
def test_a_store_is_made_while_another_connection_writes_its_file(tmp_path):
    store = EmbeddingStore(tmp_path)
    writer = sqlite3.connect(store.file, isolation_level=None, check_same_thread=False)
    writer.execute("CREATE TABLE other (id INTEGER)")
    writer.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, writer.close)
    release.start()
    keys, rows = make_rows(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put_many(keys, "a", rows)
    release.join()
    assert store.info()["n_embeddings"] == 4


def test_memory_parameter_resolves(tmp_path, monkeypatch):
    monkeypatch.setenv("SKXMA_CACHE", str(tmp_path / "mine"))
    assert resolve_store(None) is default_memory_store() is resolve_store(None)
    assert resolve_store(False) is None
    assert resolve_store(True) == EmbeddingStore(tmp_path / "mine")
    assert resolve_store(str(tmp_path)) == resolve_store(tmp_path) == EmbeddingStore(tmp_path)
    for store in (EmbeddingStore(tmp_path), MemoryStore()):
        assert resolve_store(store) is store
    with pytest.raises(TypeError, match="int"):
        resolve_store(3)


def test_default_folder_is_the_platforms(monkeypatch, tmp_path):
    monkeypatch.delenv("SKXMA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_folder() == tmp_path / "skxma"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_folder() == Path.home() / "Library" / "Caches" / "skxma"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert default_folder() == tmp_path / "local" / "skxma"
    monkeypatch.setenv("SKXMA_CACHE", "~/elsewhere")
    assert default_folder() == Path.home() / "elsewhere"
