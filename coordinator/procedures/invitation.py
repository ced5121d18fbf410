"""Invitations: how somebody without a membership gets one. Whoever has an account already joins at once.

The token is what opens it, and it goes to the invited address alone: by mail where a server is configured, else through whoever
invited, who is shown the link once. It is behind the `#` of the link, so it never reaches a server's log.
"""

import secrets
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from coordinator.core import emails
from coordinator.core.permissions import Role
from coordinator.errors import BadRequest, Conflict, DomainError, Forbidden, NotFound, PreconditionFailed
from coordinator.mail.letters import Letter
from coordinator.procedures import bearer, paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.membership import acting_role, require_rank
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import invitations, organizations
from coordinator.store.database import Store, Tx
from coordinator.store.invitations import LIFETIME_SECONDS, InvitationError, InvitationRecord, Listed
from coordinator.store.organizations import MembershipRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import Part

MOST_AT_ONCE = 50
PREFIX = f"{bearer.PREFIX}inv_"
"""The mark of a leaked invitation."""
Email = Annotated[str, Meta(min_length=3, max_length=emails.LONGEST)]
Token = Annotated[str, Meta(min_length=16, max_length=128)]
_TOO_MANY = "failed: too many mails are waiting; send the invitation again later"


class Invited(Part, frozen=True):
    email: Email
    role: Role


class CreateInvitations(Part, frozen=True):
    """One by `email` and `role`, or several by `invitations`."""

    organization_id: Id
    email: Email | None = None
    role: Role | None = None
    invitations: Annotated[list[Invited], Meta(max_length=MOST_AT_ONCE)] = []


class ListInvitations(Page, frozen=True, kw_only=True):
    organization_id: Id
    status: Listed | None = None


class InvitationId(Part, frozen=True):
    invitation_id: Id


class Answer(Part, frozen=True):
    token: Token


class InvitationView(View, frozen=True):
    """`delivery`: what became of the mail: `queued`, `sent`, `failed: …`, `link` when none was sent; empty when none was needed."""

    id: str
    email: str
    role: str
    status: Listed
    delivery: str
    invited_by: str
    created_at: str
    expires_at: str


class MadeInvitation(InvitationView, frozen=True):
    """`link`: to be given to the invited; null when it was mailed, or they have joined at once."""

    link: str | None


class PendingInvitation(View, frozen=True):
    """What the invited sees; the token came to them another way."""

    id: str
    organization_id: str
    organization_name: str
    role: str
    created_at: str
    expires_at: str


class JoinedView(View, frozen=True):
    organization_id: str
    role: str


async def _organization_of(context: Context, data: InvitationId) -> Scope:
    async with context.services.store.read() as conn:
        record = await invitations.get(conn, data.invitation_id)
    if record is None:
        raise NotFound("invitation not found")
    return Scope(record.organization_id, "invitation", record)


@dataclass(frozen=True)
class _Made:
    """`secret`: the token, None for who joined at once."""

    record: InvitationRecord
    secret: str | None = None


@procedure("invitation.create", "POST", "admin", scopes.organization, created=True, rest="/invitations")
async def create(context: Context, data: CreateInvitations) -> list[MadeInvitation]:
    """Invite people for seven days; who has an account with a proven address joins at once. All of them or none: an address that
    is a member or invited already is refused. Only owners invite owners and admins."""
    wanted = _wanted(data)
    _require_address(context)

    async def unit(tx: Tx) -> list[_Made]:
        require_rank(await acting_role(tx, context, data.organization_id), *wanted.values())
        known = await _require_new(tx, data.organization_id, list(wanted))
        made = [_new(tx, context, data.organization_id, email, role, email in known) for email, role in wanted.items()]
        await invitations.insert(tx, [one.record for one in made])
        for one in made:
            if one.secret is None:
                await _join(tx, one.record, known[one.record.email])
            detail = {"email": one.record.email, "role": one.record.role}
            await note(tx, context, "invitation.create", one.record.id, data.organization_id, **detail)
        return made

    made = await context.services.store.write(unit)
    return [await _deliver(context, one.record, one.secret) for one in made]


@procedure("invitation.all", "GET", "admin", scopes.organization, rest="/invitations")
async def list_invitations(context: Context, data: ListInvitations) -> list[InvitationView]:
    """An organisation's invitations, newest first."""
    now = context.now()
    async with context.services.store.read() as conn:
        found = await invitations.of_organization(
            conn, data.organization_id, now, status=data.status, before=data.cursor or "", limit=paging.fetch(data)
        )
    return [InvitationView(**_shown(record, now)) for record in paging.cut(context, data, found)]


