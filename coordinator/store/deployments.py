"""Deployments: the requests, and the stored state of the rollout that carries each out."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import deployment
from coordinator.store.writer import Tx


class DeploymentEvent(msgspec.Struct, frozen=True):
    at: float
    message: str


class DeploymentRecord(Record, frozen=True, kw_only=True):
    """`state` is `core.rollout`'s own JSON: the store does not read it."""

    id: str
    container_id: str
    kind: str
    release_id: str
    previous_release_id: str | None = None
    status: str
    active: bool = True
    state: str = "{}"
    events: list[DeploymentEvent] = []
    error: str = ""
    note: str = ""
    version: int = 1
    created_by: str
    created_at: float
    finished_at: float | None = None


deployments = Mapper(DeploymentRecord, deployment)


async def insert(tx: Tx, record: DeploymentRecord) -> None:
    await deployments.insert(tx.conn, [record])
    tx.changed("deployment", record.container_id)


async def get(conn: AsyncConnection, deployment_id: str) -> DeploymentRecord | None:
    return await deployments.one(conn, deployment.c.id == deployment_id)


async def of_container(
    conn: AsyncConnection, container_id: str, *, before: str = "", limit: int = 200
) -> list[DeploymentRecord]:
    """Newest first; `before` is the last id of the page before."""
    statement = deployments.select(deployment.c.container_id == container_id)
    if before:
        statement = statement.where(deployment.c.id < before)
    order = (deployment.c.created_at.desc(), deployment.c.id.desc())
    return await deployments.many(conn, statement.order_by(*order).limit(limit))


async def active(conn: AsyncConnection) -> list[DeploymentRecord]:
    return await deployments.many(conn, deployments.select(deployment.c.active.is_(True)).order_by(deployment.c.id))


async def active_of(conn: AsyncConnection, container_id: str) -> DeploymentRecord | None:
    return await deployments.one(conn, deployment.c.container_id == container_id, deployment.c.active.is_(True))


async def active_of_containers(conn: AsyncConnection, container_ids: Iterable[str]) -> dict[str, DeploymentRecord]:
    """Container id → its active deployment."""
    where = (deployment.c.container_id.in_(list(container_ids)), deployment.c.active.is_(True))
    found = await deployments.many(conn, deployments.select(*where))
    return {record.container_id: record for record in found}


async def last_of_containers(conn: AsyncConnection, container_ids: Iterable[str]) -> dict[str, DeploymentRecord]:
    """Container id → its newest deployment."""
    newest = (
        select(func.max(deployment.c.id))
        .where(deployment.c.container_id.in_(list(container_ids)))
        .group_by(deployment.c.container_id)
    )
    found = await deployments.many(conn, deployments.select(deployment.c.id.in_(newest)))
    return {record.container_id: record for record in found}


async def change(tx: Tx, deployment_id: str, *, version: int | None = None, **changes: Any) -> bool:
    """Columns by name, `events` as values. With `version`, only a row that is still at it."""
    statement = update(deployment).where(deployment.c.id == deployment_id)
    if version is not None:
        statement = statement.where(deployment.c.version == version)
    values = deployments.values(**changes)
    statement = statement.values(**values, version=deployment.c.version + 1).returning(deployment.c.container_id)
    row = (await tx.conn.execute(statement)).first()
    if row is not None:
        tx.changed("deployment", row.container_id)
    return row is not None
