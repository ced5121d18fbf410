"""One line for every mutation, in the transaction that makes it."""

from typing import Any

from coordinator.procedures.context import Context
from coordinator.store.database import Tx


async def note(
    tx: Tx, context: Context, action: str, resource: str, organization_id: str | None = None, **detail: Any
) -> None:
    """`detail` explains and holds no secret."""
    await context.services.notary.append(
        tx,
        action,
        resource,
        organization_id=organization_id,
        actor=context.caller.user_id if context.caller else "system",
        detail=detail,
        address=context.address,
    )
