"""Organisations and who belongs to them."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import grants
from coordinator.store.mapping import Mapper, Record, count_by
from coordinator.store.tables import account, cluster, environment, membership, organization, project
from coordinator.store.writer import Tx


class OrganizationRecord(Record, frozen=True, kw_only=True):
    id: str
    name: str
    description: str = ""
    sealed_key: bytes
    removed_at: float | None = None
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

    @property
    def id(self) -> str:
        """What lists of them go on by."""
        return self.user_id


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


async def of_ids(conn: AsyncConnection, organization_ids: Iterable[str]) -> list[OrganizationRecord]:
    """Those that exist and were not removed, by id."""
    statement = organizations.select(organization.c.id.in_(list(organization_ids)), organization.c.removed_at.is_(None))
    return await organizations.many(conn, statement.order_by(organization.c.id))


async def counts(conn: AsyncConnection, organization_ids: list[str]) -> dict[str, OrganizationCounts]:
    """For each id, also those that have neither members nor clusters."""
    members = await count_by(conn, membership.c.organization_id, organization_ids)
    clusters = await count_by(conn, cluster.c.organization_id, organization_ids)
    return {
        key: OrganizationCounts(members=members.get(key, 0), clusters=clusters.get(key, 0)) for key in organization_ids
    }


async def change(tx: Tx, organization_id: str, **changes: Any) -> bool:
    result = await tx.conn.execute(update(organization).where(organization.c.id == organization_id).values(**changes))
    return result.rowcount == 1


async def hold(tx: Tx, organization_id: str) -> bool:
    """Keep every other transaction that asks the same out until this one ends; False when the organisation is gone. Rules about all
    members at once, such as that an owner is left, are looked at inside."""
    statement = select(organization.c.id).where(
        organization.c.id == organization_id, organization.c.removed_at.is_(None)
    )
    locked = statement.with_for_update() if tx.conn.dialect.name == "postgresql" else statement
    return (await tx.conn.execute(locked)).first() is not None


async def role_of(conn: AsyncConnection, organization_id: str, user_id: str) -> str | None:
    here = (membership.c.organization_id == organization_id, membership.c.user_id == user_id)
    role: str | None = (await conn.execute(select(membership.c.role).where(*here))).scalar()
    return role


async def roles_of(conn: AsyncConnection, organization_id: str) -> dict[str, str]:
    """User id → role, of every member."""
    statement = select(membership.c.user_id, membership.c.role).where(membership.c.organization_id == organization_id)
    return {row.user_id: row.role for row in await conn.execute(statement)}


async def join(tx: Tx, record: MembershipRecord) -> None:
    """IntegrityError when they are a member already."""
    await memberships.insert(tx.conn, [record])
    tx.changed("access", record.user_id)


async def change_role(tx: Tx, organization_id: str, user_id: str, role: str) -> None:
    here = (membership.c.organization_id == organization_id, membership.c.user_id == user_id)
    await tx.conn.execute(update(membership).where(*here).values(role=role))
    tx.changed("access", user_id)


async def leave(tx: Tx, organization_id: str, user_id: str) -> None:
    """With what was given to them here: grants on clusters, and the right to review."""
    here = (membership.c.organization_id == organization_id, membership.c.user_id == user_id)
    await tx.conn.execute(delete(membership).where(*here))
    await grants.revoke_all(tx, organization_id, user_id)
    await _review_no_more(tx, organization_id, user_id)
    tx.changed("access", user_id)


async def _review_no_more(tx: Tx, organization_id: str, user_id: str) -> None:
    named = (
        select(environment.c.id, environment.c.reviewers)
        .join_from(environment, project, environment.c.project_id == project.c.id)
        .where(project.c.organization_id == organization_id, environment.c.reviewers.contains(user_id, autoescape=True))
    )
    for row in (await tx.conn.execute(named)).all():
        left = [one for one in msgspec.json.decode(row.reviewers, type=list[str]) if one != user_id]
        changed = update(environment).where(environment.c.id == row.id)
        await tx.conn.execute(changed.values(reviewers=msgspec.json.encode(left).decode()))


async def member(conn: AsyncConnection, organization_id: str, user_id: str) -> MemberRecord | None:
    found = await members(conn, organization_id, user_id=user_id)
    return found[0] if found else None


async def members(
    conn: AsyncConnection,
    organization_id: str,
    *,
    after: str = "",
    limit: int | None = None,
    user_id: str | None = None,
) -> list[MemberRecord]:
    """By id; `after` is the last id of the page before. `user_id`: this one only."""
    statement = (
        select(account.c.id, account.c.email, account.c.name, membership.c.role, membership.c.joined_at)
        .join_from(membership, account, membership.c.user_id == account.c.id)
        .where(membership.c.organization_id == organization_id, account.c.id > after)
        .order_by(account.c.id)
        .limit(limit)
    )
    if user_id is not None:
        statement = statement.where(account.c.id == user_id)
    return [
        MemberRecord(user_id=row.id, email=row.email, name=row.name, role=row.role, joined_at=row.joined_at)
        for row in await conn.execute(statement)
    ]
