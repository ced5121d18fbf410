"""Browsers' sessions: signing in with a password, signing out, and seeing where one is signed in.

Whether an account exists is told by no answer, by no delay and by no limit: all are the same for an address nobody has.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from coordinator.core import emails
from coordinator.errors import Forbidden, NotFound, Unauthorized
from coordinator.procedures import second_factor, throttle
from coordinator.procedures.auditing import note
from coordinator.procedures.bearer import hash_secret
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.signing_in import (
    CODE_REQUIRED,
    SignedIn,
    note_refusal,
    note_sign_in,
    open_session,
    signed_in,
)
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.throttle import Attempt
from coordinator.procedures.user import GivenPassword
from coordinator.store import identities, sessions, users
from coordinator.store.database import Tx
from coordinator.store.sessions import SessionRecord
from coordinator.store.users import CredentialsRecord
from shared.kit.clock import iso
from shared.spec.container import Part

_REFUSED = "the e-mail address or the password is wrong"
_WRONG_CODE = "the code is wrong, or was used before"
Email = Annotated[str, Meta(min_length=3, max_length=emails.LONGEST)]
Code = Annotated[str, Meta(min_length=6, max_length=32, description="Of the authenticator, or a recovery code")]


class SignIn(Part, frozen=True):
    email: Email
    password: GivenPassword
    code: Code | UnsetType = UNSET


class Verify(Part, frozen=True):
    code: Code


class SessionId(Part, frozen=True):
    session_id: Id


class SessionView(View, frozen=True):
    """`current`: the one that asks."""

    id: str
    address: str
    user_agent: str
    current: bool
    created_at: str
    last_used_at: str
    expires_at: str


@dataclass(frozen=True)
class _Wrong:
    """Committed with its entry in the ledger, and only then told."""

    message: str


@procedure(
    "session.signIn",
    "POST",
    "public",
    rest="/sessions",
    example={"email": "ann@example.com", "password": "correct horse battery", "code": "123456"},
)
async def sign_in(context: Context, data: SignIn) -> SignedIn:
    """Sign a browser in with e-mail and password. Where the account has a second factor and no code was given, the answer says that
    one is required and nothing else happens."""
    email = emails.normalise(data.email) or data.email.strip().lower()
    attempt = await throttle.begin(context, email)
    async with context.services.store.read() as conn:
        record = await users.credentials_by_email(conn, email)
    passwords = context.services.proofs.passwords
    known = record.password_hash if record else None
    if not await passwords.matches(known, data.password) or record is None or known is None:
        await context.services.store.write(
            lambda tx: note_refusal(tx, context, record.id if record else None, "password")
        )
        raise Unauthorized(_REFUSED)
    fresher = await passwords.hash(data.password) if passwords.outdated(known) else known
    given = None if isinstance(data.code, UnsetType) else data.code

    async def unit(tx: Tx) -> SessionRecord | SignedIn | _Wrong:
        present = await users.credentials_of(tx.conn, record.id)
        if present is None or present.password_hash != known:
            return await _refuse(tx, context, record.id, "password", _REFUSED)
        if present.totp_confirmed_at is not None and given is None:
            await throttle.undecided(tx, attempt)
            return CODE_REQUIRED
        if present.totp_confirmed_at is not None and not await _take(tx, context, present, given or ""):
            return await _refuse(tx, context, record.id, "second factor", _WRONG_CODE)
        await throttle.succeeded(tx, attempt)
        if fresher != known:
            await users.change(tx, record.id, password_hash=fresher)
        return await open_session(tx, context, record.id, "password")

    return await _answer(context, await context.services.store.write(unit))


@procedure("session.verify", "POST", "public", rest="/session/verify", example={"code": "123456"})
async def verify(context: Context, data: Verify) -> SignedIn:
    """The second factor of a session that waits for it, as after signing in at an OpenID provider."""
    store = context.services.store
    async with store.read() as conn:
        waiting = await sessions.by_hash(conn, hash_secret(context.browser.secret)) if context.browser.secret else None
        record = await users.credentials_of(conn, waiting.user_id) if waiting else None
    if waiting is None or record is None or waiting.verified or waiting.expires_at <= context.now():
        raise Unauthorized("there is no session that waits for a code: sign in first")
    attempt = await throttle.begin(context, record.email)

    async def unit(tx: Tx) -> SessionRecord | _Wrong:
        present = await users.credentials_of(tx.conn, record.id)
        if present is None or not await _satisfied(tx, context, present, data.code):
            return await _refuse(tx, context, record.id, "second factor", _WRONG_CODE)
        await _settle(tx, waiting, attempt)
        await note_sign_in(tx, context, record.id, "second factor", waiting.id)
        return waiting

    return await _answer(context, await store.write(unit))


@procedure("session.start", "POST", "own", rest="/session")
async def start(context: Context, data: Nothing) -> SignedIn:
    """Sign a browser in with a token, such as the one of the first start. Only for an account that has no other way to sign in yet:
    from then on a leaked token must not become a session, which could make more tokens."""
    user_id = context.account
    if context.user.means != "token":
        raise Forbidden("session.start is for a personal token")

    async def unit(tx: Tx) -> SessionRecord:
        record = await users.credentials_of(tx.conn, user_id)
        if record is None:
            raise Unauthorized("this account is gone")
        if record.password_hash is not None or await identities.of_user(tx.conn, user_id):
            raise Forbidden("this account has a password or an OpenID provider to sign in with: use that")
        return await open_session(tx, context, user_id, "token")

    return await signed_in(context, await context.services.store.write(unit))


@procedure("session.signOut", "POST", "own", rest="/session/sign-out", session_only=True)
async def sign_out(context: Context, data: Nothing) -> Nothing:
    """End this session. Its cookie opens nothing from now on."""
    caller = context.user

    async def unit(tx: Tx) -> None:
        await sessions.remove(tx, caller.user_id, caller.credential_id)
        await note(tx, context, "session.signOut", caller.credential_id)

    await context.services.store.write(unit)
    context.browser.keeps = ""
    return Nothing()


@procedure("session.all", "GET", "own", rest="/sessions")
async def list_sessions(context: Context, data: Nothing) -> list[SessionView]:
    """Where the caller is signed in, newest first."""
    async with context.services.store.read() as conn:
        found = await sessions.of_user(conn, context.account, context.now())
    return [_view(record, context) for record in found]


@procedure("session.revoke", "DELETE", "own", rest="/sessions/{sessionId}")
async def revoke(context: Context, data: SessionId) -> Nothing:
    """End one of the caller's sessions, at once."""
    user_id = context.account

    async def unit(tx: Tx) -> None:
        if not await sessions.remove(tx, user_id, data.session_id):
            raise NotFound("session not found")
        await note(tx, context, "session.revoke", data.session_id)

    await context.services.store.write(unit)
    return Nothing()


