"""Tokens: a person's own, which act as that person within their scopes, and an organisation's, which belong to nobody.

Only a signed-in session makes them, so that a leaked one cannot make others. A service token outlives whoever made it, so the
organisation's admins see and revoke it, and it can do no more than an admin.
"""

from typing import Annotated

from msgspec import Meta

from coordinator.core.permissions import TokenScope, may
from coordinator.errors import BadRequest, Forbidden, NotFound, PreconditionFailed
from coordinator.procedures import bearer
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.paging import cut, fetch
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import users
from coordinator.store.database import Tx
from coordinator.store.users import ApiTokenRecord
from shared.kit.clock import from_iso, iso
from shared.kit.ids import new_id
from shared.spec.container import Part

MAX_TOKENS = 200
"""Of one owner."""


class CreateToken(Part, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    expires_at: (
        Annotated[str, Meta(max_length=40, description="ISO 8601; without it the token does not expire")] | None
    ) = None
    scopes: Annotated[
        tuple[TokenScope, ...],
        Meta(
            min_length=1,
            max_length=3,
            description="What the token may do at most: read, deploy (what a developer may), admin. The widest counts",
        ),
    ] = ("admin",)
    organization_id: (
        Annotated[
            Id, Meta(description="Makes a service token of this organisation instead of one's own; needs an admin")
        ]
        | None
    ) = None


class ListTokens(Page, frozen=True, kw_only=True):
    organization_id: (
        Annotated[Id, Meta(description="That organisation's service tokens instead of one's own; needs an admin")]
        | None
    ) = None


class TokenId(Part, frozen=True):
    token_id: Id


class TokenView(View, frozen=True):
    """`prefix`: what the token begins with, to recognise it by."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    organization_id: str | None
    created_by: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class CreatedToken(TokenView, frozen=True):
    """`token` is shown this once; only its hash is kept."""

    token: str


@procedure(
    "user.createToken",
    "POST",
    "own",
    created=True,
    rest="/user/tokens",
    session_only=True,
    example={"name": "ci", "scopes": ["deploy"]},
)
async def create(context: Context, data: CreateToken) -> CreatedToken:
    """A token for the API: one's own, or with `organizationId` a service token of that organisation."""
    user_id = context.account
    if data.organization_id is not None:
        _demand_admin(context, data.organization_id)
    expires_at = _expiry(context, data.expires_at)
    secret = bearer.new_secret("pat" if data.organization_id is None else "svc")

    async def unit(tx: Tx) -> ApiTokenRecord:
        record = ApiTokenRecord(
            id=new_id("tok"),
            user_id=user_id if data.organization_id is None else None,
            organization_id=data.organization_id,
            name=data.name,
            hash=bearer.hash_secret(secret),
            prefix=bearer.shown_prefix(secret),
            scopes=tuple(dict.fromkeys(data.scopes)),
            created_by=user_id,
            created_at=tx.now,
            expires_at=expires_at,
        )
        if (
            await users.count_tokens(tx.conn, user_id=record.user_id, organization_id=record.organization_id)
            >= MAX_TOKENS
        ):
            raise PreconditionFailed(f"there are {MAX_TOKENS} tokens already: revoke one first")
        await users.insert_token(tx, record)
        await note(
            tx, context, "token.create", record.id, record.organization_id, name=record.name, scopes=record.scopes
        )
        return record

    view = _view(await context.services.store.write(unit))
    return CreatedToken(**{name: getattr(view, name) for name in view.__struct_fields__}, token=secret)


@procedure("user.tokens", "GET", "own", rest="/user/tokens")
async def list_tokens(context: Context, data: ListTokens) -> list[TokenView]:
    """One's own tokens, or an organisation's service tokens, without their secrets."""
    async with context.services.store.read() as conn:
        if data.organization_id is None:
            rows = await users.tokens_of_user(conn, context.account, after=data.cursor, limit=fetch(data))
        else:
            _demand_admin(context, data.organization_id)
            rows = await users.tokens_of_organization(conn, data.organization_id, after=data.cursor, limit=fetch(data))
    return [_view(record) for record in cut(context, data, rows)]


@procedure("user.revokeToken", "DELETE", "own", rest="/user/tokens/{tokenId}")
async def revoke(context: Context, data: TokenId) -> Nothing:
    """End a token of one's own, or a service token as an admin of its organisation. It opens nothing from now on."""

    async def unit(tx: Tx) -> None:
        record = await users.token(tx.conn, data.token_id)
        if record is None or not _is_theirs(context, record):
            raise NotFound("token not found")
        await users.remove_token(tx, record.id)
        tx.changed("access", record.user_id or record.id)
        await note(tx, context, "token.revoke", record.id, record.organization_id, name=record.name)

    await context.services.store.write(unit)
    return Nothing()


def _demand_admin(context: Context, organization_id: str) -> None:
    """Raises NotFound for a stranger, Forbidden for a member who may not."""
    role = context.user.roles.get(organization_id)
    if role is None:
        raise NotFound("organization not found")
    if not may(role, "admin", scope=context.user.scope):
        raise Forbidden(f"an organisation's service tokens are for its admins; your role here is {role}")


def _is_theirs(context: Context, record: ApiTokenRecord) -> bool:
    if record.organization_id is None:
        return record.user_id == context.user.user_id
    return may(context.user.roles.get(record.organization_id), "admin", scope=context.user.scope)


def _expiry(context: Context, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = from_iso(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest("expiresAt: is not an ISO 8601 timestamp") from error
    if moment <= context.now():
        raise BadRequest("expiresAt: is in the past")
    return moment


def _view(record: ApiTokenRecord) -> TokenView:
    return TokenView(
        id=record.id,
        name=record.name,
        prefix=record.prefix,
        scopes=list(record.scopes),
        organization_id=record.organization_id,
        created_by=record.created_by,
        created_at=iso(record.created_at),
        expires_at=None if record.expires_at is None else iso(record.expires_at),
        last_used_at=None if record.last_used_at is None else iso(record.last_used_at),
    )
