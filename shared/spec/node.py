"""A node: what it is (facts it reports), what it may take (availability), and whether its engine answers."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from shared.spec.container import Labels
from shared.spec.reason import Reason

Availability = Literal["active", "cordoned", "draining", "drained"]
Role = Literal["manager", "worker"]

ShortText = Annotated[str, Meta(max_length=256)]


class Engine(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """`reason` is set when the engine does not answer; what ran is then assumed to run still."""

    name: ShortText = "docker"
    version: ShortText = ""
    api_version: ShortText = ""
    reason: Reason | None = None


class NodeFacts(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Observed by the agent, sent in `hello` and whenever they change. `platform` is `linux/amd64` and the like; `disk_free`
    is what is left where the engine keeps its images and volumes. `boot_id` changes with each boot of the machine."""

    hostname: ShortText = ""
    address: ShortText = ""
    platform: ShortText = ""
    kernel: ShortText = ""
    cpu_millis: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    memory_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 0
    disk_bytes: Annotated[int, Meta(ge=0, le=2**60)] = 0
    disk_free: Annotated[int, Meta(ge=0, le=2**60)] = 0
    agent_version: ShortText = ""
    boot_id: ShortText = ""
    labels: Labels = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)


class HostSample(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One reading of the whole machine: `cpu` is processors in use (1.0 is one core), bytes otherwise."""

    at: float
    cpu: float
    memory_used: int
    memory_total: int
    disk_free: int
    load1: float = 0.0


class InstanceSample(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One reading of one instance: `cpu` is processors in use since the last reading; network and block IO are totals since the
    engine container started, in bytes."""

    instance_id: str
    at: float
    cpu: float
    memory: int
    memory_limit: int = 0
    net_rx: int = 0
    net_tx: int = 0
    block_read: int = 0
    block_write: int = 0
