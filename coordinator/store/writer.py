"""The one writer: whoever waits shares a transaction.

A commit costs far more than the rows in it, so all units that wait when a transaction begins run in it, each in a SAVEPOINT, and
are committed together; callers go on only after that commit. There is no timer: an idle writer starts at once, and a batch is
simply what arrived while the last one was written. A unit that raises is rolled back alone. One writer also makes the feed
monotonic.

A unit runs inside the writer's task: it awaits nothing but its own statements, and never `Store.write`.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.changes import Changes, Entry, Kind, Recorder
from coordinator.store.connections import Connections
from coordinator.store.errors import StoreError, is_outage
from shared.kit.clock import Clock

log = structlog.get_logger()
T = TypeVar("T")
MAX_BATCH = 256


class Tx:
    """A unit's view of the transaction. `now`: wall time at its begin."""

    def __init__(self, conn: AsyncConnection, now: float) -> None:
        self.conn = conn
        self.now = now
        self.entries: dict[Entry, None] = {}

    def changed(self, kind: Kind, key: str) -> None:
        self.entries[kind, key] = None


class _UndoneError(Exception):
    """The only unit of a transaction raised: there is nothing to commit."""


class _Waiting:
    def __init__(self, unit: Callable[[Tx], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
        self.unit = unit
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None

    def deliver(self) -> None:
        if self.future.done():  # the caller was cancelled: what it asked for is committed all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)

    def fail(self, error: StoreError) -> None:
        # An exception of the unit's own says more than that of the batch it was in.
        self.error = self.error or error
        self.deliver()


class Writer:
    def __init__(self, connections: Connections, changes: Changes, clock: Clock) -> None:
        self._connections = connections
        self._changes = changes
        self._clock = clock
        self._recorder = Recorder()
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="store writer")

    async def submit(self, unit: Callable[[Tx], Awaitable[T]]) -> T:
        if self._closing:
            raise StoreError("the store is closed")
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.future  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Write what waits, then end."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                count = min(len(self._queue), MAX_BATCH)
                await self._commit([self._queue.popleft() for _ in range(count)])
            if self._closing:
                return

    async def _commit(self, batch: list[_Waiting]) -> None:
        entries: dict[Entry, None] = {}
        try:
            await self._transaction(batch, entries)
        except Exception as error:  # nothing may end the only writer: everybody would wait for it for ever
            reason = StoreError(f"the database cannot be written: {one_line(error)}")
            reason.__cause__ = error
            # A commit whose answer was lost may have been carried out. Whoever looks without need finds nothing new.
            self._changes.publish(entries)
            for waiting in batch:
                waiting.fail(reason)
            if not (is_outage(error) or isinstance(error, StoreError)):
                log.exception("a batch of writes failed")
            return
        # Changes STRICTLY AFTER the commit and before results: whoever is told "done" finds every subscriber already woken.
        if entries:
            self._changes.publish(entries)
        for waiting in batch:
            waiting.deliver()

    async def _transaction(self, batch: list[_Waiting], entries: dict[Entry, None]) -> None:
        """`entries`: where to say what changes, also when it is not known whether it did."""
        now = self._clock.wall()
        with suppress(_UndoneError):
            async with self._connections.writing() as conn:
                for waiting in batch:
                    if waiting.future.done():  # cancelled before its turn
                        continue
                    entries |= await self._run_unit(waiting, conn, now, alone=len(batch) == 1)
                if batch[0].error is not None and len(batch) == 1:
                    raise _UndoneError
                if entries:
                    await self._recorder.record(conn, entries, now)

    async def _run_unit(
        self, waiting: _Waiting, conn: AsyncConnection, now: float, *, alone: bool
    ) -> dict[Entry, None]:
        tx = Tx(conn, now)
        savepoint = None if alone else await conn.begin_nested()
        try:
            waiting.value = await waiting.unit(tx)
        except Exception as error:
            if is_outage(error):  # with it goes the whole transaction
                raise
            waiting.error = error
            if savepoint is not None:
                await savepoint.rollback()
            return {}
        if savepoint is not None:
            await savepoint.commit()
        return tx.entries


def one_line(error: BaseException) -> str:
    """The driver's own sentence, without SQLAlchemy's statement and link."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(origin) or type(origin).__name__
    return text.splitlines()[0].removeprefix("<class ").strip()
