"""Deployments: the requests, and the stored state of the rollout that carries each out."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import Integer, and_, bindparam, cast, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import deployment, release
from coordinator.store.writer import Tx


class DeploymentEvent(msgspec.Struct, frozen=True):
    """`seq` counts a deployment's events from 1, those that are no longer kept included."""

    at: float
    message: str
    seq: int = 0


class DeploymentRecord(Record, frozen=True, kw_only=True):
    """`state` is `core.rollout`'s own JSON: the store does not read it."""

    id: str
    container_id: str
    number: int = 0
    kind: str
    release_id: str
    previous_release_id: str | None = None
    status: str
    active: bool = True
    held: bool = False
    replicas: int | None = None
    state: str = "{}"
    events: list[DeploymentEvent] = []
    error: str = ""
    note: str = ""
    version: int = 1
    created_by: str
    created_at: float
    finished_at: float | None = None


class Current(msgspec.Struct, frozen=True):
    """`active`: the one under way, if any. `last`: the newest one that was ever under way. `waiting`: the one that waits for an
    approval; until then it is nothing but a wish."""

    active: DeploymentRecord | None = None
    last: DeploymentRecord | None = None
    waiting: DeploymentRecord | None = None


deployments = Mapper(DeploymentRecord, deployment)
_by_id = deployments.by(deployment.c.id, order=deployment.c.id)
_active = deployments.by(deployment.c.container_id, deployment.c.active.is_(True), order=deployment.c.id)
_this = deployment.c.id == bindparam("of_id")
_at_version = deployment.c.version == bindparam("of_version")
_edit = deployments.edit(_this, returning=[deployment.c.container_id])
_guarded_edit = deployments.edit(_this, _at_version, returning=[deployment.c.container_id])
_later = deployment.alias()
_newest = and_(
    deployment.c.held.is_(False),
    ~exists().where(
        _later.c.container_id == deployment.c.container_id, _later.c.held.is_(False), _later.c.id > deployment.c.id
    ),
)
_current = deployments.by(
    deployment.c.container_id,
    or_(deployment.c.active.is_(True), deployment.c.status == "pending", _newest),
    order=deployment.c.id,
)


async def insert(tx: Tx, record: DeploymentRecord) -> None:
    await deployments.insert(tx.conn, [record])
    tx.changed("deployment", record.container_id)


async def get(conn: AsyncConnection, deployment_id: str) -> DeploymentRecord | None:
    return await _by_id.one(conn, deployment_id)


async def of_container(
    conn: AsyncConnection, container_id: str, *, before: str = "", limit: int = 200
) -> list[DeploymentRecord]:
    """Newest first; `before` is the last id of the page before."""
    statement = deployments.select(deployment.c.container_id == container_id)
    if before:
        statement = statement.where(deployment.c.id < before)
    order = (deployment.c.created_at.desc(), deployment.c.id.desc())
    return await deployments.many(conn, statement.order_by(*order).limit(limit))


async def active_of(conn: AsyncConnection, container_id: str) -> DeploymentRecord | None:
    return await _active.one(conn, container_id)


async def waiting_of(conn: AsyncConnection, container_id: str) -> DeploymentRecord | None:
    return await deployments.one(conn, deployment.c.container_id == container_id, deployment.c.status == "pending")


async def current_of(conn: AsyncConnection, container_ids: Iterable[str]) -> dict[str, Current]:
    """Container id → its deployments that matter now, for those that have any."""
    found: dict[str, Current] = {}
    for record in await _current.many(conn, container_ids):
        known = found.get(record.container_id, Current())
        found[record.container_id] = _add(known, record)
    return found


def _add(known: Current, record: DeploymentRecord) -> Current:
    """Records come oldest first."""
    if record.held:
        return structs.replace(known, waiting=record)
    return structs.replace(known, active=record if record.active else known.active, last=record)


async def change(
    tx: Tx, deployment_id: str, *, version: int | None = None, quietly: bool = False, **changes: Any
) -> bool:
    """Columns by name, `events` as values. With `version`, only a row that is still at it. `quietly`: what nobody but the caller
    decides by, or is shown, so nobody need look again."""
    if version is None:
        rows = await _edit.returned(tx.conn, changes, of_id=deployment_id)
    else:
        rows = await _guarded_edit.returned(tx.conn, changes, of_id=deployment_id, of_version=version)
    for (container_id,) in rows if not quietly else ():
        tx.changed("deployment", container_id)
    return bool(rows)


class PastRelease(Record, frozen=True, kw_only=True):
    """`restarted`: made by a restart, with the content of the release before it. `succeeded`: by one of its deployments."""

    release_id: str
    revision: int
    spec_hash: str
    restarted: bool
    succeeded: bool


async def past_releases(conn: AsyncConnection, container_id: str) -> list[PastRelease]:
    """Newest first: every release of the container and what became of it."""
    statement = (
        select(
            release.c.id,
            release.c.revision,
            release.c.spec_hash,
            func.max(cast(deployment.c.kind == "restart", Integer)).label("restarted"),
            func.max(cast(deployment.c.status == "succeeded", Integer)).label("succeeded"),
        )
        .select_from(release.outerjoin(deployment, deployment.c.release_id == release.c.id))
        .where(release.c.container_id == container_id)
        .group_by(release.c.id, release.c.revision, release.c.spec_hash)
        .order_by(release.c.revision.desc())
    )
    return [
        PastRelease(
            release_id=row.id,
            revision=row.revision,
            spec_hash=row.spec_hash,
            restarted=bool(row.restarted),
            succeeded=bool(row.succeeded),
        )
        for row in await conn.execute(statement)
    ]
