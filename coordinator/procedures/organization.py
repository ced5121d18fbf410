"""Organisations: who owns what."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import NotFound, PreconditionFailed
from coordinator.procedures import scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Description, Id, View
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given
from coordinator.store import organizations, removals
from coordinator.store.database import Tx
from coordinator.store.organizations import MembershipRecord, OrganizationRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import Part

OrganizationName = Annotated[str, Meta(min_length=2, max_length=50)]


class OrganizationId(Part, frozen=True):
    organization_id: Id


class CreateOrganization(Part, frozen=True):
    name: OrganizationName
    description: Description = ""


class UpdateOrganization(Part, frozen=True):
    organization_id: Id
    name: OrganizationName | UnsetType = UNSET
    description: Description | UnsetType = UNSET


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
        found = await organizations.of_ids(conn, context.user.roles)
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
    founder = context.account

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
            MembershipRecord(organization_id=record.id, user_id=founder, role="owner", joined_at=tx.now),
        )
        await note(tx, context, "organization.create", record.id, record.id, name=record.name)
        return record

    record = await context.services.store.write(unit)
    return CreatedOrganization(
        id=record.id, name=record.name, description=record.description, created_at=iso(record.created_at)
    )


@procedure("organization.update", "PATCH", "admin", scopes.organization, rest="/organizations/{organizationId}")
async def update(context: Context, data: UpdateOrganization) -> OrganizationView:
    """Change an organisation's name or description."""
    changes = given(data, "organization_id")

    async def unit(tx: Tx) -> OrganizationView:
        if not await organizations.hold(tx, data.organization_id):
            raise NotFound("organization not found")
        if changes:
            await organizations.change(tx, data.organization_id, **changes)
            await note(tx, context, "organization.update", data.organization_id, data.organization_id, **changes)
        record = await organizations.get(tx.conn, data.organization_id)
        (view,) = await _views(tx.conn, [record or context.record])
        return view

    return await context.services.store.write(unit)


@procedure("organization.remove", "DELETE", "owner", scopes.organization, rest="/organizations/{organizationId}")
async def remove(context: Context, data: OrganizationId) -> Nothing:
    """Remove an organisation and everything it owns. From now on nobody sees it and no token of it opens anything; its nodes stop
    and remove what they run, and are released when that is done. Refused while a node with instances is not heard of: remove that
    node by force first, or bring it back. The audit log is kept."""

    async def unit(tx: Tx) -> None:
        if not await organizations.hold(tx, data.organization_id):
            raise NotFound("organization not found")
        lost = await removals.lost_with_work(tx.conn, data.organization_id)
        if lost:
            raise PreconditionFailed(
                f"{', '.join(lost)}: not heard of, and may still run instances; bring these nodes back, or remove them with "
                "cluster.removeNode and force"
            )
        await removals.begin(tx, data.organization_id)
        await note(tx, context, "organization.remove", data.organization_id, data.organization_id)

    await context.services.store.write(unit)
    return Nothing()


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
