"""The change feed: who must look again, and after which commit.

Every write says what it changed (`Tx.changed`); the rows go into the `change` table in the same transaction, so the feed never
tells of something that was not committed nor misses something that was. Inside one process subscribers are woken right after the
commit. The feed is level-triggered: it never carries values, equal entries coalesce, and a consumer that has just subscribed looks
at everything once before it waits.

| kind | key | says |
|---|---|---|
| container | container id | its declaration, desired state or derived columns changed |
| deployment | container id | one of its deployments was made or moved |
| instance | container id | one of its instances was made, bound or reported |
| node | node id | facts, labels, availability, `lost`, or it was enrolled or removed |
| cluster | cluster id | settings; or its nodes or the room on them changed: placement may have another answer |
| assignment | node id | the set of instances it must hold changed |
| access | user id, or service token id | a role, a grant, a token or a session of theirs changed or is gone |
| registry | registry id | its server or its credentials changed, or it was exchanged for a token, or is gone |
| drain | organization id | one of its log drains was made, changed or removed |
| variable | id of the place | one of its variables was made, changed or removed |
"""

from collections.abc import Callable, Iterable
from typing import Literal

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.prepared import Prepared
from coordinator.store.tables import change
from shared.kit.wakeup import Wakeup

Kind = Literal[
    "container", "deployment", "instance", "node", "cluster", "assignment", "access", "drain", "registry", "variable"
]
Entry = tuple[Kind, str]

KEPT = 100_000
"""Rows of the persisted feed: far more than any consumer may lag behind before it looks at everything again."""
_PRUNE_EVERY = 10_000


class Subscription:
    """A set of entries not yet taken. It is bounded by the number of objects, since equal entries coalesce."""

    def __init__(self, feed: "Changes", kinds: frozenset[Kind]) -> None:
        self._feed = feed
        self.kinds = kinds
        self._entries: set[Entry] = set()
        self._wakeup = Wakeup()

    def add(self, entries: Iterable[Entry]) -> None:
        wanted = [entry for entry in entries if entry[0] in self.kinds]
        if wanted:
            self._entries.update(wanted)
            self._wakeup.wake()

    def wake(self) -> None:
        """Let the consumer look although nothing was committed; `take` then returns an empty set."""
        self._wakeup.wake()

    async def take(self, timeout: float | None = None) -> frozenset[Entry]:
        """What changed since the last call, after waiting for the first; empty when `timeout` seconds passed or woken by `wake`."""
        await self._wakeup.wait(timeout)
        taken, self._entries = frozenset(self._entries), set()
        return taken

    def drain(self) -> frozenset[Entry]:
        """What changed since the last call, without waiting: for whoever looks before each use instead of being woken."""
        if not self._entries:
            return frozenset()
        taken, self._entries = frozenset(self._entries), set()
        return taken

    def close(self) -> None:
        self._feed.unsubscribe(self)


class Changes:
    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Iterable[Entry]], None]] = []

    def subscribe(self, *kinds: Kind) -> Subscription:
        subscription = Subscription(self, frozenset(kinds))
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def listen(self, listener: Callable[[Iterable[Entry]], None]) -> None:
        """Have `listener` called with every commit's entries before whoever committed them goes on."""
        self._listeners.append(listener)

    def publish(self, entries: Iterable[Entry]) -> None:
        """Called by the writer, after the commit."""
        known = list(entries)
        for listener in self._listeners:
            listener(known)
        for subscription in self._subscriptions:
            subscription.add(known)


_record = Prepared(insert(change).values(kind=bindparam("kind"), key=bindparam("key"), at=bindparam("at")))


class Recorder:
    """Writes entries into the feed's table and keeps it short. Used by the writer only."""

    def __init__(self) -> None:
        self._since_prune = 0

    async def record(self, conn: AsyncConnection, entries: Iterable[Entry], now: float) -> None:
        if conn.dialect.name == "postgresql":
            # Sequence values are drawn before commit: without this lock, held to the commit, a reader could see a later `seq`
            # first and pass over an earlier one for ever.
            await conn.execute(select(func.pg_advisory_xact_lock(_FEED_LOCK)))
        values = [{"kind": kind, "key": key, "at": now} for kind, key in entries]
        await _record.change_each(conn, values)
        self._since_prune += len(values)
        if self._since_prune >= _PRUNE_EVERY:
            self._since_prune = 0
            await prune(conn, KEPT)


async def prune(conn: AsyncConnection, keep: int) -> None:
    newest = (await conn.execute(select(func.max(change.c.seq)))).scalar()
    await conn.execute(delete(change).where(change.c.seq <= (newest or 0) - keep))


async def latest(conn: AsyncConnection) -> int:
    """The newest sequence number, 0 when nothing ever changed."""
    return (await conn.execute(select(func.max(change.c.seq)))).scalar() or 0


async def since(conn: AsyncConnection, seq: int, limit: int = 1000) -> list[tuple[int, str, str]]:
    """(seq, kind, key) after `seq`, in commit order."""
    statement = select(change.c.seq, change.c.kind, change.c.key).where(change.c.seq > seq)
    result = await conn.execute(statement.order_by(change.c.seq).limit(limit))
    return [(row.seq, row.kind, row.key) for row in result]


_FEED_LOCK = 0x4152474F_53590001  # "ARGOSY", 1: any number no other lock uses
