"""Grants: what one user may do on one cluster, in place of what the role gives. They are read with the caller, by `access`."""

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import account, cluster, cluster_grant
from coordinator.store.writer import Tx


class GrantRecord(Record, frozen=True, kw_only=True):
    cluster_id: str
    user_id: str
    permission: str
    granted_by: str
    created_at: float


class AccessEntry(Record, frozen=True, kw_only=True):
    """A grant as the cluster sees it."""

    user_id: str
    email: str
    permission: str
    granted_by: str
    created_at: float

    @property
    def id(self) -> str:
        """What lists of them go on by."""
        return self.user_id


grants = Mapper(GrantRecord, cluster_grant)


async def put(tx: Tx, record: GrantRecord) -> None:
    """In place of the one the user had there."""
    await _delete(tx, record.cluster_id, record.user_id)
    await grants.insert(tx.conn, [record])
    tx.changed("access", record.user_id)


async def of_cluster(conn: AsyncConnection, cluster_id: str, *, after: str = "", limit: int = 200) -> list[AccessEntry]:
    """By user id; `after` is the last of the page before."""
    statement = (
        select(*grants.columns, account.c.email)
        .join_from(cluster_grant, account, cluster_grant.c.user_id == account.c.id)
        .where(cluster_grant.c.cluster_id == cluster_id, cluster_grant.c.user_id > after)
        .order_by(cluster_grant.c.user_id)
        .limit(limit)
    )
    return [
        AccessEntry(
            user_id=row.user_id,
            email=row.email,
            permission=row.permission,
            granted_by=row.granted_by,
            created_at=row.created_at,
        )
        for row in await conn.execute(statement)
    ]


async def revoke(tx: Tx, cluster_id: str, user_id: str) -> bool:
    """False when there was none."""
    removed = await _delete(tx, cluster_id, user_id)
    if removed:
        tx.changed("access", user_id)
    return removed


async def revoke_all(tx: Tx, organization_id: str, user_id: str) -> None:
    """Of one user, on every cluster of the organisation."""
    here = select(cluster.c.id).where(cluster.c.organization_id == organization_id)
    statement = delete(cluster_grant).where(cluster_grant.c.user_id == user_id, cluster_grant.c.cluster_id.in_(here))
    await tx.conn.execute(statement)
    tx.changed("access", user_id)


async def forget_cluster(tx: Tx, cluster_id: str) -> None:
    """With the cluster go the grants on it; nobody loses what was still there."""
    await tx.conn.execute(delete(cluster_grant).where(cluster_grant.c.cluster_id == cluster_id))


async def _delete(tx: Tx, cluster_id: str, user_id: str) -> bool:
    here = (cluster_grant.c.cluster_id == cluster_id, cluster_grant.c.user_id == user_id)
    return (await tx.conn.execute(delete(cluster_grant).where(*here))).rowcount == 1
