"""Who may change whom: admins look after developers, viewers and billing; owners after everybody; and one owner stays.

The caller's own role is read again in the transaction that acts on it: two owners who take each other's role at the same moment
must not both succeed.
"""

from coordinator.core.permissions import ROLES, Role, capped
from coordinator.errors import Forbidden, NotFound, PreconditionFailed
from coordinator.procedures.context import Context
from coordinator.store import organizations
from coordinator.store.database import Tx

SENIOR: frozenset[str] = frozenset({"owner", "admin"})


async def acting_role(tx: Tx, context: Context, organization_id: str) -> Role:
    """What the caller is there at this very moment, with the organisation held until the transaction ends. Raises NotFound when
    either has gone."""
    if not await organizations.hold(tx, organization_id):
        raise NotFound("organization not found")
    if context.user.means in (
        "service",
        "jwt",
    ):  # their roles are not the members': the organisation, or the issuer, said so
        role: str | None = context.role
    else:
        role = await organizations.role_of(tx.conn, organization_id, context.user.user_id)
    if role is None or role not in ROLES:
        raise NotFound("organization not found")
    if role not in SENIOR:
        raise Forbidden("only admins and owners change who belongs to the organisation")
    return capped(known(role), context.user.scope)


def known(role: str) -> Role:
    """A stored role as the word it is."""
    return next(one for one in ROLES if one == role)


def require_rank(acting: Role, *concerned: str) -> None:
    """Raises Forbidden unless `acting` may give, take or hold over these roles."""
    if acting != "owner" and not SENIOR.isdisjoint(concerned):
        raise Forbidden("only owners change, invite or remove admins and owners")


async def require_owner_left(tx: Tx, organization_id: str, user_id: str) -> None:
    """Raises PreconditionFailed when nobody else is an owner."""
    roles = await organizations.roles_of(tx.conn, organization_id)
    if not any(role == "owner" for other, role in roles.items() if other != user_id):
        raise PreconditionFailed("the last owner stays: make somebody else an owner first")
