"""`diff`: from what is wanted, what is there and what is remembered, the next step of every instance.

One step for each instance and never two: after every step the question is asked again with what the step brought about, so a
change of mind, a killed agent or an engine that did something else needs no case of its own. Absence decides nothing here:
what is in no assignment is not looked at, and only a tombstone (goal `remove`) takes anything away.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from msgspec.structs import replace

from agent.core import restart
from agent.core.absorb import absorb, unchanged
from agent.core.actions import Action, Create, Pull, Remove, RemoveVolume, Start, Stop
from agent.core.history import FRESH, History, ended_for_good, turned
from agent.core.observe import Observed
from shared.spec.instance import Assignment, InstanceSpec, Phase
from shared.spec.reason import INVALID, STOPPED, Reason

DEFAULT_GRACE = 10
IMPATIENCE = 3
"""Failed stops after which a tombstone takes the engine container away running."""


@dataclass(frozen=True)
class Desired:
    """`known` False: no set was ever received or read back, which is not the same as an empty one."""

    known: bool
    assignments: Mapping[str, Assignment]

    def only(self, instance_ids: Iterable[str]) -> "Desired":
        every = self.assignments
        return Desired(self.known, {name: every[name] for name in instance_ids if name in every})


@dataclass(frozen=True)
class Plan:
    """`history`: the records that changed by looking. `wakes`: instances that only wait, and until when."""

    actions: tuple[Action, ...] = ()
    history: Mapping[str, History] = field(default_factory=dict)
    wakes: Mapping[str, float] = field(default_factory=dict)

    @property
    def wake_at(self) -> float | None:
        return min(self.wakes.values(), default=None)


@dataclass(frozen=True)
class Step:
    history: History
    action: Action | None = None
    wake_at: float | None = None


def diff(
    desired: Desired,
    observed: Mapping[str, Observed],
    history: Mapping[str, History],
    now: float,
    busy: Collection[str] = frozenset(),
) -> Plan:
    """`busy`: instances with an action in flight; they are left alone until it is done. `now`: Unix seconds."""
    if not desired.known:
        return Plan()
    actions: list[Action] = []
    changed: dict[str, History] = {}
    wakes: dict[str, float] = {}
    for name, assignment in sorted(desired.assignments.items(), key=_by_name):
        seen, record = observed.get(name), history.get(name, FRESH)
        # What is to run waits until it is properly looked at: judged by a listing alone it would be counted as restarted or
        # crashed. What is to end needs no more than its id and its state.
        if name in busy or (assignment.goal == "run" and seen is not None and (seen.vague or unchanged(seen, record))):
            continue
        step = decide(assignment, seen, record, now)
        if step.history != record:
            changed[name] = step.history
        if step.action is not None:
            actions.append(step.action)
        if step.wake_at is not None:
            wakes[name] = step.wake_at
    return Plan(tuple(actions), changed, wakes)


def decide(assignment: Assignment, observed: Observed | None, history: History, now: float) -> Step:
    history = absorb(assignment, observed, turned(history, assignment.goal), now)
    match assignment.goal:
        case "run":
            return _run(assignment, observed, history, now)
        case "stop":
            return _stop(assignment, observed, history, now)
        case "remove":
            return _remove(assignment, observed, history, now)
        case _:
            assert_never(assignment.goal)


def _run(assignment: Assignment, observed: Observed | None, history: History, now: float) -> Step:
    if history.over:
        return Step(history)
    if assignment.spec is None:
        reason = Reason(INVALID, "the assignment says nothing about what to run")
        return Step(ended_for_good(history, Phase.REJECTED, reason))
    action = _towards_running(assignment, assignment.spec, observed, history)
    return _when_due(history, action, now)


def _towards_running(
    assignment: Assignment, spec: InstanceSpec, observed: Observed | None, history: History
) -> Action | None:
    name = assignment.instance_id
    if observed is None:
        return Create(name, spec, assignment) if history.image_ready else Pull(name, spec, assignment)
    match observed.state:
        case "running":
            return None if history.condemned is None else Stop(name, observed.engine_id, spec.stop_grace_period)
        case "created" | "exited":
            return Start(name, spec, observed.engine_id)
        case "dead":
            return Remove(name, observed.engine_id)


def _stop(assignment: Assignment, observed: Observed | None, history: History, now: float) -> Step:
    if observed is not None and observed.state == "running":
        return _when_due(history, Stop(assignment.instance_id, observed.engine_id, _grace(assignment)), now)
    if history.over:
        return Step(history)
    return Step(ended_for_good(history, Phase.STOPPED, Reason(STOPPED, "stopped as asked")))


def _remove(assignment: Assignment, observed: Observed | None, history: History, now: float) -> Step:
    if history.end is Phase.REMOVED:
        return Step(history)
    name = assignment.instance_id
    if observed is not None:
        if observed.state == "running" and history.faults < IMPATIENCE:
            return _when_due(history, Stop(name, observed.engine_id, _grace(assignment)), now)
        return _when_due(history, Remove(name, observed.engine_id), now)
    for volume in assignment.remove_volumes:
        if volume not in history.volumes_gone:
            return _when_due(history, RemoveVolume(name, volume), now)
    return Step(ended_for_good(replace(history, faults=0), Phase.REMOVED, None))


def _when_due(history: History, action: Action | None, now: float) -> Step:
    if action is not None and restart.waiting(history.next_at, now):
        return Step(history, wake_at=history.next_at)
    return Step(history, action)


def _grace(assignment: Assignment) -> int:
    return DEFAULT_GRACE if assignment.spec is None else assignment.spec.stop_grace_period


def _by_name(item: tuple[str, Assignment]) -> str:
    return item[0]
