"""One line for every mutation, in the transaction that makes it."""

from typing import Any

from coordinator.procedures.context import Context
from coordinator.store import audit
from coordinator.store.database import Tx
from shared.kit.ids import new_id


async def note(
    tx: Tx, context: Context, action: str, resource: str, organization_id: str | None = None, **detail: Any
) -> None:
    """`detail` explains and holds no secret."""
    await audit.insert(
        tx,
        audit.AuditRecord(
            id=new_id("aud"),
            organization_id=organization_id,
            at=tx.now,
            actor=context.caller.user_id if context.caller else "system",
            action=action,
            resource=resource,
            detail=detail,
            address=context.address,
        ),
    )
