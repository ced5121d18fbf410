"""Binds pending instances to nodes: the only writer of pending → assigned.

A run takes one snapshot of a cluster, asks `core.place`, and commits what is still true: only instances still pending, only
to nodes that still take any. Whoever else changed something meanwhile has woken this loop again. Reasons of what found no node are
written when they change only, or each would wake the next run.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.control.loop import keep
from coordinator.core.place import place
from coordinator.core.room import Ask, Bound, Demand, NodeView, Pending, PortKey, Taken
from coordinator.store import instances, nodes, occupancy, releases, volumes
from coordinator.store.changes import Subscription
from coordinator.store.database import Store
from coordinator.store.errors import StoreError
from coordinator.store.instances import InstanceRecord
from coordinator.store.nodes import NodeRecord
from coordinator.store.occupancy import Claim, Occupant, Sum
from coordinator.store.volumes import VolumeRecord
from coordinator.store.writer import Tx
from shared.kit.clock import Clock
from shared.kit.ids import new_id
from shared.spec.container import Template, Volume
from shared.spec.instance import TERMINAL
from shared.spec.reason import Reason

PART = 250
"""Instances bound in one transaction: the hub goes on with the first while the next are written."""
REST = 10
"""After a run that placed nothing, a run over the same instances waits this many times as long as it took: a cluster that is
full and busy costs a tenth of a processor at most."""
GIB = 2**30
log = structlog.get_logger()
NO_OTHERS = Sum()

Slot = tuple[str, int]
V = TypeVar("V")


class Presence(Protocol):
    """Who holds a session: `control.leases.LeaseBook`."""

    def is_connected(self, node_id: str) -> bool: ...

    def watch(self, changed: Callable[[], None]) -> None: ...


@dataclass(frozen=True)
class _Wish:
    """A pending instance with what binding it claims: volumes that no node holds yet. `vain`: the rejected instance whose claim on
    another node is given up for it."""

    pending: Pending
    record: InstanceRecord
    claims: tuple[Volume, ...] = ()
    vain: str | None = None


@dataclass(frozen=True)
class _Snapshot:
    nodes: list[NodeView]
    bound: list[Bound]
    wishes: dict[str, _Wish]


@dataclass(frozen=True)
class _Rest:
    """A fruitless run: what it could not place, and until when asking again is not worth it."""

    pending: frozenset[str]
    until: float


class Scheduler:
    def __init__(self, store: Store, presence: Presence, clock: Clock) -> None:
        self._store = store
        self._presence = presence
        self._clock = clock
        self._resting: dict[str, _Rest] = {}
        self._put_off: set[str] = set()
        self._changes: Subscription = store.changes.subscribe("cluster")
        presence.watch(self._changes.wake)

    async def run(self) -> None:
        try:
            await keep("scheduler", self._turn)
        finally:
            self._changes.close()

    async def _turn(self, afresh: bool) -> None:
        entries = frozenset() if afresh else await self._changes.take(self._rested_in())
        keys = {key for _, key in entries}
        if keys:
            keys |= self._put_off
        else:
            async with self._store.read() as conn:
                keys = set(await instances.clusters_with_pending(conn))
        self._put_off.clear()
        for cluster_id in sorted(keys):
            try:
                await self._schedule(cluster_id)
            except StoreError:
                raise  # ends the turn: the loop starts over when the database is back
            except Exception:  # a defect met by one cluster's state must not keep the others from their nodes
                log.exception("a cluster cannot be scheduled", cluster=cluster_id)

    async def _schedule(self, cluster_id: str) -> None:
        began = self._clock.monotonic()
        async with self._store.read() as conn:
            records = await instances.pending_of(conn, cluster_id)
            pending = frozenset(each.id for each in records)
            if not pending or self._rests(cluster_id, pending, began):
                return
            snapshot = await _load(conn, cluster_id, records, self._presence)
        placement = place(snapshot.nodes, snapshot.bound, (wish.pending for wish in snapshot.wishes.values()))
        for bindings in _parts(placement.bound):
            await self._store.write(partial(_bind, cluster_id=cluster_id, wishes=snapshot.wishes, bindings=bindings))
        for reasons in _parts(placement.unplaced):
            await self._store.write(partial(instances.explain, reasons=reasons))
        if not placement.bound:
            now = self._clock.monotonic()
            self._resting[cluster_id] = _Rest(pending, now + REST * (now - began))

    def _rests(self, cluster_id: str, pending: frozenset[str], now: float) -> bool:
        rest = self._resting.pop(cluster_id, None)
        if rest is None or now >= rest.until or pending != rest.pending:
            return False
        self._resting[cluster_id] = rest
        self._put_off.add(cluster_id)
        return True

    def _rested_in(self) -> float | None:
        """Seconds until a cluster that was put off may be looked at."""
        now = self._clock.monotonic()
        return min((max(0.0, self._resting[key].until - now) for key in self._put_off), default=None)


async def stranded_without(
    conn: AsyncConnection, cluster_id: str, node_id: str, presence: Presence
) -> Mapping[str, Reason]:
    """The node's instances that no other node would take now, and why: what its leaving would leave without a place."""
    here = await instances.of_node(conn, node_id)
    moving = [each for each in here if each.goal == "run" and each.phase not in TERMINAL]
    snapshot = await _load(conn, cluster_id, moving, presence)
    others = [node for node in snapshot.nodes if node.node_id != node_id]
    bound = [each for each in snapshot.bound if each.node_id != node_id]
    return place(others, bound, (wish.pending for wish in snapshot.wishes.values())).unplaced


