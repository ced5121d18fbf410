"""What every way of signing in ends with: a session, its cookie, and an entry in the ledger.

The cookie's secret is made anew each time, so nobody can have planted it, and it is never shown in an answer.
"""

import secrets

from coordinator.procedures import user
from coordinator.procedures.bearer import csrf_token, hash_secret
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import View
from coordinator.procedures.user import UserView
from coordinator.store import sessions
from coordinator.store.database import Tx
from coordinator.store.sessions import SessionRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id


class SignedIn(View, frozen=True):
    """`code_required`: the password was right, and the same call with a code of the second factor will be let in; then everything
    else is null. `csrf_token`: what changes made with the session's cookie have to send as the header X-CSRF-Token."""

    code_required: bool
    csrf_token: str | None = None
    expires_at: str | None = None
    user: UserView | None = None


CODE_REQUIRED = SignedIn(code_required=True)


async def open_session(tx: Tx, context: Context, user_id: str, how: str, *, verified: bool = True) -> SessionRecord:
    """The browser keeps it once the call is answered. `how`: for the ledger."""
    secret = secrets.token_urlsafe(32)
    record = SessionRecord(
        id=new_id("ses"),
        user_id=user_id,
        hash=hash_secret(secret),
        verified=verified,
        address=context.address,
        user_agent=context.browser.agent,
        created_at=tx.now,
        last_used_at=tx.now,
        expires_at=sessions.expiry(tx.now, tx.now),
    )
    await sessions.insert(tx, record)
    await note_sign_in(tx, context, user_id, how, record.id)
    context.browser.keeps = secret
    return record


async def note_sign_in(tx: Tx, context: Context, user_id: str, how: str, session_id: str) -> None:
    await note_as(tx, context, user_id, "session.signIn", session_id, how=how)


async def note_refusal(tx: Tx, context: Context, user_id: str | None, how: str) -> None:
    """What was typed as an address without an account is not written down: it may be a password in the wrong field."""
    await note_as(tx, context, user_id or "anonymous", "session.refused", user_id or "", how=how)


async def note_as(tx: Tx, context: Context, actor: str, action: str, resource: str, **detail: str) -> None:
    """For what is done before there is a caller."""
    notary = context.services.notary
    await notary.append(tx, action, resource, organization_id=None, actor=actor, detail=detail, address=context.address)


async def signed_in(context: Context, record: SessionRecord) -> SignedIn:
    """The answer that goes with the new cookie."""
    secret = context.browser.keeps or context.browser.secret
    async with context.services.store.read() as conn:
        who = await user.view(conn, record.user_id)
    return SignedIn(code_required=False, csrf_token=csrf_token(secret), expires_at=iso(record.expires_at), user=who)
