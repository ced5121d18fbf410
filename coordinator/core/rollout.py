"""A rollout: moving a container from the release it runs to another, and back when that one does not hold.

`step` is called whenever anything may have changed and looks at the instances as they are, never at what happened in between. What
must be remembered is small and stored with the deployment (`Rollout`): the stage, how far each slot ever got (for the
deadline), and how often the watched instances had started (to notice a crash that was over before anybody looked).

| stage | means | goes to |
|---|---|---|
| rolling | slots move to the release | monitoring, rolling_back, failed, cancelled, paused |
| monitoring | all were healthy; watched for `strategy.monitor` seconds | complete, rolling_back, failed, cancelled, paused |
| rolling_back | slots move back to the last release that succeeded | rolled_back, failed, cancelled, paused |
| paused | the container is stopped; started again, it goes on where it was | rolling, rolling_back |

and from each of them, when the container is removed, to `cancelled`. The other stages are final: a finished rollout ignores
everything. A rollback is never rolled back: it fails, both sides stay as they are, and the reason is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, assert_never

import msgspec
from msgspec import Struct, field, structs

from coordinator.core.orchestrate import converge, orchestrate
from coordinator.core.slots import ContainerView, Plan, Slot, Target, arrange
from coordinator.core.verdict import crash, fault, standstill, starts
from shared.spec.instance import Phase

Stage = Literal[
    "rolling",
    "monitoring",
    "rolling_back",
    "paused",
    "complete",
    "rolled_back",
    "failed",
    "cancelled",
]
FINISHED: Final = frozenset[Stage]({"complete", "rolled_back", "failed", "cancelled"})
DeploymentStatus = Literal[
    "pending", "queued", "building", "in_progress", "succeeded", "failed", "rolled_back", "cancelled"
]
NO_PLAN: Final = Plan()


class Rollout(Struct, frozen=True, omit_defaults=True):
    """`reverting`: the previous release is in force, for good. `cancel`: a user asked for it. `marks`: slot → how far it ever
    got. `progress_at`: when a slot last got ahead. `starts`: instance → engine starts seen when the watch over it began."""

    stage: Stage = "rolling"
    reverting: bool = False
    cancel: bool = False
    error: str = ""
    progress_at: float | None = None
    marks: dict[int, int] = field(default_factory=dict)
    updated: int = 0
    monitored_since: float | None = None
    starts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RolloutView:
    """`previous`: the last release that succeeded, None when there is none. The
    container's own `target` is not looked at: what is in force follows from the rollout."""

    container: ContainerView
    deployment_id: str
    release: Target
    previous: Target | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """`target`: the release in force from now on. `messages`: what happened, in words."""

    rollout: Rollout
    target: Target
    plan: Plan = NO_PLAN
    messages: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.rollout.stage in FINISHED

    @property
    def succeeded(self) -> bool:
        return self.rollout.stage == "complete"


def step(rollout: Rollout, view: RolloutView, now: float) -> Step:
    match rollout.stage:
        case "complete" | "rolled_back" | "failed" | "cancelled":
            return Step(rollout, _in_force(rollout, view))
        case "rolling" | "monitoring" | "rolling_back" | "paused":
            pass
        case never:
            assert_never(never)
    match view.container.desired:
        case "removed":
            return _end(rollout, view, "cancelled", "the container is removed")
        case "stopped":
            return _pause(rollout, view, now)
        case "running":
            return _run(_resume(rollout, view, now), view, now)
        case never_desired:
            assert_never(never_desired)


def cancel(rollout: Rollout) -> Rollout:
    """Asked for by a user; the next step acts on it. Finished rollouts stay as they are."""
    return rollout if rollout.stage in FINISHED else structs.replace(rollout, cancel=True)


def deployment_status(rollout: Rollout) -> DeploymentStatus:
    match rollout.stage:
        case "rolling" | "monitoring" | "rolling_back" | "paused":
            return "in_progress"
        case "complete":
            return "succeeded"
        case "rolled_back":
            return "rolled_back"
        case "failed":
            return "failed"
        case "cancelled":
            return "cancelled"
        case never:
            assert_never(never)


