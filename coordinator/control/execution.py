"""Carrying out a plan of the core: in one transaction, and only if the container is still as it was when the plan was made.

The check is a read inside the writer's transaction: there is one writer, so nothing comes between it and the writes. A plan that
lost is dropped whole, never patched: `OutOfDate` undoes its unit, and the loop looks again.
"""

from collections.abc import Iterable

import structlog

from coordinator.control.snapshots import Snapshot
from coordinator.core.slots import CreateInstance, Plan, Retire
from coordinator.store import containers, instances
from coordinator.store.instances import InstanceRecord
from coordinator.store.releases import ReleaseRecord
from coordinator.store.writer import Tx
from shared.kit.ids import new_id
from shared.spec.container import all_ports, cpu_request, memory_request
from shared.spec.reason import Reason

log = structlog.get_logger()


class OutOfDate(Exception):
    """The container, or its deployment, was written since the snapshot that the plan was made from."""


async def require_current(tx: Tx, snapshot: Snapshot) -> None:
    """Raises OutOfDate when somebody has written the container since."""
    record = await containers.get(tx.conn, snapshot.container.id)
    if record is None or record.version != snapshot.container.version:
        raise OutOfDate(snapshot.container.id)


def changes_nothing(snapshot: Snapshot, plan: Plan) -> bool:
    return not plan.commands and _waiting(plan) == snapshot.container.waiting


async def carry_out(tx: Tx, snapshot: Snapshot, plan: Plan) -> None:
    created = [one for one in plan.commands if isinstance(one, CreateInstance)]
    retired = [one for one in plan.commands if isinstance(one, Retire)]
    await _retire(tx, retired)
    await instances.insert(tx, [_instance(tx, snapshot, one) for one in created])
    if _waiting(plan) != snapshot.container.waiting:
        await containers.change(tx, snapshot.container.id, waiting=_waiting(plan))
    for one in retired:
        log.info("an instance is retired", instance=one.instance_id, goal=one.goal, why=one.why)


async def _retire(tx: Tx, commands: Iterable[Retire]) -> None:
    groups: dict[tuple[str, bool], list[str]] = {}
    for one in commands:
        groups.setdefault((one.goal, one.with_volumes), []).append(one.instance_id)
    for (goal, with_volumes), ids in sorted(groups.items()):
        assert goal in ("stop", "remove")
        await instances.set_goal(tx, ids, "stop" if goal == "stop" else "remove", remove_volumes=with_volumes)


def _instance(tx: Tx, snapshot: Snapshot, command: CreateInstance) -> InstanceRecord:
    record = snapshot.container
    release = _release(snapshot, command.revision)
    template = release.template
    return InstanceRecord(
        id=new_id("inst"),
        organization_id=record.organization_id,
        container_id=record.id,
        cluster_id=record.cluster_id,
        release_id=release.id,
        deployment_id=snapshot.active.id if snapshot.active else None,
        revision=release.revision,
        slot=command.slot,
        failures=command.failures,
        cpu_millis=cpu_request(template.resources),
        memory_bytes=memory_request(template.resources),
        host_ports=[(port.host_port, port.protocol) for port in all_ports(template) if port.host_port is not None],
        prefer_node=command.prefer_node,
        avoid_nodes=list(command.avoid_nodes),
        created_at=tx.now,
        updated_at=tx.now,
    )


def _release(snapshot: Snapshot, revision: int) -> ReleaseRecord:
    """The snapshot holds those of all its containers: revisions are counted per container."""
    own = (one for one in snapshot.releases.values() if one.container_id == snapshot.container.id)
    return next(one for one in own if one.revision == revision)


def _waiting(plan: Plan) -> dict[str, Reason]:
    return {str(slot): reason for slot, reason in sorted(plan.waiting.items())}
