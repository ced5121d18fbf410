"""What happened in a whole project: its containers' deployments and releases as one list, newest first."""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.deployments import DeploymentRecord, deployments
from coordinator.store.releases import ReleaseRecord, releases
from coordinator.store.tables import container, deployment, release


async def deployments_of(
    conn: AsyncConnection,
    project_id: str,
    *,
    environment_id: str | None = None,
    status: str | None = None,
    before: DeploymentRecord | None = None,
    limit: int = 200,
) -> list[DeploymentRecord]:
    """`before`: the last of the page before."""
    statement = deployments.select(*_within(project_id, environment_id)).join(
        container, container.c.id == deployment.c.container_id
    )
    if status is not None:
        statement = statement.where(deployment.c.status == status)
    if before is not None:
        statement = statement.where(_older(deployment.c.created_at, deployment.c.id, before.created_at, before.id))
    return await deployments.many(conn, _newest(statement, deployment.c.created_at, deployment.c.id, limit))


async def releases_of(
    conn: AsyncConnection,
    project_id: str,
    *,
    environment_id: str | None = None,
    before: ReleaseRecord | None = None,
    limit: int = 200,
) -> list[ReleaseRecord]:
    """`before`: the last of the page before."""
    statement = releases.select(*_within(project_id, environment_id)).join(
        container, container.c.id == release.c.container_id
    )
    if before is not None:
        statement = statement.where(_older(release.c.created_at, release.c.id, before.created_at, before.id))
    return await releases.many(conn, _newest(statement, release.c.created_at, release.c.id, limit))


def _within(project_id: str, environment_id: str | None) -> list[ColumnElement[bool]]:
    here = [container.c.project_id == project_id]
    return here if environment_id is None else [*here, container.c.environment_id == environment_id]


def _older(at: ColumnElement[float], key: ColumnElement[str], before_at: float, before_key: str) -> ColumnElement[bool]:
    """Several may have been made at once; ids keep them apart."""
    return or_(at < before_at, and_(at == before_at, key < before_key))


def _newest(statement: Select[Any], at: ColumnElement[float], key: ColumnElement[str], limit: int) -> Select[Any]:
    return statement.order_by(at.desc(), key.desc()).limit(limit)
