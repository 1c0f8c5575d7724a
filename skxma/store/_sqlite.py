"""Store of embeddings on disk, shared by all processes, so that no content is encoded twice."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from skxma._runtime.warning import warn
from skxma.store._memory import DTYPES, Floats, check_batch

_GIB = 2**30
T = TypeVar("T")


# A store that can't be used makes a run slower and does not fail it: one warning per path and process.
_warned: set[tuple[str, str]] = set()

_SCHEMA_VERSION = 2
_FILE_SUFFIXES = {".sqlite", ".sqlite3", ".db"}
_BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.01
_KEYS_A_QUERY = 500
# Reading marks a row as used at most this often, so that a warm run reads without writing.
_TOUCH_SECONDS = 60.0
_CREATE = """
CREATE TABLE IF NOT EXISTS embeddings (
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, key BLOB NOT NULL, dtype TEXT NOT NULL, value BLOB NOT NULL,
    used REAL NOT NULL, checksum INTEGER NOT NULL, UNIQUE (namespace, key)
);
CREATE INDEX IF NOT EXISTS by_use ON embeddings (used);
"""
_UPSERT = """
INSERT INTO embeddings (namespace, key, dtype, value, used, checksum) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE
SET dtype = excluded.dtype, value = excluded.value, used = excluded.used, checksum = excluded.checksum
"""
# id, key, dtype, value, used, checksum
_Row: TypeAlias = tuple[int, bytes, str, bytes, float, int]
_COUNT = "SELECT namespace, COUNT(*) FROM embeddings GROUP BY namespace"
_EVICT = "DELETE FROM embeddings WHERE id IN (SELECT id FROM embeddings ORDER BY used, id LIMIT ?)"


class EmbeddingStore:
    """Store of embeddings on disk, shared by processes and threads; drops the least recently used first.

    An SQLite database in write-ahead mode: stored embeddings survive a killed process. Each call opens its own
    connection, so a store may be pickled, forked and used from any thread. A full or read-only disk and a damaged
    file cause one warning; the run then continues without the store. A row whose checksum is wrong counts as unknown.

    Parameters
    ----------
    path : str or path-like
        A folder, made when first needed; or the database itself, with the suffix .sqlite, .sqlite3 or .db. It must lie
        on this machine: write-ahead mode does not work across a network.
    max_bytes : int, default=8 GiB
        The most that the embeddings may take on disk.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 8 * _GIB) -> None:
        self.path = Path(path).expanduser()
        self.max_bytes = max_bytes
        self._readable = True
        self._writable = True

    @property
    def file(self) -> Path:
        """Path of the database file."""
        return self.path if self.path.suffix in _FILE_SUFFIXES else self.path / "embeddings.sqlite"

    def get_many(self, keys: Sequence[bytes], namespace: str) -> dict[bytes, Floats]:
        """Return the stored embeddings of some keys.

        Parameters
        ----------
        keys : sequence of bytes
            Digests of contents.
        namespace : str
            Everything besides the content that the values depend on.

        Returns
        -------
        found : dict of bytes to ndarray of shape (n_features,)
            The stored ones, in the dtype in which they were stored; empty if the store can't be read.
        """
        if not (self._readable and keys and self.file.exists()):
            return {}
        try:
            rows = self._read(lambda connection: self._touch(connection, _select(connection, keys, namespace)))
        except (sqlite3.Error, OSError) as error:
            self._give_up("read", error)
            return {}
        # SQLite detects damage to its own pages, not to the values stored in them
        sound = (row for row in rows if row[2] in DTYPES and row[5] == _checksum(row[1], row[2], row[3]))
        return {key: np.frombuffer(value, dtype=dtype) for _, key, dtype, value, _, _ in sound}

    def put_many(self, keys: Sequence[bytes], namespace: str, array: NDArray[Any]) -> None:
        """Store one row per key, in one transaction.

        Parameters
        ----------
        keys : sequence of bytes of length n
            Digests of contents.
        namespace : str
            Everything besides the content that the values depend on.
        array : ndarray of shape (n, n_features) of float32 or float16
            The embeddings.

        Raises
        ------
        TypeError, ValueError
            If the array is of another dtype or has another number of rows.
        """
        array = check_batch(keys, array)
        if not (self._writable and len(keys)):
            return
        now = time.time()
        dtype = array.dtype.name
        try:
            with self._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                values = ((key, row.tobytes()) for key, row in zip(keys, array, strict=True))
                rows = ((namespace, k, dtype, value, now, _checksum(k, dtype, value)) for k, value in values)
                connection.executemany(_UPSERT, rows)
                evicted = self._evict(connection)
                connection.execute("COMMIT")
                if evicted:
                    connection.execute("PRAGMA incremental_vacuum").fetchall()
        except (sqlite3.Error, OSError) as error:
            self._give_up("written", error)

    def info(self) -> dict[str, Any]:
        """Return the number of embeddings and bytes held, in all and by namespace, the bound and the file.

        Returns
        -------
        info : dict
            With the keys path, n_embeddings, n_bytes, max_bytes and namespaces (a dict of name to number).
        """
        namespaces: dict[str, int] = {}
        n_bytes = 0
        if self.file.exists():
            try:
                namespaces = self._read(lambda connection: dict(connection.execute(_COUNT)))
                n_bytes = self._read(_bytes_used)
            except (sqlite3.Error, OSError) as error:
                self._give_up("read", error)
        return {
            "path": str(self.file),
            "n_embeddings": sum(namespaces.values()),
            "n_bytes": n_bytes,
            "max_bytes": self.max_bytes,
            "namespaces": namespaces,
        }

    def clear(self) -> None:
        """Remove all embeddings, and free the disk space."""
        if not self.file.exists():
            return
        try:
            with self._connection() as connection:
                connection.execute("DELETE FROM embeddings")
                connection.execute("VACUUM")
        except (sqlite3.Error, OSError) as error:
            self._give_up("cleared", error)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._create(connection)
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"written by another release of skxma (layout {version})")
            # a killed process loses nothing in this mode; a power cut may lose the last batches, never the rest
            connection.execute("PRAGMA synchronous=NORMAL")
            yield connection

    def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Query the database; read-only if its folder cannot be written, since SQLite keeps a log and a lock there."""
        try:
            with self._connection() as connection:
                return question(connection)
        except sqlite3.OperationalError as error:
            name = f"{self.file.absolute().as_uri()}?mode=ro&immutable=1"
            try:
                with closing(sqlite3.connect(name, uri=True)) as connection:
                    return question(connection)
            except sqlite3.Error:
                raise error from None

    def _create(self, connection: sqlite3.Connection) -> None:
        # four or more rows per page: with the usual 4 KiB, half of each page would stay empty
        connection.execute("PRAGMA page_size=16384")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        _use_write_ahead_log(connection)
        connection.executescript(f"BEGIN IMMEDIATE;{_CREATE}PRAGMA user_version={_SCHEMA_VERSION};COMMIT;")

    def _touch(self, connection: sqlite3.Connection, rows: list[_Row]) -> list[_Row]:
        """Mark rows as used, where the database can be written, and return them."""
        now = time.time()
        stale = [(now, row[0]) for row in rows if row[4] < now - _TOUCH_SECONDS]
        if not (stale and self._writable):
            return rows
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("UPDATE embeddings SET used = ? WHERE id = ?", stale)
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            # a read-only disk can still be read
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return rows

    def _evict(self, connection: sqlite3.Connection) -> bool:
        evicted = False
        while _bytes_used(connection) > self.max_bytes:
            n_rows = connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()[0]
            if n_rows == 0:
                break
            connection.execute(_EVICT, (max(1, n_rows // 10),))
            evicted = True
        return evicted

    def _give_up(self, action: str, error: Exception) -> None:
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        self._writable = False
        self._readable = self._readable and action != "read" and not damaged
        if (str(self.file), action) in _warned:
            return
        _warned.add((str(self.file), action))
        remedy = "delete it, or pass another folder as memory" if damaged else "pass another folder as memory"
        warn(
            f"The embedding store {str(self.file)!r} can't be {action} ({error}); continuing without it: images are "
            f"encoded again. To repair it: {remedy}.",
            RuntimeWarning,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], max_bytes=state["max_bytes"])  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddingStore) and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash((self.path, self.max_bytes))

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.path)!r}, max_bytes={self.max_bytes})"


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead mode, waiting for other connections: SQLite's own timeout does not apply to the switch."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


def _select(connection: sqlite3.Connection, keys: Sequence[bytes], namespace: str) -> list[_Row]:
    rows: list[_Row] = []
    for start in range(0, len(keys), _KEYS_A_QUERY):
        some = keys[start : start + _KEYS_A_QUERY]
        marks = ",".join("?" * len(some))
        query = f"SELECT id, key, dtype, value, used, checksum FROM embeddings WHERE namespace = ? AND key IN ({marks})"
        rows += connection.execute(query, (namespace, *some)).fetchall()
    return rows


def _checksum(key: bytes, dtype: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key + dtype.encode()))


def _bytes_used(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
