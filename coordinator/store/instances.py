"""Instances: reads, and the guarded writes of the coordinator's own loops. What nodes report is in `reports.py`.

Every write that changes what a node is told counts the node's assignment set up in the same statement group, so no caller can
forget it. Guards are in the WHERE clause: a write decided on an old snapshot changes nothing and says so.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import nodes
from coordinator.store.mapping import Mapper, Record
from coordinator.store.prepared import Prepared
from coordinator.store.tables import instance
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, Goal, Health, Phase, PortBinding
from shared.spec.reason import Reason


class InstanceRecord(Record, frozen=True, kw_only=True):
    """`host_ports`: (port, protocol) it needs on its node. `progress`: bytes pulled, of bytes known so far."""

    id: str
    organization_id: str
    container_id: str
    cluster_id: str
    release_id: str
    deployment_id: str | None = None
    revision: int
    slot: int
    node_id: str | None = None
    goal: Goal = "run"
    phase: Phase = Phase.PENDING
    attempt: int = 0
    health: Health = "unknown"
    lost: bool = False
    reason: Reason | None = None
    ports: list[PortBinding] = []
    progress: tuple[int, int] | None = None
    exit_code: int | None = None
    image_digest: str = ""
    remove_volumes: bool = False
    cpu_millis: int = 0
    memory_bytes: int = 0
    host_ports: list[tuple[int, str]] = []
    prefer_node: str | None = None
    avoid_nodes: list[str] = []
    failures: int = 0
    created_at: float
    assigned_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float

    @property
    def restarts(self) -> int:
        return max(0, self.attempt - 1)


instances = Mapper(InstanceRecord, instance)
_c = instance.c
_by_id = instances.by(_c.id, order=_c.id)
_of_container = instances.by(_c.container_id, _c.phase != Phase.REMOVED, order=_c.id)
_of_node = instances.by(_c.node_id, _c.phase != Phase.REMOVED, order=_c.id)
_terminal = [int(phase) for phase in TERMINAL]
_waiting = instances.by(_c.cluster_id, _c.phase == Phase.PENDING, _c.goal == "run", order=_c.id)
_unbound = (
    select(_c.id, _c.container_id)
    .where(_c.phase == Phase.PENDING, _c.node_id.is_(None), _c.goal == "run")
    .order_by(_c.id)
    .with_for_update()
)
_one_unbound = Prepared(_unbound.where(_c.id == bindparam("b_id")))
_bind = Prepared(
    update(instance)
    .where(_c.id == bindparam("b_id"))
    .values(
        node_id=bindparam("b_node"),
        phase=int(Phase.ASSIGNED),
        reason=None,
        assigned_at=bindparam("b_now"),
        updated_at=bindparam("b_now"),
    )
)


async def insert(tx: Tx, records: Iterable[InstanceRecord]) -> None:
    """New ones, all `pending`."""
    known = list(records)
    assert all(record.phase is Phase.PENDING and record.node_id is None for record in known)
    await instances.insert(tx.conn, known)
    for record in known:
        _announce(tx, record.container_id, record.cluster_id)


async def get(conn: AsyncConnection, instance_id: str) -> InstanceRecord | None:
    return await _by_id.one(conn, instance_id)


async def of_ids(conn: AsyncConnection, instance_ids: Iterable[str]) -> dict[str, InstanceRecord]:
    return {record.id: record for record in await _by_id.many(conn, instance_ids)}


async def of_container(conn: AsyncConnection, container_id: str, *, removed: bool = False) -> list[InstanceRecord]:
    """Those of which something may still exist; `removed` adds the others."""
    if not removed:
        return await _of_container.many(conn, [container_id])
    return await _where(conn, _c.container_id == container_id)


async def of_containers(conn: AsyncConnection, container_ids: Iterable[str]) -> list[InstanceRecord]:
    return await _of_container.many(conn, container_ids)


async def of_node(conn: AsyncConnection, node_id: str) -> list[InstanceRecord]:
    """The node's assignment set: all that is bound to it and not reported as removed."""
    return await _of_node.many(conn, [node_id])


async def pending_of(conn: AsyncConnection, cluster_id: str) -> list[InstanceRecord]:
    """What the scheduler has to place, oldest first."""
    return await _waiting.many(conn, [cluster_id])


async def clusters_with_pending(conn: AsyncConnection) -> list[str]:
    statement = instances.select(_c.phase == Phase.PENDING, _c.goal == "run")
    found = await conn.execute(statement.with_only_columns(_c.cluster_id).distinct())
    return sorted(row.cluster_id for row in found)


async def bound_in(conn: AsyncConnection, cluster_id: str) -> list[InstanceRecord]:
    """What takes room on the cluster's nodes: bound and not yet over. What a tombstone is on its way to counts until then."""
    return await _where(conn, _c.cluster_id == cluster_id, _c.node_id.is_not(None), _c.phase.not_in(_terminal))


async def every(conn: AsyncConnection) -> list[InstanceRecord]:
    return await _where(conn, _present())


