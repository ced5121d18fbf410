"""A cluster's nodes: joining, cordoning, draining, leaving."""

from typing import Annotated, Literal

from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.control.scheduler import stranded_without
from coordinator.errors import BadRequest, NotFound, PreconditionFailed
from coordinator.procedures import node_views, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.cluster import ClusterId
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.node_views import NodeView
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import clusters, instances, nodes, organizations, tokens
from coordinator.store.database import Tx
from coordinator.store.nodes import NodeRecord
from coordinator.store.tokens import JoinTokenRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import Part
from shared.spec.node import Role
from shared.wire import join


class ClusterNode(Part, frozen=True):
    cluster_id: Id
    node_id: Id


class AddNode(Part, frozen=True):
    """`nodeId`: an enrolled node of the organisation that belongs to no cluster."""

    cluster_id: Id
    node_id: Id | None = None
    role: Role = "worker"
    plan: str | None = None


class RemoveNode(Part, frozen=True):
    cluster_id: Id
    node_id: Id
    force: bool = False


class MakeJoinToken(Part, frozen=True):
    """For one cluster, or with `organizationId` for a node that is added to a cluster later. `ttl` in seconds."""

    cluster_id: Id | None = None
    organization_id: Id | None = None
    role: Role = "worker"
    ttl: Annotated[int, Meta(ge=60, le=30 * 86400)] = 3600
    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1


class JoinTokenView(View, frozen=True):
    """`command` is run on the new node, from a copy of Argosy."""

    token: str
    expires_at: str
    command: str


async def _cluster_or_organization(context: Context, data: MakeJoinToken) -> Scope:
    if (data.cluster_id is None) == (data.organization_id is None):
        raise BadRequest("clusterId: give either clusterId or organizationId")
    async with context.services.store.read() as conn:
        if data.cluster_id is not None:
            found = await clusters.get(conn, data.cluster_id)
            owner = found.organization_id if found else None
        else:
            organization = await organizations.get(conn, data.organization_id or "")
            owner = organization.id if organization else None
    if owner is None:
        raise NotFound("cluster not found" if data.cluster_id else "organization not found")
    return Scope(owner, "cluster" if data.cluster_id else "organization", owner, data.cluster_id)


@procedure("cluster.nodes", "GET", "view", scopes.cluster, rest="/clusters/{clusterId}/nodes")
async def list_nodes(context: Context, data: ClusterId) -> list[NodeView]:
    """A cluster's nodes: what they are, what they can take, what they use."""
    async with context.services.store.read() as conn:
        members = await nodes.of_cluster(conn, data.cluster_id)
        taken = await _taken(conn, data.cluster_id)
    return [node_views.view(member, context.services, taken.get(member.id, (0, 0))) for member in members]


@procedure(
    "cluster.joinToken",
    "POST",
    "manage",
    _cluster_or_organization,
    rest="/clusters/{clusterId}/join-tokens",
    also=("/organizations/{organizationId}/join-tokens",),
)
async def join_token(context: Context, data: MakeJoinToken) -> JoinTokenView:
    """A token that lets machines join, and the command that uses it. Shown once; only a hash is kept."""
    services = context.services
    if not services.url:
        raise PreconditionFailed(
            "set ARGOSY_URL: no address is known at which another machine could reach this coordinator"
        )
    token = join.new_token(new_id("tok"), services.hub_key)

    async def unit(tx: Tx) -> JoinTokenRecord:
        if data.cluster_id is not None and await clusters.get(tx.conn, data.cluster_id) is None:
            raise NotFound("cluster not found")
        record = JoinTokenRecord(
            id=token.token_id,
            organization_id=context.record,
            cluster_id=data.cluster_id,
            role=data.role,
            secret_hash=join.secret_hash(token.secret),
            uses_left=data.uses,
            expires_at=tx.now + data.ttl,
            created_by=context.user.user_id,
            created_at=tx.now,
        )
        await tokens.insert(tx, record)
        await note(tx, context, "cluster.joinToken", data.cluster_id or context.record, context.record, uses=data.uses)
        return record

    record = await services.store.write(unit)
    command = f"sudo ./install.sh agent --coordinator {services.url} --join {token}"
    return JoinTokenView(token=str(token), expires_at=iso(record.expires_at), command=command)


