"""Making an account of one's own: with an invitation's token, or, at the first start, with the administrator's.

Nobody signs up without either. The administrator who was made at the first start has a token and nothing else: whoever holds it
gives that account an address and a password, once.
"""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.exc import IntegrityError

from coordinator.core import emails
from coordinator.errors import BadRequest, Conflict, Forbidden
from coordinator.procedures import passwords, throttle
from coordinator.procedures.bearer import hash_secret
from coordinator.procedures.context import Context
from coordinator.procedures.session import Email
from coordinator.procedures.signing_in import SignedIn, note_as, open_session, signed_in
from coordinator.procedures.table import procedure
from coordinator.procedures.user import Name, NewPassword
from coordinator.store import identities, invitations, users
from coordinator.store.database import Tx
from coordinator.store.invitations import InvitationError
from coordinator.store.sessions import SessionRecord
from coordinator.store.users import ApiTokenRecord, UserRecord
from shared.kit.ids import new_id
from shared.spec.container import Part

_NO_WAY_IN = "the token is neither a pending invitation's nor that of the first start"


class SignUp(Part, frozen=True):
    token: Annotated[str, Meta(min_length=16, max_length=256, description="Of the invitation, or of the first start")]
    name: Name
    password: NewPassword
    email: (
        Annotated[
            Email,
            Meta(description="Required with the token of the first start; an invitation's address counts otherwise"),
        ]
        | UnsetType
    ) = UNSET


@procedure(
    "session.signUp",
    "POST",
    "public",
    created=True,
    rest="/session/sign-up",
    example={"token": "argosy_inv_Vx4fJ0qkP2m8sYtR", "name": "Ann", "password": "correct horse battery"},
)
async def sign_up(context: Context, data: SignUp) -> SignedIn:
    """Make an account with an invitation and sign in; or give the administrator of the first start an address and a password."""
    address = _address(data)
    attempt = await throttle.begin(context, None)  # guesses at tokens are counted like those at passwords
    token_hash = hash_secret(data.token)
    async with context.services.store.read() as conn:
        invitation = await invitations.of_token(conn, token_hash)
        token = await users.token_by_hash(conn, token_hash)
    email = invitation.email if invitation else address
    if (invitation is None and token is None) or (invitation and address not in (None, invitation.email)):
        raise Forbidden(_NO_WAY_IN)
    if email is None:
        raise BadRequest("email: is required with the token of the first start")
    passwords.demand(data.password, email)
    password_hash = await context.services.proofs.passwords.hash(data.password)

    async def unit(tx: Tx) -> SessionRecord:
        if token is not None:
            user_id = await _first(tx, token, email, data.name, password_hash)
        else:
            user_id = await _invited(tx, token_hash, email, data.name, password_hash)
        await throttle.undecided(tx, attempt)
        await note_as(tx, context, user_id, "user.signUp", user_id, how="first start" if token else "invitation")
        return await open_session(tx, context, user_id, "sign-up")

    try:
        return await signed_in(context, await context.services.store.write(unit))
    except InvitationError as error:
        raise Forbidden(str(error)) from error
    except IntegrityError as error:
        raise Conflict("email: this address has an account already: sign in and accept the invitation there") from error


async def make_account(tx: Tx, email: str, name: str, *, proven: bool) -> str:
    """`proven`: the address is known to be theirs. IntegrityError when it has an account."""
    user_id = new_id("user")
    await users.insert(tx, UserRecord(id=user_id, email=email, name=name, proven=proven, created_at=tx.now))
    return user_id


async def _invited(tx: Tx, token_hash: str, email: str, name: str, password_hash: str) -> str:
    invitation = await invitations.of_token(tx.conn, token_hash)
    # A token that was mailed reached whoever reads the mail; one that was shown to the inviter proves nothing.
    mailed = invitation is not None and invitation.delivery in ("queued", "sent")
    user_id = await make_account(tx, email, name, proven=mailed)
    await users.change(tx, user_id, password_hash=password_hash)
    await invitations.accept(tx, token_hash, user_id, email)
    return user_id


async def _first(tx: Tx, token: ApiTokenRecord, email: str, name: str, password_hash: str) -> str:
    record = await users.credentials_of(tx.conn, token.user_id) if token.user_id else None
    valid = token.expires_at is None or token.expires_at > tx.now
    if record is None or not valid or "admin" not in token.scopes or await users.token(tx.conn, token.id) is None:
        raise Forbidden(_NO_WAY_IN)
    if record.password_hash is not None or await identities.of_user(tx.conn, record.id):
        raise Forbidden("this account can be signed in to already")
    await users.change(tx, record.id, password_hash=password_hash, email=email, name=name, proven=True)
    tx.changed("access", record.id)
    return record.id


def _address(data: SignUp) -> str | None:
    if isinstance(data.email, UnsetType):
        return None
    address = emails.normalise(data.email)
    if address is None:
        raise BadRequest("email: is not an e-mail address")
    return address
