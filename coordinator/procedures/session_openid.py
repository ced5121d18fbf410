"""Signing in at the OpenID provider: what is remembered while the browser is away, and whose account it comes back for.

An account is found by the provider's own name for the person (issuer and subject), which never changes hands. The first time there
is only the address to go by, and that counts if the provider has verified it. A new account needs an invitation to that address,
unless the operator lets everybody in whom the provider does.
"""

import secrets
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError

from coordinator.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized, Unavailable
from coordinator.procedures.bearer import hash_secret
from coordinator.procedures.context import Context
from coordinator.procedures.fetching import FetchError
from coordinator.procedures.inputs import View
from coordinator.procedures.issuer import TokenRefused
from coordinator.procedures.openid import Begun, OpenId, Person
from coordinator.procedures.session_sign_up import make_account
from coordinator.procedures.signing_in import note_as, open_session
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import identities, invitations, sessions, users
from coordinator.store.database import Tx
from coordinator.store.identities import IdentityRecord, SignInRecord
from coordinator.store.invitations import InvitationError

START_PATH = "/auth/oidc/start"
AWAY_SECONDS = 600.0
_MAX_TEXT = 2048

log = structlog.get_logger("openid")


class SignInMethods(View, frozen=True):
    """`openid`: the path that sends a browser to the provider, if there is one; it takes `returnTo` and `invitation`."""

    password: bool
    openid: str | None


@dataclass(frozen=True)
class Departure:
    """`state` is for the browser to keep: what comes back without it was begun by somebody else."""

    url: str
    state: str


@procedure("session.methods", "GET", "public", rest="/session/methods")
async def methods(context: Context, data: Nothing) -> SignInMethods:
    """How one may sign in here."""
    return SignInMethods(password=True, openid=START_PATH if context.services.proofs.openid else None)


async def depart(context: Context, return_to: str, invitation: str) -> Departure:
    """Begin a sign-in. Raises DomainError."""
    provider = _provider(context)
    if len(return_to) > _MAX_TEXT or len(invitation) > _MAX_TEXT:
        raise BadRequest("returnTo, invitation: too long")
    begun = Begun(*(secrets.token_urlsafe(32) for _ in range(3)))
    try:
        url = await provider.authorization_url(begun)
    except FetchError as error:
        raise _unavailable(error) from error

    async def unit(tx: Tx) -> None:
        record = SignInRecord(
            hash=hash_secret(begun.state),
            nonce=begun.nonce,
            verifier=begun.verifier,
            return_to=_here(return_to),
            invitation=hash_secret(invitation) if invitation else "",
            expires_at=tx.now + AWAY_SECONDS,
        )
        await identities.begin(tx, record)

    await context.services.store.write(unit)
    return Departure(url, begun.state)


async def arrive(context: Context, state: str, code: str) -> str:
    """End a sign-in that came back with a code, leaving the session for the browser; where it wants to go on."""
    provider, store = _provider(context), context.services.store
    waiting = await store.write(lambda tx: identities.take(tx, hash_secret(state)))
    if waiting is None:
        raise Unauthorized("this sign-in was not begun here, took too long, or is over: begin again")
    try:
        person = await provider.person(code, Begun(state, waiting.nonce, waiting.verifier))
    except FetchError as error:
        raise _unavailable(error) from error
    except TokenRefused as error:
        log.warning("the provider's answer was refused", reason=str(error))
        raise Unauthorized(f"the OpenID provider's answer is not valid: {error}") from error

    async def unit(tx: Tx) -> None:
        user_id = await _account(tx, context, provider, person, waiting.invitation)
        record = await users.credentials_of(tx.conn, user_id)
        verified = record is None or record.totp_confirmed_at is None
        await open_session(tx, context, user_id, "openid", verified=verified)

    try:
        await store.write(unit)
    except InvitationError as error:
        raise Forbidden(str(error)) from error
    except IntegrityError as error:
        raise Conflict("somebody else signed up with this address this very moment: try again") from error
    return waiting.return_to


async def _account(tx: Tx, context: Context, provider: OpenId, person: Person, invitation: str) -> str:
    """Whose account it is; made and linked where that is allowed. Raises Forbidden, InvitationError and IntegrityError."""
    issuer = provider.settings.issuer
    linked = await identities.find(tx.conn, issuer, person.subject)
    known = await users.credentials_by_email(tx.conn, person.email) if linked is None and person.email else None
    user_id = linked.user_id if linked else known.id if known else None
    if user_id is None:
        if not person.email:
            raise Forbidden("the OpenID provider has not verified your e-mail address, so no account here can be yours")
        if not invitation and not provider.settings.sign_up:
            raise Forbidden("you have no account here: ask for an invitation")
        user_id = await make_account(tx, person.email, person.name or person.email.partition("@")[0], proven=True)
        await note_as(tx, context, user_id, "user.signUp", user_id, how="openid")
    if known is not None and not known.proven:
        await _take_over(tx, user_id)
    if linked is None:
        record = IdentityRecord(issuer=issuer, subject=person.subject, user_id=user_id, created_at=tx.now)
        await identities.insert(tx, record)
        await note_as(tx, context, user_id, "user.link", user_id, issuer=issuer)
    if invitation:
        await _accept(tx, invitation, user_id)
    return user_id


async def _take_over(tx: Tx, user_id: str) -> None:
    """The address is theirs, and who made the account may have been somebody else: nothing that opened it does any more."""
    await users.change(
        tx,
        user_id,
        proven=True,
        password_hash=None,
        totp_secret=None,
        totp_confirmed_at=None,
        totp_last_step=0,
        recovery_hashes=(),
    )
    await sessions.remove_others(tx, user_id)
    await users.remove_tokens(tx, user_id)


async def _accept(tx: Tx, token_hash: str, user_id: str) -> None:
    """The invitation must be for the account's address, whatever the provider calls the person by now."""
    record = await users.credentials_of(tx.conn, user_id)
    assert record is not None, "it was found or made in this transaction"
    await invitations.accept(tx, token_hash, user_id, record.email)


def _here(path: str) -> str:
    """A path of ours. Whatever a browser might take for another place becomes the front page."""
    ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if ours and path.isascii() else "/"


def _provider(context: Context) -> OpenId:
    provider = context.services.proofs.openid
    if provider is None:
        raise NotFound("no OpenID provider is configured here")
    return provider


def _unavailable(error: FetchError) -> Unavailable:
    log.warning("the OpenID provider cannot be reached", reason=str(error))
    return Unavailable("the OpenID provider does not answer as it should: try again")
