"""Where each slot's named volumes are."""

from collections.abc import Iterable

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import volume
from coordinator.store.writer import Tx


class VolumeRecord(Record, frozen=True, kw_only=True):
    id: str
    container_id: str
    slot: int
    name: str
    node_id: str
    size_gb: int | None = None
    created_at: float


volumes = Mapper(VolumeRecord, volume)
_of_container = volumes.by(volume.c.container_id, order=volume.c.id)


async def insert(tx: Tx, records: Iterable[VolumeRecord]) -> None:
    await volumes.insert(tx.conn, records)


async def of_container(conn: AsyncConnection, container_id: str) -> list[VolumeRecord]:
    return await _of_container.many(conn, [container_id])


async def of_containers(conn: AsyncConnection, container_ids: Iterable[str]) -> list[VolumeRecord]:
    return await _of_container.many(conn, container_ids)


async def of_node(conn: AsyncConnection, node_id: str) -> list[VolumeRecord]:
    return await volumes.many(conn, volumes.select(volume.c.node_id == node_id).order_by(volume.c.id))


async def forget_slot(tx: Tx, container_id: str, slot: int) -> None:
    """Its data is gone: the slot may go to any node again."""
    await tx.conn.execute(delete(volume).where(volume.c.container_id == container_id, volume.c.slot == slot))


async def forget_node(tx: Tx, node_id: str) -> None:
    """The node was removed, and its data with it."""
    await tx.conn.execute(delete(volume).where(volume.c.node_id == node_id))