@procedure("invitation.pending", "GET", "own", rest="/user/invitations")
async def pending(context: Context, data: Nothing) -> list[PendingInvitation]:
    """The invitations to the caller's address that wait for an answer."""
    email = emails.normalise(context.user.email)
    if email is None:
        return []
    async with context.services.store.read() as conn:
        found = await invitations.open_for(conn, [email], context.now())
        names = await invitations.names_of(conn, found)
    return [
        PendingInvitation(
            id=record.id,
            organization_id=record.organization_id,
            organization_name=names[record.organization_id],
            role=record.role,
            created_at=iso(record.created_at),
            expires_at=iso(record.expires_at),
        )
        for record in found
    ]


@procedure("invitation.accept", "POST", "own", rest="/invitations/accept")
async def accept(context: Context, data: Answer) -> JoinedView:
    """Join, with the token of an invitation to one's own address. It works once."""
    token_hash, email, user_id = bearer.hash_secret(data.token), _own_address(context), context.account

    async def unit(tx: Tx) -> MembershipRecord:
        record = await invitations.accept(tx, token_hash, user_id, email)
        await note(tx, context, "invitation.accept", user_id, record.organization_id, role=record.role)
        return record

    try:
        record = await context.services.store.write(unit)
    except InvitationError as error:
        raise refusal(error) from error
    return JoinedView(organization_id=record.organization_id, role=record.role)


@procedure("invitation.reject", "POST", "own", rest="/invitations/reject")
async def reject(context: Context, data: Answer) -> Nothing:
    """Decline, with the token of an invitation to one's own address."""
    token_hash, email = bearer.hash_secret(data.token), _own_address(context)

    async def unit(tx: Tx) -> None:
        record = await invitations.usable(tx.conn, token_hash, email, tx.now)
        await invitations.settle(tx, record.id, "rejected")
        await note(tx, context, "invitation.reject", record.id, record.organization_id)

    try:
        await context.services.store.write(unit)
    except InvitationError as error:
        raise refusal(error) from error
    return Nothing()


@procedure("invitation.resend", "POST", "admin", _organization_of, rest="/invitations/{invitationId}/resend")
async def resend(context: Context, data: InvitationId) -> MadeInvitation:
    """Send an open or expired invitation again, with a new token and seven more days; the token before opens nothing any more."""
    _require_address(context)
    secret = _new_token()

    async def unit(tx: Tx) -> InvitationRecord:
        record = await _unsettled(tx, context, data.invitation_id)
        await invitations.renew(tx, record.id, bearer.hash_secret(secret), _first_delivery(context))
        await note(tx, context, "invitation.resend", record.id, record.organization_id)
        return await invitations.get(tx.conn, record.id) or record

    return await _deliver(context, await context.services.store.write(unit), secret)


@procedure("invitation.revoke", "DELETE", "admin", _organization_of, rest="/invitations/{invitationId}")
async def revoke(context: Context, data: InvitationId) -> Nothing:
    """Take an invitation back: its token opens nothing any more."""

    async def unit(tx: Tx) -> None:
        record = await _unsettled(tx, context, data.invitation_id)
        await invitations.settle(tx, record.id, "revoked")
        await note(tx, context, "invitation.revoke", record.id, record.organization_id)

    await context.services.store.write(unit)
    return Nothing()


def refusal(error: InvitationError) -> DomainError:
    match error.kind:
        case "unknown":
            return NotFound(str(error))
        case "over":
            return PreconditionFailed(str(error))
        case "other_address":
            return Forbidden(str(error))


def _wanted(data: CreateInvitations) -> dict[str, Role]:
    """Normalised address → role. Raises BadRequest."""
    single = data.email is not None or data.role is not None
    if single == bool(data.invitations):
        raise BadRequest("email: give either email and role, or invitations")
    if single and (data.email is None or data.role is None):
        raise BadRequest("role: email and role belong together")
    listed = data.invitations or [Invited(data.email or "", data.role or "viewer")]
    wanted = [(emails.normalise(one.email), one.role) for one in listed]
    for place, (email, _) in enumerate(wanted):
        if email is None:
            raise BadRequest(f"{f'invitations[{place}].' if data.invitations else ''}email: is no e-mail address")
    twice = [email for email, count in Counter(email for email, _ in wanted).items() if count > 1]
    if twice:
        raise BadRequest(f"invitations: {twice[0]} is named twice")
    return {email: role for email, role in wanted if email is not None}


def _require_address(context: Context) -> None:
    if not context.services.url:
        raise PreconditionFailed("set ARGOSY_URL: no address is known that an invitation could lead to")


