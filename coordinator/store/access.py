"""What somebody may touch: the roles and grants behind an account, read when a credential is looked up."""

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Record
from coordinator.store.tables import account, cluster_grant, membership


class Principal(Record, frozen=True, kw_only=True):
    """`roles`: organisation id → role. `grants`: cluster id → permission."""

    user_id: str
    email: str
    roles: dict[str, str]
    grants: dict[str, str]


_member = (
    select(account.c.email, membership.c.organization_id, membership.c.role)
    .outerjoin_from(account, membership, membership.c.user_id == account.c.id)
    .where(account.c.id == bindparam("user"))
)
_granted = select(cluster_grant.c.cluster_id, cluster_grant.c.permission).where(
    cluster_grant.c.user_id == bindparam("user")
)


async def of_user(conn: AsyncConnection, user_id: str) -> Principal | None:
    rows = (await conn.execute(_member, {"user": user_id})).all()
    if not rows:
        return None
    granted = await conn.execute(_granted, {"user": user_id})
    return Principal(
        user_id=user_id,
        email=rows[0].email,
        roles={row.organization_id: row.role for row in rows if row.organization_id is not None},
        grants={row.cluster_id: row.permission for row in granted},
    )
