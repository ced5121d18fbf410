"""Invitations: somebody's way into an organisation, for one address and seven days.

Only the hash of a token is kept, so whoever reads the database invites nobody. An invitation is settled once, by a conditional
update: of two who use one token at the same moment, one finds it used.
"""

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import organizations
from coordinator.store.mapping import Mapper, Record
from coordinator.store.organizations import MembershipRecord
from coordinator.store.tables import account, invitation, organization
from coordinator.store.writer import Tx

LIFETIME_SECONDS = 7 * 86400.0
InvitationStatus = Literal["pending", "accepted", "rejected", "revoked"]
Listed = Literal["pending", "accepted", "rejected", "revoked", "expired"]


class InvitationRecord(Record, frozen=True, kw_only=True):
    id: str
    organization_id: str
    email: str
    role: str
    hash: str
    status: InvitationStatus = "pending"
    delivery: str = ""
    invited_by: str
    created_at: float
    expires_at: float
    decided_at: float | None = None

    def standing(self, now: float) -> Listed:
        """The status as it is told: what nobody answered in time has expired."""
        return "expired" if self.status == "pending" and self.expires_at <= now else self.status


class InvitationError(Exception):
    """`kind` says which of the ways to be of no use it is; the message is a sentence for whoever holds the token."""

    def __init__(self, kind: Literal["unknown", "over", "other_address"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


invitations = Mapper(InvitationRecord, invitation)
_by_hash = invitations.by(invitation.c.hash, order=invitation.c.id)


async def insert(tx: Tx, records: Iterable[InvitationRecord]) -> None:
    await invitations.insert(tx.conn, records)


async def get(conn: AsyncConnection, invitation_id: str) -> InvitationRecord | None:
    return await invitations.one(conn, invitation.c.id == invitation_id)


async def of_token(conn: AsyncConnection, token_hash: str) -> InvitationRecord | None:
    return await _by_hash.one(conn, token_hash)


async def of_organization(
    conn: AsyncConnection,
    organization_id: str,
    now: float,
    *,
    status: Listed | None = None,
    before: str = "",
    limit: int = 200,
) -> list[InvitationRecord]:
    """Newest first; `before` is the last id of the page before."""
    statement = invitations.select(invitation.c.organization_id == organization_id)
    match status:
        case "expired":
            statement = statement.where(invitation.c.status == "pending", invitation.c.expires_at <= now)
        case "pending":
            statement = statement.where(_open(now))
        case str():
            statement = statement.where(invitation.c.status == status)
    if before:
        statement = statement.where(invitation.c.id < before)
    return await invitations.many(conn, statement.order_by(invitation.c.id.desc()).limit(limit))


async def open_for(
    conn: AsyncConnection, emails: Iterable[str], now: float, organization_id: str | None = None
) -> list[InvitationRecord]:
    """Those that wait for these addresses' answer; of one organisation only, if given."""
    statement = invitations.select(invitation.c.email.in_(list(emails)), _open(now))
    if organization_id is not None:
        statement = statement.where(invitation.c.organization_id == organization_id)
    return await invitations.many(conn, statement.order_by(invitation.c.id))


async def names_of(conn: AsyncConnection, records: Iterable[InvitationRecord]) -> dict[str, str]:
    """Organisation id → name."""
    wanted = {record.organization_id for record in records}
    statement = select(organization.c.id, organization.c.name).where(organization.c.id.in_(wanted))
    return {row.id: row.name for row in await conn.execute(statement)}


class Holder(Record, frozen=True, kw_only=True):
    """`proven`: the address is known to be theirs."""

    user_id: str
    proven: bool


async def accounts_of(conn: AsyncConnection, emails: Iterable[str]) -> dict[str, Holder]:
    """Address → account, for those that have one."""
    statement = select(account.c.email, account.c.id, account.c.proven).where(account.c.email.in_(list(emails)))
    return {row.email: Holder(user_id=row.id, proven=row.proven) for row in await conn.execute(statement)}


async def renew(tx: Tx, invitation_id: str, token_hash: str, delivery: str) -> bool:
    """Another token in place of the one before, good for seven days from now. False when it is settled."""
    values = {"hash": token_hash, "expires_at": tx.now + LIFETIME_SECONDS, "delivery": delivery}
    return await _change_unsettled(tx, invitation_id, **values)


async def settle(tx: Tx, invitation_id: str, status: InvitationStatus) -> bool:
    """Once: False when it was settled before."""
    return await _change_unsettled(tx, invitation_id, status=status, decided_at=tx.now)


async def tell_delivery(tx: Tx, invitation_id: str, token_hash: str, delivery: str) -> None:
    """What became of the mail with this token; one that was renewed since is another mail's."""
    same = (invitation.c.id == invitation_id, invitation.c.hash == token_hash)
    await tx.conn.execute(update(invitation).where(*same).values(delivery=delivery))


async def give_up_queued(tx: Tx, delivery: str) -> int:
    """Mails that were queued when the coordinator ended went with it: the token was nowhere else."""
    return (
        await tx.conn.execute(update(invitation).where(invitation.c.delivery == "queued").values(delivery=delivery))
    ).rowcount


async def usable(conn: AsyncConnection, token_hash: str, email: str, now: float) -> InvitationRecord:
    """The invitation that this token opens for this address. Raises InvitationError."""
    record = await of_token(conn, token_hash)
    if record is None:
        raise InvitationError("unknown", "there is no such invitation: was it sent again, with another link?")
    standing = record.standing(now)
    if standing != "pending":
        raise InvitationError("over", f"the invitation is {standing}: ask for a new one")
    if record.email != email:
        raise InvitationError("other_address", "the invitation is addressed to somebody else")
    return record


async def accept(tx: Tx, token_hash: str, user_id: str, email: str) -> MembershipRecord:
    """Make the account a member. `email`: the account's, normalised. Raises InvitationError; the account of who signs up by
    invitation is made in the same unit before, and is undone with it."""
    record = await usable(tx.conn, token_hash, email, tx.now)
    if not await organizations.hold(tx, record.organization_id) or not await settle(tx, record.id, "accepted"):
        raise InvitationError("over", "the invitation was used or revoked this very moment")
    present = await organizations.role_of(tx.conn, record.organization_id, user_id)
    membership = MembershipRecord(
        organization_id=record.organization_id, user_id=user_id, role=present or record.role, joined_at=tx.now
    )
    if present is None:  # who is a member by now keeps the role somebody gave them meanwhile
        await organizations.join(tx, membership)
    return membership


def _open(now: float) -> ColumnElement[bool]:
    return and_(invitation.c.status == "pending", invitation.c.expires_at > now)


async def _change_unsettled(tx: Tx, invitation_id: str, **values: object) -> bool:
    here = (invitation.c.id == invitation_id, invitation.c.status == "pending")
    return (await tx.conn.execute(update(invitation).where(*here).values(**values))).rowcount == 1
