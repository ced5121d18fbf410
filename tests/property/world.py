"""A small world for orchestration to act on: instances that are placed, start, crash, vanish with their nodes and come back.

Everything in it happens in whatever order hypothesis likes; the only rules are those that real nodes keep: phases only grow within
an attempt, a tombstone ends in `removed`, an ended instance does not start again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from coordinator.core.slots import Command, ContainerView, CreateInstance, InstanceView, Retire, Target
from shared.spec.instance import Phase
from shared.spec.reason import EXITED, IMAGE_NOT_FOUND, PORT_TAKEN, UNPLACED, Reason

NODES = ("n0", "n1", "n2", "n3")
_NEXT = {
    Phase.ASSIGNED: Phase.PULLING,
    Phase.PULLING: Phase.STARTING,
    Phase.STARTING: Phase.RUNNING,
}
Happening = tuple[str, int]

BENIGN = ("place", "advance", "heal", "end_leaving", "tick", "proceed", "proceed", "act", "act", "act")
HARMFUL = ("crash", "sicken", "reject", "reject_locally", "lose", "find", "drain", "open", "unplace", "scale")


def happenings(*names: str) -> st.SearchStrategy[list[Happening]]:
    one = st.tuples(st.sampled_from(names), st.integers(0, 11))
    return st.lists(one, min_size=5, max_size=60)


@dataclass
class World:
    view: ContainerView
    deployment_id: str = "dep_1"
    now: float = 1000.0
    made: int = 0
    lost: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    """Revisions that never get healthy."""

    @property
    def instances(self) -> tuple[InstanceView, ...]:
        return self.view.instances

    def apply(self, commands: Iterable[Command], waiting: Mapping[int, Reason] | None = None) -> None:
        for command in commands:
            match command:
                case CreateInstance():
                    self._create(command)
                case Retire(instance_id=instance_id, goal=goal, with_volumes=volumes):
                    for each in self.instances:
                        if each.id == instance_id and each.goal != "remove":
                            self._retire(each, goal, volumes=volumes)
        if waiting is not None:
            self.view = replace(self.view, waiting=dict(waiting))

    def happen(self, name: str, index: int) -> None:
        actions: dict[str, Callable[[int], None]] = {
            "place": self._place,
            "advance": self._advance,
            "heal": self._heal,
            "crash": self._crash,
            "sicken": self._sicken,
            "reject": lambda at: self._reject(at, IMAGE_NOT_FOUND),
            "reject_locally": lambda at: self._reject(at, PORT_TAKEN),
            "end_leaving": self._end_leaving,
            "lose": lambda at: self.lost.add(NODES[at % len(NODES)]),
            "find": lambda at: self.lost.discard(NODES[at % len(NODES)]),
            "drain": lambda at: self.draining.add(NODES[at % len(NODES)]),
            "open": lambda at: self.draining.discard(NODES[at % len(NODES)]),
            "unplace": self._unplace,
            "scale": self._scale,
            "tick": self._tick,
            "proceed": lambda at: self.proceed(),
        }
        actions[name](index)
        self._mark()

    def calm(self) -> None:
        """Nothing bad is left: nodes are back, and what tries succeeds."""
        self.lost.clear()
        self.draining.clear()
        self._mark()

    def proceed(self) -> None:
        """Everything that can get ahead by itself does, one step."""
        self.now += 1.0
        for _ in range(len(self.instances)):
            self._place(0)
        for at in range(len(self.instances) * 2):
            self._advance(at)
        heard = [each for each in self.instances if each.node_id not in self.lost]
        for each in [each for each in heard if each.goal == "remove"]:
            self._put(each, phase=Phase.REMOVED, health="unknown")
        for each in [each for each in heard if each.goal == "stop" and not each.ended]:
            self._put(each, phase=Phase.STOPPED, health="unknown")
        for each in [each for each in heard if each.goal == "run" and each.phase is Phase.RUNNING]:
            if each.revision not in self.bad:
                self._put(each, health="healthy", reason=None)
            else:
                self._put(each, health="unhealthy")
        self._mark()

    def _create(self, command: CreateInstance) -> None:
        self.made += 1
        made = InstanceView(
            id=f"ins_{self.made:03}",
            slot=command.slot,
            revision=command.revision,
            failures=command.failures,
            avoid_nodes=command.avoid_nodes,
            deployment_id=self.deployment_id,
            created_at=self.now,
            updated_at=self.now,
        )
        self.view = replace(self.view, instances=(*self.instances, made))

    def _retire(self, each: InstanceView, goal: str, *, volumes: bool) -> None:
        if goal == "remove" and each.node_id is None:
            self._put(each, goal="remove", phase=Phase.REMOVED)
        else:
            self._put(each, goal=goal, removes_volumes=volumes)

    def _put(self, each: InstanceView, **changes: object) -> None:
        changed = replace(each, **{"updated_at": self.now, **changes})  # type: ignore[arg-type]
        self.view = replace(self.view, instances=tuple(changed if one.id == each.id else one for one in self.instances))

    def _pick(self, index: int, *phases: Phase, goal: str = "run") -> InstanceView | None:
        """One that its node can speak of: a lost node reports nothing."""
        found = [
            each
            for each in self.instances
            if each.phase in phases and each.goal == goal and each.node_id not in self.lost
        ]
        return found[index % len(found)] if found else None

    def _place(self, index: int) -> None:
        each = self._pick(index, Phase.PENDING)
        if each is None:
            return
        open_nodes = [node for node in NODES if node not in self.lost | self.draining | set(each.avoid_nodes)]
        home = self.view.homes.get(each.slot)
        if home is not None:
            open_nodes = [home] if home in open_nodes else []
        if not open_nodes:
            self._put(each, reason=Reason(UNPLACED, "no node"))
            return
        node = open_nodes[(index + self.made) % len(open_nodes)]
        self._put(each, phase=Phase.ASSIGNED, node_id=node, attempt=0, reason=None)
        target = self.view.target
        if target is not None and target.homed:
            self.view = replace(self.view, homes={**self.view.homes, each.slot: node})

    def _advance(self, index: int) -> None:
        each = self._pick(index, *_NEXT)
        if each is not None:
            phase = _NEXT[each.phase]
            started = self.now if phase is Phase.RUNNING else each.started_at
            self._put(each, phase=phase, attempt=max(1, each.attempt), started_at=started, health="starting")

    def _heal(self, index: int) -> None:
        each = self._pick(index, Phase.RUNNING)
        if each is not None and each.revision not in self.bad:
            self._put(each, health="healthy", reason=None)

    def _sicken(self, index: int) -> None:
        each = self._pick(index, Phase.RUNNING)
        if each is not None:
            self._put(each, health="unhealthy")

    def _crash(self, index: int) -> None:
        """Its node starts it again by itself."""
        each = self._pick(index, Phase.RUNNING)
        if each is not None:
            reason = Reason(EXITED, "exited with code 1", self.now + 1)
            self._put(each, phase=Phase.STARTING, attempt=each.attempt + 1, health="unhealthy", reason=reason)

    def _reject(self, index: int, code: str) -> None:
        each = self._pick(index, Phase.ASSIGNED, Phase.PULLING, Phase.STARTING)
        if each is not None and each.attempt <= 1 and each.started_at is None:
            self._put(each, phase=Phase.REJECTED, health="unknown", reason=Reason(code, "refused"))

    def _end_leaving(self, index: int) -> None:
        for goal, phase in (("remove", Phase.REMOVED), ("stop", Phase.STOPPED)):
            each = self._pick(
                index, Phase.ASSIGNED, Phase.PULLING, Phase.STARTING, Phase.RUNNING, Phase.REJECTED, goal=goal
            )
            if each is not None:
                self._put(each, phase=phase, health="unknown")

    def _unplace(self, index: int) -> None:
        each = self._pick(index, Phase.PENDING)
        if each is not None:
            self._put(each, reason=Reason(UNPLACED, "3 of 4 nodes have the host port 80/tcp taken"))

    def _scale(self, index: int) -> None:
        self.view = replace(self.view, replicas=index % 5)

    def _tick(self, index: int) -> None:
        self.now += (0.5, 1.0, 3.0, 20.0)[index % 4]

    def _mark(self) -> None:
        marked = tuple(self._seen(each) for each in self.instances)
        shut = dict.fromkeys(self.draining, "draining") | dict.fromkeys(self.lost, "lost")
        self.view = replace(self.view, instances=marked, shut=shut)

    def _seen(self, each: InstanceView) -> InstanceView:
        lost = each.node_id in self.lost and not each.ended
        health = "unknown" if lost else each.health  # and it stays so until the node, back again, has reported
        return replace(each, lost=lost, health=health, evict=each.node_id in self.draining)


def ready_slots(view: ContainerView) -> set[int]:
    return {each.slot for each in view.instances if each.ready and each.slot < view.replicas}


def doubled_slots(view: ContainerView) -> set[int]:
    counts: dict[int, int] = {}
    for each in counted(view):
        counts[each.slot] = counts.get(each.slot, 0) + 1
    return {slot for slot, count in counts.items() if count > 1}


def counted(view: ContainerView) -> list[InstanceView]:
    """What runs or is to run, as far as is known."""
    return [
        each
        for each in view.instances
        if each.goal == "run" and not each.ended and not each.lost and each.slot < view.replicas
    ]


def steady(revision: int, replicas: int) -> tuple[InstanceView, ...]:
    """What an earlier deployment left behind: every slot healthy."""
    return tuple(
        InstanceView(
            id=f"old_{slot}",
            slot=slot,
            revision=revision,
            phase=Phase.RUNNING,
            health="healthy",
            attempt=1,
            deployment_id="dep_0",
            node_id=NODES[slot % len(NODES)],
            created_at=10.0 + slot,
            updated_at=10.0 + slot,
            started_at=10.0,
        )
        for slot in range(replicas)
    )


def assert_one_per_slot(view: ContainerView, target: Target) -> None:
    alive = [each for each in view.instances if not each.ended]
    assert sorted(each.slot for each in alive) == list(range(view.replicas)), alive
    assert all(each.ready and each.revision == target.revision for each in alive), alive


def floor(target: Target, replicas: int) -> int:
    """How many slots must stay served, as far as commands have a say."""
    unavailable = target.strategy.max_unavailable
    if target.exclusive:
        unavailable = 1
    elif target.host_ports:
        unavailable = max(1, unavailable)
    return max(0, replicas - unavailable)


def surge(target: Target) -> int:
    return target.strategy.max_surge or (0 if target.strategy.max_unavailable else 1)


def prefixes(commands: Sequence[Command]) -> Iterable[Sequence[Command]]:
    """A crash may let any first part of a plan take effect."""
    return (commands[:count] for count in range(len(commands) + 1))
