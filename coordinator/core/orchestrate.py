"""What a container's slots need now, whatever happened before: fill, replace, move, retire.

The plan is made from what is stored and from nothing else, so a lost, late or repeated fact cannot mislead it and a plan cut in
half is simply made again. Two promises hold for every command here, and the property tests check both against a world that
crashes and vanishes at will:

* an instance that serves is retired only when its slot is served otherwise, or within `max_unavailable`;
* a slot gets a second instance only within `max_surge`.

`converge` is all of it for a container that runs; a rollout calls the same function with `replaces=True`, which lets it also move
slots from other revisions to the one in force. Without it they are left alone: after a failed rollback both sides stay.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from coordinator.core.slots import (
    Command,
    ContainerView,
    CreateInstance,
    InstanceView,
    Plan,
    Retire,
    Slot,
    Target,
    arrange,
)
from shared.spec.instance import Phase
from shared.spec.reason import (
    DISK_FULL,
    NODE_LOST,
    POLICY_REFUSED,
    PORT_TAKEN,
    UNPLACED,
    WAITING_PREVIOUS,
    Reason,
)

BACKOFF_CEILING = 300.0
HELD_SECONDS = 60.0
"""An instance that ran this long before it ended starts the count of failures in a row anew."""
NODE_LOCAL = frozenset({DISK_FULL, POLICY_REFUSED, PORT_TAKEN})
"""Why one node rejects what another may run."""


def orchestrate(view: ContainerView, now: float) -> Plan:
    match view.desired:
        case "removed":
            return Plan(tuple(_remove_all(view.instances)))
        case "stopped":
            return Plan((*_surplus(view), *_stop_all(view)))
        case "running":
            return Plan() if view.target is None else converge(view, view.target, now, replaces=False)
        case never:
            assert_never(never)


def converge(view: ContainerView, target: Target, now: float, *, replaces: bool) -> Plan:
    slots = arrange(view, target)
    draft = _Draft(now, view)
    draft.commands += _surplus(view)
    for slot in slots:
        draft.commands += _tidy(slot)
    recreates = replaces and target.strategy.type == "recreate"
    if recreates:
        draft.commands += _clear(slots, target)
    frozen = recreates and any(each.holding and each.revision != target.revision for each in view.instances)
    empty = [slot for slot in slots if not (slot.settled or slot.incoming or slot.outgoing)]
    for slot in empty:
        draft.fill(slot, frozen=frozen)
    for slot in slots:
        draft.forgive(slot)
    if not recreates:
        movable = [slot for slot in slots if _moves(slot, replaces=replaces)]
        begun = sum(1 for each in draft.commands if isinstance(each, CreateInstance))
        _Moves(slots, target, in_flight=len(empty) if target.exclusive else begun).make(movable, draft)
    return Plan(tuple(draft.commands), draft.wake_at, draft.waiting)


def streak(last: InstanceView) -> int:
    """Failures in a row up to and including this one."""
    if last.started_at is None or last.finished_at is None or last.finished_at - last.started_at < HELD_SECONDS:
        return last.failures + 1
    return 1


def backoff(failures: int) -> float:
    """Seconds before the next instance after so many failures in a row."""
    return min(2.0 ** min(failures - 1, 16), BACKOFF_CEILING)


@dataclass
class _Draft:
    """A plan in the making."""

    now: float
    view: ContainerView
    commands: list[Command] = field(default_factory=list)
    waiting: dict[int, Reason] = field(default_factory=dict)
    wake_at: float | None = None

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def wait(self, slot: Slot, reason: Reason) -> None:
        self.waiting[slot.index] = reason
        if reason.next_at is not None:
            self.wake(reason.next_at)

    def fill(self, slot: Slot, *, frozen: bool) -> None:
        if slot.shut is not None:
            self.wait(slot, _shut(slot))
        elif frozen:
            self.wait(slot, Reason(WAITING_PREVIOUS, "instances of the previous release are still stopping"))
        elif slot.target.exclusive and slot.held:
            self.wait(slot, Reason(WAITING_PREVIOUS, "the slot's previous instance is still stopping"))
        elif self.may_create(slot):
            self.commands.append(_create(slot))

    def may_create(self, slot: Slot) -> bool:
        """Whether the slot's backoff is over; if not, that is noted."""
        last = slot.last
        if last is None:
            return True
        at = last.updated_at + backoff(streak(last))
        stored = self.view.waiting.get(slot.index)
        if stored is not None and stored.code == WAITING_PREVIOUS and stored.next_at is not None:
            at = min(at, stored.next_at)  # a report that is merely repeated touches the row, not the wait
        if self.now >= at:
            return True
        self.wait(slot, Reason(WAITING_PREVIOUS, _ending(last), next_at=at))
        return False

    def forgive(self, slot: Slot) -> None:
        """A node that rejected is avoided for one backoff only: when no other admits the slot, it is asked again."""
        pending = slot.incoming[0] if slot.incoming else None
        if pending is None or not pending.avoid_nodes or not is_unplaced(pending):
            return
        at = pending.created_at + backoff(max(1, pending.failures))
        if self.now < at:
            self.wake(at)
            return
        self.commands.append(Retire(pending.id, "remove", "no other node admits it"))
        self.commands.append(CreateInstance(slot.index, slot.target.revision, failures=pending.failures))


