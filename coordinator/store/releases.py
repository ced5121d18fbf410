"""Releases: immutable, but for the image digest that the first node to resolve the image fills in."""

from collections.abc import Iterable

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.prepared import Prepared
from coordinator.store.tables import release
from coordinator.store.writer import Tx
from shared.spec.container import Template
from shared.spec.release import Inherited


class ReleaseRecord(Record, frozen=True, kw_only=True):
    id: str
    container_id: str
    revision: int
    template: Template
    variables: list[Inherited] = []
    spec_hash: str
    image: str
    image_digest: str = ""
    note: str = ""
    created_by: str
    created_at: float


releases = Mapper(ReleaseRecord, release)
_by_id = releases.by(release.c.id, order=release.c.id)
_fill_digest = Prepared(
    update(release)
    .where(release.c.id == bindparam("of_id"), release.c.image_digest == "")
    .values(image_digest=bindparam("new_digest"))
)


async def insert(tx: Tx, record: ReleaseRecord) -> None:
    await releases.insert(tx.conn, [record])
    tx.changed("container", record.container_id)


async def get(conn: AsyncConnection, release_id: str) -> ReleaseRecord | None:
    return await _by_id.one(conn, release_id)


async def of_ids(conn: AsyncConnection, release_ids: Iterable[str]) -> dict[str, ReleaseRecord]:
    return {record.id: record for record in await _by_id.many(conn, release_ids)}


async def of_container(
    conn: AsyncConnection, container_id: str, *, before: int | None = None, limit: int = 200
) -> list[ReleaseRecord]:
    """Newest first; `before` is the last revision of the page before."""
    statement = releases.select(release.c.container_id == container_id)
    if before is not None:
        statement = statement.where(release.c.revision < before)
    return await releases.many(conn, statement.order_by(release.c.revision.desc()).limit(limit))


async def fill_digest(tx: Tx, release_id: str, container_id: str, digest: str) -> bool:
    """False when it is known already: a release never changes what it ran."""
    count = await _fill_digest.change(tx.conn, {"of_id": release_id, "new_digest": digest})
    if count == 1:
        tx.changed("container", container_id)
    return count == 1
