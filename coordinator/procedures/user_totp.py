"""The second factor of one's own account. It counts once its owner has shown a code of it: nobody locks themselves out by closing
the page with the picture.
"""

from collections.abc import Awaitable, Callable

from coordinator.errors import Conflict, Forbidden, PreconditionFailed, Unauthorized
from coordinator.procedures import second_factor, throttle, user
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import View
from coordinator.procedures.session import Code
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.user import UserView
from coordinator.store import rekey, sessions, users
from coordinator.store.database import Tx
from coordinator.store.users import CredentialsRecord
from shared.spec.container import Part


class TotpCode(Part, frozen=True):
    code: Code


class TotpView(View, frozen=True):
    """`otpauth_uri`: for the authenticator, as text or as a QR code. `recovery_codes`: each opens the account once when the
    authenticator is lost. Both are shown this once."""

    otpauth_uri: str
    recovery_codes: list[str]


_WRONG = "code: is wrong, or was used before"


@procedure("user.enableTotp", "POST", "own", rest="/user/totp", session_only=True)
async def enable(context: Context, data: Nothing) -> TotpView:
    """A second factor for one's own account, which counts from `user.confirmTotp` on. Asking again before that makes another."""
    user_id = context.account
    secret, codes = second_factor.new_secret(), second_factor.new_recovery_codes()
    sealed = context.services.vault.wrap(rekey.totp_name(user_id), secret.encode())

    async def unit(tx: Tx) -> CredentialsRecord:
        record = await _credentials(tx, user_id)
        if record.totp_confirmed_at is not None:
            raise Conflict("the second factor is on already: disable it first")
        hashes = tuple(second_factor.recovery_hash(code) for code in codes)
        await users.change(tx, user_id, totp_secret=sealed, totp_last_step=0, recovery_hashes=hashes)
        await note(tx, context, "user.enableTotp", user_id)
        return record

    record = await context.services.store.write(unit)
    return TotpView(otpauth_uri=second_factor.uri(secret, record.email), recovery_codes=codes)


@procedure(
    "user.confirmTotp",
    "POST",
    "own",
    rest="/user/totp/confirm",
    session_only=True,
    fresh=True,
    example={"code": "123456"},
)
async def confirm(context: Context, data: TotpCode) -> UserView:
    """Show a code of the new second factor; from now on signing in needs one. The account's other sessions end."""

    async def accept(tx: Tx, record: CredentialsRecord) -> None:
        await users.change(tx, record.id, totp_confirmed_at=tx.now)
        await sessions.remove_others(tx, record.id, but=context.user.credential_id)
        await note(tx, context, "user.confirmTotp", record.id)

    return await _with_code(context, data.code, accept, confirmed=False)


@procedure(
    "user.disableTotp",
    "POST",
    "own",
    rest="/user/totp/disable",
    session_only=True,
    fresh=True,
    example={"code": "123456"},
)
async def disable(context: Context, data: TotpCode) -> UserView:
    """Give the second factor up, with a code of it or a recovery code."""

    async def accept(tx: Tx, record: CredentialsRecord) -> None:
        await users.change(
            tx, record.id, totp_secret=None, totp_confirmed_at=None, totp_last_step=0, recovery_hashes=()
        )
        await note(tx, context, "user.disableTotp", record.id)

    return await _with_code(context, data.code, accept, confirmed=True)


Accept = Callable[[Tx, CredentialsRecord], Awaitable[None]]


async def _with_code(context: Context, code: str, accept: Accept, *, confirmed: bool) -> UserView:
    """`accept` when the code is right. Guesses are counted as at the door: a session left open is no way to try all codes."""
    user_id, store = context.account, context.services.store
    async with store.read() as conn:
        known = await users.credentials_of(conn, user_id)
    if known is None:
        raise Unauthorized("this account is gone")
    attempt = await throttle.begin(context, known.email)

    async def unit(tx: Tx) -> str | None:
        record = await _credentials(tx, user_id)
        if problem := _unfit(record, confirmed=confirmed):
            await throttle.undecided(tx, attempt)
            return problem
        if not await second_factor.take(tx, context.services.vault, record, code):
            await note(tx, context, "user.refusedTotp", user_id)
            return _WRONG
        await throttle.succeeded(tx, attempt)
        await accept(tx, record)
        return None

    refusal = await store.write(unit)
    if refusal is not None:
        raise Forbidden(refusal) if refusal == _WRONG else PreconditionFailed(refusal)
    async with store.read() as conn:
        return await user.view(conn, user_id)


def _unfit(record: CredentialsRecord, *, confirmed: bool) -> str | None:
    if record.totp_secret is None:
        return "there is no second factor: user.enableTotp makes one"
    if confirmed and record.totp_confirmed_at is None:
        return "the second factor was never confirmed, so there is nothing to disable"
    if not confirmed and record.totp_confirmed_at is not None:
        return "the second factor is confirmed already"
    return None


async def _credentials(tx: Tx, user_id: str) -> CredentialsRecord:
    record = await users.credentials_of(tx.conn, user_id)
    if record is None:
        raise Unauthorized("this account is gone")
    return record
