"""Clusters: nodes managed through one engine."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, NotFound, PreconditionFailed
from coordinator.procedures import node_views, paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.node_views import NodeSummary
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given, write_named
from coordinator.store import clusters, nodes
from coordinator.store.clusters import ClusterRecord
from coordinator.store.database import Tx
from coordinator.store.nodes import NodeRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.cluster import ClusterStatus, Orchestrator, Provider
from shared.spec.container import Labels, Part
from shared.spec.node import Role
from shared.spec.reason import Reason

ClusterName = Annotated[str, Meta(min_length=2, max_length=64)]
BYO_REGION = "byo"


class ListClusters(Page, frozen=True, kw_only=True):
    organization_id: Id


class ClusterId(Part, frozen=True):
    cluster_id: Id


class NodeRequest(Part, frozen=True):
    """Machines a provider is to make."""

    role: Role
    plan: Annotated[str, Meta(min_length=1, max_length=64)]
    count: Annotated[int, Meta(ge=1, le=1000)]


class CreateCluster(Part, frozen=True):
    """`nodes` is for providers that make machines; a `byo` cluster gets its nodes by `cluster.joinToken`."""

    organization_id: Id
    name: ClusterName
    provider: Provider
    orchestrator: Orchestrator
    region: Annotated[str, Meta(min_length=1, max_length=64)] = BYO_REGION
    nodes: list[NodeRequest] = []


class UpdateCluster(Part, frozen=True):
    cluster_id: Id
    name: ClusterName | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET


class ClusterView(View, frozen=True):
    """`reason` says why the status is not `running`."""

    id: str
    name: str
    provider: str
    region: str
    orchestrator: str
    status: ClusterStatus
    reason: Reason | None
    node_count: int
    created_at: str


class ClusterDetail(ClusterView, frozen=True):
    organization_id: str
    labels: dict[str, str]
    nodes: list[NodeSummary]


@procedure("cluster.all", "GET", "viewer", scopes.organization, rest="/clusters")
async def list_clusters(context: Context, data: ListClusters) -> list[ClusterView]:
    """An organisation's clusters."""
    async with context.services.store.read() as conn:
        rows = await clusters.of_organization(
            conn, data.organization_id, after=data.cursor or "", limit=paging.fetch(data)
        )
        page = paging.cut(context, data, rows)
        return [_view(context, record, await nodes.of_cluster(conn, record.id)) for record in page]


@procedure("cluster.one", "GET", "view", scopes.cluster, rest="/clusters/{clusterId}")
async def one(context: Context, data: ClusterId) -> ClusterDetail:
    """A cluster with its nodes."""
    async with context.services.store.read() as conn:
        return await _detail(context, conn, context.record)


@procedure("cluster.create", "POST", "admin", scopes.organization, created=True, rest="/clusters")
async def create(context: Context, data: CreateCluster) -> ClusterDetail:
    """A new cluster, `provisioning` until its first node has joined."""
    if data.nodes:
        raise BadRequest("nodes: machines of your own join a 'byo' cluster by cluster.joinToken; leave the list empty")

    async def unit(tx: Tx) -> ClusterDetail:
        record = ClusterRecord(
            id=new_id("cluster"),
            organization_id=data.organization_id,
            name=data.name,
            provider=data.provider,
            region=data.region,
            orchestrator=data.orchestrator,
            created_at=tx.now,
        )
        await clusters.insert(tx, record)
        await note(tx, context, "cluster.create", record.id, record.organization_id, name=record.name)
        return await _detail(context, tx.conn, record)

    return await write_named(context, unit, "the organisation already has a cluster", data.name)


@procedure("cluster.update", "PATCH", "manage", scopes.cluster, rest="/clusters/{clusterId}")
async def update(context: Context, data: UpdateCluster) -> ClusterDetail:
    """Change a cluster's name or labels."""
    changes = given(data, "cluster_id")

    async def unit(tx: Tx) -> ClusterDetail:
        if changes and not await clusters.change(tx, data.cluster_id, **changes):
            raise NotFound("cluster not found")
        if changes:
            await note(tx, context, "cluster.update", data.cluster_id, context.record.organization_id, **changes)
        return await _detail(context, tx.conn, await clusters.get(tx.conn, data.cluster_id) or context.record)

    return await write_named(context, unit, "the organisation already has a cluster", data.name)


@procedure("cluster.remove", "DELETE", "manage", scopes.cluster, rest="/clusters/{clusterId}")
async def remove(context: Context, data: ClusterId) -> Nothing:
    """Remove a cluster without containers. Its nodes stay enrolled and free, for another cluster."""

    async def unit(tx: Tx) -> None:
        for member in await nodes.of_cluster(
            tx.conn, data.cluster_id
        ):  # free: what was asked of it here is over, and it is woken
            await nodes.change(tx, member.id, cluster_id=None, availability="active", removing=False, drain_reason=None)
        await clusters.remove(tx, data.cluster_id)
        await note(tx, context, "cluster.remove", data.cluster_id, context.record.organization_id)

    try:
        await context.services.store.write(unit)
    except IntegrityError as error:
        raise PreconditionFailed("the cluster still has containers: remove them first") from error
    return Nothing()


async def _detail(context: Context, conn: AsyncConnection, record: ClusterRecord) -> ClusterDetail:
    members = await nodes.of_cluster(conn, record.id)
    view = _view(context, record, members)
    return ClusterDetail(
        id=view.id,
        name=view.name,
        provider=view.provider,
        region=view.region,
        orchestrator=view.orchestrator,
        status=view.status,
        reason=view.reason,
        node_count=view.node_count,
        created_at=view.created_at,
        organization_id=record.organization_id,
        labels=record.labels,
        nodes=[node_views.summary(member, context.services) for member in members],
    )


def _view(context: Context, record: ClusterRecord, members: list[NodeRecord]) -> ClusterView:
    word, reason = _status(context, members)
    return ClusterView(
        id=record.id,
        name=record.name,
        provider=record.provider,
        region=record.region,
        orchestrator=record.orchestrator,
        status=word,
        reason=reason,
        node_count=len(members),
        created_at=iso(record.created_at),
    )


def _status(context: Context, members: list[NodeRecord]) -> tuple[ClusterStatus, Reason | None]:
    """Derived from the nodes each time: `degraded` while some are broken, `error` when all are. Cordoning one on purpose breaks
    nothing."""
    if not members:
        return "provisioning", Reason("no_nodes", "no node has joined yet: run the command of cluster.joinToken on one")
    words = [
        node_views.status(member, connected=context.services.leases.is_connected(member.id))[0] for member in members
    ]
    broken = [word for word in words if word in ("lost", "disconnected", "engine_down")]
    if not broken:
        return "running", None
    counted = ", ".join(f"{broken.count(word)} {word.replace('_', ' ')}" for word in sorted(set(broken)))
    word: ClusterStatus = "degraded" if len(broken) < len(members) else "error"
    return word, Reason("nodes", f"of {len(members)} nodes {counted}")
