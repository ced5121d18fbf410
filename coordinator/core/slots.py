"""A container as its orchestration sees it: N slots, and in each the instances by the part they play.

Everything that fills, replaces or explains works on this one arrangement, so that the orchestrator, a rollout and a status can
never disagree about which slot is served. The parts of an instance with the goal `run`:

* incoming: lives, is of the revision in force and may stay where it is: what the slot should hold, the best first;
* outgoing: lives, but is of another revision or has to leave its node: it serves until an incoming one does;
* astray: its node is lost. It may run or not, so it neither serves nor holds; it is recorded until its node says more;
* spent: ended. The newest one says why the slot is empty and how long to wait.

An instance with another goal is leaving; until its node reports that it is gone it may still hold volumes and ports.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.spec.container import RestartPolicy, Strategy, Template
from shared.spec.instance import TERMINAL, Goal, Health, Phase
from shared.spec.reason import Reason

DesiredState = Literal["running", "stopped", "removed"]


@dataclass(frozen=True, slots=True)
class InstanceView:
    """`created_at` and `updated_at` are the coordinator's time; `started_at` and `finished_at` the node's, to be compared with
    each other only. `evict`: its node is to be emptied. `failures`: how many in a row failed before it in its slot."""

    id: str
    slot: int
    revision: int
    goal: Goal = "run"
    phase: Phase = Phase.PENDING
    health: Health = "unknown"
    attempt: int = 0
    reason: Reason | None = None
    deployment_id: str | None = None
    node_id: str | None = None
    failures: int = 0
    avoid_nodes: tuple[str, ...] = ()
    lost: bool = False
    evict: bool = False
    removes_volumes: bool = False
    exit_code: int | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def ended(self) -> bool:
        return self.phase in TERMINAL

    @property
    def restarts(self) -> int:
        return max(0, self.attempt - 1)

    @property
    def ready(self) -> bool:
        """Serves, as far as anybody can know."""
        return self.goal == "run" and self.phase is Phase.RUNNING and self.health == "healthy" and not self.lost

    @property
    def unheard(self) -> bool:
        """Ran when its node was lost; the node is back, and its report, which decides which copy stays, is on the way."""
        return self.phase is Phase.RUNNING and self.health == "unknown" and not self.lost

    @property
    def holding(self) -> bool:
        """Its engine container may exist and run on a node that is heard of."""
        return not self.ended and self.phase is not Phase.PENDING and not self.lost


@dataclass(frozen=True, slots=True)
class Target:
    """A release as orchestration needs it. `exclusive`: a slot never holds two, not even for a moment. `homed`: its slots have
    volumes, which stay on the node where they were made. `host_ports`: two of them cannot share a node."""

    revision: int
    strategy: Strategy = field(default_factory=Strategy)
    restart_policy: RestartPolicy = "always"
    exclusive: bool = False
    homed: bool = False
    host_ports: bool = False

    @classmethod
    def of(cls, revision: int, template: Template) -> "Target":
        homed = any(volume.host_path is None for volume in template.volumes)
        return cls(
            revision=revision,
            strategy=template.strategy,
            restart_policy=template.restart_policy,
            exclusive=homed or template.type == "statefulset",
            homed=homed,
            host_ports=any(port.host_port is not None for port in template.ports),
        )


@dataclass(frozen=True, slots=True)
class ContainerView:
    """`target`: the release in force. `homes`: slot → the node its volumes are on. `shut`: nodes that take no new instance, of
    those that are somebody's home → why, as an adjective ("lost", "cordoned", "draining", "drained"). `waiting`: what the plan
    before this one said of slots that wait."""

    replicas: int
    desired: DesiredState = "running"
    target: Target | None = None
    instances: tuple[InstanceView, ...] = ()
    homes: Mapping[int, str] = field(default_factory=dict)
    shut: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[int, Reason] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreateInstance:
    slot: int
    revision: int
    failures: int = 0
    prefer_node: str | None = None
    avoid_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retire:
    """`why` is for the record: logs and events."""

    instance_id: str
    goal: Literal["stop", "remove"]
    why: str
    with_volumes: bool = False


Command = CreateInstance | Retire


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, when to look again without being woken, and why slots without a live instance have none."""

    commands: tuple[Command, ...] = ()
    wake_at: float | None = None
    waiting: Mapping[int, Reason] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slot:
    index: int
    target: Target
    incoming: tuple[InstanceView, ...] = ()
    outgoing: tuple[InstanceView, ...] = ()
    astray: tuple[InstanceView, ...] = ()
    spent: tuple[InstanceView, ...] = ()
    leaving: tuple[InstanceView, ...] = ()
    home: str | None = None
    shut: str | None = None
    """Why the slot's home takes no new instance, as an adjective."""

    @property
    def ready(self) -> bool:
        return bool(self.incoming) and self.incoming[0].ready

    @property
    def done(self) -> bool:
        """Ran to its end, and its restart policy leaves it so."""
        last = self.last
        return not self.incoming and last is not None and is_done(last, self.target.restart_policy)

    @property
    def settled(self) -> bool:
        return self.ready or self.done

    @property
    def covered(self) -> bool:
        """Served by whatever revision."""
        return self.settled or (bool(self.outgoing) and self.outgoing[0].ready)

    @property
    def doubled(self) -> bool:
        """Holds two, for as long as the incoming one is not ready: what is superfluous beyond that goes at once."""
        return bool(self.incoming and self.outgoing) and not self.settled

    @property
    def last(self) -> InstanceView | None:
        """The newest of the revision in force that ended."""
        return next((each for each in self.spent if each.revision == self.target.revision), None)

    @property
    def held(self) -> bool:
        """Something that is on its way out may still use the slot's volumes and ports."""
        return any(each.holding for each in self.leaving)


