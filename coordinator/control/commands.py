"""Carries out what `core.orchestrate` and `core.rollout` decided, inside one guarded transaction.

The guard is the container's own version, counted up by whoever changes what is in force: a decision on an old snapshot raises
`OutOfDate`, which undoes the whole unit, and the loop looks again instead of patching.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.control.snapshots import Snapshot
from coordinator.core.slots import Command, CreateInstance, Retire
from coordinator.store import containers, instances
from coordinator.store.instances import InstanceRecord
from coordinator.store.releases import ReleaseRecord
from coordinator.store.writer import Tx
from shared.kit.ids import new_id
from shared.spec.container import cpu_request, memory_request
from shared.spec.reason import Reason


class OutOfDate(Exception):
    """The container or its deployment changed since the snapshot was taken."""


async def change_container(tx: Tx, snapshot: Snapshot, waiting: Mapping[int, Reason], **changes: Any) -> None:
    """Raises OutOfDate. Called first: everything after it is as current as this."""
    record = snapshot.container
    if not await containers.change(tx, record.id, version=record.version, waiting=as_stored(waiting), **changes):
        raise OutOfDate(record.id)


def as_stored(waiting: Mapping[int, Reason]) -> dict[str, Reason]:
    return {str(slot): reason for slot, reason in waiting.items()}


async def carry_out(tx: Tx, snapshot: Snapshot, release: ReleaseRecord | None, commands: Sequence[Command]) -> None:
    """`release`: what new instances are made of. The deployment under way, if any, is noted as their maker."""
    for goal in ("stop", "remove"):
        for with_volumes in (False, True):
            chosen = [
                each.instance_id
                for each in commands
                if isinstance(each, Retire) and each.goal == goal and each.with_volumes is with_volumes
            ]
            if chosen:
                await instances.set_goal(tx, chosen, goal, remove_volumes=with_volumes)
    wanted = [each for each in commands if isinstance(each, CreateInstance)]
    if wanted:
        assert release is not None, "instances are only made of the release in force"
        await instances.insert(tx, _made(tx, snapshot, release, wanted))


def _made(tx: Tx, snapshot: Snapshot, release: ReleaseRecord, wanted: Iterable[CreateInstance]) -> list[InstanceRecord]:
    container, template = snapshot.container, release.template
    host_ports = [(port.host_port, port.protocol) for port in template.ports if port.host_port is not None]
    return [
        InstanceRecord(
            id=new_id("ins"),
            organization_id=container.organization_id,
            container_id=container.id,
            cluster_id=container.cluster_id,
            release_id=release.id,
            deployment_id=snapshot.active.id if snapshot.active is not None else None,
            revision=release.revision,
            slot=each.slot,
            cpu_millis=cpu_request(template.resources),
            memory_bytes=memory_request(template.resources),
            host_ports=[(int(port), protocol) for port, protocol in host_ports],
            prefer_node=each.prefer_node,
            avoid_nodes=list(each.avoid_nodes),
            failures=each.failures,
            created_at=tx.now,
            updated_at=tx.now,
        )
        for each in wanted
    ]
