"""Projects and their environments."""

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record, count_by
from coordinator.store.tables import container, environment, project
from coordinator.store.writer import Tx


class ProjectRecord(Record, frozen=True, kw_only=True):
    id: str
    organization_id: str
    name: str
    description: str = ""
    created_at: float


class EnvironmentRecord(Record, frozen=True, kw_only=True):
    id: str
    project_id: str
    cluster_id: str | None = None
    name: str
    removing: bool = False
    created_at: float


class ProjectCounts(Record, frozen=True, kw_only=True):
    environments: int = 0
    containers: int = 0


projects = Mapper(ProjectRecord, project)
_by_id = projects.by(project.c.id, order=project.c.id)
environments = Mapper(EnvironmentRecord, environment)


async def insert(tx: Tx, record: ProjectRecord) -> None:
    await projects.insert(tx.conn, [record])


async def get(conn: AsyncConnection, project_id: str) -> ProjectRecord | None:
    return await _by_id.one(conn, project_id)


async def of_organization(
    conn: AsyncConnection, organization_id: str, *, search: str = "", after: str = "", limit: int = 200
) -> list[ProjectRecord]:
    """Newest last; `after` is the last id of the page before. `search` is part of the name, in any case of letters."""
    statement = projects.select(project.c.organization_id == organization_id, project.c.id > after)
    if search:
        statement = statement.where(func.lower(project.c.name).contains(search.lower(), autoescape=True))
    return await projects.many(conn, statement.order_by(project.c.id).limit(limit))


async def counts(conn: AsyncConnection, project_ids: list[str]) -> dict[str, ProjectCounts]:
    found_environments = await count_by(conn, environment.c.project_id, project_ids)
    found_containers = await count_by(conn, container.c.project_id, project_ids)
    return {
        key: ProjectCounts(environments=found_environments.get(key, 0), containers=found_containers.get(key, 0))
        for key in project_ids
    }


async def change(tx: Tx, project_id: str, **changes: Any) -> bool:
    result = await tx.conn.execute(update(project).where(project.c.id == project_id).values(**changes))
    return result.rowcount == 1


async def remove(tx: Tx, project_id: str) -> bool:
    """With its environments. IntegrityError when it still has containers."""
    await tx.conn.execute(delete(environment).where(environment.c.project_id == project_id))
    return (await tx.conn.execute(delete(project).where(project.c.id == project_id))).rowcount == 1


async def insert_environment(tx: Tx, record: EnvironmentRecord) -> None:
    await environments.insert(tx.conn, [record])


async def get_environment(conn: AsyncConnection, environment_id: str) -> EnvironmentRecord | None:
    return await environments.one(conn, environment.c.id == environment_id)


async def environment_organization(conn: AsyncConnection, environment_id: str) -> str | None:
    statement = (
        select(project.c.organization_id)
        .join_from(environment, project, environment.c.project_id == project.c.id)
        .where(environment.c.id == environment_id)
    )
    return (await conn.execute(statement)).scalar()


async def environments_of(conn: AsyncConnection, project_id: str) -> list[EnvironmentRecord]:
    here = (environment.c.project_id == project_id, environment.c.removing.is_(False))
    statement = environments.select(*here).order_by(environment.c.id)
    return await environments.many(conn, statement)


async def change_environment(tx: Tx, environment_id: str, **changes: Any) -> bool:
    result = await tx.conn.execute(update(environment).where(environment.c.id == environment_id).values(**changes))
    return result.rowcount == 1


async def purge_environments(tx: Tx, project_id: str) -> None:
    """Delete those that are to go and have no container any more."""
    held = select(container.c.id).where(container.c.environment_id == environment.c.id)
    going = (environment.c.project_id == project_id, environment.c.removing.is_(True), ~held.exists())
    await tx.conn.execute(delete(environment).where(*going))
