"""The answers that calls with an `Idempotency-Key` got.

A claim is written in the transaction of the call's first write, its answer once there is one. A claim without an answer therefore
says: this was done, and the coordinator that did it has not answered, or could not any more.
"""

from sqlalchemy import bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import repeat
from coordinator.store.writer import Tx

KEPT_SECONDS = 24 * 3600.0


class RepeatRecord(Record, frozen=True, kw_only=True):
    """`body`: wrapped by the vault."""

    key: str
    digest: str
    status: int | None = None
    headers: dict[str, str] = {}
    body: bytes = b""
    created_at: float


repeats = Mapper(RepeatRecord, repeat)
_by_key = repeats.by(repeat.c.key, order=repeat.c.key)
_INSERT: dict[str, sqlite.Insert | postgresql.Insert] = {
    "sqlite": sqlite.insert(repeat),
    "postgresql": postgresql.insert(repeat),
}
_CLAIM = {name: made.on_conflict_do_nothing().returning(repeat.c.key) for name, made in _INSERT.items()}
_ANSWER = {
    name: made.on_conflict_do_update(
        index_elements=[repeat.c.key],
        set_={"status": made.excluded.status, "headers": made.excluded.headers, "body": made.excluded.body},
    )
    for name, made in _INSERT.items()
}
_forget = delete(repeat).where(repeat.c.created_at < bindparam("before"))


async def claim(tx: Tx, key: str, digest: str) -> bool:
    """Whether the key was free. Two that ask at once are told one after the other, by the database."""
    record = RepeatRecord(key=key, digest=digest, created_at=tx.now)
    made = await tx.conn.execute(_CLAIM[tx.conn.dialect.name], repeats.dump(record))
    return made.first() is not None


async def answer(tx: Tx, record: RepeatRecord) -> None:
    """Keeps the answer, also of a call that wrote nothing and so claimed nothing."""
    await tx.conn.execute(_ANSWER[tx.conn.dialect.name], repeats.dump(record))


async def get(conn: AsyncConnection, key: str) -> RepeatRecord | None:
    return await _by_key.one(conn, key)


async def forget_old(tx: Tx) -> None:
    await tx.conn.execute(_forget, {"before": tx.now - KEPT_SECONDS})