async def _refuse(tx: Tx, context: Context, user_id: str, how: str, message: str) -> _Wrong:
    await note_refusal(tx, context, user_id, how)
    return _Wrong(message)


async def _take(tx: Tx, context: Context, record: CredentialsRecord, code: str) -> bool:
    return await second_factor.take(tx, context.services.vault, record, code)


async def _satisfied(tx: Tx, context: Context, record: CredentialsRecord, code: str) -> bool:
    """Who turned the second factor off meanwhile needs no code any more."""
    return record.totp_confirmed_at is None or await _take(tx, context, record, code)


async def _settle(tx: Tx, waiting: SessionRecord, attempt: Attempt) -> None:
    if not await sessions.verify(tx, waiting.id):
        raise Unauthorized("the session is over: sign in again")
    await throttle.succeeded(tx, attempt)


async def _answer(context: Context, done: SessionRecord | SignedIn | _Wrong) -> SignedIn:
    match done:
        case SessionRecord():
            return await signed_in(context, done)
        case SignedIn():
            return done
        case _Wrong(message):
            raise Unauthorized(message)


def _view(record: SessionRecord, context: Context) -> SessionView:
    return SessionView(
        id=record.id,
        address=record.address,
        user_agent=record.user_agent,
        current=context.user.credential_id == record.id,
        created_at=iso(record.created_at),
        last_used_at=iso(record.last_used_at),
        expires_at=iso(record.expires_at),
    )
