"""Join tokens: used atomically, and kept a while afterwards so that a second use is told what it is."""

import hmac

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import join_token
from coordinator.store.writer import Tx
from shared.wire.join import secret_hash

REMEMBERED_SECONDS = 30 * 86400.0


class JoinTokenRecord(Record, frozen=True, kw_only=True):
    """`uses_left` 0: used up, or revoked."""

    id: str
    organization_id: str
    cluster_id: str | None = None
    role: str
    secret_hash: str
    uses_left: int
    expires_at: float
    created_by: str
    created_at: float


class TokenError(Exception):
    """The message is a sentence for the machine's owner: which of the ways to be invalid it is."""


tokens = Mapper(JoinTokenRecord, join_token)


async def insert(tx: Tx, record: JoinTokenRecord) -> None:
    await tokens.insert(tx.conn, [record])


async def get(conn: AsyncConnection, token_id: str) -> JoinTokenRecord | None:
    return await tokens.one(conn, join_token.c.id == token_id)


async def use(tx: Tx, token_id: str, secret: bytes) -> JoinTokenRecord:
    """Take one use. Raises TokenError; the caller's transaction takes it back when the enrolment fails."""
    record = await get(tx.conn, token_id)
    if record is None or not hmac.compare_digest(record.secret_hash, secret_hash(secret)):
        # One sentence for both: whoever guesses ids learns nothing.
        raise TokenError("the join token is not known here: was it made by another coordinator, or revoked?")
    taken = await tx.conn.execute(
        update(join_token)
        .where(join_token.c.id == token_id, join_token.c.uses_left > 0, join_token.c.expires_at > tx.now)
        .values(uses_left=join_token.c.uses_left - 1)
    )
    if taken.rowcount == 1:
        return record
    if record.expires_at <= tx.now:
        raise TokenError("the join token has expired: ask for a new one")
    raise TokenError("the join token is used up: ask for a new one")


async def forget_old(tx: Tx) -> int:
    """Rows nobody will ask about any more."""
    result = await tx.conn.execute(delete(join_token).where(join_token.c.expires_at < tx.now - REMEMBERED_SECONDS))
    return result.rowcount
