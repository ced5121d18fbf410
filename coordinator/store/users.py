"""People and the tokens they call the API with."""

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
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
    proven: bool = False
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


class CredentialsRecord(Record, frozen=True, kw_only=True):
    """How an account proves who it is. The one record that holds what must leave neither the store nor the use case that asks."""

    id: str
    email: str
    proven: bool = False
    password_hash: str | None = None
    totp_secret: bytes | None = None
    totp_confirmed_at: float | None = None
    totp_last_step: int = 0
    recovery_hashes: tuple[str, ...] = ()


users = Mapper(UserRecord, account)
_by_id = users.by(account.c.id, order=account.c.id)
api_tokens = Mapper(ApiTokenRecord, api_token)

credentials = Mapper(CredentialsRecord, account)
_token_by_hash = api_tokens.by(api_token.c.hash, order=api_token.c.id)


async def insert(tx: Tx, record: UserRecord) -> None:
    await users.insert(tx.conn, [record])


async def get(conn: AsyncConnection, user_id: str) -> UserRecord | None:
    return await _by_id.one(conn, user_id)


async def memberships_of(conn: AsyncConnection, user_id: str) -> list[MembershipRecord]:
    statement = memberships.select(membership.c.user_id == user_id).order_by(membership.c.organization_id)
    return await memberships.many(conn, statement)


async def insert_token(tx: Tx, record: ApiTokenRecord) -> None:
    await api_tokens.insert(tx.conn, [record])


async def credentials_of(conn: AsyncConnection, user_id: str) -> CredentialsRecord | None:
    return await credentials.one(conn, account.c.id == user_id)


async def credentials_by_email(conn: AsyncConnection, email: str) -> CredentialsRecord | None:
    return await credentials.one(conn, account.c.email == email)


async def change(tx: Tx, user_id: str, **values: Any) -> None:
    """IntegrityError when the e-mail is another account's."""
    await tx.conn.execute(update(account).where(account.c.id == user_id).values(**credentials.values(**values)))


async def take_step(tx: Tx, user_id: str, step: int) -> bool:
    """Whether no code of this time step or a later one was used before: a code opens something once."""
    fresh = update(account).where(account.c.id == user_id, account.c.totp_last_step < step).values(totp_last_step=step)
    return (await tx.conn.execute(fresh)).rowcount == 1


async def take_recovery(tx: Tx, user_id: str, code_hash: str) -> bool:
    """Whether it was one of the account's unused recovery codes, which it is no longer."""
    record = await credentials_of(tx.conn, user_id)
    if record is None or code_hash not in record.recovery_hashes:
        return False
    left = tuple(one for one in record.recovery_hashes if one != code_hash)
    before = credentials.values(recovery_hashes=record.recovery_hashes)["recovery_hashes"]
    taken = update(account).where(account.c.id == user_id, account.c.recovery_hashes == before)
    return (await tx.conn.execute(taken.values(**credentials.values(recovery_hashes=left)))).rowcount == 1


async def token_by_hash(conn: AsyncConnection, token_hash: str) -> ApiTokenRecord | None:
    return await _token_by_hash.one(conn, token_hash)


async def token(conn: AsyncConnection, token_id: str) -> ApiTokenRecord | None:
    return await api_tokens.one(conn, api_token.c.id == token_id)


async def tokens_of_user(
    conn: AsyncConnection, user_id: str, *, after: str | None = None, limit: int = 200
) -> list[ApiTokenRecord]:
    return await _tokens(conn, api_token.c.user_id == user_id, after, limit)


async def tokens_of_organization(
    conn: AsyncConnection, organization_id: str, *, after: str | None = None, limit: int = 200
) -> list[ApiTokenRecord]:
    """Its service tokens."""
    return await _tokens(conn, api_token.c.organization_id == organization_id, after, limit)


async def count_tokens(conn: AsyncConnection, *, user_id: str | None, organization_id: str | None) -> int:
    owned = api_token.c.user_id == user_id if user_id else api_token.c.organization_id == organization_id
    return (await conn.execute(select(func.count()).select_from(api_token).where(owned))).scalar_one()


async def remove_token(tx: Tx, token_id: str) -> bool:
    return (await tx.conn.execute(delete(api_token).where(api_token.c.id == token_id))).rowcount == 1


async def remove_tokens(tx: Tx, user_id: str) -> None:
    await tx.conn.execute(delete(api_token).where(api_token.c.user_id == user_id))
    tx.changed("access", user_id)


async def mark_used(tx: Tx, token_id: str, at: float) -> None:
    await tx.conn.execute(update(api_token).where(api_token.c.id == token_id).values(last_used_at=at))


async def _tokens(
    conn: AsyncConnection, owned: ColumnElement[bool], after: str | None, limit: int
) -> list[ApiTokenRecord]:
    statement = api_tokens.select(owned)
    if after is not None:
        statement = statement.where(api_token.c.id > after)
    return await api_tokens.many(conn, statement.order_by(api_token.c.id).limit(limit))
