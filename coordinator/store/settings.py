"""What all replicas share, such as the coordinator's own keys."""

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.tables import setting
from coordinator.store.writer import Tx


async def get(conn: AsyncConnection, key: str) -> bytes | None:
    return (await conn.execute(select(setting.c.value).where(setting.c.key == key))).scalar()


async def put_first(tx: Tx, key: str, value: bytes) -> bytes:
    """The value that counts: the one already there, or `value`. IntegrityError when another replica was quicker this very
    moment: read again."""
    present = await get(tx.conn, key)
    if present is not None:
        return present
    await tx.conn.execute(insert(setting).values(key=key, value=value))
    return value
