"""What takes room on a cluster's nodes, read for placement.

An instance holds its room from its assignment until it is over; one that is on its way out holds it until it is gone. A run that
places one container beside thousands must not read those one by one: of containers with nothing to place, only sums are read. All
of it is one statement, compiled once: it lies on the way from "declared" to "runs".
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Select, String, bindparam, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Record
from coordinator.store.prepared import Prepared
from coordinator.store.tables import instance, node, volume
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, Phase

_decode_ports = msgspec.json.Decoder(list[tuple[int, str]]).decode
_c, _v = instance.c, volume.c


class Occupant(Record, frozen=True, kw_only=True):
    """`new_volume_gb`: of volumes first placed with it, as long as it does not run yet: they do not show in the free disk."""

    id: str
    container_id: str
    node_id: str
    slot: int
    goal: str
    cpu_millis: int
    memory_bytes: int
    host_ports: list[tuple[int, str]]
    new_volume_gb: int


class Sum(Record, frozen=True, kw_only=True):
    """What the other containers hold on one node."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    count: int = 0
    host_ports: list[tuple[int, str]] = []
    new_volume_gb: int = 0


class Occupancy(Record, frozen=True, kw_only=True):
    """`others`: by node id."""

    occupants: list[Occupant]
    others: dict[str, Sum]


async def load(conn: AsyncConnection, cluster_id: str, container_ids: Collection[str]) -> Occupancy:
    """One by one for these containers, in sum for all others."""
    match [*container_ids]:
        case [one]:
            rows = await _around_one.all(conn, {"b_cluster": cluster_id, "b_container": one})
        case several:
            rows = (await conn.execute(_around_several, {"b_cluster": cluster_id, "b_containers": several})).all()
    occupants: list[Occupant] = []
    others: dict[str, Sum] = {}
    for group in (_Group(*row) for row in rows):
        if group.own:
            occupants.append(_occupant(group))
        else:
            others[group.node_id] = _added(others.get(group.node_id, _NOTHING), group)
    return Occupancy(occupants=occupants, others=others)


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
    return node_ids & {key for (key,) in await _admitting.all(tx.conn, {"b_cluster": cluster_id})}


class _Group(NamedTuple):
    """A row of `_around`: an instance of its own, or what others hold on a node with the same ports."""

    own: str
    node_id: str
    host_ports: str
    container_id: str
    slot: int
    goal: str
    cpu: int
    memory: int
    gb: int
    instances: int


_admitting = Prepared(
    select(node.c.id).where(
        node.c.cluster_id == bindparam("b_cluster"),
        node.c.availability == "active",
        node.c.lost.is_(False),
        node.c.revoked_at.is_(None),
    )
)
_NOTHING = Sum()
_claims = (
    select(_v.container_id, _v.slot, _v.node_id, _v.created_at, func.sum(_v.size_gb).label("gb"))
    .group_by(_v.container_id, _v.slot, _v.node_id, _v.created_at)
    .subquery()
)
_claimed = (
    (_claims.c.container_id == _c.container_id)
    & (_claims.c.slot == _c.slot)
    & (_claims.c.node_id == _c.node_id)
    & (_claims.c.created_at == _c.assigned_at)
    & (_c.phase < int(Phase.RUNNING))
)


def _around(own: ColumnElement[bool]) -> Select[Any]:
    # Grouped by ports too: those of others are needed as they are. In a group of its own, min() is the instance's own value.
    return (
        select(
            case((own, _c.id), else_=literal("", String)).label("own"),
            _c.node_id,
            _c.host_ports,
            func.min(_c.container_id).label("container_id"),
            func.min(_c.slot).label("slot"),
            func.min(_c.goal).label("goal"),
            func.sum(_c.cpu_millis).label("cpu"),
            func.sum(_c.memory_bytes).label("memory"),
            func.coalesce(func.sum(_claims.c.gb), 0).label("gb"),
            func.count().label("instances"),
        )
        .select_from(instance.outerjoin(_claims, _claimed))
        .where(
            _c.cluster_id == bindparam("b_cluster"),
            _c.node_id.is_not(None),
            _c.phase.not_in([literal(int(phase)) for phase in TERMINAL]),
        )
        .group_by("own", _c.node_id, _c.host_ports)
    )


_around_one = Prepared(_around(_c.container_id == bindparam("b_container")))
_around_several = _around(_c.container_id.in_(bindparam("b_containers", expanding=True)))


def _occupant(row: _Group) -> Occupant:
    return Occupant(
        id=row.own,
        container_id=row.container_id,
        node_id=row.node_id,
        slot=row.slot,
        goal=row.goal,
        cpu_millis=int(row.cpu),
        memory_bytes=int(row.memory),
        host_ports=_decode_ports(row.host_ports),
        new_volume_gb=int(row.gb),
    )


def _added(known: Sum, row: _Group) -> Sum:
    return Sum(
        cpu_millis=known.cpu_millis + int(row.cpu),
        memory_bytes=known.memory_bytes + int(row.memory),
        count=known.count + row.instances,
        host_ports=[*known.host_ports, *_decode_ports(row.host_ports)],
        new_volume_gb=known.new_volume_gb + int(row.gb),
    )
