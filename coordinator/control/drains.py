"""Follows nodes that are being emptied until nothing that runs is left on them, and says meanwhile what keeps them.

The orchestrator replaces what is there, the scheduler places nothing new; this loop only looks. A node that is leaving its cluster
is revoked once it is drained, after stopped leftovers were removed from it: nobody could tell it to later.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.control.loop import keep
from coordinator.core.drain import Drain, Resident, assess
from coordinator.store import containers, instances, nodes, releases, volumes
from coordinator.store.changes import Subscription
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Store
from coordinator.store.instances import InstanceRecord
from coordinator.store.nodes import NodeRecord
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, Phase
from shared.spec.reason import UNPLACED, Reason

log = structlog.get_logger()

Slot = tuple[str, int]


@dataclass(frozen=True)
class _Context:
    """What the residents of a node are judged by: their containers, the slots whose volumes are here, and where the replacement of
    a slot finds no node, why."""

    containers: Mapping[str, ContainerRecord] = field(default_factory=dict)
    pinned: frozenset[Slot] = frozenset()
    unplaced: Mapping[Slot, str] = field(default_factory=dict)


class Drains:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._draining = False
        self._changes: Subscription = store.changes.subscribe("node", "instance", "container")

    async def run(self) -> None:
        try:
            await keep("drains", self._turn)
        finally:
            self._changes.close()

    async def _turn(self, afresh: bool) -> None:
        if not afresh:
            entries = await self._changes.take()
            if not self._draining and not any(kind == "node" for kind, _ in entries):
                return
        async with self._store.read() as conn:
            found = [(node, await _look(conn, node)) for node in await nodes.with_availability(conn, "draining")]
        self._draining = bool(found)
        for node, left in found:
            await self._advance(node, left)

    async def _advance(self, node: NodeRecord, left: "_Left") -> None:
        drain = left.drain
        if drain.done:
            if await self._store.write(partial(_finish, node_id=node.id)):
                log.info("a node is drained", node=node.id, leaves=node.removing)
            return
        if left.leftovers:
            await self._store.write(partial(instances.set_goal, instance_ids=left.leftovers, goal="remove"))
        if drain.reason != node.drain_reason:
            await self._store.write(partial(_explain, node_id=node.id, reason=drain.reason))


@dataclass(frozen=True)
class _Left:
    """`leftovers`: engine containers that do not run, to be removed before the node leaves."""

    drain: Drain
    leftovers: tuple[str, ...] = ()


async def _look(conn: AsyncConnection, node: NodeRecord) -> _Left:
    here = await instances.of_node(conn, node.id)
    remaining = [each for each in here if _remains(each, node)]
    context = await _context(conn, node.id, remaining) if remaining else _Context()
    residents = [_resident(each, context) for each in remaining]
    leftovers = tuple(each.id for each in remaining if each.phase in TERMINAL and each.goal != "remove")
    return _Left(assess(residents, lost=node.lost), leftovers)


def _remains(instance: InstanceRecord, node: NodeRecord) -> bool:
    """What runs, or may; on a node that leaves also what is merely there."""
    return instance.phase is not Phase.REMOVED if node.removing else instance.phase not in TERMINAL


async def _context(conn: AsyncConnection, node_id: str, remaining: Sequence[InstanceRecord]) -> _Context:
    known = await containers.of_ids(conn, {each.container_id for each in remaining})
    here = await volumes.of_node(conn, node_id)
    homed = await _homed(conn, known.values()) if here else frozenset()
    pinned = frozenset((each.container_id, each.slot) for each in here if each.container_id in homed)
    others = await instances.of_containers(conn, known)
    unplaced = {
        (each.container_id, each.slot): each.reason.message
        for each in others
        if each.phase is Phase.PENDING and each.reason is not None and each.reason.code == UNPLACED
    }
    return _Context(known, pinned, unplaced)


async def _homed(conn: AsyncConnection, known: Iterable[ContainerRecord]) -> frozenset[str]:
    """Containers whose release in force has volumes of its own. What an earlier release left behind pins nothing."""
    targets = {each.target_release_id: each.id for each in known if each.target_release_id is not None}
    found = await releases.of_ids(conn, targets)
    return frozenset(
        release.container_id
        for release in found.values()
        if any(volume.host_path is None for volume in release.template.volumes)
    )


def _resident(instance: InstanceRecord, context: _Context) -> Resident:
    slot = instance.container_id, instance.slot
    container = context.containers.get(instance.container_id)
    return Resident(
        instance_id=instance.id,
        container=container.name if container is not None else instance.container_id,
        slot=instance.slot,
        leaving=instance.goal != "run" or instance.phase in TERMINAL,
        pinned=slot in context.pinned,
        unplaced=context.unplaced.get(slot, ""),
    )


async def _finish(tx: Tx, node_id: str) -> bool:
    """Nothing new can have come in the meantime: the scheduler binds to active nodes only, checked when it writes."""
    if not await nodes.set_availability(tx, node_id, "drained", expected=["draining"]):
        return False
    current = await nodes.get(tx.conn, node_id)
    if current is None or not current.removing:
        return True
    if any(each.phase is not Phase.REMOVED for each in await instances.of_node(tx.conn, node_id)):
        await nodes.change(tx, node_id, availability="draining")  # asked to leave since the snapshot: leftovers first
        return False
    await nodes.revoke(tx, node_id)
    return True


async def _explain(tx: Tx, node_id: str, reason: Reason | None) -> None:
    current = await nodes.get(tx.conn, node_id)
    if current is not None and current.availability == "draining":
        await nodes.change(tx, node_id, drain_reason=reason)
