"""Organisations and who belongs to them."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record, count_by
from coordinator.store.tables import account, cluster, membership, organization
from coordinator.store.writer import Tx


class OrganizationRecord(Record, frozen=True, kw_only=True):
    id: str
    name: str
    description: str = ""
    sealed_key: bytes
    created_at: float


class MembershipRecord(Record, frozen=True, kw_only=True):
    organization_id: str
    user_id: str
    role: str
    joined_at: float


class MemberRecord(Record, frozen=True, kw_only=True):
    """A membership as the organisation sees it."""

    user_id: str
    email: str
    name: str
    role: str
    joined_at: float


class OrganizationCounts(Record, frozen=True, kw_only=True):
    members: int = 0
    clusters: int = 0


organizations = Mapper(OrganizationRecord, organization)
_by_id = organizations.by(organization.c.id, order=organization.c.id)
memberships = Mapper(MembershipRecord, membership)


async def insert(tx: Tx, record: OrganizationRecord) -> None:
    await organizations.insert(tx.conn, [record])


async def get(conn: AsyncConnection, organization_id: str) -> OrganizationRecord | None:
    return await _by_id.one(conn, organization_id)


async def of_user(conn: AsyncConnection, user_id: str) -> list[OrganizationRecord]:
    mine = select(membership.c.organization_id).where(membership.c.user_id == user_id)
    return await organizations.many(conn, organizations.select(organization.c.id.in_(mine)).order_by(organization.c.id))


async def counts(conn: AsyncConnection, organization_ids: list[str]) -> dict[str, OrganizationCounts]:
    """For each id, also those that have neither members nor clusters."""
    members = await count_by(conn, membership.c.organization_id, organization_ids)
    clusters = await count_by(conn, cluster.c.organization_id, organization_ids)
    return {
        key: OrganizationCounts(members=members.get(key, 0), clusters=clusters.get(key, 0)) for key in organization_ids
    }


async def join(tx: Tx, record: MembershipRecord) -> None:
    await memberships.insert(tx.conn, [record])


async def members(conn: AsyncConnection, organization_id: str) -> list[MemberRecord]:
    statement = (
        select(account.c.id, account.c.email, account.c.name, membership.c.role, membership.c.joined_at)
        .join_from(membership, account, membership.c.user_id == account.c.id)
        .where(membership.c.organization_id == organization_id)
        .order_by(account.c.id)
    )
    return [
        MemberRecord(user_id=row.id, email=row.email, name=row.name, role=row.role, joined_at=row.joined_at)
        for row in await conn.execute(statement)
    ]