@procedure("cluster.addNode", "POST", "manage", scopes.cluster, rest="/clusters/{clusterId}/nodes")
async def add_node(context: Context, data: AddNode) -> NodeView:
    """Take an enrolled, free node into the cluster."""
    if data.plan is not None:
        raise BadRequest("plan: a 'byo' cluster has machines of your own, not plans")
    if data.node_id is None:
        raise BadRequest("nodeId: is required in a 'byo' cluster; new machines join by cluster.joinToken")
    node_id = data.node_id

    async def unit(tx: Tx) -> NodeView:
        if await clusters.get(tx.conn, data.cluster_id) is None:
            raise NotFound("cluster not found")
        record = await nodes.get(tx.conn, node_id)
        if record is None or record.revoked_at is not None or record.organization_id != context.record.organization_id:
            raise NotFound("node not found")
        if record.cluster_id is not None:
            raise PreconditionFailed(f"the node is in the cluster {record.cluster_id}: remove it there first")
        fresh = {"availability": "active", "removing": False, "drain_reason": None}
        await nodes.change(tx, node_id, cluster_id=data.cluster_id, role=data.role, **fresh)
        await note(tx, context, "cluster.addNode", node_id, record.organization_id, cluster=data.cluster_id)
        return await _view(tx, context, data.cluster_id, node_id)

    return await context.services.store.write(unit)


@procedure("cluster.cordonNode", "POST", "manage", scopes.cluster, rest="/clusters/{clusterId}/nodes/{nodeId}/cordon")
async def cordon(context: Context, data: ClusterNode) -> NodeView:
    """No new instances on this node; what runs there stays."""
    return await _set_availability(context, data, "cordoned", "cluster.cordonNode")


@procedure(
    "cluster.uncordonNode", "POST", "manage", scopes.cluster, rest="/clusters/{clusterId}/nodes/{nodeId}/uncordon"
)
async def uncordon(context: Context, data: ClusterNode) -> NodeView:
    """The node takes new instances again; also ends a drain."""
    return await _set_availability(context, data, "active", "cluster.uncordonNode")


@procedure("cluster.drainNode", "POST", "manage", scopes.cluster, rest="/clusters/{clusterId}/nodes/{nodeId}/drain")
async def drain(context: Context, data: ClusterNode) -> NodeView:
    """Move everything to other nodes, each replacement healthy before the old instance stops."""
    return await _set_availability(context, data, "draining", "cluster.drainNode")


@procedure("cluster.removeNode", "DELETE", "manage", scopes.cluster, rest="/clusters/{clusterId}/nodes/{nodeId}")
async def remove_node(context: Context, data: RemoveNode) -> Nothing:
    """Drain the node, then let it go. Refused when the other nodes lack the room; `force` removes it at once, drained or not."""

    async def unit(tx: Tx) -> None:
        await _member(tx, data.cluster_id, data.node_id)
        if data.force:
            await nodes.revoke(tx, data.node_id)
        else:
            await _require_room(tx, context, data)
            await nodes.change(tx, data.node_id, availability="draining", removing=True)
        await note(tx, context, "cluster.removeNode", data.node_id, context.record.organization_id, force=data.force)

    await context.services.store.write(unit)
    return Nothing()


async def _set_availability(
    context: Context, data: ClusterNode, availability: Literal["active", "cordoned", "draining"], action: str
) -> NodeView:
    async def unit(tx: Tx) -> NodeView:
        record = await _member(tx, data.cluster_id, data.node_id)
        if record.removing:
            raise PreconditionFailed("the node is being removed from its cluster")
        if record.availability != availability and not (
            availability == "draining" and record.availability == "drained"
        ):
            await nodes.change(tx, data.node_id, availability=availability, drain_reason=None)
            await note(tx, context, action, data.node_id, record.organization_id, cluster=data.cluster_id)
        return await _view(tx, context, data.cluster_id, data.node_id)

    return await context.services.store.write(unit)


async def _taken(conn: AsyncConnection, cluster_id: str) -> dict[str | None, tuple[int, int]]:
    """Node → thousandths of a processor and bytes of memory that are reserved on it."""
    taken: dict[str | None, tuple[int, int]] = {}
    for one in await instances.bound_in(conn, cluster_id):
        cpu, memory = taken.get(one.node_id, (0, 0))
        taken[one.node_id] = (cpu + one.cpu_millis, memory + one.memory_bytes)
    return taken


async def _view(tx: Tx, context: Context, cluster_id: str, node_id: str) -> NodeView:
    """The node as this transaction leaves it."""
    record = await _member(tx, cluster_id, node_id)
    taken = await _taken(tx.conn, cluster_id)
    return node_views.view(record, context.services, taken.get(node_id, (0, 0)))


async def _member(tx: Tx, cluster_id: str, node_id: str) -> NodeRecord:
    record = await nodes.get(tx.conn, node_id)
    if record is None or record.cluster_id != cluster_id or record.revoked_at is not None:
        raise NotFound("node not found in this cluster")
    return record


async def _require_room(tx: Tx, context: Context, data: RemoveNode) -> None:
    stranded = await stranded_without(tx.conn, data.cluster_id, data.node_id, context.services.leases)
    if stranded:
        why = sorted({reason.message for reason in stranded.values()})
        raise PreconditionFailed(
            f"{len(stranded)} of the node's instances would have no place: {'; '.join(why)}. Use force to remove it anyway"
        )
