"""How a container looks from outside: what was declared, what is in force, and every instance with its reason."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.control import snapshots
from coordinator.control.snapshots import Snapshot
from coordinator.core.explain import container_status, instance_status
from coordinator.errors import NotFound
from coordinator.procedures import declaring, inheriting
from coordinator.procedures.inputs import View
from coordinator.store import approvals, containers, releases
from coordinator.store.approvals import ApprovalRecord
from coordinator.store.containers import ContainerRecord
from coordinator.store.deployments import DeploymentRecord
from coordinator.store.instances import InstanceRecord
from coordinator.store.releases import ReleaseRecord
from coordinator.store.variables import VariableRecord
from shared.kit.clock import iso
from shared.spec.container import (
    EnvVar,
    HealthCheck,
    Placement,
    Port,
    RegistryCredentials,
    Resources,
    Security,
    Strategy,
    Volume,
)
from shared.spec.instance import PortBinding
from shared.spec.reason import Reason


class ReasonView(View, frozen=True):
    """`nextAt`: when the next try is, null when nothing happens until somebody acts."""

    code: str
    message: str
    next_at: str | None


class InstanceRow(View, frozen=True):
    """`progress`: bytes of the image pulled, of bytes known so far."""

    id: str
    slot: int
    node_id: str | None
    status: str
    health: str
    reason: ReasonView | None
    revision: int
    restarts: int
    started_at: str | None
    finished_at: str | None
    exit_code: int | None
    ports: list[PortBinding]
    image_digest: str
    progress: tuple[int, int] | None


class ContainerRow(View, frozen=True):
    """`image` is the one in force."""

    id: str
    name: str
    image: str
    status: str
    replicas: int
    port: int | None
    cluster_id: str
    created_at: str


class ReleaseView(View, frozen=True):
    id: str
    container_id: str
    revision: int
    image: str
    image_digest: str
    note: str
    created_by: str
    created_at: str


class ContainerDetail(View, frozen=True):
    """The declaration as last written; `release` is what is in force, and `pendingChanges` names the fields in which they differ
    until the next deploy; `variables` among them stands for what it inherits."""

    id: str
    name: str
    project_id: str
    environment_id: str
    cluster_id: str
    type: str
    image: str
    status: str
    reason: ReasonView | None
    replicas: int
    port: int | None
    ports: list[Port]
    env: list[EnvVar]
    resources: Resources
    domains: list[str]
    health_check: HealthCheck | None
    command: list[str]
    volumes: list[Volume]
    placement: Placement
    strategy: Strategy
    restart_policy: str
    stop_grace_period: int
    labels: dict[str, str]
    security: Security
    credentials: RegistryCredentials | None
    registry_id: str | None
    generation: int
    release: ReleaseView | None
    pending_changes: list[str]
    deployment_id: str | None
    instances: list[InstanceRow]
    created_at: str
    last_deployed_at: str | None


class EventView(View, frozen=True):
    """`seq` counts a deployment's events; its last 100 are kept."""

    seq: int
    at: str
    message: str


class ApprovalView(View, frozen=True):
    """`status`: pending, approved, rejected, or withdrawn. `comment`: of who decided."""

    id: str
    deployment_id: str
    requested_by: str
    status: str
    comment: str
    decided_by: str | None
    created_at: str
    decided_at: str | None


class DeploymentView(View, frozen=True):
    """`number` counts the organisation's deployments, whatever container they are of."""

    id: str
    number: int
    container_id: str
    environment_id: str
    release_id: str
    kind: str
    status: str
    error: str
    note: str
    revision: int
    image: str
    previous_image: str | None
    events: list[EventView]
    approvals: list[ApprovalView]
    created_by: str
    created_at: str
    finished_at: str | None


async def rows(conn: AsyncConnection, records: list[ContainerRecord], now: float) -> list[ContainerRow]:
    loaded = await snapshots.load(conn, [record.id for record in records])
    return [_row(loaded[record.id], now) for record in records if record.id in loaded]


async def detail(conn: AsyncConnection, record: ContainerRecord, now: float) -> ContainerDetail:
    """Raises NotFound when it has gone since the record was read."""
    snapshot = (await snapshots.load(conn, [record.id])).get(record.id)
    if snapshot is None:
        raise NotFound("container not found")
    return _detail(snapshot, await inheriting.current(conn, record), now)


async def deployment_view(conn: AsyncConnection, record: DeploymentRecord) -> DeploymentView:
    wanted = [one for one in (record.release_id, record.previous_release_id) if one is not None]
    known = await releases.of_ids(conn, wanted)
    homes = await containers.of_ids(conn, [record.container_id])
    return _deployment(record, homes, known, await approvals.of_deployment(conn, record.id))


