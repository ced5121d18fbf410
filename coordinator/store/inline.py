"""SQLite's own statements, run where they are called: the driver behind the `sqlite+aiosqlite` dialect.

aiosqlite sends each call to a thread and waits for its answer, four times for one SELECT. That costs more than ten times what the
statement itself does, which reads pages that are in memory. So everything runs inline, in microseconds, a transaction's two ends
as well: with one writer nobody holds the lock that BEGIN IMMEDIATE takes, and in WAL mode with `synchronous=NORMAL` COMMIT appends
to a log without waiting for the disk. A thread would have to wait for the interpreter twice, which a busy event loop gives away
every 5 ms only. What may really wait goes to one: for a lock that somebody else holds all the same (a backup, an operator's shell),
and for the disk when the log is copied into the database, which is therefore not left to COMMIT.

The object is what `create_async_engine(async_creator=…)` asks of a driver: aiosqlite's connection, as far as SQLAlchemy uses it.
Beside it `query`, `change` and `change_each` are the way past SQLAlchemy, for `store.prepared`.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

_PATIENCE_MS = 5000
_COPY = "PRAGMA wal_checkpoint(PASSIVE)"
_CHECKPOINT_CHANGES = 500
"""Rows written between two copies of the log into the database: a few MiB of log."""

log = structlog.get_logger()


class InlineConnection:
    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._copied = 0

    def __await__(self) -> Generator[Any, None, Self]:
        """Opens the file. `isolation_level` None: transactions begin where SQLAlchemy says, not where the driver thinks."""
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        return self
        yield  # makes this a generator, as an awaitable has to be

    @property
    def _conn(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("no active connection")  # what the dialect takes for a disconnect
        return self._connection

    @property
    def isolation_level(self) -> str | None:
        return self._conn.isolation_level

    def cursor(self) -> "InlineCursor":
        return InlineCursor(self._conn.cursor())

    async def create_function(self, name: str, arguments: int, function: Callable[..., Any], **options: Any) -> None:
        self._conn.create_function(name, arguments, function, **options)

    def begin(self) -> None:
        """A snapshot, as of the first statement."""
        with _explained("BEGIN"):
            self._conn.execute("BEGIN")

    async def begin_writing(self) -> None:
        with _explained("BEGIN IMMEDIATE"):
            try:
                self._conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                await asyncio.to_thread(self._begin_patiently)

    def _begin_patiently(self) -> None:
        self._conn.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
        try:
            self._conn.execute("BEGIN IMMEDIATE")
        finally:
            self._conn.execute("PRAGMA busy_timeout=0")

    async def commit(self) -> None:
        with _explained("COMMIT"):
            self._conn.commit()
        if self._conn.total_changes - self._copied >= _CHECKPOINT_CHANGES:
            self._copied = self._conn.total_changes
            await asyncio.to_thread(self._copy_log)

    def _copy_log(self) -> None:
        """What cannot be copied, on a full disk for one, stays in the log and is copied another time."""
        try:
            self._conn.execute(_COPY).fetchall()
        except sqlite3.OperationalError as error:
            log.warning("the database's log cannot be copied into it", reason=str(error))

    async def rollback(self) -> None:
        self.undo()

    def undo(self) -> None:
        self._conn.rollback()

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def query(self, operation: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with _explained(operation):
            return self._conn.execute(operation, parameters).fetchall()

    def change(self, operation: str, parameters: Sequence[Any]) -> int:
        """How many rows it changed."""
        with _explained(operation):
            return self._conn.execute(operation, parameters).rowcount

    def change_each(self, operation: str, parameters: Sequence[Sequence[Any]]) -> None:
        with _explained(operation):
            self._conn.executemany(operation, parameters)


class InlineCursor:
    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._cursor.lastrowid

    async def execute(self, operation: str, parameters: Sequence[Any] = ()) -> Self:
        self._cursor.execute(operation, parameters)
        return self

    async def executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> Self:
        self._cursor.executemany(operation, parameters)
        return self

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def fetchmany(self, size: int = 1) -> list[Any]:
        return self._cursor.fetchmany(size)

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def close(self) -> None:
        self._cursor.close()


def inline(conn: AsyncConnection) -> InlineConnection | None:
    """What is under SQLAlchemy's connection; None when that is another database's."""
    if conn.dialect.name != "sqlite":
        return None
    assert conn.sync_connection is not None, "a connection in use is open"
    return cast("InlineConnection", conn.sync_connection.connection.driver_connection)


@contextmanager
def _explained(operation: str) -> Iterator[None]:
    """The driver's errors as SQLAlchemy raises them: callers know no others."""
    try:
        yield
    except sqlite3.Error as error:
        raise DBAPIError.instance(operation, (), error, sqlite3.Error, hide_parameters=True) from error
