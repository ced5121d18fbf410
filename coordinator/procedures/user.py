"""The caller, about itself."""

from coordinator.errors import Unauthorized
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import View
from coordinator.procedures.table import Nothing, procedure
from coordinator.store import users
from shared.kit.clock import iso


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
    """Who the token belongs to, and where they are a member."""
    async with context.services.store.read() as conn:
        record = await users.get(conn, context.user.user_id)
        memberships = await users.memberships_of(conn, context.user.user_id)
    if record is None:
        raise Unauthorized("the account of this token is gone")
    return UserView(
        id=record.id,
        email=record.email,
        name=record.name,
        picture_url=record.picture_url,
        memberships=[MembershipView(organization_id=one.organization_id, role=one.role) for one in memberships],
        created_at=iso(record.created_at),
    )
