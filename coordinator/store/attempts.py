"""Failed sign-ins, counted before they are known to have failed.

An attempt is written down first and taken back when it succeeds: however many guesses are made at the same moment, each one sees
those before it. What is counted (account, address) and how long to wait is the caller's business.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, update
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import attempts
from coordinator.store.writer import Tx

FORGOTTEN_AFTER_SECONDS = 86400.0


class AttemptsRecord(Record, frozen=True, kw_only=True):
    key: str
    failures: int
    last_at: float


records = Mapper(AttemptsRecord, attempts)


def _statement(dialect: str) -> postgresql.Insert | sqlite.Insert:
    made = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(attempts)
    return made.on_conflict_do_update(
        index_elements=[attempts.c.key],
        set_={"failures": attempts.c.failures + 1, "last_at": made.excluded.last_at},
    )


_COUNT = {name: _statement(name) for name in ("sqlite", "postgresql")}
_restore = (
    update(attempts)
    .where(attempts.c.key == bindparam("of_key"), attempts.c.failures == bindparam("mine"))
    .values(failures=bindparam("before"), last_at=bindparam("before_at"))
)
_lower = update(attempts).where(attempts.c.key == bindparam("of_key")).values(failures=attempts.c.failures - 1)


async def look(tx: Tx, keys: Sequence[str]) -> dict[str, AttemptsRecord]:
    """What is known of each key, locked until the end of the transaction. Also forgets what is long past."""
    await tx.conn.execute(delete(attempts).where(attempts.c.last_at <= tx.now - FORGOTTEN_AFTER_SECONDS))
    statement = records.select(attempts.c.key.in_(keys)).order_by(attempts.c.key)
    if tx.conn.dialect.name == "postgresql":
        statement = statement.with_for_update()
    return {record.key: record for record in await records.many(tx.conn, statement)}


async def count(tx: Tx, keys: Sequence[str]) -> None:
    for key in sorted(keys):  # one order for all: two transactions never wait for each other
        await tx.conn.execute(_COUNT[tx.conn.dialect.name], {"key": key, "failures": 1, "last_at": tx.now})


async def take_back(tx: Tx, key: str, before: AttemptsRecord | None) -> None:
    """As if this attempt had not been made. When others came after it they stay counted, and only one less is."""
    failures, at = (before.failures, before.last_at) if before else (0, 0.0)
    restored = await tx.conn.execute(
        _restore, {"of_key": key, "mine": failures + 1, "before": failures, "before_at": at}
    )
    if restored.rowcount == 0:
        await tx.conn.execute(_lower, {"of_key": key})
    await tx.conn.execute(delete(attempts).where(attempts.c.key == key, attempts.c.failures <= 0))


async def clear(tx: Tx, key: str) -> None:
    await tx.conn.execute(delete(attempts).where(attempts.c.key == key))
