"""Clusters."""

from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import grants
from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import cluster, environment, join_token, node
from coordinator.store.writer import Tx


class ClusterRecord(Record, frozen=True, kw_only=True):
    id: str
    organization_id: str
    name: str
    provider: str
    region: str
    orchestrator: str
    labels: dict[str, str] = {}
    settings: dict[str, Any] = {}
    created_at: float


clusters = Mapper(ClusterRecord, cluster)
_by_id = clusters.by(cluster.c.id, order=cluster.c.id)


async def insert(tx: Tx, record: ClusterRecord) -> None:
    await clusters.insert(tx.conn, [record])
    tx.changed("cluster", record.id)


async def get(conn: AsyncConnection, cluster_id: str) -> ClusterRecord | None:
    return await _by_id.one(conn, cluster_id)


async def of_organization(
    conn: AsyncConnection, organization_id: str, *, after: str = "", limit: int = 200
) -> list[ClusterRecord]:
    statement = clusters.select(cluster.c.organization_id == organization_id, cluster.c.id > after)
    return await clusters.many(conn, statement.order_by(cluster.c.id).limit(limit))


async def change(tx: Tx, cluster_id: str, **changes: Any) -> bool:
    """Columns by name; `labels` and `settings` as values."""
    values = clusters.values(**changes)
    result = await tx.conn.execute(update(cluster).where(cluster.c.id == cluster_id).values(**values))
    tx.changed("cluster", cluster_id)
    return result.rowcount == 1


async def remove(tx: Tx, cluster_id: str) -> bool:
    """Its nodes are released, its environments lose their default, its join tokens go. IntegrityError when it still has
    containers."""
    for table in (node, environment):
        await tx.conn.execute(update(table).where(table.c.cluster_id == cluster_id).values(cluster_id=None))
    await grants.forget_cluster(tx, cluster_id)
    await tx.conn.execute(delete(join_token).where(join_token.c.cluster_id == cluster_id))
    tx.changed("cluster", cluster_id)
    return (await tx.conn.execute(delete(cluster).where(cluster.c.id == cluster_id))).rowcount == 1