def _parts(whole: Mapping[str, V]) -> Iterator[dict[str, V]]:
    items = iter(whole.items())
    while part := dict(islice(items, PART)):
        yield part


async def _load(
    conn: AsyncConnection, cluster_id: str, records: Sequence[InstanceRecord], presence: Presence
) -> _Snapshot:
    containers = {each.container_id for each in records}
    templates = {
        key: release.template
        for key, release in (await releases.of_ids(conn, {each.release_id for each in records})).items()
    }
    held: dict[Slot, list[VolumeRecord]] = defaultdict(list)
    if any(_named(template) for template in templates.values()):
        for volume in await volumes.of_containers(conn, containers):
            held[volume.container_id, volume.slot].append(volume)
    vain = await occupancy.claimed_in_vain(conn, containers) if held else {}
    wishes = {each.id: _wish(each, templates[each.release_id], held, vain) for each in records}
    held_room = await occupancy.load(conn, cluster_id, containers)
    found = await nodes.of_cluster(conn, cluster_id)
    views = [_node_view(each, presence, held_room.others.get(each.id, NO_OTHERS)) for each in found]
    return _Snapshot(views, [_bound(each) for each in held_room.occupants], wishes)


def _wish(
    record: InstanceRecord,
    template: Template,
    held: Mapping[Slot, Sequence[VolumeRecord]],
    vain: Mapping[Slot, Claim],
) -> _Wish:
    slot = record.container_id, record.slot
    wanted = _named(template)
    present = [volume for volume in held.get(slot, ()) if volume.name in {each.name for each in wanted}]
    claim = vain.get(slot)
    # Only a claim that covers all the slot has: a volume that is older may hold data.
    given_up = claim is not None and all(volume.created_at == claim.at for volume in held.get(slot, ()))
    if given_up:
        present = []
    missing = tuple(each for each in wanted if each.name not in {volume.name for volume in present})
    ask = Ask(
        demand=_demand(record, template),
        home=min(present, key=lambda volume: volume.created_at).node_id if present else None,
        avoided=frozenset(record.avoid_nodes),
        disk_bytes=sum(each.size_gb or 0 for each in missing) * GIB,
    )
    pending = Pending(record.id, record.slot, ask, previous=record.prefer_node)
    return _Wish(pending, record, missing, claim.instance_id if claim is not None and given_up else None)


def _demand(record: InstanceRecord, template: Template) -> Demand:
    placement = template.placement
    return Demand(
        container_id=record.container_id,
        cpu_millis=record.cpu_millis,
        memory_bytes=record.memory_bytes,
        ports=_ports(record.host_ports),
        constraints=tuple(placement.constraints),
        node_ids=frozenset(placement.node_ids),
        platform=placement.platform,
        max_per_node=placement.max_per_node,
        spread=placement.spread,
        pack=placement.pack,
    )


def _bound(occupant: Occupant) -> Bound:
    demand = Demand(
        container_id=occupant.container_id,
        cpu_millis=occupant.cpu_millis,
        memory_bytes=occupant.memory_bytes,
        ports=_ports(occupant.host_ports),
    )
    leaving, disk_bytes = occupant.goal != "run", occupant.new_volume_gb * GIB
    return Bound(occupant.id, occupant.node_id, occupant.slot, demand, leaving, disk_bytes)


def _node_view(record: NodeRecord, presence: Presence, others: Sum) -> NodeView:
    facts = record.facts
    return NodeView(
        node_id=record.id,
        hostname=facts.hostname or record.name,
        platform=facts.platform,
        labels=record.all_labels,
        availability=record.availability,
        connected=presence.is_connected(record.id),
        lost=record.lost,
        engine_answers=facts.engine.reason is None,
        cpu_millis=facts.cpu_millis,
        memory_bytes=facts.memory_bytes,
        disk_free=facts.disk_free,
        taken=Taken(
            cpu_millis=others.cpu_millis,
            memory_bytes=others.memory_bytes,
            disk_bytes=others.new_volume_gb * GIB,
            ports=_ports(others.host_ports),
            count=others.count,
        ),
    )


def _named(template: Template) -> list[Volume]:
    return [volume for volume in template.volumes if volume.host_path is None]


def _ports(pairs: Iterable[tuple[int, str]]) -> frozenset[PortKey]:
    return frozenset((port, "udp" if protocol == "udp" else "tcp") for port, protocol in pairs)


async def _bind(tx: Tx, cluster_id: str, wishes: Mapping[str, _Wish], bindings: Mapping[str, str]) -> None:
    """With the instance its slot's new volumes are bound to the node, in the same transaction."""
    admitting = await occupancy.admitting(tx, cluster_id, set(bindings.values()))
    usable = {key: node_id for key, node_id in bindings.items() if node_id in admitting}
    for key in sorted(await instances.assign(tx, usable)):
        wish = wishes[key]
        if wish.vain is not None:
            await volumes.forget_slot(tx, wish.record.container_id, wish.record.slot)
            await instances.set_goal(tx, [wish.vain], "remove", remove_volumes=True)
        await volumes.insert(tx, (_volume(tx, wish.record, volume, usable[key]) for volume in wish.claims))


def _volume(tx: Tx, record: InstanceRecord, volume: Volume, node_id: str) -> VolumeRecord:
    return VolumeRecord(
        id=new_id("vol"),
        container_id=record.container_id,
        slot=record.slot,
        name=volume.name,
        node_id=node_id,
        size_gb=volume.size_gb,
        created_at=tx.now,
    )
