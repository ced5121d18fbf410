"""What a node must be and have to admit an instance: one small rule each, which can also say why it refused.

The order is the order of explanation: a node is counted under the first rule that refuses it, so what the user can change
least (the node is gone) comes first and what another placement may change (room) last. `STANDING` rules look at the node
and the declaration only and hold for a whole run; `ROOM` rules look at what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.core.room import Ask, NodeView, Room
from shared.spec.container import constraint_parts
from shared.spec.node import Availability
from shared.spec.quantity import readable_bytes, readable_cpu


class Filter(Protocol):
    def concerns(self, ask: Ask) -> bool:
        """Whether it could refuse at all; rules that do not concern an ask are left out of the hot path."""

    def admits(self, room: Room, ask: Ask) -> bool: ...

    def explain(self, count: int, ask: Ask) -> str:
        """The verb phrase that follows "`count` of 5 nodes"."""


@dataclass(frozen=True)
class Available:
    refused: Availability

    def concerns(self, ask: Ask) -> bool:
        return True

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.node.availability != self.refused

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_be(count)} {self.refused}"


class NotLost:
    def concerns(self, ask: Ask) -> bool:
        return True

    def admits(self, room: Room, ask: Ask) -> bool:
        return not room.node.lost

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_be(count)} lost"


class Connected:
    def concerns(self, ask: Ask) -> bool:
        return True

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.node.connected

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_be(count)} not connected"


class EngineAnswers:
    def concerns(self, ask: Ask) -> bool:
        return True

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.node.engine_answers

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_have(count)} an engine that does not answer"


class Platform:
    def concerns(self, ask: Ask) -> bool:
        return ask.demand.platform is not None

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.node.platform == ask.demand.platform

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_be(count)} not {ask.demand.platform}"


class Chosen:
    def concerns(self, ask: Ask) -> bool:
        return bool(ask.demand.node_ids)

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.node_id in ask.demand.node_ids

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_be(count)} not among the nodeIds of its placement"


class Constraints:
    def concerns(self, ask: Ask) -> bool:
        return bool(ask.demand.constraints)

    def admits(self, room: Room, ask: Ask) -> bool:
        return all(_matches(room.node, text) for text in ask.demand.constraints)

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_do(count)} not match {' and '.join(ask.demand.constraints)}"


class NotAvoided:
    def concerns(self, ask: Ask) -> bool:
        return bool(ask.avoided)

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.node_id not in ask.avoided

    def explain(self, count: int, ask: Ask) -> str:
        return "just refused it"


class HostPorts:
    def concerns(self, ask: Ask) -> bool:
        return bool(ask.demand.ports)

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.ports.isdisjoint(ask.demand.ports)

    def explain(self, count: int, ask: Ask) -> str:
        numbers = ", ".join(f"{port}/{protocol}" for port, protocol in sorted(ask.demand.ports))
        which = "the host port" if len(ask.demand.ports) == 1 else "one of the host ports"
        return f"{_have(count)} {which} {numbers} taken"


class Cpu:
    def concerns(self, ask: Ask) -> bool:
        return ask.demand.cpu_millis > 0

    def admits(self, room: Room, ask: Ask) -> bool:
        return ask.demand.cpu_millis <= room.cpu

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_lack(count)} {readable_cpu(ask.demand.cpu_millis)}"


class Memory:
    def concerns(self, ask: Ask) -> bool:
        return ask.demand.memory_bytes > 0

    def admits(self, room: Room, ask: Ask) -> bool:
        return ask.demand.memory_bytes <= room.memory

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_lack(count)} {readable_bytes(ask.demand.memory_bytes)}"


class Disk:
    def concerns(self, ask: Ask) -> bool:
        return ask.disk_bytes > 0

    def admits(self, room: Room, ask: Ask) -> bool:
        return ask.disk_bytes <= room.disk

    def explain(self, count: int, ask: Ask) -> str:
        return f"{_lack(count)} {readable_bytes(ask.disk_bytes)} of free disk"


class PerNode:
    def concerns(self, ask: Ask) -> bool:
        return ask.demand.max_per_node is not None

    def admits(self, room: Room, ask: Ask) -> bool:
        return room.own(ask.demand.container_id) < (ask.demand.max_per_node or 0)

    def explain(self, count: int, ask: Ask) -> str:
        return f"already {_have(count)} {ask.demand.max_per_node} of its instances, as many as maxPerNode allows"


STANDING: Sequence[Filter] = (
    NotLost(),
    Connected(),
    Available("cordoned"),
    Available("draining"),
    Available("drained"),
    EngineAnswers(),
    Platform(),
    Chosen(),
    Constraints(),
)
IN_PLACE: Sequence[Filter] = (NotAvoided(), HostPorts(), Cpu(), Memory(), Disk())
"""What still binds an instance that goes where its slot already is: it adds no slot to the node."""
ROOM: Sequence[Filter] = (*IN_PLACE, PerNode())


def concerning(ask: Ask, rules: Sequence[Filter]) -> list[Filter]:
    return [rule for rule in rules if rule.concerns(ask)]


def passes(room: Room, ask: Ask, rules: Sequence[Filter]) -> bool:
    """`rules`: those that concern the ask."""
    for rule in rules:  # noqa: SIM110 (this is the hot path: `all` with a generator takes twice the time)
        if not rule.admits(room, ask):
            return False
    return True


def refusal(room: Room, ask: Ask) -> Filter | None:
    """The first rule by which the node refuses."""
    for rule in concerning(ask, (*STANDING, *ROOM)):
        if not rule.admits(room, ask):
            return rule
    return None


def _matches(node: NodeView, text: str) -> bool:
    key, equal, value = constraint_parts(text)
    match key:
        case "node.id":
            found: str | None = node.node_id
        case "node.hostname":
            found = node.hostname
        case "node.platform":
            found = node.platform
        case _:
            found = node.labels.get(key)
    return (found == value) is equal


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


def _lack(count: int) -> str:
    return "lacks" if count == 1 else "lack"