def load(state: str) -> Rollout:
    return msgspec.json.decode(state, type=Rollout)


def dump(rollout: Rollout) -> str:
    return msgspec.json.encode(rollout).decode()


def _in_force(rollout: Rollout, view: RolloutView) -> Target:
    if rollout.reverting and view.previous is not None:
        # What the user declared last says how slots may be moved, back as well as forth.
        return replace(view.previous, strategy=view.release.strategy)
    return view.release


def _end(rollout: Rollout, view: RolloutView, stage: Stage, sentence: str) -> Step:
    rollout = structs.replace(rollout, stage=stage, error=rollout.error or sentence)
    return Step(rollout, _in_force(rollout, view), messages=(sentence,))


def _pause(rollout: Rollout, view: RolloutView, now: float) -> Step:
    if rollout.cancel:
        return _cancel_stopped(rollout, view)
    messages = () if rollout.stage == "paused" else ("paused: the container is stopped",)
    rollout = structs.replace(rollout, stage="paused")
    return Step(rollout, _in_force(rollout, view), orchestrate(view.container, now), messages)


def _cancel_stopped(rollout: Rollout, view: RolloutView) -> Step:
    """Nothing runs, so there is nothing to move back: only what comes into force when the container is started again."""
    previous = view.previous
    if previous is None or previous.revision == view.release.revision:
        return _end(rollout, view, "cancelled", "cancelled; there is no earlier release to go back to")
    back = structs.replace(rollout, reverting=True)
    return _end(back, view, "cancelled", f"cancelled while stopped: back on revision {previous.revision}")


def _resume(rollout: Rollout, view: RolloutView, now: float) -> Rollout:
    """Its first step, or the first after a pause: every slot's way begins anew."""
    if rollout.progress_at is None or rollout.stage == "paused":
        stage: Stage = "rolling_back" if rollout.reverting else "rolling"
        return structs.replace(
            rollout, stage=stage, progress_at=now, marks={}, updated=0, monitored_since=None, starts={}
        )
    return rollout


def _run(rollout: Rollout, view: RolloutView, now: float) -> Step:
    target = _in_force(rollout, view)
    slots = arrange(view.container, target)
    rollout, messages = _advance(rollout, slots, target, now)
    if rollout.cancel and not rollout.reverting:
        return _go_back(rollout, view, now, "cancelled")
    problem = fault(view.container, view.deployment_id, target) or _problem_in_time(rollout, view, slots, target, now)
    if problem is not None:
        return _go_back(rollout, view, now, problem)
    rollout, ending = _settle(rollout, slots, view, target, now)
    plan = converge(view.container, target, now, replaces=True)
    return Step(rollout, target, _woken(plan, _deadline(rollout, target)), (*messages, *ending))


def _problem_in_time(
    rollout: Rollout, view: RolloutView, slots: Sequence[Slot], target: Target, now: float
) -> str | None:
    if rollout.stage == "monitoring":
        return crash(view.container, view.deployment_id, rollout.starts)
    assert rollout.progress_at is not None
    if now < rollout.progress_at + target.strategy.progress_deadline or all(slot.settled for slot in slots):
        return None
    return standstill(slots, target.strategy.progress_deadline)


