"""Variables that containers inherit: of an organisation, of a project, of an environment. Each keeps its last versions.

`place` is the most special of the ids, so that a key is unique there. Values of secret ones are concealed for the variable itself,
and again for each container that inherits them.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import environment, variable, variable_version
from coordinator.store.writer import Tx

KEPT_VERSIONS = 20


class VariableRecord(Record, frozen=True, kw_only=True):
    id: str
    organization_id: str
    project_id: str | None = None
    environment_id: str | None = None
    place: str
    key: str
    value: str
    secret: bool
    version: int = 1
    created_by: str
    created_at: float
    updated_at: float


class VersionRecord(Record, frozen=True, kw_only=True):
    variable_id: str
    version: int
    value: str
    secret: bool
    created_by: str
    created_at: float


variables = Mapper(VariableRecord, variable)
versions = Mapper(VersionRecord, variable_version)
_c = variable.c
_by_id = variables.by(_c.id, order=_c.id)
_by_place = variables.by(_c.place, order=_c.key)


async def insert(tx: Tx, record: VariableRecord) -> None:
    """IntegrityError when the place has one of that key."""
    await variables.insert(tx.conn, [record])
    await versions.insert(tx.conn, [_version(record, record.created_by, record.created_at)])
    tx.changed("variable", record.place)


async def get(conn: AsyncConnection, variable_id: str) -> VariableRecord | None:
    return await _by_id.one(conn, variable_id)


async def count(conn: AsyncConnection, place: str) -> int:
    return (await conn.execute(select(func.count()).where(_c.place == place))).scalar() or 0


async def of_places(conn: AsyncConnection, places: Iterable[str]) -> list[VariableRecord]:
    return await _by_place.many(conn, places)


async def of_organization(
    conn: AsyncConnection,
    organization_id: str,
    *,
    project_id: str | None = None,
    environment_id: str | None = None,
    after: str = "",
    limit: int = 200,
) -> list[VariableRecord]:
    """By id; with `project_id` those of the project and its environments, with `environment_id` those of the environment."""
    where: list[ColumnElement[bool]] = [_c.organization_id == organization_id, _c.id > after]
    if project_id is not None:
        where.append(_c.project_id == project_id)
    if environment_id is not None:
        where.append(_c.environment_id == environment_id)
    return await variables.many(conn, variables.select(*where).order_by(_c.id).limit(limit))


async def write(tx: Tx, record: VariableRecord, author: str, value: str, *, secret: bool) -> VariableRecord:
    """Its next version; the oldest go."""
    version = record.version + 1
    values: dict[str, Any] = {"value": value, "secret": secret, "version": version, "updated_at": tx.now}
    await tx.conn.execute(update(variable).where(_c.id == record.id).values(**values))
    written = VariableRecord(**{**variables.dump(record), **values})
    await versions.insert(tx.conn, [_version(written, author, tx.now)])
    tx.changed("variable", record.place)
    old = (variable_version.c.variable_id == record.id, variable_version.c.version <= version - KEPT_VERSIONS)
    await tx.conn.execute(delete(variable_version).where(*old))
    return written


async def forget_history(tx: Tx, variable_id: str) -> None:
    await tx.conn.execute(delete(variable_version).where(variable_version.c.variable_id == variable_id))


async def history(conn: AsyncConnection, variable_id: str) -> list[VersionRecord]:
    """Newest first, the present one included."""
    statement = versions.select(variable_version.c.variable_id == variable_id)
    return await versions.many(conn, statement.order_by(variable_version.c.version.desc()))


async def remove(tx: Tx, variable_id: str) -> bool:
    await tx.conn.execute(delete(variable_version).where(variable_version.c.variable_id == variable_id))
    gone = (await tx.conn.execute(delete(variable).where(_c.id == variable_id).returning(_c.place))).first()
    if gone is not None:
        tx.changed("variable", gone.place)
    return gone is not None


async def purge_project(tx: Tx, project_id: str) -> None:
    await _purge(tx, _c.project_id == project_id)


async def purge_environments(tx: Tx, *going: ColumnElement[bool]) -> None:
    """Of environments that are `going`: conditions on their table."""
    await _purge(tx, _c.environment_id.in_(select(environment.c.id).where(*going)))


async def _purge(tx: Tx, which: ColumnElement[bool]) -> None:
    mine = select(_c.id).where(which)
    await tx.conn.execute(delete(variable_version).where(variable_version.c.variable_id.in_(mine)))
    await tx.conn.execute(delete(variable).where(which))


def _version(record: VariableRecord, author: str, at: float) -> VersionRecord:
    return VersionRecord(
        variable_id=record.id,
        version=record.version,
        value=record.value,
        secret=record.secret,
        created_by=author,
        created_at=at,
    )
