"""What takes room on a cluster's nodes, read for placement.

An instance holds its room from its assignment until it is over; one that is on its way out holds it until it is gone. A run that
places one container beside thousands must not read those one by one: of containers with nothing to place, only sums are read.
"""

from collections import defaultdict
from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Record
from coordinator.store.tables import instance, node, volume
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, Phase

_NO_PORTS = "[]"
_TERMINAL = [int(phase) for phase in TERMINAL]
_decode_ports = msgspec.json.Decoder(list[tuple[int, str]]).decode
_c = instance.c


class Occupant(Record, frozen=True, kw_only=True):
    id: str
    container_id: str
    node_id: str
    slot: int
    goal: str
    cpu_millis: int
    memory_bytes: int
    host_ports: list[tuple[int, str]]
    new_volume_gb: int
    """Of volumes first placed with it, as long as it does not run yet: they do not show in the node's free disk."""


class Sum(Record, frozen=True, kw_only=True):
    """Everything else on one node."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    count: int = 0
    host_ports: list[tuple[int, str]] = []
    new_volume_gb: int = 0


async def of_containers(conn: AsyncConnection, cluster_id: str, container_ids: Collection[str]) -> list[Occupant]:
    here = (*_present(cluster_id), _c.container_id.in_(container_ids))
    columns = (_c.id, _c.container_id, _c.node_id, _c.slot, _c.goal, _c.cpu_millis, _c.memory_bytes, _c.host_ports)
    rows = (await conn.execute(select(*columns).where(*here))).all()
    claimed = await _claimed(conn, here)
    return [
        Occupant(
            id=row.id,
            container_id=row.container_id,
            node_id=row.node_id,
            slot=row.slot,
            goal=row.goal,
            cpu_millis=row.cpu_millis,
            memory_bytes=row.memory_bytes,
            host_ports=_decode_ports(row.host_ports),
            new_volume_gb=sum(size for _, size in claimed.get(row.id, ())),
        )
        for row in rows
    ]


async def of_others(conn: AsyncConnection, cluster_id: str, container_ids: Collection[str]) -> dict[str, Sum]:
    """Node id → what all other containers hold there."""
    here = (*_present(cluster_id), _c.container_id.not_in(container_ids))
    sums = select(
        _c.node_id,
        func.sum(_c.cpu_millis).label("cpu"),
        func.sum(_c.memory_bytes).label("memory"),
        func.count().label("instances"),
    )
    rows = (await conn.execute(sums.where(*here).group_by(_c.node_id))).all()
    ports: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in await conn.execute(select(_c.node_id, _c.host_ports).where(*here, _c.host_ports != _NO_PORTS)):
        ports[row.node_id] += _decode_ports(row.host_ports)
    disk: dict[str, int] = defaultdict(int)
    for claims in (await _claimed(conn, here)).values():
        for node_id, size in claims:
            disk[node_id] += size
    return {
        row.node_id: Sum(
            cpu_millis=int(row.cpu),
            memory_bytes=int(row.memory),
            count=row.instances,
            host_ports=ports.get(row.node_id, []),
            new_volume_gb=disk.get(row.node_id, 0),
        )
        for row in rows
    }


class Claim(Record, frozen=True, kw_only=True):
    instance_id: str
    at: float


async def claimed_in_vain(conn: AsyncConnection, container_ids: set[str]) -> dict[tuple[str, int], Claim]:
    """(container, slot) → the rejected instance with which volumes were placed at that time, and which never ran: what it claimed
    holds nothing, so the slot need not stay on that node."""
    i, v = instance.c, volume.c
    statement = (
        select(i.container_id, i.slot, i.id, i.assigned_at)
        .join(volume, (v.container_id == i.container_id) & (v.slot == i.slot) & (v.node_id == i.node_id))
        .where(i.container_id.in_(container_ids), i.phase == Phase.REJECTED, i.started_at.is_(None))
        .where(v.created_at == i.assigned_at)
    )
    found = await conn.execute(statement)
    return {(row.container_id, row.slot): Claim(instance_id=row.id, at=row.assigned_at) for row in found}


async def admitting(tx: Tx, cluster_id: str, node_ids: set[str]) -> set[str]:
    """Those that may still take instances, as of this transaction: a cordon or a loss since the snapshot counts."""
    statement = select(node.c.id).where(
        node.c.id.in_(node_ids),
        node.c.cluster_id == cluster_id,
        node.c.availability == "active",
        node.c.lost.is_(False),
        node.c.revoked_at.is_(None),
    )
    return {row.id for row in await tx.conn.execute(statement)}


def _present(cluster_id: str) -> tuple[ColumnElement[bool], ...]:
    return _c.cluster_id == cluster_id, _c.node_id.is_not(None), _c.phase.not_in(_TERMINAL)


async def _claimed(conn: AsyncConnection, here: tuple[ColumnElement[bool], ...]) -> dict[str, list[tuple[str, int]]]:
    """Instance id → (node id, GB) of volumes first placed with it that it may not have filled yet."""
    v = volume.c
    statement = (
        select(_c.id, _c.node_id, v.size_gb)
        .join(volume, (v.container_id == _c.container_id) & (v.slot == _c.slot) & (v.node_id == _c.node_id))
        .where(*here, _c.phase < Phase.RUNNING, v.created_at == _c.assigned_at, v.size_gb.is_not(None))
    )
    claimed: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for row in await conn.execute(statement):
        claimed[row.id].append((row.node_id, row.size_gb))
    return claimed
