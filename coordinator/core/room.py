"""The views placement works on, and `Room`: what is left on a node while instances are laid down one by one.

A room is the only thing here that changes, and it changes in one direction: a placement run only ever takes. Everything that
makes placement fast leans on that (see `pools.py`): what a room refused once in a run it refuses for the rest of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.spec.node import Availability

PortKey = tuple[int, Literal["tcp", "udp"]]


@dataclass(frozen=True, slots=True)
class Taken:
    """What instances hold on a node, in sum: all that matters of those whose containers have nothing to place."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    ports: frozenset[PortKey] = frozenset()
    count: int = 0


NOTHING = Taken()


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as placement sees it. `labels` are those users see: the agent's own under those given in the API. `taken` comes on
    top of the bound instances that placement is told of one by one."""

    node_id: str
    hostname: str = ""
    platform: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    availability: Availability = "active"
    connected: bool = True
    lost: bool = False
    engine_answers: bool = True
    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_free: int = 0
    taken: Taken = NOTHING


@dataclass(frozen=True, slots=True)
class Demand:
    """What every instance of one revision of a container asks of its node."""

    container_id: str
    cpu_millis: int = 0
    memory_bytes: int = 0
    ports: frozenset[PortKey] = frozenset()
    constraints: tuple[str, ...] = ()
    node_ids: frozenset[str] = frozenset()
    platform: str | None = None
    max_per_node: int | None = None
    spread: str | None = None
    pack: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A demand with what its slot adds. `home`: the node its volumes live on. `avoided`: nodes that refused the slot for a
    reason of their own. `disk_bytes`: for volumes that no node holds yet. Equal asks are answered together."""

    demand: Demand
    home: str | None = None
    avoided: frozenset[str] = frozenset()
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """`previous`: where the slot's last instance ran, or still runs."""

    instance_id: str
    slot: int
    ask: Ask
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """An instance that holds its node's resources. `leaving`: it is on its way out, so its slot does not count against new
    ones. `disk_bytes`: of its new volumes, as long as the node's free disk cannot show them yet."""

    instance_id: str
    node_id: str
    slot: int
    demand: Demand
    leaving: bool = False
    disk_bytes: int = 0


class Room:
    __slots__ = ("count", "cpu", "disk", "load", "memory", "node", "node_id", "ports", "slots")

    def __init__(self, node: NodeView) -> None:
        taken = node.taken
        self.node = node
        self.node_id = node.node_id
        self.cpu = node.cpu_millis - taken.cpu_millis
        self.memory = node.memory_bytes - taken.memory_bytes
        self.disk = node.disk_free - taken.disk_bytes
        self.ports: set[PortKey] = set(taken.ports)
        self.slots: dict[str, set[int]] = {}
        self.count = taken.count
        self.load = self._load()

    def take(self, demand: Demand, slot: int, disk_bytes: int = 0, *, leaving: bool = False) -> None:
        self.cpu -= demand.cpu_millis
        self.memory -= demand.memory_bytes
        self.disk -= disk_bytes
        if demand.ports:
            self.ports |= demand.ports
        if not leaving:
            self.slots.setdefault(demand.container_id, set()).add(slot)
        self.count += 1
        self.load = self._load()

    def own(self, container_id: str) -> int:
        """Slots of the container on this node: one that is being replaced on the spot counts once."""
        slots = self.slots.get(container_id)
        return len(slots) if slots else 0

    def fits(self, ask: Ask) -> int:
        """How many more such instances the declared amounts leave room for; 0 or more, large when nothing is declared."""
        demand = ask.demand
        amounts = (
            (self.cpu, demand.cpu_millis),
            (self.memory, demand.memory_bytes),
            (self.disk, ask.disk_bytes),
            (1, 1 if demand.ports else 0),
            ((demand.max_per_node or 0) - self.own(demand.container_id), 1 if demand.max_per_node else 0),
        )
        return max(0, min((free // each for free, each in amounts if each), default=2**31))

    def _load(self) -> float:
        """The scarcer of processor and memory, as the part of it that is taken."""
        node = self.node
        cpu = 1 - self.cpu / node.cpu_millis if node.cpu_millis else 0.0
        memory = 1 - self.memory / node.memory_bytes if node.memory_bytes else 0.0
        return max(memory, cpu)
