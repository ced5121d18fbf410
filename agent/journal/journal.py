"""The journal: one SQLite file, because a node loses power in the middle of a write and must still know what to run.

Two kinds of writes with two promises. Assignments are orders: they are on the disk (`synchronous=FULL`) before `save_set` and
`save_delta` return, and only then acted on. Histories are memories: batched and written without waiting for the disk; one
lost to a power cut is corrected by the next look at the engine.

A file that cannot be read is moved aside and never overwritten: the agent then knows no set, which removes nothing, and asks
for a complete one. On a full disk it is opened in the room its ballast leaves.

All methods are synchronous and may be called from any thread, one at a time.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from agent.core.history import History
from agent.journal.ballast import Ballast
from shared.spec.instance import Assignment

_FORMAT: Final = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS assignments (instance_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (instance_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""
_CIRCUMSTANCES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_UNOPENED = (OSError, sqlite3.DatabaseError, msgspec.DecodeError, ValueError)
_encoder = msgspec.msgpack.Encoder()
_assignment = msgspec.msgpack.Decoder(Assignment)
_history = msgspec.msgpack.Decoder(History)

log = structlog.get_logger()


class JournalError(Exception):
    """The journal cannot be written (a full or read-only disk): what was to be recorded must not be acted on."""


@dataclass(frozen=True)
class JournalState:
    """`sequence` None: no complete set was ever received."""

    assignments: dict[str, Assignment] = field(default_factory=dict)
    sequence: int | None = None
    history: dict[str, History] = field(default_factory=dict)
    boot_id: str = ""


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._ballast = Ballast(path.with_name("ballast"))
        self._state: JournalState | None
        try:
            self._connection, self._state = self._opened()
        except JournalError as error:
            if not self._ballast.drop():
                raise
            log.warning("journal.ballast_dropped", path=str(path), error=str(error))
            self._connection, self._state = self._opened()
        else:
            self._ballast.keep()

    def _opened(self) -> tuple[sqlite3.Connection, JournalState]:
        try:
            return _open(self._path)
        except _UNOPENED as error:
            if _circumstance(error):
                raise self._unopened(error) from error
            aside = _move_aside(self._path)
            kept = str(aside)
            log.error("journal unreadable, starting without one", path=str(self._path), kept_as=kept, error=str(error))
        try:
            return _open(self._path)
        except _UNOPENED as error:
            raise self._unopened(error) from error

    def _unopened(self, error: Exception) -> JournalError:
        return JournalError(f"cannot open the journal {self._path}: {error}")

    def load(self) -> JournalState:
        """What the file held when it was opened, or holds now."""
        state, self._state = self._state, None
        if state is not None:
            return state
        with self._lock:
            return _read(self._connection)

    def save_set(self, sequence: int, assignments: Mapping[str, Assignment]) -> None:
        with self._transaction("FULL") as connection:
            connection.execute("DELETE FROM assignments")
            _upsert(connection, "assignments", assignments.items())
            _set_meta(connection, "sequence", str(sequence))
        self._ballast.keep()

    def save_delta(self, sequence: int, upserts: Mapping[str, Assignment], forget: Iterable[str]) -> None:
        with self._transaction("FULL") as connection:
            connection.executemany("DELETE FROM assignments WHERE instance_id = ?", [(name,) for name in forget])
            _upsert(connection, "assignments", upserts.items())
            _set_meta(connection, "sequence", str(sequence))
        self._ballast.keep()

    def save_history(self, records: Mapping[str, History | None]) -> None:
        """None forgets one."""
        with self._transaction("NORMAL") as connection:
            gone = [(name,) for name, record in records.items() if record is None]
            connection.executemany("DELETE FROM history WHERE instance_id = ?", gone)
            _upsert(connection, "history", ((name, record) for name, record in records.items() if record is not None))

    def save_boot(self, boot_id: str) -> None:
        with self._transaction("NORMAL") as connection:
            _set_meta(connection, "boot_id", boot_id)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self, synchronous: Literal["FULL", "NORMAL"]) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # Outside the transaction, where alone it has an effect.
                self._connection.execute(f"PRAGMA synchronous={synchronous}")
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    yield self._connection
            except sqlite3.Error as error:
                raise JournalError(f"cannot write the journal {self._path}: {error}") from error


def _open(path: Path) -> tuple[sqlite3.Connection, JournalState]:
    # Autocommit: transactions begin where they are written down, not where the driver guesses.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)  # env values that nobody marked secret are still nobody else's business
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA cache_size=-256")
        connection.executescript(_SCHEMA)
        _check_format(connection)
        return connection, _read(connection)
    except BaseException:
        connection.close()
        raise


def _circumstance(error: Exception) -> bool:
    """Whether the disk or another process is at fault, and not what the file holds."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _CIRCUMSTANCES
    return isinstance(error, OSError)


def _check_format(connection: sqlite3.Connection) -> None:
    found = _meta(connection).get("format")
    if found is None:
        _set_meta(connection, "format", str(_FORMAT))
    elif int(found) != _FORMAT:
        raise ValueError(f"a journal of format {found}, this agent writes format {_FORMAT}")


def _read(connection: sqlite3.Connection) -> JournalState:
    meta = _meta(connection)
    sequence = meta.get("sequence")
    return JournalState(
        assignments={name: _assignment.decode(body) for name, body in _rows(connection, "assignments")},
        sequence=int(sequence) if sequence is not None else None,
        history={name: _history.decode(body) for name, body in _rows(connection, "history")},
        boot_id=meta.get("boot_id", ""),
    )


def _rows(connection: sqlite3.Connection, table: Literal["assignments", "history"]) -> list[tuple[str, bytes]]:
    with closing(connection.execute(f"SELECT instance_id, body FROM {table}")) as rows:  # noqa: S608 a closed list of names
        return rows.fetchall()


def _upsert(
    connection: sqlite3.Connection,
    table: Literal["assignments", "history"],
    values: Iterable[tuple[str, Assignment | History]],
) -> None:
    connection.executemany(
        f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT (instance_id) DO UPDATE SET body = excluded.body",  # noqa: S608
        [(name, _encoder.encode(value)) for name, value in values],
    )


def _meta(connection: sqlite3.Connection) -> dict[str, str]:
    with closing(connection.execute("SELECT key, value FROM meta")) as rows:
        return dict(rows.fetchall())


def _set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )


def _move_aside(path: Path) -> Path:
    """With its write-ahead log, which belongs to it. Every damaged file is kept: somebody may want to know."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unreadable-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
