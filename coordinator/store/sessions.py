"""Browsers that are signed in. A session ends a while after its last use, and at the latest a longer while after its start."""

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import web_session
from coordinator.store.writer import Tx

IDLE_SECONDS = 12 * 3600.0
LONGEST_SECONDS = 14 * 86400.0
KEPT = 30
"""Sessions of one user: the longest unused go first."""


class SessionRecord(Record, frozen=True, kw_only=True):
    id: str
    user_id: str
    hash: str
    verified: bool = True
    address: str = ""
    user_agent: str = ""
    created_at: float
    last_used_at: float
    expires_at: float


sessions = Mapper(SessionRecord, web_session)
_by_hash = sessions.by(web_session.c.hash, order=web_session.c.id)


def expiry(created_at: float, used_at: float) -> float:
    return min(created_at + LONGEST_SECONDS, used_at + IDLE_SECONDS)


async def insert(tx: Tx, record: SessionRecord) -> None:
    """Makes room first: what has expired, whosesoever it is, and what is too many of this user."""
    await tx.conn.execute(delete(web_session).where(web_session.c.expires_at <= tx.now))
    newest = (
        select(web_session.c.id)
        .where(web_session.c.user_id == record.user_id)
        .order_by(web_session.c.last_used_at.desc(), web_session.c.id.desc())
    )
    surplus = [row.id for row in await tx.conn.execute(newest.offset(KEPT - 1))]
    if surplus:
        await tx.conn.execute(delete(web_session).where(web_session.c.id.in_(surplus)))
        tx.changed("access", record.user_id)
    await sessions.insert(tx.conn, [record])


async def by_hash(conn: AsyncConnection, cookie_hash: str) -> SessionRecord | None:
    return await _by_hash.one(conn, cookie_hash)


async def of_user(conn: AsyncConnection, user_id: str, now: float) -> list[SessionRecord]:
    """Newest first, those that still count."""
    mine = sessions.select(web_session.c.user_id == user_id, web_session.c.expires_at > now)
    return await sessions.many(conn, mine.order_by(web_session.c.id.desc()))


async def verify(tx: Tx, session_id: str) -> bool:
    """The second factor came; False when the session is gone."""
    statement = update(web_session).where(web_session.c.id == session_id).values(verified=True)
    return (await tx.conn.execute(statement)).rowcount == 1


async def mark_used(tx: Tx, session_id: str, at: float) -> None:
    """Pushes its end back, never past the longest it may last."""
    record = await sessions.one(tx.conn, web_session.c.id == session_id)
    if record is not None and at > record.last_used_at:
        values = {"last_used_at": at, "expires_at": expiry(record.created_at, at)}
        await tx.conn.execute(update(web_session).where(web_session.c.id == session_id).values(**values))


async def remove(tx: Tx, user_id: str, session_id: str) -> bool:
    statement = delete(web_session).where(web_session.c.id == session_id, web_session.c.user_id == user_id)
    removed = (await tx.conn.execute(statement)).rowcount == 1
    if removed:
        tx.changed("access", user_id)
    return removed


async def remove_others(tx: Tx, user_id: str, but: str = "") -> int:
    """All of the user's sessions except one."""
    statement = delete(web_session).where(web_session.c.user_id == user_id, web_session.c.id != but)
    tx.changed("access", user_id)
    return (await tx.conn.execute(statement)).rowcount
