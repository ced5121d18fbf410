"""Containers: what users declared, and what is in force of it."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import projects, removals
from coordinator.store.mapping import Mapper, Record
from coordinator.store.prepared import Prepared
from coordinator.store.projects import GUARD, Guard
from coordinator.store.tables import approval, container, deployment, environment, instance, release, volume
from coordinator.store.writer import Tx
from shared.spec.container import Template
from shared.spec.instance import Phase
from shared.spec.reason import Reason


class ContainerRecord(Record, frozen=True, kw_only=True):
    """`waiting`: slot, as text, → why it has no instance yet."""

    id: str
    organization_id: str
    project_id: str
    environment_id: str
    cluster_id: str
    name: str
    template: Template
    declared_replicas: int
    replicas: int
    desired: str = "running"
    generation: int = 1
    version: int = 1
    last_revision: int = 0
    target_release_id: str | None = None
    healthy_release_id: str | None = None
    waiting: dict[str, Reason] = {}
    created_at: float
    last_deployed_at: float | None = None


containers = Mapper(ContainerRecord, container)
_by_id = containers.by(container.c.id, order=container.c.id)
_edit = containers.edit(container.c.id == bindparam("of_id"))
_guarded_edit = containers.edit(container.c.id == bindparam("of_id"), container.c.version == bindparam("of_version"))
_count_revision = Prepared(
    update(container)
    .where(container.c.id == bindparam("of_id"))
    .values(last_revision=container.c.last_revision + 1, version=container.c.version + 1)
    .returning(container.c.last_revision)
)
_guarded = Prepared(
    containers.select(container.c.id == bindparam("value"))
    .join(environment, environment.c.id == container.c.environment_id)
    .add_columns(*GUARD)
)


async def insert(tx: Tx, record: ContainerRecord) -> None:
    """IntegrityError when the environment has one of that name."""
    await containers.insert(tx.conn, [record])
    tx.changed("container", record.id)


async def get(conn: AsyncConnection, container_id: str) -> ContainerRecord | None:
    return await _by_id.one(conn, container_id)


async def get_guarded(conn: AsyncConnection, container_id: str) -> tuple[ContainerRecord, Guard] | None:
    """With what protects its environment."""
    row = await _guarded.first(conn, {"value": container_id})
    return None if row is None else (containers.load(row), projects.guard(row))


async def of_ids(conn: AsyncConnection, container_ids: Iterable[str]) -> dict[str, ContainerRecord]:
    return {record.id: record for record in await _by_id.many(conn, container_ids)}


async def every(conn: AsyncConnection) -> list[ContainerRecord]:
    return await containers.many(conn, containers.select().order_by(container.c.id))


async def ids(conn: AsyncConnection) -> set[str]:
    return {row.id for row in await conn.execute(select(container.c.id))}


async def ids_of_projects(conn: AsyncConnection, project_ids: Sequence[str]) -> list[str]:
    statement = select(container.c.id).where(container.c.project_id.in_(project_ids)).order_by(container.c.id)
    return [row.id for row in await conn.execute(statement)]


async def of_project(
    conn: AsyncConnection,
    project_id: str,
    *,
    environment_id: str | None = None,
    cluster_id: str | None = None,
    after: str = "",
    limit: int = 200,
) -> list[ContainerRecord]:
    """By id, that is by age; `after` is the last id of the page before."""
    statement = containers.select(container.c.project_id == project_id, container.c.id > after)
    if environment_id is not None:
        statement = statement.where(container.c.environment_id == environment_id)
    if cluster_id is not None:
        statement = statement.where(container.c.cluster_id == cluster_id)
    return await containers.many(conn, statement.order_by(container.c.id).limit(limit))


async def of_environment(conn: AsyncConnection, environment_id: str) -> list[ContainerRecord]:
    """All of them but those on their way out, by age."""
    here = (container.c.environment_id == environment_id, container.c.desired != "removed")
    return await containers.many(conn, containers.select(*here).order_by(container.c.id))


async def change(tx: Tx, container_id: str, *, version: int | None = None, **changes: Any) -> bool:
    """Columns by name, structured ones as values. With `version`, only a row that is still at it: False means that the snapshot
    the caller decided on is out of date."""
    if version is None:
        count = await _edit.run(tx.conn, changes, of_id=container_id)
    else:
        count = await _guarded_edit.run(tx.conn, changes, of_id=container_id, of_version=version)
    if count == 1:
        tx.changed("container", container_id)
    return count == 1


async def next_revision(tx: Tx, container_id: str) -> int | None:
    """Take the number of the container's next release; None when it is gone."""
    tx.changed("container", container_id)
    row = await _count_revision.first(tx.conn, {"of_id": container_id})
    return None if row is None else row[0]


async def purge(tx: Tx, container_id: str) -> bool:
    """Delete a removed container with everything of it. False, and nothing is done, while a node may still hold an instance
    or the container is not to be removed."""
    held = select(instance.c.id).where(
        instance.c.container_id == container_id,
        instance.c.node_id.is_not(None),
        instance.c.phase != _REMOVED,
    )
    doomed = (container.c.id == container_id, container.c.desired == "removed")
    home = (await tx.conn.execute(select(container.c.project_id, container.c.organization_id).where(*doomed))).first()
    if home is None or (await tx.conn.execute(held.limit(1))).first() is not None:
        return False
    asked = select(deployment.c.id).where(deployment.c.container_id == container_id)
    await tx.conn.execute(delete(approval).where(approval.c.deployment_id.in_(asked)))
    for table in (instance, volume, deployment, release):
        await tx.conn.execute(delete(table).where(table.c.container_id == container_id))
    await tx.conn.execute(delete(container).where(container.c.id == container_id))
    await projects.purge_environments(tx, home.project_id)
    await removals.finish(tx, home.organization_id)
    tx.changed("container", container_id)
    return True


_REMOVED = int(Phase.REMOVED)


async def let_go_of_environment(tx: Tx, environment_id: str) -> list[str]:
    """Desire all of its containers removed; the ids of those for which that is new."""
    statement = (
        update(container)
        .where(container.c.environment_id == environment_id, container.c.desired != "removed")
        .values(desired="removed", version=container.c.version + 1)
        .returning(container.c.id)
    )
    found = sorted(row.id for row in await tx.conn.execute(statement))
    for container_id in found:
        tx.changed("container", container_id)
    return found
