"""What nodes say about their instances, merged by the phase order, and nothing a node may not say.

A report is accepted only from the node's newest session, only for an instance bound to that very node, and only if it does not go
backwards. A whole batch is one read and one `executemany`: thousands of instances report at once after a restart. A report that
repeats what is stored writes nothing and wakes nobody, because every new session begins by repeating everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import nodes, releases
from coordinator.store.instances import InstanceRecord, instances
from coordinator.store.prepared import Prepared, Row
from coordinator.store.tables import instance, node
from coordinator.store.writer import Tx
from shared.spec.instance import TERMINAL, InstanceReport, Phase, may_write, supersedes
from shared.spec.reason import Reason
from shared.wire.frames import Held

_c = instance.c
_REPORTED = (
    "phase",
    "attempt",
    "health",
    "reason",
    "ports",
    "progress",
    "exit_code",
    "image_digest",
    "started_at",
    "finished_at",
)
_write = Prepared(
    update(instance)
    .where(_c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}") for name in (*_REPORTED, "updated_at")})
)
_newest = select(node.c.epoch).where(node.c.id == bindparam("b_node"), node.c.revoked_at.is_(None)).scalar_subquery()
_bound_here = instances.select(_c.node_id == bindparam("b_node")).add_columns(_newest).with_for_update()
_one_bound = Prepared(_bound_here.where(_c.id == bindparam("b_id")))


class Applied(msgspec.Struct, frozen=True):
    """`current` False: the session is no longer the node's newest, and nothing was looked at. `foreign`: instances that are not
    this node's. `gone`: reported as removed although they are in no set of this node: it may forget them. `revoked`: the node has
    been removed."""

    current: bool
    accepted: int = 0
    stale: int = 0
    foreign: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    revoked: bool = False


class Holding(msgspec.Struct, frozen=True):
    """What a greeting node holds, judged: `doomed` are instances of its organisation that it must not have (any more);
    `unknown` nobody here knows, so they are left alone."""

    doomed: tuple[InstanceRecord, ...] = ()
    unknown: tuple[str, ...] = ()


async def apply_reports(tx: Tx, node_id: str, epoch: int, reports: Iterable[InstanceReport]) -> Applied:
    latest = {report.instance_id: report for report in reports}
    newest, known = await _bound(tx.conn, node_id, latest)
    if newest != epoch:
        return Applied(current=False, revoked=newest is None)
    accepted = [(known[key], report) for key, report in latest.items() if key in known and accepts(known[key], report)]
    await _store(tx, node_id, [pair for pair in accepted if _differs(*pair)])
    over = [key for key, report in latest.items() if report.phase is Phase.REMOVED and _is_removed(known.get(key))]
    strangers = {key: report.phase is Phase.REMOVED for key, report in latest.items() if key not in known}
    return Applied(
        current=True,
        accepted=len(accepted),
        stale=len(latest) - len(accepted) - len(strangers),
        foreign=tuple(key for key, removed in strangers.items() if not removed),
        gone=(*(key for key, removed in strangers.items() if removed), *over),
    )


def _is_removed(record: InstanceRecord | None) -> bool:
    return record is not None and record.phase is Phase.REMOVED


def accepts(known: InstanceRecord, report: InstanceReport) -> bool:
    """Whether the report may replace what is known. The end of a tombstone counts from whichever attempt: the node may have
    lost its count."""
    if report.phase is Phase.REMOVED and known.goal == "remove":
        return True
    old, new = (known.attempt, known.phase), (report.attempt, report.phase)
    if not supersedes(old, new) or report.phase < Phase.ASSIGNED:
        return False
    if old == new:
        return True
    if known.phase in TERMINAL:
        return report.phase is Phase.REMOVED
    return report.attempt > known.attempt or may_write("agent", known.phase, report.phase)


async def reject(tx: Tx, node_id: str, reasons: Mapping[str, Reason]) -> None:
    """End instances in the node's place that cannot even be sent to it."""
    _, known = await _bound(tx.conn, node_id, reasons)
    reports = [
        (record, InstanceReport(key, max(1, record.attempt), Phase.REJECTED, reason=reasons[key]))
        for key, record in known.items()
        if record.phase not in TERMINAL
    ]
    await _store(tx, node_id, reports)


