"""One line for every mutation, in the transaction that makes it.

What the thing was before and is now is told by digests, filled in here so that no procedure can forget them. Before: the record the
caller's permission was decided on. After: what its id stands for at this point of the transaction, so a procedure notes last.
"""

from typing import Any

from coordinator.procedures import records
from coordinator.procedures.context import Context
from coordinator.store.database import Tx


async def note(
    tx: Tx,
    context: Context,
    action: str,
    resource: str,
    organization_id: str | None = None,
    *,
    before: object = None,
    after: object = None,
    **detail: Any,
) -> None:
    """`detail` explains and holds no secret. `before` and `after`: the thing's records, where `records.read` does not know its
    kind."""
    was = before if before is not None else _record(context, resource)
    now = after if after is not None else await records.read(tx.conn, resource)
    await context.services.notary.append(
        tx,
        action,
        resource,
        organization_id=organization_id,
        actor=context.caller.user_id if context.caller else "system",
        detail=detail,
        address=context.address,
        before=records.digest(was),
        after=records.digest(now),
    )


def _record(context: Context, resource: str) -> object:
    """The scope's record, when it is the resource and not what the resource belongs to."""
    return context.record if getattr(context.record, "id", None) == resource else None
