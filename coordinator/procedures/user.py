"""The caller's own account."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, Forbidden, Unauthorized
from coordinator.procedures import passwords, throttle
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import View
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.throttle import Attempt
from coordinator.store import sessions, users
from coordinator.store.database import Tx
from coordinator.store.users import CredentialsRecord
from shared.kit.clock import iso
from shared.spec.container import Part

Name = Annotated[str, Meta(min_length=1, max_length=64, description="What others see")]
NewPassword = Annotated[
    str, Meta(max_length=passwords.LONGEST, description="10 to 256 characters, none of the usual ones")
]
GivenPassword = Annotated[str, Meta(max_length=passwords.LONGEST)]
PictureUrl = Annotated[
    str, Meta(max_length=2048, pattern=r"^https://[^\s\x00-\x1f]+$(?!\n)", description="An https URL")
]


class UpdateUser(Part, frozen=True):
    name: Name | UnsetType = UNSET
    picture_url: PictureUrl | UnsetType | None = UNSET
    password: NewPassword | UnsetType = UNSET
    current_password: GivenPassword | UnsetType = UNSET


class MembershipView(View, frozen=True):
    organization_id: str
    role: str


class UserView(View, frozen=True):
    id: str
    email: str
    name: str
    picture_url: str | None
    memberships: list[MembershipView]
    created_at: str


@procedure("user.me", "GET", "own", rest="/user")
async def me(context: Context, data: Nothing) -> UserView:
    """Who the caller is, and where they are a member."""
    async with context.services.store.read() as conn:
        return await view(conn, context.account)


@procedure("user.update", "PATCH", "own", rest="/user", example={"name": "Ann"})
async def update(context: Context, data: UpdateUser) -> UserView:
    """Change one's name, picture or password. A new password needs a signed-in session and the present password, if there is one,
    and ends all other sessions."""
    user_id = context.account
    values = {
        name: value for name in ("name", "picture_url") if not isinstance(value := getattr(data, name), UnsetType)
    }
    attempt: Attempt | None = None
    known: CredentialsRecord | None = None
    if not isinstance(data.password, UnsetType):
        known = await _credentials(context, user_id)
        attempt = await _prove(context, known, data)
        values["password_hash"] = await context.services.proofs.passwords.hash(data.password)
    elif not isinstance(data.current_password, UnsetType):
        raise BadRequest("currentPassword: only goes with a new password")

    async def unit(tx: Tx) -> None:
        if known is not None:
            await _replace_password(tx, context, known, attempt)
        if values:
            await users.change(tx, user_id, **values)
            await note(tx, context, "user.update", user_id, fields=sorted(values))

    await context.services.store.write(unit)
    async with context.services.store.read() as conn:
        return await view(conn, user_id)


async def view(conn: AsyncConnection, user_id: str) -> UserView:
    """Raises Unauthorized when there is no such account any more."""
    record = await users.get(conn, user_id)
    if record is None:
        raise Unauthorized("this account is gone")
    memberships = await users.memberships_of(conn, user_id)
    return UserView(
        id=record.id,
        email=record.email,
        name=record.name,
        picture_url=record.picture_url,
        memberships=[MembershipView(organization_id=one.organization_id, role=one.role) for one in memberships],
        created_at=iso(record.created_at),
    )


async def _credentials(context: Context, user_id: str) -> CredentialsRecord:
    async with context.services.store.read() as conn:
        record = await users.credentials_of(conn, user_id)
    if record is None:
        raise Unauthorized("this account is gone")
    return record


async def _prove(context: Context, known: CredentialsRecord, data: UpdateUser) -> Attempt | None:
    """That it is really the account's owner who sits there. None where there is no password yet to prove it with."""
    if context.user.means != "session":
        raise Forbidden("password: can only be changed in a signed-in session, not with a token")
    assert not isinstance(data.password, UnsetType)
    passwords.demand(data.password, known.email)
    if known.password_hash is None:
        return None
    if isinstance(data.current_password, UnsetType):
        raise BadRequest("currentPassword: is required to change the password")
    attempt = await throttle.begin(context, known.email)
    if not await context.services.proofs.passwords.matches(known.password_hash, data.current_password):
        raise Forbidden("currentPassword: is wrong")
    return attempt


async def _replace_password(tx: Tx, context: Context, known: CredentialsRecord, attempt: Attempt | None) -> None:
    present = await users.credentials_of(tx.conn, known.id)
    if present is None or present.password_hash != known.password_hash:
        raise Forbidden("currentPassword: was changed this very moment")
    if attempt is not None:
        await throttle.succeeded(tx, attempt)
    await sessions.remove_others(tx, known.id, but=context.user.credential_id)
    await note(tx, context, "user.changePassword", known.id)
