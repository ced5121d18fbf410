"""What an organisation has logs of: its instances with an engine container, and the words people know them by."""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Record
from coordinator.store.tables import cluster, container, environment, instance, project
from shared.spec.instance import TERMINAL, Phase

_c = instance.c
_over = [int(phase) for phase in TERMINAL]
_columns = (
    _c.id.label("instance_id"),
    _c.node_id,
    _c.container_id,
    container.c.name.label("container"),
    container.c.project_id,
    project.c.name.label("project"),
    container.c.environment_id,
    environment.c.name.label("environment"),
)


class LogOrigin(Record, frozen=True, kw_only=True):
    """An instance, and where it belongs."""

    instance_id: str
    node_id: str
    container_id: str
    container: str
    project_id: str
    project: str
    environment_id: str
    environment: str


async def clusters_of(conn: AsyncConnection, organization_id: str) -> list[str]:
    found = await conn.execute(select(cluster.c.id).where(cluster.c.organization_id == organization_id))
    return [row.id for row in found]


async def own(conn: AsyncConnection, organization_id: str, container_ids: Iterable[str]) -> set[str]:
    """Those of these containers that are the organisation's."""
    wanted = (container.c.organization_id == organization_id, container.c.id.in_(list(container_ids)))
    return {row.id for row in await conn.execute(select(container.c.id).where(*wanted))}


async def readable(
    conn: AsyncConnection,
    organization_id: str,
    cluster_ids: Sequence[str],
    *,
    limit: int,
    project_id: str | None = None,
    environment_id: str | None = None,
    container_id: str | None = None,
    ended_after: float = 0.0,
) -> list[LogOrigin]:
    """On these clusters, those that run first, the newest first. `ended_after`: of those that are over, only the ones of which
    something was heard since then."""
    wanted: list[ColumnElement[bool]] = [
        container.c.organization_id == organization_id,
        _c.cluster_id.in_(list(cluster_ids)),
        _c.phase >= Phase.STARTING,
        _c.phase != Phase.REMOVED,
        _c.node_id.is_not(None),
    ]
    for column, value in (
        (container.c.project_id, project_id),
        (container.c.environment_id, environment_id),
        (container.c.id, container_id),
    ):
        if value is not None:
            wanted.append(column == value)
    if ended_after:
        wanted.append(_c.phase.not_in(_over) | (_c.updated_at >= ended_after))
    statement = (
        select(*_columns)
        .select_from(instance)
        .join(container, container.c.id == _c.container_id)
        .join(project, project.c.id == container.c.project_id)
        .join(environment, environment.c.id == container.c.environment_id)
        .where(*wanted)
        .order_by(_c.phase.in_(_over), _c.id.desc())
        .limit(limit)
    )
    return [LogOrigin(**row._mapping) for row in await conn.execute(statement)]
