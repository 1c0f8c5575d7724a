import os
import sqlite3
import warnings

import numpy as np
import pytest

from skxma.store import _sqlite as store_module
from skxma.store._sqlite import EmbeddingStore


def make_rows(n: int, width: int = 8, seed: int = 0, dtype: str = "float32") -> tuple[list[bytes], np.ndarray]:
    rng = np.random.default_rng(seed)
    return [f"{seed}-{i}".encode() for i in range(n)], rng.normal(size=(n, width)).astype(dtype)


pytestmark = pytest.mark.fault


@pytest.fixture(autouse=True)
def forget_warnings(monkeypatch):
    monkeypatch.setattr(store_module, "_warned", set())


def assert_warns_once(action, match):
    with pytest.warns(RuntimeWarning, match=match):
        action()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        action()


def test_a_damaged_file_is_warned_of_once_and_gone_without(tmp_path):
    store = EmbeddingStore(tmp_path / "store.sqlite")
    store.file.write_bytes(b"this is no database" * 1000)
    keys, rows = make_rows(2)
    assert_warns_once(lambda: store.get_many(keys, "a"), "delete it")
    assert store.get_many(keys, "a") == {}
    store.put_many(keys, "a", rows)


def test_damage_in_the_middle_is_survived(tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    keys, rows = make_rows(400, width=256)
    store.put_many(keys, "a", rows)
    content = bytearray(store.file.read_bytes())
    content[4096 * 2 : 4096 * 40] = os.urandom(4096 * 38)
    store.file.write_bytes(bytes(content))
    with pytest.warns(RuntimeWarning, match="continuing without it"):
        store.get_many(keys, "a")
    assert store.get_many(keys, "a") == {}


def test_damage_inside_a_value_is_noticed_and_mended(tmp_path):
    store = EmbeddingStore(tmp_path / "store.sqlite")
    keys, rows = make_rows(20, width=512)
    store.put_many(keys, "a", rows)
    with sqlite3.connect(store.file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = store.file.read_bytes()
    assert content.count(rows[7].tobytes()[:200]) == 1
    at = content.index(rows[7].tobytes()[:200]) + 100
    store.file.write_bytes(content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = store.get_many(keys, "a")
        assert keys[7] not in found
        assert len(found) == 19
        store.put_many(keys[7:8], "a", rows[7:8])
        np.testing.assert_array_equal(store.get_many(keys, "a")[keys[7]], rows[7])


def test_rows_that_skxma_did_not_write_are_unknown(tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    keys, rows = make_rows(2)
    store.put_many(keys, "a", rows)
    with sqlite3.connect(store.file) as connection:
        connection.execute("UPDATE embeddings SET dtype = 'object' WHERE key = ?", (keys[0],))
    connection.close()
    assert set(store.get_many(keys, "a")) == {keys[1]}


def test_a_full_disk_is_warned_of_once_and_what_is_there_still_read(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path / "store")
    keys, rows = make_rows(4)
    store.put_many(keys, "a", rows)
    connect = sqlite3.connect

    def connect_to_full_disk(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count=1").fetchall()
        return connection

    monkeypatch.setattr(store_module.sqlite3, "connect", connect_to_full_disk)
    many, large = make_rows(500, width=512, seed=1)
    assert_warns_once(lambda: store.put_many(many, "a", large), "full")
    assert len(store.get_many(keys, "a")) == 4
    assert store.get_many(many, "a") == {}


def test_a_folder_that_cannot_be_made_is_warned_of_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = EmbeddingStore(tmp_path / "file" / "store")
    keys, rows = make_rows(2)
    assert_warns_once(lambda: store.put_many(keys, "a", rows), "can't be written")
    assert store.get_many(keys, "a") == {}


def test_a_read_only_store_is_read(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path / "store")
    keys, rows = make_rows(4)
    store.put_many(keys, "a", rows)
    connect = sqlite3.connect

    def connect_read_only(file, **kwargs):
        return connect(f"file:{file}?mode=ro", uri=True, **kwargs)

    monkeypatch.setattr(store_module.sqlite3, "connect", connect_read_only)
    monkeypatch.setattr(store_module, "_TOUCH_SECONDS", -1.0)
    assert len(store.get_many(keys, "a")) == 4
    assert_warns_once(lambda: store.put_many(keys, "a", rows), "readonly")
    assert len(store.get_many(keys, "a")) == 4


def test_another_layout_is_left_alone(tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    keys, rows = make_rows(1)
    store.put_many(keys, "a", rows)
    with sqlite3.connect(store.file) as connection:
        connection.execute("PRAGMA user_version=999")
    connection.close()
    assert_warns_once(lambda: store.get_many([b"0-0"], "a"), "another release")
