"""Projects and their environments."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import variables
from coordinator.store.mapping import Mapper, Record, count_by
from coordinator.store.tables import container, environment, project
from coordinator.store.writer import Tx
from shared.spec.environment import Protection


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
    protection: Protection = "none"
    reviewers: tuple[str, ...] = ()
    removing: bool = False
    created_at: float


class Guard(Record, frozen=True, kw_only=True):
    """What an environment's protection is decided from."""

    environment_id: str
    name: str
    protection: Protection = "none"
    reviewers: tuple[str, ...] = ()


class ProjectCounts(Record, frozen=True, kw_only=True):
    environments: int = 0
    containers: int = 0


projects = Mapper(ProjectRecord, project)
_by_id = projects.by(project.c.id, order=project.c.id)
environments = Mapper(EnvironmentRecord, environment)
_environment_by_id = environments.by(environment.c.id, order=environment.c.id)
_environments_of = environments.by(environment.c.project_id, environment.c.removing.is_(False), order=environment.c.id)
GUARD = (environment.c.id, environment.c.name, environment.c.protection, environment.c.reviewers)
"""The columns of a `Guard`, for a join."""
_reviewers = msgspec.json.Decoder(tuple[str, ...])


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
    await variables.purge_project(tx, project_id)
    await tx.conn.execute(delete(environment).where(environment.c.project_id == project_id))
    return (await tx.conn.execute(delete(project).where(project.c.id == project_id))).rowcount == 1


async def insert_environment(tx: Tx, record: EnvironmentRecord) -> None:
    await environments.insert(tx.conn, [record])


async def get_environment(conn: AsyncConnection, environment_id: str) -> EnvironmentRecord | None:
    return await _environment_by_id.one(conn, environment_id)


async def environment_organization(conn: AsyncConnection, environment_id: str) -> str | None:
    statement = (
        select(project.c.organization_id)
        .join_from(environment, project, environment.c.project_id == project.c.id)
        .where(environment.c.id == environment_id)
    )
    return (await conn.execute(statement)).scalar()


def guard(row: Sequence[Any]) -> Guard:
    """Of a row that ends with the columns of `GUARD`."""
    environment_id, name, protection, reviewers = row[-len(GUARD) :]
    return Guard(
        environment_id=environment_id, name=name, protection=protection, reviewers=_reviewers.decode(reviewers)
    )


async def environments_of(conn: AsyncConnection, project_id: str) -> list[EnvironmentRecord]:
    return await _environments_of.many(conn, [project_id])


async def change_environment(tx: Tx, environment_id: str, **changes: Any) -> bool:
    """Columns by name, `reviewers` as a list."""
    values = environments.values(**changes)
    result = await tx.conn.execute(update(environment).where(environment.c.id == environment_id).values(**values))
    return result.rowcount == 1


async def purge_environments(tx: Tx, project_id: str) -> None:
    """Delete those that are to go and have no container any more."""
    held = select(container.c.id).where(container.c.environment_id == environment.c.id)
    going = (environment.c.project_id == project_id, environment.c.removing.is_(True), ~held.exists())
    await variables.purge_environments(tx, *going)
    await tx.conn.execute(delete(environment).where(*going))
