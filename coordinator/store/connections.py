"""How a transaction gets its connection: from SQLAlchemy's pool, or, on SQLite, one that is always at hand.

Checking a connection out, letting SQLAlchemy begin and end its transaction and giving it back costs as much as ten of SQLite's
statements. There a connection cannot die, so it is kept: SQLAlchemy takes it for one endless transaction, and the real ones
begin and end beneath it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.store.inline import InlineConnection, inline

READERS = 6


class Connections(Protocol):
    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """In a snapshot."""

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """In a transaction that is committed at the end of the block, and undone when the block raises."""

    async def close(self) -> None: ...


class Pooled:
    """`writer` has one connection."""

    def __init__(self, writer: AsyncEngine, readers: AsyncEngine) -> None:
        self.writer = writer
        self.readers = readers

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.readers.connect() as conn:
            yield conn

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with self.writer.connect() as conn:
            transaction = await conn.begin()
            try:
                yield conn
                await transaction.commit()
            except BaseException:
                if transaction.is_active:
                    await transaction.rollback()
                else:  # the commit itself failed, and may have left the connection inside its transaction
                    await conn.invalidate()
                raise

    async def close(self) -> None:
        await self.readers.dispose()
        await self.writer.dispose()


class Kept:
    """Of an SQLite file. One task writes at a time."""

    def __init__(self, writer: AsyncEngine, readers: AsyncEngine) -> None:
        self._writer = writer
        self._readers = readers
        self._to_write: AsyncConnection | None = None
        self._to_read: list[AsyncConnection] = []
        self._places = asyncio.Semaphore(READERS)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._places:
            conn = self._to_read.pop() if self._to_read else await self._readers.connect()
            driver = _driver(conn)
            try:
                driver.begin()
                yield conn
            finally:
                driver.undo()
                self._to_read.append(conn)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        conn = self._to_write = self._to_write or await self._writer.connect()
        driver = _driver(conn)
        await driver.begin_writing()
        try:
            yield conn
            await driver.commit()
        except BaseException:
            driver.undo()
            self._to_write = None  # SQLAlchemy may still be in a savepoint that is no more
            await conn.close()
            raise

    async def close(self) -> None:
        writing = [self._to_write] if self._to_write is not None else []
        for conn in (*self._to_read, *writing):
            await conn.close()
        self._to_read, self._to_write = [], None
        await self._readers.dispose()
        await self._writer.dispose()


def _driver(conn: AsyncConnection) -> InlineConnection:
    driver = inline(conn)
    assert driver is not None, "SQLite's connections are ours"
    return driver
