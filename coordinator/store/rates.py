"""Permits that all replicas give out together: one row a caller and kind of call, for the minute it last called in.

A replica takes several permits at once and spends them from memory. What it has taken counts as used, whether it spends them or
not: that is why the sum never passes the limit, and why one that takes too many leaves the others with too few.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, case, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from coordinator.store.tables import rate_window
from coordinator.store.writer import Tx

WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Reserved:
    """`left`: what nobody has taken yet."""

    permits: int
    left: int


def _statement(made: sqlite.Insert | postgresql.Insert) -> ReturningInsert[Any]:
    row, new = rate_window.c, made.excluded
    # A row of a later minute than ours is counted on: our clock is the one behind.
    over = row.window < new.window
    return made.on_conflict_do_update(
        index_elements=[row.key],
        set_={"window": case((over, new.window), else_=row.window), "used": case((over, 0), else_=row.used) + new.used},
        where=over | (row.used < bindparam("at_most")),
    ).returning(row.used)


_RESERVE = {
    "sqlite": _statement(sqlite.insert(rate_window)),
    "postgresql": _statement(postgresql.insert(rate_window)),
}
_forget = delete(rate_window).where(rate_window.c.window < bindparam("before"))


async def reserve(tx: Tx, key: str, window: int, limit: int, wanted: int) -> Reserved:
    """As many of `wanted` permits as are left. One statement: replicas that ask at the same moment are told one after the other."""
    values = {"key": key, "window": window, "used": wanted, "at_most": limit}
    used = (await tx.conn.execute(_RESERVE[tx.conn.dialect.name], values)).scalar()
    if used is None:
        return Reserved(0, 0)
    return Reserved(min(wanted, limit - (used - wanted)), max(0, limit - used))


async def forget(tx: Tx, before: float) -> None:
    """Rows of windows that were over at a time."""
    await tx.conn.execute(_forget, {"before": int(before // WINDOW_SECONDS)})