def _advance(rollout: Rollout, slots: Sequence[Slot], target: Target, now: float) -> tuple[Rollout, tuple[str, ...]]:
    """Notes how far the slots have got. A slot whose node was lost may fall back without that counting as standing still."""
    far = {slot.index: _far(slot) for slot in slots}
    excused = {slot.index for slot in slots if slot.astray or slot.shut is not None}
    ahead = any(value > rollout.marks.get(index, 0) for index, value in far.items())
    unsettled = {slot.index for slot in slots if not slot.settled}
    held_up = bool(unsettled) and all(slot.shut is not None for slot in slots if slot.index in unsettled)
    marks = {
        index: value if index in excused else max(value, rollout.marks.get(index, 0)) for index, value in far.items()
    }
    updated = len(slots) - len(unsettled)
    messages: tuple[str, ...] = ()
    if rollout.stage != "monitoring" and updated > rollout.updated:
        messages = (f"{updated} of {len(slots)} instances run revision {target.revision}",)
    progress_at = now if ahead or held_up else rollout.progress_at
    return structs.replace(rollout, marks=marks, updated=updated, progress_at=progress_at), messages


_STEPS = (Phase.PENDING, Phase.ASSIGNED, Phase.PULLING, Phase.STARTING, Phase.RUNNING)


def _far(slot: Slot) -> int:
    if slot.settled:
        return len(_STEPS) + 1
    return _STEPS.index(slot.incoming[0].phase) + 1 if slot.incoming else 0


def _settle(
    rollout: Rollout, slots: Sequence[Slot], view: RolloutView, target: Target, now: float
) -> tuple[Rollout, tuple[str, ...]]:
    """What follows once every slot is where it should be."""
    settled = all(slot.settled for slot in slots)
    if rollout.stage == "rolling_back":
        return _gone_back(rollout, target) if settled else (rollout, ())
    messages: tuple[str, ...] = ()
    if rollout.stage == "rolling":
        if not settled:
            return rollout, ()
        rollout = structs.replace(rollout, stage="monitoring", monitored_since=now)
        if target.strategy.monitor:
            messages = (f"watching revision {target.revision} for {target.strategy.monitor} s",)
    rollout = structs.replace(rollout, starts=starts(view.container, view.deployment_id, rollout.starts))
    assert rollout.monitored_since is not None
    if now < rollout.monitored_since + target.strategy.monitor:
        return rollout, messages
    said = "is healthy" if slots else "is in force; it has no instances that could be healthy"
    return structs.replace(rollout, stage="complete"), (*messages, f"revision {target.revision} {said}")


def _gone_back(rollout: Rollout, target: Target) -> tuple[Rollout, tuple[str, ...]]:
    stage: Stage = "cancelled" if rollout.cancel else "rolled_back"
    return structs.replace(rollout, stage=stage), (f"back on revision {target.revision}",)


def _go_back(rollout: Rollout, view: RolloutView, now: float, problem: str) -> Step:
    """What a failure, or a user's wish, leads to."""
    if rollout.reverting:
        sentence = f"{rollout.error}; going back failed as well: {problem}"
        failed = structs.replace(rollout, stage="failed", error=sentence)
        return Step(failed, _in_force(failed, view), messages=(f"going back failed: {problem}; left as it is",))
    previous = view.previous
    if previous is None or previous.revision == view.release.revision:
        if rollout.cancel:
            return _end(rollout, view, "cancelled", "cancelled; there is no earlier release to go back to")
        return _end(rollout, view, "failed", problem)
    if not (rollout.cancel or view.release.strategy.auto_rollback):
        return _end(rollout, view, "failed", problem)
    back = structs.replace(
        rollout, stage="rolling_back", reverting=True, error=problem, progress_at=now, marks={}, updated=0, starts={}
    )
    after = _run(back, view, now)
    return replace(after, messages=(f"{problem}: going back to revision {previous.revision}", *after.messages))


def _deadline(rollout: Rollout, target: Target) -> float | None:
    match rollout.stage:
        case "monitoring":
            assert rollout.monitored_since is not None
            return rollout.monitored_since + target.strategy.monitor
        case "rolling" | "rolling_back":
            assert rollout.progress_at is not None
            return rollout.progress_at + target.strategy.progress_deadline
        case _:
            return None


def _woken(plan: Plan, at: float | None) -> Plan:
    if at is None or (plan.wake_at is not None and plan.wake_at <= at):
        return plan
    return replace(plan, wake_at=at)