def arrange(view: ContainerView, target: Target) -> list[Slot]:
    """The declared slots, in order. Instances of slots beyond them are in none."""
    parts: list[dict[str, list[InstanceView]]] = [{} for _ in range(view.replicas)]
    for instance in view.instances:
        if instance.slot < view.replicas and instance.phase is not Phase.REMOVED:
            part = _part(instance, target, view.homes.get(instance.slot))
            parts[instance.slot].setdefault(part, []).append(instance)
    return [_slot(index, part, view, target) for index, part in enumerate(parts)]


def _slot(index: int, parts: Mapping[str, list[InstanceView]], view: ContainerView, target: Target) -> Slot:
    home = view.homes.get(index) if target.homed else None
    return Slot(
        index=index,
        target=target,
        incoming=_best_first(parts.get("incoming", ())),
        outgoing=_best_first(parts.get("outgoing", ())),
        astray=_best_first(parts.get("astray", ())),
        spent=tuple(sorted(parts.get("spent", ()), key=lambda each: (-each.created_at, each.id))),
        leaving=tuple(sorted(parts.get("leaving", ()), key=lambda each: each.id)),
        home=home,
        shut=view.shut.get(home) if home is not None else None,
    )


def is_done(instance: InstanceView, policy: RestartPolicy) -> bool:
    """Whether an instance that ended by itself is to stay as it is. One that never ran (`rejected`) has not done anything."""
    match policy:
        case "always":
            return False
        case "on-failure":
            return instance.phase is Phase.STOPPED and not instance.exit_code
        case "never":
            return instance.phase in (Phase.STOPPED, Phase.FAILED)


def _part(instance: InstanceView, target: Target, home: str | None) -> str:
    if instance.goal != "run":
        return "leaving"
    if instance.ended:
        return "spent"
    if instance.lost:
        return "astray"
    # What its volumes keep on its node cannot be moved; the drain explains that.
    leaves_node = instance.evict and not (target.homed and home == instance.node_id)
    return "outgoing" if instance.revision != target.revision or leaves_node else "incoming"


def _best_first(instances: Iterable[InstanceView]) -> tuple[InstanceView, ...]:
    """The one to keep first: it serves, or is nearest to serving; of two equal ones the older, whose start is proven."""
    return tuple(sorted(instances, key=_rank))


def _rank(instance: InstanceView) -> tuple[bool, bool, int, float, str]:
    unhealthy = instance.health == "unhealthy"
    return not instance.ready, unhealthy, -instance.phase, instance.created_at, instance.id
