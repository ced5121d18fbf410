"""Who may do what on one cluster, where that differs from what their role gives."""

from coordinator.core.permissions import ClusterPermission
from coordinator.errors import Forbidden, NotFound
from coordinator.procedures import paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.membership import SENIOR
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import clusters, grants, organizations
from coordinator.store.database import Tx
from coordinator.store.grants import AccessEntry, GrantRecord
from shared.kit.clock import iso
from shared.spec.container import Part


class GrantAccess(Part, frozen=True):
    """`permission` holds in place of what the role gives, whether that is more or less."""

    cluster_id: Id
    user_id: Id
    permission: ClusterPermission


class ListAccess(Page, frozen=True, kw_only=True):
    cluster_id: Id


class RevokeAccess(Part, frozen=True):
    cluster_id: Id
    user_id: Id


class AccessView(View, frozen=True):
    user_id: str
    email: str
    permission: str
    granted_by: str
    created_at: str


@procedure("cluster.grantAccess", "POST", "manage", scopes.cluster, rest="/clusters/{clusterId}/access")
async def grant(context: Context, data: GrantAccess) -> AccessView:
    """Let a member do more, or less, on this cluster than their role says. It holds at once."""

    async def unit(tx: Tx) -> AccessView:
        email = await _concerned(tx, context, data.cluster_id, data.user_id)
        record = GrantRecord(
            cluster_id=data.cluster_id,
            user_id=data.user_id,
            permission=data.permission,
            granted_by=context.user.user_id,
            created_at=tx.now,
        )
        await grants.put(tx, record)
        await _note(tx, context, "cluster.grantAccess", data.user_id, permission=data.permission)
        return AccessView(
            user_id=record.user_id,
            email=email,
            permission=record.permission,
            granted_by=record.granted_by,
            created_at=iso(record.created_at),
        )

    return await context.services.store.write(unit)


@procedure("cluster.listAccess", "GET", "manage", scopes.cluster, rest="/clusters/{clusterId}/access")
async def list_access(context: Context, data: ListAccess) -> list[AccessView]:
    """The grants on this cluster; everybody else has what their role gives."""
    async with context.services.store.read() as conn:
        found = await grants.of_cluster(conn, data.cluster_id, after=data.cursor or "", limit=paging.fetch(data))
    return [_view(entry) for entry in paging.cut(context, data, found)]


@procedure("cluster.revokeAccess", "DELETE", "manage", scopes.cluster, rest="/clusters/{clusterId}/access/{userId}")
async def revoke(context: Context, data: RevokeAccess) -> Nothing:
    """Take a grant back: what the role gives holds again, at once."""

    async def unit(tx: Tx) -> None:
        await _concerned(tx, context, data.cluster_id, data.user_id)
        if not await grants.revoke(tx, data.cluster_id, data.user_id):
            raise NotFound("the member has no grant on this cluster")
        await _note(tx, context, "cluster.revokeAccess", data.user_id)

    await context.services.store.write(unit)
    return Nothing()


async def _concerned(tx: Tx, context: Context, cluster_id: str, user_id: str) -> str:
    """The member's address. Raises NotFound, and Forbidden where only owners decide: who manages one cluster does not take it away
    from those who look after them all."""
    cluster = await clusters.get(tx.conn, cluster_id)
    if cluster is None:
        raise NotFound("cluster not found")
    member = await organizations.member(tx.conn, cluster.organization_id, user_id)
    if member is None:
        raise NotFound("member not found")
    if member.role in SENIOR and context.role != "owner":
        raise Forbidden("only owners change what admins and owners may do on a cluster")
    return member.email


async def _note(tx: Tx, context: Context, action: str, user_id: str, **detail: str) -> None:
    cluster = context.record
    await note(tx, context, action, cluster.id, cluster.organization_id, user=user_id, **detail)


def _view(entry: AccessEntry) -> AccessView:
    return AccessView(
        user_id=entry.user_id,
        email=entry.email,
        permission=entry.permission,
        granted_by=entry.granted_by,
        created_at=iso(entry.created_at),
    )