async def judge(tx: Tx, organization_id: str, node_id: str, held: Iterable[Held]) -> Holding:
    """What of `held` must go: bound elsewhere, or removed long ago. Absence alone dooms nothing."""
    keys = [each.instance_id for each in held]
    known: dict[str, InstanceRecord] = {}
    for part in _parts(keys):
        where = (_c.id.in_(part), _c.organization_id == organization_id)
        known |= {record.id: record for record in await instances.many(tx.conn, instances.select(*where))}
    doomed = (record for record in known.values() if record.node_id != node_id or record.phase is Phase.REMOVED)
    return Holding(doomed=tuple(doomed), unknown=tuple(key for key in keys if key not in known))


async def rebase(tx: Tx, node_id: str, held: Iterable[Held], *, journal_lost: bool) -> int:
    """Follow a node that has lost its count of attempts: what it says from now on would seem late for ever. Safe at the begin of
    a session only, when the epoch already shuts out everything older."""
    counts = {each.instance_id: each for each in held}
    statement = instances.select(_c.node_id == node_id, _c.phase.not_in([int(phase) for phase in TERMINAL]))
    behind: list[dict[str, Any]] = []
    for record in await instances.many(tx.conn, statement):
        mine = counts.get(record.id)
        attempt = mine.attempt if mine is not None else 0
        if attempt < record.attempt and (journal_lost or mine is not None):
            phase = min(record.phase, _known_phase(mine.phase if mine is not None else 0))
            behind.append({"b_id": record.id, "b_attempt": attempt, "b_phase": int(phase)})
            tx.changed("instance", record.container_id)
    if behind:
        values = {"attempt": bindparam("b_attempt"), "phase": bindparam("b_phase"), "health": "unknown"}
        await tx.conn.execute(update(instance).where(_c.id == bindparam("b_id")).values(values), behind)
    return len(behind)


def _known_phase(seen: int) -> Phase:
    """The latest phase that is known here and not after what a node names: a newer version may have more of them."""
    return max((phase for phase in Phase if Phase.ASSIGNED <= phase <= seen), default=Phase.ASSIGNED)


async def _bound(
    conn: AsyncConnection, node_id: str, keys: Iterable[str]
) -> tuple[int | None, dict[str, InstanceRecord]]:
    """The epoch of the node's newest session, and those of `keys` that are bound to it: one statement, as reports are many."""
    epoch: int | None = None
    found: dict[str, InstanceRecord] = {}
    for part in _parts(list(keys)):
        for row in await _rows(conn, node_id, part):
            record = instances.load(row)
            found[record.id] = record
            epoch = row[-1]
    return (epoch if found else await nodes.epoch(conn, node_id)), found


async def _rows(conn: AsyncConnection, node_id: str, keys: list[str]) -> Sequence[Row]:
    match keys:
        case [one]:
            return await _one_bound.all(conn, {"b_node": node_id, "b_id": one})
        case several:
            return (await conn.execute(_bound_here.where(_c.id.in_(several)), {"b_node": node_id})).all()


async def _store(tx: Tx, node_id: str, pairs: list[tuple[InstanceRecord, InstanceReport]]) -> None:
    if not pairs:
        return
    await _write.change_each(tx.conn, [_values(tx, record, report) for record, report in pairs])
    for record, report in pairs:
        tx.changed("instance", record.container_id)
        if report.phase in TERMINAL and record.phase not in TERMINAL:
            tx.changed("cluster", record.cluster_id)  # room was freed
    if any(report.phase is Phase.REMOVED for _, report in pairs):
        await nodes.touch_assignments(tx, [node_id])
    await _fill_digests(tx, pairs)


def _values(tx: Tx, record: InstanceRecord, report: InstanceReport) -> dict[str, Any]:
    values = instances.values(**{name: getattr(report, name) for name in _REPORTED})
    values["image_digest"] = report.image_digest or record.image_digest
    return {"b_id": record.id, "b_updated_at": tx.now, **{f"b_{name}": value for name, value in values.items()}}


def _differs(record: InstanceRecord, report: InstanceReport) -> bool:
    return any(
        getattr(record, name) != getattr(report, name) and not (name == "image_digest" and not report.image_digest)
        for name in _REPORTED
    )


async def _fill_digests(tx: Tx, pairs: list[tuple[InstanceRecord, InstanceReport]]) -> None:
    digests = {
        record.release_id: (record.container_id, report.image_digest)
        for record, report in pairs
        if report.image_digest and not record.image_digest
    }
    for release_id, (container_id, digest) in sorted(digests.items()):
        await releases.fill_digest(tx, release_id, container_id, digest)


def _parts(keys: list[str], size: int = 500) -> Iterable[list[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
