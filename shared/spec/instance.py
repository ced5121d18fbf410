"""An instance: what a node is told (`Assignment`) and what it says back (`InstanceReport`).

`Phase` is ordered and the order is the merge rule: of two statements about one attempt the greater is the later, so late,
repeated and reordered reports need no lock to be sorted out. A restart by the node is a new attempt of the same instance; a
replacement is a new instance in the same slot. `WRITERS` names the only part that may write each transition.
"""

from enum import IntEnum
from typing import Literal

from msgspec import Struct, field

from shared.spec.container import EnvVar, HealthCheck, Port, RestartPolicy, Security
from shared.spec.reason import Reason


class Phase(IntEnum):
    """Gaps leave room: a new phase never renumbers the stored ones."""

    PENDING = 0
    ASSIGNED = 64
    PULLING = 128
    STARTING = 192
    RUNNING = 256
    STOPPED = 320
    FAILED = 384
    REJECTED = 448
    REMOVED = 512

    @property
    def word(self) -> str:
        return self.name.lower()


TERMINAL = frozenset({Phase.STOPPED, Phase.FAILED, Phase.REJECTED, Phase.REMOVED})
"""Phases an instance never leaves but for `removed`."""

Goal = Literal["run", "stop", "remove"]
"""Desired: keep running, keep its engine container but stopped, or leave nothing of it (a tombstone)."""
Health = Literal["unknown", "starting", "healthy", "unhealthy"]
"""`unknown`: not running, or no longer observed. Without a health check, `healthy` means its process runs."""
Writer = Literal["orchestrator", "scheduler", "agent", "collector"]

VOLUME_PREFIX = "argosy_"
"""Of every named volume's name on a node: no other volume of its engine is given to an instance."""

_AGENT_ORDER = (
    Phase.ASSIGNED,
    Phase.PULLING,
    Phase.STARTING,
    Phase.RUNNING,
    Phase.STOPPED,
    Phase.FAILED,
    Phase.REJECTED,
    Phase.REMOVED,
)
WRITERS: dict[tuple[Phase | None, Phase], Writer] = {
    (None, Phase.PENDING): "orchestrator",
    (Phase.PENDING, Phase.ASSIGNED): "scheduler",
    (Phase.PENDING, Phase.REMOVED): "collector",  # never reached a node
    **{(a, b): "agent" for a in _AGENT_ORDER[:-1] for b in _AGENT_ORDER[1:] if b > a},
}
"""(from, to) → the only writer. A node may skip phases, it never goes back within an attempt. The collector also ends what a
node can no longer end itself: see `coordinator.control.collector`."""


def may_write(writer: Writer, old: Phase | None, new: Phase) -> bool:
    return WRITERS.get((old, new)) == writer


def supersedes(old: tuple[int, Phase], new: tuple[int, Phase]) -> bool:
    """Whether a report at `new` = (attempt, phase) may replace what is known at `old`: never backwards, equal is an update in
    place (health, ports, progress), and only removal follows a terminal phase of the last attempt."""
    if old[1] is Phase.REMOVED:
        return False
    return new >= old


class InstanceVolume(Struct, frozen=True, omit_defaults=True):
    """`source` is an engine volume name, or with `host` a path on the node."""

    source: str
    target: str
    host: bool = False
    read_only: bool = False


class InstanceSpec(Struct, frozen=True, omit_defaults=True):
    """A template resolved for one instance. `sealed` holds `InstanceSecrets`, sealed to the node's key with the instance's id as
    context, so that a relay or a disk never sees them. Bytes and thousandths of a processor; seconds."""

    image: str
    command: list[str] = field(default_factory=list)
    env: list[EnvVar] = field(default_factory=list)
    sealed: bytes = b""
    ports: list[Port] = field(default_factory=list)
    cpu_millis: int | None = None
    memory_bytes: int | None = None
    health_check: HealthCheck | None = None
    volumes: list[InstanceVolume] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    restart_policy: RestartPolicy = "always"
    stop_grace_period: int = 10
    security: Security = field(default_factory=Security)


class InstanceSecrets(Struct, frozen=True, omit_defaults=True):
    """The plaintext inside `InstanceSpec.sealed`, as MessagePack."""

    env: dict[str, str] = field(default_factory=dict)
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return "InstanceSecrets(…)"


class Assignment(Struct, frozen=True, omit_defaults=True):
    """One instance a node is responsible for. With the goal `remove` it is a tombstone: the explicit order without which
    nothing is ever removed, and `spec` may be absent. `remove_volumes`: its named volumes go too."""

    instance_id: str
    container_id: str
    container_name: str
    slot: int
    revision: int
    spec_hash: str
    goal: Goal = "run"
    spec: InstanceSpec | None = None
    remove_volumes: list[str] = field(default_factory=list)


class PortBinding(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Where a port of the instance can be reached: the node's own address and the host port the engine bound."""

    port: int
    host_port: int
    address: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"


class InstanceReport(Struct, frozen=True, omit_defaults=True):
    """What a node observed, complete each time: the latest report per instance is all there is to know.

    `attempt` counts from 1, `restarts` those the node made by itself. `image_digest`: what the engine resolved the image to.
    `progress`: bytes pulled of bytes known so far, or None. Times are Unix seconds of the node's clock.
    """

    instance_id: str
    attempt: int
    phase: Phase
    health: Health = "unknown"
    reason: Reason | None = None
    ports: list[PortBinding] = field(default_factory=list)
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    image_digest: str = ""
    progress: tuple[int, int] | None = None

    @property
    def restarts(self) -> int:
        return max(0, self.attempt - 1)
