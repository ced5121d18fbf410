"""Log drains: where an organisation's lines go besides its readers. What opens the other side rests concealed and apart."""

from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import log_drain, organization
from coordinator.store.writer import Tx

DrainType = Literal["loki", "otlp", "syslog", "http"]
AuthType = Literal["none", "bearer", "basic"]
Encoding = Literal["protobuf", "json"]


class DrainFilter(Struct, frozen=True, omit_defaults=True):
    """Only lines of these, and that contain `search`. None: of all."""

    project_id: str | None = None
    environment_id: str | None = None
    container_id: str | None = None
    search: str = ""


class DrainConfig(Struct, frozen=True, omit_defaults=True):
    """`labels`: added to every line where the type has a place for it. `encoding`: of otlp. `facility`: of syslog. `ca`: PEM of the
    authority that the other side's certificate is of, empty for the well-known ones."""

    url: str
    auth: AuthType = "none"
    username: str = ""
    header_names: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    encoding: Encoding = "protobuf"
    gzip: bool = True
    facility: int = 16
    ca: str = ""
    filter: DrainFilter = DrainFilter()


class DrainSecret(Struct, frozen=True, omit_defaults=True):
    """`credential`: the bearer token or the password."""

    credential: str = ""
    headers: dict[str, str] = {}


class LogDrainRecord(Record, frozen=True, kw_only=True):
    """`secret`: a concealed `DrainSecret`."""

    id: str
    organization_id: str
    name: str
    type: DrainType
    config: DrainConfig
    secret: str | None = None
    enabled: bool = True
    created_by: str
    created_at: float
    updated_at: float


drains = Mapper(LogDrainRecord, log_drain)
_c = log_drain.c


def drain_context(drain_id: str) -> str:
    """Where a drain's secret belongs."""
    return f"drain:{drain_id}"


async def insert(tx: Tx, record: LogDrainRecord) -> None:
    """IntegrityError when the organisation has one of that name."""
    await drains.insert(tx.conn, [record])
    tx.changed("drain", record.organization_id)


async def get(conn: AsyncConnection, drain_id: str) -> LogDrainRecord | None:
    return await drains.one(conn, _c.id == drain_id)


async def of_organization(
    conn: AsyncConnection, organization_id: str, *, after: str = "", limit: int = 200
) -> list[LogDrainRecord]:
    statement = drains.select(_c.organization_id == organization_id, _c.id > after)
    return await drains.many(conn, statement.order_by(_c.id).limit(limit))


async def every(conn: AsyncConnection) -> list[tuple[LogDrainRecord, bytes]]:
    """With the sealed key of its organisation, which its secret needs."""
    statement = drains.select().add_columns(organization.c.sealed_key)
    joined = statement.join(organization, organization.c.id == _c.organization_id).order_by(_c.id)
    return [(drains.load(row), row.sealed_key) for row in await conn.execute(joined)]


async def count(conn: AsyncConnection, organization_id: str) -> int:
    found = await conn.execute(select(_c.id).where(_c.organization_id == organization_id))
    return len(found.all())


async def change(tx: Tx, record: LogDrainRecord, **changes: Any) -> bool:
    """Columns by name, `config` as a value. IntegrityError when the new name is taken."""
    values = drains.values(**changes, updated_at=tx.now)
    result = await tx.conn.execute(update(log_drain).where(_c.id == record.id).values(**values))
    tx.changed("drain", record.organization_id)
    return result.rowcount == 1


async def remove(tx: Tx, record: LogDrainRecord) -> bool:
    tx.changed("drain", record.organization_id)
    return (await tx.conn.execute(delete(log_drain).where(_c.id == record.id))).rowcount == 1
