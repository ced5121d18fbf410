"""How a node looks from outside: its status derived from what was observed, never from what was asked."""

from typing import Literal

from coordinator.procedures.context import Services
from coordinator.procedures.inputs import View
from coordinator.store.nodes import NodeRecord
from shared.kit.clock import iso
from shared.spec.node import HostSample
from shared.spec.reason import Reason

NodeStatus = Literal["running", "cordoned", "draining", "drained", "engine_down", "disconnected", "lost"]


class Capacity(View, frozen=True):
    """Thousandths of a processor, bytes."""

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int


class NodeSummary(View, frozen=True):
    id: str
    role: str
    plan: str | None
    ip: str
    status: NodeStatus


class NodeView(NodeSummary, frozen=True):
    """`reason` says why the status is not `running`; `usage` is the newest sample, null when none came since the coordinator
    started."""

    name: str
    cluster_id: str | None
    availability: str
    reason: Reason | None
    agent_version: str
    engine_version: str
    platform: str
    last_seen_at: str | None
    enrolled_at: str
    labels: dict[str, str]
    capacity: Capacity
    allocatable: Capacity
    usage: HostSample | None


def status(record: NodeRecord, *, connected: bool) -> tuple[NodeStatus, Reason | None]:
    """In order of gravity: what is unknown first, then what is broken, then what was asked for."""
    if record.lost:
        return "lost", Reason("node_lost", "not heard of for the whole lease; its instances are replaced elsewhere")
    if not connected:
        return "disconnected", Reason("node_lost", "no connection; what it runs is taken to run until its lease ends")
    if record.facts.engine.reason is not None:
        return "engine_down", record.facts.engine.reason
    if record.availability != "active":
        reason = Reason(record.availability, f"the node is {record.availability}: it takes no new instances")
        return record.availability, record.drain_reason or reason
    return "running", None


def summary(record: NodeRecord, services: Services) -> NodeSummary:
    word, _ = status(record, connected=services.leases.is_connected(record.id))
    return NodeSummary(id=record.id, role=record.role, plan=None, ip=record.facts.address, status=word)


def view(record: NodeRecord, services: Services, taken: tuple[int, int]) -> NodeView:
    """`taken`: thousandths of a processor and bytes of memory that are reserved on it."""
    word, reason = status(record, connected=services.leases.is_connected(record.id))
    facts = record.facts
    cpu, memory = taken
    return NodeView(
        id=record.id,
        role=record.role,
        plan=None,
        ip=facts.address,
        status=word,
        name=record.name,
        cluster_id=record.cluster_id,
        availability=record.availability,
        reason=reason,
        agent_version=facts.agent_version,
        engine_version=facts.engine.version,
        platform=facts.platform,
        last_seen_at=_last_seen(record, services),
        enrolled_at=iso(record.enrolled_at),
        labels={**facts.labels, **record.labels},
        capacity=Capacity(cpu_millis=facts.cpu_millis, memory_bytes=facts.memory_bytes, disk_bytes=facts.disk_bytes),
        allocatable=Capacity(
            cpu_millis=max(0, facts.cpu_millis - cpu),
            memory_bytes=max(0, facts.memory_bytes - memory),
            disk_bytes=facts.disk_free,
        ),
        usage=next(reversed(services.samples.of_node(record.id)), None),
    )


def _last_seen(record: NodeRecord, services: Services) -> str | None:
    """Of a connected node by the book: the row is written only now and then."""
    heard = services.leases.heard_at(record.id)
    if heard is not None:
        return iso(services.clock.wall() - (services.clock.monotonic() - heard))
    return iso(record.last_seen_at) if record.last_seen_at is not None else None
