"""People and the tokens they call the API with."""

from sqlalchemy import bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.organizations import MembershipRecord, memberships
from coordinator.store.tables import account, api_token, membership
from coordinator.store.writer import Tx


class UserRecord(Record, frozen=True, kw_only=True):
    id: str
    email: str
    name: str
    picture_url: str | None = None
    created_at: float


class ApiTokenRecord(Record, frozen=True, kw_only=True):
    """Of a user, or of an organisation when it is a service token."""

    id: str
    user_id: str | None = None
    organization_id: str | None = None
    name: str
    hash: str
    prefix: str
    scopes: tuple[str, ...] = ("admin",)
    created_by: str
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None


class Caller(Record, frozen=True, kw_only=True):
    """Who a token belongs to, and what they may touch."""

    user: UserRecord
    token_id: str
    roles: dict[str, str]
    """Organisation id → role."""


users = Mapper(UserRecord, account)
_by_id = users.by(account.c.id, order=account.c.id)
api_tokens = Mapper(ApiTokenRecord, api_token)


_authenticated = (
    select(*users.columns, api_token.c.id, membership.c.organization_id, membership.c.role)
    .join_from(api_token, account, api_token.c.user_id == account.c.id)
    .outerjoin(membership, membership.c.user_id == account.c.id)
    .where(api_token.c.hash == bindparam("hash"))
    .where(or_(api_token.c.expires_at.is_(None), api_token.c.expires_at > bindparam("now")))
)


async def insert(tx: Tx, record: UserRecord) -> None:
    await users.insert(tx.conn, [record])


async def get(conn: AsyncConnection, user_id: str) -> UserRecord | None:
    return await _by_id.one(conn, user_id)


async def memberships_of(conn: AsyncConnection, user_id: str) -> list[MembershipRecord]:
    statement = memberships.select(membership.c.user_id == user_id).order_by(membership.c.organization_id)
    return await memberships.many(conn, statement)


async def insert_token(tx: Tx, record: ApiTokenRecord) -> None:
    await api_tokens.insert(tx.conn, [record])


async def authenticate(conn: AsyncConnection, token_hash: str, now: float) -> Caller | None:
    """The caller behind a token that is known and has not expired, in one query: it runs before every request."""
    rows = (await conn.execute(_authenticated, {"hash": token_hash, "now": now})).all()
    if not rows:
        return None
    roles = {row[-2]: row[-1] for row in rows if row[-2] is not None}
    return Caller(user=users.load(rows[0]), token_id=rows[0][len(users.columns)], roles=roles)
