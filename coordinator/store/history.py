"""What is over, found for the collector."""

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.prepared import Prepared
from coordinator.store.tables import container, instance, node, volume
from shared.spec.instance import Phase

_REMOVED = int(Phase.REMOVED)
_doomed_ones = select(container.c.id).where(container.c.desired == "removed")
_doomed = Prepared(_doomed_ones)
_one_doomed = Prepared(_doomed_ones.where(container.c.id == bindparam("of_id")))


async def orphans(conn: AsyncConnection) -> dict[str, list[str]]:
    """Node id → instances, for nodes that have left with something bound to them (perhaps volumes only)."""
    i = instance.c
    bound = select(node.c.id, i.id.label("instance_id")).join(instance, i.node_id == node.c.id)
    found: dict[str, list[str]] = defaultdict(list)
    for row in await conn.execute(bound.where(node.c.revoked_at.is_not(None), i.phase != _REMOVED).order_by(i.id)):
        found[row.id].append(row.instance_id)
    keeping = select(node.c.id).join(volume, volume.c.node_id == node.c.id).where(node.c.revoked_at.is_not(None))
    for row in await conn.execute(keeping.distinct()):
        found.setdefault(row.id, [])
    return dict(found)


async def doomed(conn: AsyncConnection, container_ids: Iterable[str] | None = None) -> set[str]:
    """Containers that are to go; of these only, if given."""
    match None if container_ids is None else [*container_ids]:
        case None:
            rows = await _doomed.all(conn)
        case [one]:
            rows = await _one_doomed.all(conn, {"of_id": one})
        case several:
            rows = (await conn.execute(_doomed_ones.where(container.c.id.in_(several)))).all()
    return {key for (key,) in rows}


async def outlived(conn: AsyncConnection, *, keep: int, young_since: float, old_before: float) -> list[str]:
    """Removed instances that are not among the newest `keep` of their slot and not young, or simply old."""
    c = instance.c
    place = func.row_number().over(partition_by=(c.container_id, c.slot), order_by=(c.created_at.desc(), c.id.desc()))
    ranked = select(c.id, c.updated_at, place.label("place")).where(c.phase == _REMOVED).subquery()
    over = or_(
        (ranked.c.place > keep) & (ranked.c.updated_at < young_since),
        ranked.c.updated_at < old_before,
    )
    return [row.id for row in await conn.execute(select(ranked.c.id).where(over).order_by(ranked.c.id))]