class _Moves:
    """Takes slots from outgoing instances to incoming ones, within what the strategy allows at once."""

    def __init__(self, slots: Sequence[Slot], target: Target, in_flight: int) -> None:
        strategy = target.strategy
        self._slots = slots
        self._target = target
        self._unavailable = strategy.max_unavailable
        # A recreating release still surges when a single node is emptied.
        self._surge = strategy.max_surge or (0 if strategy.max_unavailable else 1)
        # One that is in trouble already must not keep the others from leaving a node, or from going back.
        on_its_way = (slot.incoming and not slot.ready and slot.incoming[0].health != "unhealthy" for slot in slots)
        self._in_flight = in_flight + sum(map(bool, on_its_way))
        self._doubled = sum(1 for slot in slots if slot.doubled)
        self._uncovered = sum(1 for slot in slots if not slot.covered)

    def make(self, movable: Iterable[Slot], draft: _Draft) -> None:
        if self._target.host_ports:
            draft.commands += self._yield_ports()
        for slot in sorted(movable, key=lambda slot: (slot.covered, slot.index)):
            if not self._move(slot, draft):
                break

    def _move(self, slot: Slot, draft: _Draft) -> bool:
        if slot.shut is not None:
            return True
        if self._target.exclusive:
            return self._empty_first(slot, draft)
        if self._in_flight >= max(1, self._surge + self._unavailable):
            return False
        retires = not slot.covered or self._doubled >= self._surge
        if slot.covered and retires and self._uncovered >= self._unavailable:
            return False
        if not draft.may_create(slot):
            return True
        if retires:
            self._uncovered += slot.covered
            draft.commands += _retire(slot.outgoing, "makes room for its replacement")
        else:
            self._doubled += 1
        self._in_flight += 1
        draft.commands.append(_create(slot))
        return True

    def _empty_first(self, slot: Slot, draft: _Draft) -> bool:
        """An exclusive slot is emptied, and filled when nothing holds it any more; never two slots at once."""
        if self._in_flight or (slot.covered and self._uncovered):
            return False
        if draft.may_create(slot):
            draft.commands += _retire(slot.outgoing, "makes room for its replacement")
        return False

    def _yield_ports(self) -> Iterator[Command]:
        """Where the only node left for the replacement is the one that the slot still occupies, the slot goes first."""
        for slot in self._slots:
            if not (slot.incoming and slot.outgoing and _lacks_port(slot.incoming[0])) or slot.outgoing[0].evict:
                continue
            if not slot.covered or self._uncovered < max(1, self._unavailable):
                self._uncovered += slot.covered
                yield from _retire(slot.outgoing, "makes its host port free for its replacement")


