"""Nodes: identity, facts, what they may take, and the counters that order their sessions and assignments."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.prepared import Prepared
from coordinator.store.tables import node
from coordinator.store.writer import Tx
from shared.spec.node import Availability, NodeFacts
from shared.spec.reason import Reason


class NodeRecord(Record, frozen=True, kw_only=True):
    id: str
    organization_id: str
    cluster_id: str | None = None
    name: str
    role: str
    signing_key: bytes
    sealing_key: bytes
    facts: NodeFacts = NodeFacts()
    labels: dict[str, str] = {}
    availability: Availability = "active"
    drain_reason: Reason | None = None
    removing: bool = False
    lost: bool = False
    lost_at: float | None = None
    epoch: int = 0
    assignment_seq: int = 0
    enrolled_at: float
    last_seen_at: float | None = None
    revoked_at: float | None = None

    @property
    def all_labels(self) -> dict[str, str]:
        """The agent's, overruled by the users'."""
        return {**self.facts.labels, **self.labels}


class Enlisted(Record, frozen=True, kw_only=True):
    """What leases need of a node: read often, and of all nodes."""

    id: str
    cluster_id: str | None = None
    lost: bool = False


nodes = Mapper(NodeRecord, node)
_by_id = nodes.by(node.c.id, order=node.c.id)
_enlisted = Mapper(Enlisted, node)
_of_cluster = nodes.by(node.c.cluster_id, node.c.revoked_at.is_(None), order=node.c.id)
_touch = Prepared(update(node).where(node.c.id == bindparam("b_id")).values(assignment_seq=node.c.assignment_seq + 1))
_seen = update(node).where(node.c.id == bindparam("b_id")).values(last_seen_at=bindparam("b_at"))


async def insert(tx: Tx, record: NodeRecord) -> None:
    """IntegrityError when the signing key is enrolled already."""
    await nodes.insert(tx.conn, [record])
    _announce(tx, record.id, record.cluster_id)


async def get(conn: AsyncConnection, node_id: str) -> NodeRecord | None:
    return await _by_id.one(conn, node_id)


async def of_signing_key(conn: AsyncConnection, signing_key: bytes) -> NodeRecord | None:
    return await nodes.one(conn, node.c.signing_key == signing_key)


async def of_cluster(conn: AsyncConnection, cluster_id: str, *, removed: bool = False) -> list[NodeRecord]:
    """Those not removed from it; `removed` adds the others."""
    if not removed:
        return await _of_cluster.many(conn, [cluster_id])
    return await nodes.many(conn, nodes.select(node.c.cluster_id == cluster_id).order_by(node.c.id))


async def every(conn: AsyncConnection) -> list[NodeRecord]:
    return await nodes.many(conn, nodes.select(node.c.revoked_at.is_(None)).order_by(node.c.id))


async def roster(conn: AsyncConnection) -> list[Enlisted]:
    return await _enlisted.many(conn, _enlisted.select(node.c.revoked_at.is_(None)))


async def of_ids(conn: AsyncConnection, node_ids: Iterable[str]) -> dict[str, NodeRecord]:
    return {record.id: record for record in await _by_id.many(conn, node_ids)}


async def with_availability(conn: AsyncConnection, availability: str) -> list[NodeRecord]:
    statement = nodes.select(node.c.availability == availability, node.c.revoked_at.is_(None))
    return await nodes.many(conn, statement.order_by(node.c.id))


async def count(conn: AsyncConnection) -> int:
    statement = select(func.count()).select_from(node).where(node.c.revoked_at.is_(None))
    return (await conn.execute(statement)).scalar_one()


async def change(tx: Tx, node_id: str, **changes: Any) -> bool:
    """Columns by name, structured ones as values; wakes whoever places instances."""
    values = nodes.values(**changes)
    statement = update(node).where(node.c.id == node_id).values(**values).returning(node.c.cluster_id)
    row = (await tx.conn.execute(statement)).first()
    if row is not None:
        _announce(tx, node_id, row.cluster_id)
    return row is not None


async def set_availability(tx: Tx, node_id: str, availability: str, *, expected: Iterable[str]) -> bool:
    """False when it is none of `expected` any more, or the node is gone."""
    statement = (
        update(node)
        .where(node.c.id == node_id, node.c.availability.in_(list(expected)), node.c.revoked_at.is_(None))
        .values(availability=availability, drain_reason=None)
        .returning(node.c.cluster_id)
    )
    row = (await tx.conn.execute(statement)).first()
    if row is not None:
        _announce(tx, node_id, row.cluster_id)
    return row is not None


async def set_lost(tx: Tx, node_ids: Iterable[str], *, lost: bool) -> list[str]:
    """Those whose flag really changed."""
    statement = (
        update(node)
        .where(node.c.id.in_(list(node_ids)), node.c.lost.is_(not lost))
        .values(lost=lost, lost_at=tx.now if lost else None)
        .returning(node.c.id, node.c.cluster_id)
    )
    rows = (await tx.conn.execute(statement)).all()
    for row in rows:
        _announce(tx, row.id, row.cluster_id)
    return [row.id for row in rows]


async def revoke(tx: Tx, node_id: str) -> bool:
    """Its key opens no session any more. The row stays, so that the agent is told why. False when it was revoked before."""
    statement = update(node).where(node.c.id == node_id, node.c.revoked_at.is_(None)).values(revoked_at=tx.now)
    row = (await tx.conn.execute(statement.returning(node.c.cluster_id))).first()
    if row is not None:
        tx.changed("assignment", node_id)  # its session learns that there is nothing for it any more
        _announce(tx, node_id, row.cluster_id)
    return row is not None


async def open_session(tx: Tx, node_id: str, seen_by_node: int) -> NodeRecord | None:
    """Give the node its next epoch, greater than any the database or the node ever saw; the record has it already. None when the
    node is gone or removed."""
    newest = func.greatest if tx.conn.dialect.name == "postgresql" else func.max
    statement = (
        update(node)
        .where(node.c.id == node_id, node.c.revoked_at.is_(None))
        .values(epoch=newest(node.c.epoch, seen_by_node) + 1)
        .returning(*nodes.columns)
    )
    row = (await tx.conn.execute(statement)).first()
    return None if row is None else nodes.load(row)


async def epoch(conn: AsyncConnection, node_id: str) -> int | None:
    """Of the node's newest session; None when the node is gone or removed."""
    statement = select(node.c.epoch).where(node.c.id == node_id, node.c.revoked_at.is_(None))
    return (await conn.execute(statement)).scalar()


async def sequences(conn: AsyncConnection) -> dict[str, int]:
    """Node id → number of its assignment set, of all nodes that have not been removed."""
    found = await conn.execute(select(node.c.id, node.c.assignment_seq).where(node.c.revoked_at.is_(None)))
    return {row.id: row.assignment_seq for row in found}


async def touch_assignments(tx: Tx, node_ids: Iterable[str]) -> None:
    """Count a change of these nodes' assignment sets and wake their sessions. Repositories call it with every write that
    changes what a node is told; nobody else has to."""
    keys = sorted(set(node_ids))  # one order for all transactions: no deadlock
    if not keys:
        return
    await _touch.change_each(tx.conn, [{"b_id": key} for key in keys])
    for key in keys:
        tx.changed("assignment", key)


async def mark_seen(tx: Tx, seen: dict[str, float]) -> None:
    """Wakes nobody: `last_seen_at` is for people."""
    if seen:
        await tx.conn.execute(_seen, [{"b_id": key, "b_at": at} for key, at in sorted(seen.items())])


def _announce(tx: Tx, node_id: str, cluster_id: str | None) -> None:
    tx.changed("node", node_id)
    if cluster_id is not None:
        tx.changed("cluster", cluster_id)
