"""Who did what, written in the transaction that did it."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import tables
from coordinator.store.mapping import Mapper, Record
from coordinator.store.writer import Tx


class AuditRecord(Record, frozen=True, kw_only=True):
    """`actor` is a user or node id, or `system`; `resource` an id; `detail` whatever explains it and is no secret."""

    id: str
    organization_id: str | None = None
    at: float
    actor: str
    action: str
    resource: str
    detail: dict[str, Any] = {}
    address: str = ""


audits = Mapper(AuditRecord, tables.audit)


async def insert(tx: Tx, record: AuditRecord) -> None:
    await audits.insert(tx.conn, [record])


async def of_organization(
    conn: AsyncConnection, organization_id: str, *, before: str = "", limit: int = 200
) -> list[AuditRecord]:
    """Newest first; `before` is the last id of the page before."""
    statement = audits.select(tables.audit.c.organization_id == organization_id)
    if before:
        statement = statement.where(tables.audit.c.id < before)
    return await audits.many(conn, statement.order_by(tables.audit.c.id.desc()).limit(limit))
