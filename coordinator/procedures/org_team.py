"""The team: who belongs to an organisation, and as what."""

from coordinator.core.permissions import Role
from coordinator.errors import NotFound
from coordinator.procedures import paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.membership import acting_role, require_owner_left, require_rank
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import organizations
from coordinator.store.database import Tx
from coordinator.store.organizations import MemberRecord
from shared.kit.clock import iso
from shared.spec.container import Part


class ListMembers(Page, frozen=True, kw_only=True):
    organization_id: Id


class UpdateMember(Part, frozen=True):
    organization_id: Id
    user_id: Id
    role: Role


class RemoveMember(Part, frozen=True):
    organization_id: Id
    user_id: Id


class TeamMember(View, frozen=True):
    user_id: str
    email: str
    name: str
    role: str
    joined_at: str


@procedure("orgTeam.all", "GET", "viewer", scopes.organization, rest="/organizations/{organizationId}/members")
async def list_members(context: Context, data: ListMembers) -> list[TeamMember]:
    """An organisation's members and their roles."""
    async with context.services.store.read() as conn:
        found = await organizations.members(
            conn, data.organization_id, after=data.cursor or "", limit=paging.fetch(data)
        )
    return [_view(record) for record in paging.cut(context, data, found)]


@procedure(
    "orgTeam.update", "PATCH", "admin", scopes.organization, rest="/organizations/{organizationId}/members/{userId}"
)
async def update(context: Context, data: UpdateMember) -> TeamMember:
    """Give a member another role, at once. Only owners change admins and owners, and the last owner stays one."""

    async def unit(tx: Tx) -> TeamMember:
        acting = await acting_role(tx, context, data.organization_id)
        present = await _member(tx, data.organization_id, data.user_id)
        require_rank(acting, present.role, data.role)
        if present.role == "owner" and data.role != "owner":
            await require_owner_left(tx, data.organization_id, data.user_id)
        if present.role == data.role:
            return _view(present)
        await organizations.change_role(tx, data.organization_id, data.user_id, data.role)
        changed = await _member(tx, data.organization_id, data.user_id)
        what = {"before": present, "after": changed, "role": data.role, "instead_of": present.role}
        await note(tx, context, "orgTeam.update", data.user_id, data.organization_id, **what)
        return _view(changed)

    return await context.services.store.write(unit)


@procedure(
    "orgTeam.remove", "DELETE", "admin", scopes.organization, rest="/organizations/{organizationId}/members/{userId}"
)
async def remove(context: Context, data: RemoveMember) -> Nothing:
    """Take a member out, with every grant of theirs. Streams they follow end at once. Only owners remove admins and owners."""

    async def unit(tx: Tx) -> None:
        acting = await acting_role(tx, context, data.organization_id)
        present = await _member(tx, data.organization_id, data.user_id)
        require_rank(acting, present.role)
        if present.role == "owner":
            await require_owner_left(tx, data.organization_id, data.user_id)
        await organizations.leave(tx, data.organization_id, data.user_id)
        await note(tx, context, "orgTeam.remove", data.user_id, data.organization_id, before=present, role=present.role)

    await context.services.store.write(unit)
    return Nothing()


async def _member(tx: Tx, organization_id: str, user_id: str) -> MemberRecord:
    found = await organizations.member(tx.conn, organization_id, user_id)
    if found is None:
        raise NotFound("member not found")
    return found


def _view(record: MemberRecord) -> TeamMember:
    return TeamMember(
        user_id=record.user_id,
        email=record.email,
        name=record.name,
        role=record.role,
        joined_at=iso(record.joined_at),
    )