def _moves(slot: Slot, *, replaces: bool) -> bool:
    if slot.incoming or slot.settled or not slot.outgoing:
        return False
    return replaces or slot.outgoing[0].evict


def _tidy(slot: Slot) -> Iterator[Command]:
    """Everything in the slot that something better has made needless."""
    yield from _retire((each for each in slot.incoming[1:] if not each.unheard), "another instance fills its slot")
    if slot.settled:
        yield from _retire(slot.outgoing, "replaced")
        yield from _retire((each for each in slot.astray if each.revision != slot.target.revision), "replaced")
        yield from _retire((each for each in slot.spent if slot.ready or each is not slot.last), "replaced")
    else:
        yield from _retire(slot.outgoing[1:], "another instance serves its slot")
        superfluous = (each for each in slot.spent if each is not slot.last and (slot.incoming or slot.last))
        yield from _retire(superfluous, "replaced")
    for each in slot.leaving:
        if each.goal == "stop":
            yield Retire(each.id, "remove", "the container was started again")


def _clear(slots: Iterable[Slot], target: Target) -> Iterator[Command]:
    """What a recreating rollout ends before it begins. Slots that are settled were tidied already."""
    for slot in slots:
        if not slot.settled:
            old = [each for each in (*slot.outgoing[:1], *slot.astray) if each.revision != target.revision]
            yield from _retire(old, "the strategy is to recreate")


def _surplus(view: ContainerView) -> Iterator[Command]:
    beyond = (each for each in view.instances if each.slot >= view.replicas and each.phase is not Phase.REMOVED)
    yield from _retire((each for each in beyond if each.goal != "remove"), "scaled down")


def _stop_all(view: ContainerView) -> Iterator[Command]:
    for each in view.instances:
        if each.goal != "run" or each.slot >= view.replicas or each.phase is Phase.REMOVED:
            continue
        # One that no node was told of has nothing to keep.
        yield Retire(each.id, "remove" if each.phase is Phase.PENDING else "stop", "the container was stopped")


def _remove_all(instances: Iterable[InstanceView]) -> Iterator[Command]:
    for each in instances:
        if each.phase is not Phase.REMOVED and not (each.goal == "remove" and each.removes_volumes):
            yield Retire(each.id, "remove", "the container is removed", with_volumes=True)


def _retire(instances: Iterable[InstanceView], why: str) -> Iterator[Retire]:
    return (Retire(each.id, "remove", why) for each in instances)


def _create(slot: Slot) -> CreateInstance:
    last = slot.last
    avoid: set[str] = set()
    if last is not None and last.phase is Phase.REJECTED and last.reason is not None and last.reason.code in NODE_LOCAL:
        avoid = {*last.avoid_nodes, last.node_id or ""} - {""}
    before = (*slot.outgoing[:1], *slot.leaving[-1:], *slot.spent[:1])
    prefer = next((each.node_id for each in before if each.node_id is not None and not each.evict), None)
    return CreateInstance(
        slot=slot.index,
        revision=slot.target.revision,
        failures=streak(last) if last is not None else 0,
        prefer_node=None if prefer in avoid else prefer,
        avoid_nodes=tuple(sorted(avoid)),
    )


def is_unplaced(instance: InstanceView) -> bool:
    return instance.phase is Phase.PENDING and instance.reason is not None and instance.reason.code == UNPLACED


def _lacks_port(instance: InstanceView) -> bool:
    # The words are those of `filters.HostPorts.explain`; a test keeps the two together.
    return is_unplaced(instance) and instance.reason is not None and "host port" in instance.reason.message


def _shut(slot: Slot) -> Reason:
    code = NODE_LOST if slot.shut == "lost" else UNPLACED
    return Reason(code, f"its volumes are on node {slot.home}, which is {slot.shut}")


def _ending(last: InstanceView) -> str:
    if last.reason is not None:
        return last.reason.message
    return f"its last instance {last.phase.word}"