async def assign(tx: Tx, bindings: Mapping[str, str]) -> set[str]:
    """Bind pending instances to nodes (instance id → node id); those that really were still pending. One read and one
    `executemany`, since hundreds are bound at once; the one writer lets nothing come between them."""
    match [*bindings]:
        case [one]:
            rows = await _one_unbound.all(tx.conn, {"b_id": one})
        case several:
            rows = (await tx.conn.execute(_unbound.where(_c.id.in_(several)))).all()
    if not rows:
        return set()
    await _bind.change_each(tx.conn, [{"b_id": key, "b_node": bindings[key], "b_now": tx.now} for key, _ in rows])
    for _, container_id in rows:
        tx.changed("instance", container_id)
    await nodes.touch_assignments(tx, {bindings[key] for key, _ in rows})
    return {key for key, _ in rows}


async def explain(tx: Tx, reasons: Mapping[str, Reason]) -> None:
    """Why pending instances are not placed. Repeating a known reason writes nothing, so it wakes nobody."""
    alike: dict[str, list[str]] = defaultdict(list)
    for instance_id, reason in sorted(reasons.items()):
        alike[instances.values(reason=reason)["reason"]].append(instance_id)
    for text, instance_ids in alike.items():
        statement = (
            update(instance)
            .where(_c.id.in_(instance_ids), _c.phase == Phase.PENDING, _c.reason.is_distinct_from(text))
            .values(reason=text, updated_at=tx.now)
            .returning(_c.container_id)
        )
        for row in (await tx.conn.execute(statement)).all():
            tx.changed("instance", row.container_id)


async def set_goal(tx: Tx, instance_ids: Iterable[str], goal: Goal, *, remove_volumes: bool = False) -> set[str]:
    """Tell nodes to run, stop or remove these; those whose goal really changed. A tombstone is never taken back. Pending ones
    that no node knows are removed at once."""
    changed: set[str] = set()
    touched: set[str] = set()
    for row in await _write_goal(tx, sorted(set(instance_ids)), goal, remove_volumes):
        changed.add(row.id)
        _announce(tx, row.container_id, row.cluster_id)
        if row.node_id is not None:
            touched.add(row.node_id)
    if goal == "remove":
        await _end_unbound(tx, changed)
    await nodes.touch_assignments(tx, touched)
    return changed


async def set_lost(tx: Tx, node_ids: Iterable[str], *, lost: bool) -> int:
    """Flag, or clear, all that is bound to these nodes and not over. What is lost is no longer observed, so its health is unknown
    until its node reports again: a stale `healthy` must not count when the flag is cleared."""
    observed = {"health": "unknown"} if lost else {}
    statement = (
        update(instance)
        .where(_c.node_id.in_(list(node_ids)), _c.lost.is_(not lost), _c.phase.not_in(_terminal))
        .values(lost=lost, updated_at=tx.now, **observed)
        .returning(_c.container_id, _c.cluster_id)
    )
    rows = (await tx.conn.execute(statement)).all()
    for row in rows:
        _announce(tx, row.container_id, row.cluster_id)
    return len(rows)


async def end(tx: Tx, instance_ids: Iterable[str], phase: Phase, reason: Reason | None) -> set[str]:
    """The collector's word for what a node can no longer end itself, such as when the node was removed."""
    statement = (
        update(instance)
        .where(_c.id.in_(list(instance_ids)), _c.phase != Phase.REMOVED, _c.phase < phase)
        .values(phase=phase, health="unknown", reason=instances.values(reason=reason)["reason"])
        .values(finished_at=tx.now, updated_at=tx.now)
        .returning(_c.id, _c.container_id, _c.cluster_id, _c.node_id)
    )
    rows = (await tx.conn.execute(statement)).all()
    for row in rows:
        _announce(tx, row.container_id, row.cluster_id)
    await nodes.touch_assignments(tx, {row.node_id for row in rows if row.node_id is not None})
    return {row.id for row in rows}


async def forget(tx: Tx, instance_ids: Iterable[str]) -> int:
    """Delete rows of removed instances."""
    result = await tx.conn.execute(delete(instance).where(_c.id.in_(list(instance_ids)), _c.phase == Phase.REMOVED))
    return result.rowcount


async def _write_goal(tx: Tx, instance_ids: list[str], goal: Goal, remove_volumes: bool) -> list[Any]:
    differs = _c.goal != goal
    if remove_volumes:
        differs = differs | _c.remove_volumes.is_(False)
    statement = update(instance).where(_c.id.in_(instance_ids), _c.phase != Phase.REMOVED, differs)
    if goal != "remove":
        statement = statement.where(_c.goal != "remove")
    values: dict[str, Any] = {"goal": goal, "updated_at": tx.now}
    if remove_volumes:
        values["remove_volumes"] = True
    returned = statement.values(**values).returning(_c.id, _c.container_id, _c.cluster_id, _c.node_id)
    return list((await tx.conn.execute(returned)).all())


async def _end_unbound(tx: Tx, instance_ids: set[str]) -> None:
    await tx.conn.execute(
        update(instance)
        .where(_c.id.in_(instance_ids), _c.node_id.is_(None), _c.phase == Phase.PENDING)
        .values(phase=Phase.REMOVED, reason=None, finished_at=tx.now, updated_at=tx.now)
    )


async def _where(conn: AsyncConnection, *where: ColumnElement[bool]) -> list[InstanceRecord]:
    return await instances.many(conn, instances.select(*where).order_by(_c.id))


def _present() -> ColumnElement[bool]:
    return _c.phase != Phase.REMOVED


def _announce(tx: Tx, container_id: str, cluster_id: str) -> None:
    """The cluster too: its room, or the demand on it, changed."""
    tx.changed("instance", container_id)
    tx.changed("cluster", cluster_id)
