"""Accounts as an OpenID provider knows them, and sign-ins that are under way there."""

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.mapping import Mapper, Record
from coordinator.store.tables import identity, sign_in
from coordinator.store.writer import Tx


class IdentityRecord(Record, frozen=True, kw_only=True):
    issuer: str
    subject: str
    user_id: str
    created_at: float


class SignInRecord(Record, frozen=True, kw_only=True):
    hash: str
    nonce: str
    verifier: str
    return_to: str = ""
    invitation: str = ""
    expires_at: float


identities = Mapper(IdentityRecord, identity)
sign_ins = Mapper(SignInRecord, sign_in)


async def find(conn: AsyncConnection, issuer: str, subject: str) -> IdentityRecord | None:
    return await identities.one(conn, identity.c.issuer == issuer, identity.c.subject == subject)


async def of_user(conn: AsyncConnection, user_id: str) -> list[IdentityRecord]:
    return await identities.many(conn, identities.select(identity.c.user_id == user_id).order_by(identity.c.issuer))


async def insert(tx: Tx, record: IdentityRecord) -> None:
    """IntegrityError when that subject is linked already."""
    await identities.insert(tx.conn, [record])


async def begin(tx: Tx, record: SignInRecord) -> None:
    """Forgets those that nobody came back from."""
    await tx.conn.execute(delete(sign_in).where(sign_in.c.expires_at <= tx.now))
    await sign_ins.insert(tx.conn, [record])


async def take(tx: Tx, state_hash: str) -> SignInRecord | None:
    """The sign-in of that state, once."""
    record = await sign_ins.one(tx.conn, sign_in.c.hash == state_hash, sign_in.c.expires_at > tx.now)
    removed = await tx.conn.execute(delete(sign_in).where(sign_in.c.hash == state_hash))
    return record if removed.rowcount == 1 else None