async def _require_new(tx: Tx, organization_id: str, addresses: list[str]) -> dict[str, str]:
    """Address → account of those that join at once. Whose address nobody has proven is asked like a stranger: somebody else may
    have made that account. Raises Conflict for who is in, or invited, already."""
    known = await invitations.accounts_of(tx.conn, addresses)
    roles = await organizations.roles_of(tx.conn, organization_id)
    members = sorted(email for email, holder in known.items() if holder.user_id in roles)
    if members:
        raise Conflict(f"email: {', '.join(members)}: a member already")
    invited = await invitations.open_for(tx.conn, addresses, tx.now, organization_id)
    if invited:
        waiting = ", ".join(sorted(record.email for record in invited))
        raise Conflict(f"email: {waiting}: invited already; use invitation.resend, or invitation.revoke first")
    return {email: holder.user_id for email, holder in known.items() if holder.proven}


def _new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _new(tx: Tx, context: Context, organization_id: str, email: str, role: Role, joins: bool) -> _Made:
    secret = _new_token()
    record = InvitationRecord(
        id=new_id("inv"),
        organization_id=organization_id,
        email=email,
        role=role,
        hash=bearer.hash_secret(secret),
        status="accepted" if joins else "pending",
        delivery="" if joins else _first_delivery(context),
        invited_by=context.user.user_id,
        created_at=tx.now,
        expires_at=tx.now + LIFETIME_SECONDS,
        decided_at=tx.now if joins else None,
    )
    return _Made(record, None if joins else secret)


async def _join(tx: Tx, record: InvitationRecord, user_id: str) -> None:
    member = MembershipRecord(
        organization_id=record.organization_id, user_id=user_id, role=record.role, joined_at=tx.now
    )
    await organizations.join(tx, member)


async def _unsettled(tx: Tx, context: Context, invitation_id: str) -> InvitationRecord:
    """The invitation, if this caller may still do something about it."""
    record = await invitations.get(tx.conn, invitation_id)
    if record is None:
        raise NotFound("invitation not found")
    require_rank(await acting_role(tx, context, record.organization_id), record.role)
    if record.status != "pending":
        raise PreconditionFailed(f"the invitation is settled: {record.status}")
    return record


def _own_address(context: Context) -> str:
    email = emails.normalise(context.user.email)
    if email is None:
        raise Forbidden("invitations are to an address, and your account has none")
    return email


def _first_delivery(context: Context) -> str:
    return "link" if context.services.postman is None else "queued"


async def _deliver(context: Context, record: InvitationRecord, secret: str | None) -> MadeInvitation:
    """Hand the mail over, or the link to the caller when there is no mail, or too much of it."""
    shown = _shown(record, context.now())
    if secret is None:
        return MadeInvitation(**shown, link=None)
    services = context.services
    link = f"{services.url}/invitation#{secret}"
    if services.postman is not None:
        letter = await _letter(context, record, link)
        if services.postman.post(letter, partial(_note_delivery, services.store, record.id, record.hash)):
            return MadeInvitation(**shown, link=None)
        # Never the link: where mail goes out, holding one proves whose the address is.
        await _note_delivery(services.store, record.id, record.hash, _TOO_MANY)
        return MadeInvitation(**{**shown, "delivery": _TOO_MANY}, link=None)
    return MadeInvitation(**{**shown, "delivery": "link"}, link=link)


async def _letter(context: Context, record: InvitationRecord, link: str) -> Letter:
    async with context.services.store.read() as conn:
        organization = await organizations.get(conn, record.organization_id)
    name = organization.name if organization else "an organisation"
    by = context.user.email or "an administrator"
    return Letter(
        to=record.email,
        subject=f"Invitation to {name} on Argosy",
        paragraphs=(
            f"{by} invites you to join {name} on Argosy as {record.role}.",
            f"The link below is for you alone. It works once, until {iso(record.expires_at)}.",
            "If you do not know what this is about, ignore this mail: nothing happens without you.",
        ),
        link=link,
    )


async def _note_delivery(store: Store, invitation_id: str, token_hash: str, outcome: str) -> None:
    await store.write(
        partial(invitations.tell_delivery, invitation_id=invitation_id, token_hash=token_hash, delivery=outcome)
    )


def _shown(record: InvitationRecord, now: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "email": record.email,
        "role": record.role,
        "status": record.standing(now),
        "delivery": record.delivery,
        "invited_by": record.invited_by,
        "created_at": iso(record.created_at),
        "expires_at": iso(record.expires_at),
    }
