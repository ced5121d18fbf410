"""A hello becomes a session: in one transaction the node gets its epoch, and what it brought is compared with what is stored."""

from dataclasses import dataclass
from typing import Any

import msgspec

from coordinator.hub.clean import clean_facts
from coordinator.store import nodes, reports
from coordinator.store.instances import InstanceRecord
from coordinator.store.nodes import NodeRecord
from coordinator.store.writer import Tx
from shared.spec.node import NodeFacts
from shared.wire.closing import CloseReason
from shared.wire.frames import AgentHello


class RefusedError(Exception):
    """Why no session begins."""

    def __init__(self, reason: CloseReason, message: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message or reason.meaning)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True)
class Admitted:
    """`sequence`: of the assignment set as stored. `doomed`: instances the node holds and must let go of. `facts`: as stored."""

    node: NodeRecord
    epoch: int
    sequence: int
    facts: NodeFacts
    doomed: tuple[InstanceRecord, ...]
    unknown: tuple[str, ...]


def check_known(node: NodeRecord | None) -> NodeRecord:
    if node is None:
        raise RefusedError(CloseReason.UNKNOWN_NODE)
    if node.revoked_at is not None:
        raise RefusedError(CloseReason.REVOKED)
    return node


async def admit(tx: Tx, hello: AgentHello) -> Admitted:
    """The caller has checked the signature. Raises RefusedError."""
    node = await nodes.open_session(tx, hello.node_id, hello.epoch)
    if node is None:
        raise RefusedError(CloseReason.REVOKED)
    facts = await _note(tx, node, hello)
    if hello.held or hello.sequence is None:
        await reports.rebase(tx, node.id, hello.held, journal_lost=hello.sequence is None)
    holding = await reports.judge(tx, node.organization_id, node.id, hello.held)
    # A new number makes the agent's own differ, so that a complete set follows: with the tombstones of what it must not hold, or
    # with all secrets sealed to its new key.
    renumbered = bool(holding.doomed) or hello.sealing_key != node.sealing_key
    if renumbered:
        await nodes.touch_assignments(tx, [node.id])
    return Admitted(
        node=msgspec.structs.replace(node, sealing_key=hello.sealing_key),
        epoch=node.epoch,
        sequence=node.assignment_seq + renumbered,
        facts=facts,
        doomed=holding.doomed,
        unknown=holding.unknown,
    )


async def _note(tx: Tx, node: NodeRecord, hello: AgentHello) -> NodeFacts:
    facts = clean_facts(hello.facts)
    changes: dict[str, Any] = {}
    if facts != node.facts:
        changes["facts"] = facts
    if hello.sealing_key != node.sealing_key:
        changes["sealing_key"] = hello.sealing_key
    if changes:
        await nodes.change(tx, node.id, **changes)
    return facts
