"""A container as one moment's rows, and as the views that orchestration, rollouts and statuses are decided on.

Everybody who decides or tells something about a container loads it through here, so that they look at the same facts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.core import rollout
from coordinator.core.explain import Overview
from coordinator.core.slots import ContainerView, DesiredState, InstanceView, Target
from coordinator.store import containers, deployments, instances, nodes, releases, volumes
from coordinator.store.containers import ContainerRecord
from coordinator.store.deployments import Current, DeploymentRecord
from coordinator.store.instances import InstanceRecord
from coordinator.store.nodes import NodeRecord
from coordinator.store.releases import ReleaseRecord
from shared.spec.instance import Phase
from shared.spec.reason import ENGINE_UNREACHABLE, Reason

_DESIRED: dict[str, DesiredState] = {"running": "running", "stopped": "stopped", "removed": "removed"}


@dataclass(frozen=True)
class Snapshot:
    """`active`: the deployment under way. `last`: the newest that was. `waiting`: one waits for an approval. `instances` leaves
    out those that are removed."""

    container: ContainerRecord
    active: DeploymentRecord | None
    last: DeploymentRecord | None
    releases: Mapping[str, ReleaseRecord]
    instances: tuple[InstanceRecord, ...]
    nodes: Mapping[str, NodeRecord]
    homes: Mapping[int, str]
    waiting: bool = False

    def release(self, release_id: str | None) -> ReleaseRecord | None:
        return self.releases.get(release_id) if release_id is not None else None

    def target(self, release_id: str | None) -> Target | None:
        found = self.release(release_id)
        return Target.of(found.revision, found.template) if found is not None else None

    def view(self) -> ContainerView:
        record = self.container
        return ContainerView(
            replicas=record.replicas,
            desired=_DESIRED[record.desired],
            target=self.target(record.target_release_id),
            instances=tuple(self._decided_view(one) for one in self.instances),
            homes=self.homes,
            shut=self._shut(),
            waiting={int(slot): reason for slot, reason in record.waiting.items()},
        )

    def overview(self) -> Overview:
        """What the container's status is derived from."""
        failed = self.last is not None and self.last.status == "failed"
        return Overview(
            container=replace(self.view(), instances=tuple(self.instance_view(one) for one in self.instances)),
            rollout=rollout.load(self.active.state) if self.active else None,
            ever_healthy=self.container.healthy_release_id is not None,
            failed=self.last.error if self.last is not None and failed else "",
            awaits_approval=self.waiting,
        )

    def instance_view(self, record: InstanceRecord) -> InstanceView:
        """As it may be told: while its node's engine does not answer, nobody knows whether what was seen running still does. It is
        decided on as it was last seen all the same, since an engine that does not answer is no reason to replace anything."""
        view = self._decided_view(record)
        node = self.nodes.get(record.node_id) if record.node_id else None
        if node is None or node.facts.engine.reason is None or view.phase is not Phase.RUNNING:
            return view
        reason = Reason(ENGINE_UNREACHABLE, "last seen running, but the engine of its node does not answer")
        return replace(view, health="unknown", reason=reason)

    def _decided_view(self, record: InstanceRecord) -> InstanceView:
        node = self.nodes.get(record.node_id) if record.node_id else None
        return InstanceView(
            id=record.id,
            slot=record.slot,
            revision=record.revision,
            goal=record.goal,
            phase=record.phase,
            health=record.health,
            attempt=record.attempt,
            reason=record.reason,
            deployment_id=record.deployment_id,
            node_id=record.node_id,
            failures=record.failures,
            avoid_nodes=tuple(record.avoid_nodes),
            lost=record.lost,
            evict=node is not None and node.availability in ("draining", "drained"),
            removes_volumes=record.remove_volumes,
            exit_code=record.exit_code,
            created_at=record.created_at,
            updated_at=record.updated_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
        )

    def _shut(self) -> dict[str, str]:
        return {home: why for home in self.homes.values() if (why := _why_shut(self.nodes.get(home))) is not None}


async def load(
    conn: AsyncConnection, container_ids: Iterable[str], current: Mapping[str, Current] | None = None
) -> dict[str, Snapshot]:
    """Those that exist, by id. `current`: their deployments, when the caller has read them already."""
    found = await containers.of_ids(conn, container_ids)
    if current is None:
        current = await deployments.current_of(conn, found)
    members: dict[str, list[InstanceRecord]] = {key: [] for key in found}
    for one in await instances.of_containers(conn, found):
        members[one.container_id].append(one)
    active = {key: known.active for key, known in current.items() if known.active is not None}
    everyone = [one for own in members.values() for one in own]
    release_rows = await releases.of_ids(conn, _release_ids(found.values(), active.values(), everyone))
    homes = await _homes(conn, release_rows.values())
    wanted_nodes = {one.node_id for one in everyone if one.node_id}
    wanted_nodes |= {node_id for own in homes.values() for node_id in own.values()}
    node_rows = await nodes.of_ids(conn, wanted_nodes) if wanted_nodes else {}
    return {
        key: Snapshot(
            container=record,
            active=active.get(key),
            last=current[key].last if key in current else None,
            releases=release_rows,
            instances=tuple(members[key]),
            nodes=node_rows,
            homes=homes.get(key, {}),
            waiting=key in current and current[key].waiting is not None,
        )
        for key, record in found.items()
    }


async def _homes(conn: AsyncConnection, known: Iterable[ReleaseRecord]) -> dict[str, dict[int, str]]:
    """Container id → slot → the node its volumes are on; most containers have none and are not asked for."""
    homed = {one.container_id for one in known if any(volume.host_path is None for volume in one.template.volumes)}
    found: dict[str, dict[int, str]] = {}
    for one in await volumes.of_containers(conn, homed) if homed else ():
        found.setdefault(one.container_id, {})[one.slot] = one.node_id
    return found


def _release_ids(
    records: Iterable[ContainerRecord], active: Iterable[DeploymentRecord], members: Iterable[InstanceRecord]
) -> set[str]:
    wanted: set[str | None] = {one.release_id for one in members}
    for record in records:
        wanted |= {record.target_release_id, record.healthy_release_id}
    for deployment in active:
        wanted |= {deployment.release_id, deployment.previous_release_id}
    return {one for one in wanted if one is not None}


def _why_shut(node: NodeRecord | None) -> str | None:
    """As an adjective, why a node takes no new instance; None when it does."""
    if node is None or node.revoked_at is not None:
        return "removed"
    if node.lost:
        return "lost"
    return None if node.availability == "active" else node.availability
