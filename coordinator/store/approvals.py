"""Approvals: what became of the requests that waited for somebody's word."""

from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import approval
from coordinator.store.writer import Tx

ApprovalStatus = Literal["pending", "approved", "rejected", "withdrawn"]


class ApprovalRecord(Record, frozen=True, kw_only=True):
    id: str
    deployment_id: str
    environment_id: str
    status: ApprovalStatus = "pending"
    comment: str = ""
    requested_by: str
    decided_by: str | None = None
    created_at: float
    decided_at: float | None = None


approvals = Mapper(ApprovalRecord, approval)
_by_deployment = approvals.by(approval.c.deployment_id, order=approval.c.id)


async def insert(tx: Tx, record: ApprovalRecord) -> None:
    await approvals.insert(tx.conn, [record])


async def of_deployment(conn: AsyncConnection, deployment_id: str) -> ApprovalRecord | None:
    return await _by_deployment.one(conn, deployment_id)


async def of_deployments(conn: AsyncConnection, deployment_ids: Iterable[str]) -> dict[str, ApprovalRecord]:
    """By deployment."""
    return {record.deployment_id: record for record in await _by_deployment.many(conn, deployment_ids)}


async def of_environment(
    conn: AsyncConnection, environment_id: str, *, status: str | None = None, before: str = "", limit: int = 200
) -> list[ApprovalRecord]:
    """Newest first; `before` is the last id of the page before."""
    statement = approvals.select(approval.c.environment_id == environment_id)
    if status is not None:
        statement = statement.where(approval.c.status == status)
    if before:
        statement = statement.where(approval.c.id < before)
    return await approvals.many(conn, statement.order_by(approval.c.id.desc()).limit(limit))


async def settle(tx: Tx, deployment_id: str, status: ApprovalStatus, **decision: Any) -> bool:
    """Once: False when it was settled before, or never asked for."""
    waiting = (approval.c.deployment_id == deployment_id, approval.c.status == "pending")
    settled = update(approval).where(*waiting).values(status=status, decided_at=tx.now, **decision)
    return (await tx.conn.execute(settled)).rowcount == 1
