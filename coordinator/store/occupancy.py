"""What takes room on a cluster's nodes, read for placement: few columns of many rows, so not as whole records."""

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Record
from coordinator.store.tables import instance, node, volume
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, Phase

_NONE = "[]"
_ports = msgspec.json.Decoder(list[tuple[int, str]])


class Occupant(Record, frozen=True, kw_only=True):
    """An instance that is bound and not over; one that is on its way out holds its room until it is gone."""

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


async def of_cluster(conn: AsyncConnection, cluster_id: str) -> list[Occupant]:
    c = instance.c
    columns = (c.id, c.container_id, c.node_id, c.slot, c.goal, c.cpu_millis, c.memory_bytes, c.host_ports)
    over = [int(phase) for phase in TERMINAL]
    here = (c.cluster_id == cluster_id, c.node_id.is_not(None), c.phase.not_in(over))
    claimed = await _claimed(conn, cluster_id)
    return [
        Occupant(
            id=row.id,
            container_id=row.container_id,
            node_id=row.node_id,
            slot=row.slot,
            goal=row.goal,
            cpu_millis=row.cpu_millis,
            memory_bytes=row.memory_bytes,
            host_ports=[] if row.host_ports == _NONE else _ports.decode(row.host_ports),
            new_volume_gb=claimed.get(row.id, 0),
        )
        for row in await conn.execute(select(*columns).where(*here))
    ]


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


async def _claimed(conn: AsyncConnection, cluster_id: str) -> dict[str, int]:
    i, v = instance.c, volume.c
    statement = (
        select(i.id, v.size_gb)
        .join(volume, (v.container_id == i.container_id) & (v.slot == i.slot) & (v.node_id == i.node_id))
        .where(i.cluster_id == cluster_id, i.phase >= Phase.ASSIGNED, i.phase < Phase.RUNNING)
        .where(v.created_at == i.assigned_at, v.size_gb.is_not(None))
    )
    claimed: dict[str, int] = {}
    for row in await conn.execute(statement):
        claimed[row.id] = claimed.get(row.id, 0) + row.size_gb
    return claimed
