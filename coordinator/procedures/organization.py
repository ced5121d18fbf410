"""Organisations: who owns what."""

from typing import Annotated

from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.procedures import scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Description, Id, View
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import organizations
from coordinator.store.database import Tx
from coordinator.store.organizations import MembershipRecord, OrganizationRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import Part


class OrganizationId(Part, frozen=True):
    organization_id: Id


class CreateOrganization(Part, frozen=True):
    name: Annotated[str, Meta(min_length=2, max_length=50)]
    description: Description = ""


class OrganizationView(View, frozen=True):
    id: str
    name: str
    description: str
    created_at: str
    member_count: int
    cluster_count: int


class MemberView(View, frozen=True):
    user_id: str
    email: str
    role: str
    joined_at: str


class OrganizationDetail(OrganizationView, frozen=True):
    members: list[MemberView]


class CreatedOrganization(View, frozen=True):
    id: str
    name: str
    description: str
    created_at: str


@procedure("organization.all", "GET", "own", rest="/organizations")
async def list_organizations(context: Context, data: Nothing) -> list[OrganizationView]:
    """The caller's organisations."""
    async with context.services.store.read() as conn:
        found = await organizations.of_user(conn, context.user.user_id)
        return await _views(conn, found)


@procedure("organization.one", "GET", "viewer", scopes.organization, rest="/organizations/{organizationId}")
async def one(context: Context, data: OrganizationId) -> OrganizationDetail:
    """One organisation with its members."""
    record: OrganizationRecord = context.record
    async with context.services.store.read() as conn:
        (view,) = await _views(conn, [record])
        members = await organizations.members(conn, record.id)
    return OrganizationDetail(
        id=view.id,
        name=view.name,
        description=view.description,
        created_at=view.created_at,
        member_count=view.member_count,
        cluster_count=view.cluster_count,
        members=[
            MemberView(user_id=member.user_id, email=member.email, role=member.role, joined_at=iso(member.joined_at))
            for member in members
        ],
    )


@procedure("organization.create", "POST", "own", created=True, rest="/organizations")
async def create(context: Context, data: CreateOrganization) -> CreatedOrganization:
    """A new organisation, owned by the caller."""
    organization_id = new_id("org")
    caller = context.user

    async def unit(tx: Tx) -> OrganizationRecord:
        record = OrganizationRecord(
            id=organization_id,
            name=data.name,
            description=data.description,
            sealed_key=context.services.vault.new_key(organization_id),
            created_at=tx.now,
        )
        await organizations.insert(tx, record)
        await organizations.join(
            tx,
            MembershipRecord(organization_id=record.id, user_id=caller.user_id, role="owner", joined_at=tx.now),
        )
        await note(tx, context, "organization.create", record.id, record.id, name=record.name)
        return record

    record = await context.services.store.write(unit)
    return CreatedOrganization(
        id=record.id, name=record.name, description=record.description, created_at=iso(record.created_at)
    )


async def _views(conn: AsyncConnection, records: list[OrganizationRecord]) -> list[OrganizationView]:
    counts = await organizations.counts(conn, [record.id for record in records])
    return [
        OrganizationView(
            id=record.id,
            name=record.name,
            description=record.description,
            created_at=iso(record.created_at),
            member_count=counts[record.id].members,
            cluster_count=counts[record.id].clusters,
        )
        for record in records
    ]