async def deployment_views(conn: AsyncConnection, records: list[DeploymentRecord]) -> list[DeploymentView]:
    wanted = {one for record in records for one in (record.release_id, record.previous_release_id) if one is not None}
    known = await releases.of_ids(conn, wanted)
    asked = await approvals.of_deployments(conn, [record.id for record in records])
    homes = await containers.of_ids(conn, {record.container_id for record in records})
    return [_deployment(record, homes, known, asked.get(record.id)) for record in records]


def approval_view(record: ApprovalRecord) -> ApprovalView:
    return ApprovalView(
        id=record.id,
        deployment_id=record.deployment_id,
        requested_by=record.requested_by,
        status=record.status,
        comment=record.comment,
        decided_by=record.decided_by,
        created_at=iso(record.created_at),
        decided_at=_time(record.decided_at),
    )


def release_view(record: ReleaseRecord) -> ReleaseView:
    return ReleaseView(
        id=record.id,
        container_id=record.container_id,
        revision=record.revision,
        image=record.image,
        image_digest=record.image_digest,
        note=record.note,
        created_by=record.created_by,
        created_at=iso(record.created_at),
    )


def _row(snapshot: Snapshot, now: float) -> ContainerRow:
    record = snapshot.container
    release = snapshot.release(record.target_release_id)
    return ContainerRow(
        id=record.id,
        name=record.name,
        image=release.image if release else record.template.image,
        status=container_status(snapshot.overview(), now).word,
        replicas=record.replicas,
        port=(release.template if release else record.template).port,
        cluster_id=record.cluster_id,
        created_at=iso(record.created_at),
    )


def _detail(snapshot: Snapshot, inherited: list[VariableRecord], now: float) -> ContainerDetail:
    record = snapshot.container
    status = container_status(snapshot.overview(), now)
    release = snapshot.release(record.target_release_id)
    template = declaring.mask(record.template)
    declared: dict[str, Any] = {name: getattr(template, name) for name in template.__struct_fields__}
    return ContainerDetail(
        id=record.id,
        name=record.name,
        project_id=record.project_id,
        environment_id=record.environment_id,
        cluster_id=record.cluster_id,
        status=status.word,
        reason=reason_view(status.reason),
        replicas=record.declared_replicas,
        domains=[],
        generation=record.generation,
        release=release_view(release) if release else None,
        pending_changes=_pending(record, release, inherited),
        deployment_id=snapshot.active.id if snapshot.active else None,
        instances=instance_rows(snapshot),
        created_at=iso(record.created_at),
        last_deployed_at=_time(record.last_deployed_at),
        **declared,
    )


def _pending(record: ContainerRecord, release: ReleaseRecord | None, inherited: list[VariableRecord]) -> list[str]:
    waiting = declaring.changed_fields(record.template, release.template) if release else []
    if release is not None and inheriting.differs(inherited, record.template, release):
        waiting.append("variables")
    return [*waiting, "replicas"] if record.declared_replicas != record.replicas else waiting


def instance_rows(snapshot: Snapshot) -> list[InstanceRow]:
    return [_instance(snapshot, one) for one in sorted(snapshot.instances, key=lambda each: (each.slot, each.id))]


def _instance(snapshot: Snapshot, record: InstanceRecord) -> InstanceRow:
    word, reason = instance_status(snapshot.instance_view(record))
    return InstanceRow(
        id=record.id,
        slot=record.slot,
        node_id=record.node_id,
        status=word,
        health=record.health,
        reason=reason_view(reason),
        revision=record.revision,
        restarts=record.restarts,
        started_at=_time(record.started_at),
        finished_at=_time(record.finished_at),
        exit_code=record.exit_code,
        ports=record.ports,
        image_digest=record.image_digest,
        progress=record.progress,
    )


def _deployment(
    record: DeploymentRecord,
    homes: dict[str, ContainerRecord],
    known: dict[str, ReleaseRecord],
    approval: ApprovalRecord | None,
) -> DeploymentView:
    release = known[record.release_id]
    previous = known.get(record.previous_release_id) if record.previous_release_id else None
    return DeploymentView(
        id=record.id,
        number=record.number,
        container_id=record.container_id,
        environment_id=homes[record.container_id].environment_id,
        release_id=record.release_id,
        kind=record.kind,
        status=record.status,
        error=record.error,
        note=record.note,
        revision=release.revision,
        image=release.image,
        previous_image=previous.image if previous else None,
        events=[EventView(seq=event.seq, at=iso(event.at), message=event.message) for event in record.events],
        approvals=[] if approval is None else [approval_view(approval)],
        created_by=record.created_by,
        created_at=iso(record.created_at),
        finished_at=_time(record.finished_at),
    )


def reason_view(reason: Reason | None) -> ReasonView | None:
    if reason is None:
        return None
    return ReasonView(code=reason.code, message=reason.message, next_at=_time(reason.next_at))


def _time(timestamp: float | None) -> str | None:
    return iso(timestamp) if timestamp is not None else None
