"""Opening the database, reading from it, and the way into its one writer.

SQLite is one process' database: a lock beside the file says so at once instead of letting two coordinators fight. WAL lets readers
go on beside the writer; `synchronous=NORMAL` may lose the last commits when the machine loses power, never the database. Readers of
either database see one snapshot for as long as they hold their connection.

PostgreSQL's lock belongs to the writer's own connection, so that writing is owning: when that connection dies the lock dies with
it, and no other is written through before it has taken the lock again.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from coordinator.store import migrate
from coordinator.store.changes import Changes
from coordinator.store.connections import READERS, Connections, Kept, Pooled
from coordinator.store.errors import StoreError, is_outage
from coordinator.store.inline import InlineConnection
from coordinator.store.writer import Tx, Writer, one_line
from shared.kit.clock import Clock, SystemClock

__all__ = ["Store", "StoreError", "Tx"]

T = TypeVar("T")
_CONNECT_SECONDS = 10
_PATIENCE_SECONDS = 5.0
"""A coordinator that was killed a moment ago may still be the owner, as far as PostgreSQL has noticed."""
_OWNER_LOCK = 0x4152474F_53590003


class Store:
    """Made by `open`; `close` writes what waits and gives the database back."""

    def __init__(self, connections: Connections, lock: int | None, clock: Clock) -> None:
        self._connections = connections
        self._lock = lock
        self._first: Callable[[Tx], Awaitable[None]] | None = None
        self.changes = Changes()
        self._writer = Writer(connections, self.changes, clock)

    @classmethod
    async def open(cls, url: str, clock: Clock | None = None) -> "Store":
        """Brings the schema up to date first. Raises StoreError."""
        parsed = _parse(url)
        lock = await asyncio.to_thread(_lock, _file(parsed)) if _is_sqlite(parsed) else None
        try:
            await asyncio.to_thread(migrate.upgrade, parsed)
            if _is_sqlite(parsed):
                connections: Connections = Kept(*_sqlite_engines(parsed))
            else:
                connections = Pooled(*_postgresql_engines(parsed))
            await _own(connections)
            store = cls(connections, lock, clock or SystemClock())
        except (SQLAlchemyError, OSError, sqlite3.Error, TimeoutError) as error:
            _unlock(lock)
            raise StoreError(f"the database {_name(parsed)} cannot be opened: {one_line(error)}") from error
        except BaseException:
            _unlock(lock)
            raise
        return store

    @property
    def shared(self) -> bool:
        """Whether other coordinators may use the same database. SQLite's is one process' own."""
        return self._lock is None

    def led_by(self, first: Callable[[Tx], Awaitable[None]]) -> "Store":
        """This store for the length of one call: `first` runs in the transaction of the first write that is committed, before the
        write itself, and what it raises prevents that write."""
        led = copy(self)
        led._first = first
        return led

    @property
    def unled(self) -> "Store":
        """For writes that are not what the call is about, and stand even when it is refused."""
        plain = copy(self)
        plain._first = None
        return plain

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot: everything read inside is of one moment. Not for writing. StoreError when the database itself fails."""
        try:
            async with self._connections.reading() as conn:
                yield conn
        except (SQLAlchemyError, OSError) as error:
            if not is_outage(error):
                raise
            raise StoreError(f"the database cannot be read: {one_line(error)}") from error

    async def write(self, unit: Callable[[Tx], Awaitable[T]]) -> T:
        """Run `unit` in the writer's next transaction and return after the commit. What the unit raises is raised here and
        undoes that unit only; StoreError when the database itself fails."""
        first = self._first
        if first is None:
            return await self._writer.submit(unit)

        async def both(tx: Tx) -> T:
            await first(tx)
            return await unit(tx)

        value = await self._writer.submit(both)
        self._first = None
        return value

    async def ping(self) -> None:
        """Raises StoreError when the database does not answer, or belongs to another coordinator by now."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                async with self.read() as conn:
                    await conn.execute(text("SELECT 1"))
                await self._writer.submit(_nothing)
        except TimeoutError as error:
            raise StoreError("the database does not answer") from error

    async def close(self) -> None:
        await self._writer.close()
        await self._connections.close()
        _unlock(self._lock)
        self._lock = None


async def _nothing(tx: Tx) -> None:
    """Only that there is a transaction to run it in."""


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("the database URL is malformed: expected sqlite:///path or postgresql://…") from error
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise StoreError("an SQLite URL names a file: sqlite:////var/lib/argosy/argosy.db")
            return parsed.set(drivername="sqlite+aiosqlite")
        case "postgresql":
            return parsed.set(drivername="postgresql+asyncpg")
        case other:
            raise StoreError(f"the database {other!r} is not supported: use sqlite or postgresql")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _file(url: URL) -> Path:
    return Path(url.database or "")


def _name(url: URL) -> str:
    return str(_file(url)) if _is_sqlite(url) else url.render_as_string(hide_password=True)


def _lock(database: Path) -> int:
    """An exclusive lock that ends with the process, whatever ends it."""
    path = database.with_name(database.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the database {database} cannot be opened: {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"another coordinator uses the database {database}") from error
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


async def _own(connections: Connections) -> None:
    """Take the writer's connection at once, and with it the lock. Raises StoreError when that is another coordinator's."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            async with connections.writing():
                return
        except StoreError:
            if loop.time() >= until:
                await connections.close()
                raise
        await asyncio.sleep(0.2)


def _sqlite_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    path = url.database or ""
    writing, reading = (
        create_async_engine(
            url, async_creator=lambda: InlineConnection(path), pool_size=size, max_overflow=0, hide_parameters=True
        )
        for size in (1, READERS)
    )
    # What waits for a lock, or for the disk, is the writer's own affair: see `store.inline`.
    _prepare_sqlite(writing, "PRAGMA busy_timeout=0", "PRAGMA wal_autocheckpoint=0")
    _prepare_sqlite(reading, "PRAGMA query_only=ON")
    return writing, reading


def _prepare_sqlite(engine: AsyncEngine, *pragmas: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in (*migrate.SQLITE_PRAGMAS, *pragmas):
            cursor.execute(pragma)
        cursor.close()


_SERVER_SETTINGS = {
    "application_name": "argosy coordinator",
    # The server notices within a minute that we have gone without a word, and gives our lock to whoever waits for it.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


def _guard(writing: AsyncEngine, url: URL) -> None:
    @event.listens_for(writing.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SELECT pg_try_advisory_lock({_OWNER_LOCK})")
        (taken,) = cursor.fetchone()
        cursor.close()
        connection.commit()  # the lock is the session's, not the transaction's
        if not taken:
            connection.terminate()
            raise StoreError(f"another coordinator uses the database {_name(url)}")


def _postgresql_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    arguments = {"timeout": _CONNECT_SECONDS, "server_settings": _SERVER_SETTINGS}
    # Pinged before each use: a server that was restarted costs a reconnect, not a failed batch.
    writing = create_async_engine(
        url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=arguments, hide_parameters=True
    )
    _guard(writing, url)
    reading = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=READERS,
        max_overflow=READERS,
        pool_pre_ping=True,
        connect_args=arguments,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )
    return writing, reading
