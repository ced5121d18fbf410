"""Statuses, each derived in this one place from what is stored, and the reason for whatever is not as desired.

`running` is a claim about the world: every slot has an instance of the release in force that was observed healthy on a node that
is heard of, and nothing else of the container is left to go. Where that does not hold, the sentence counts the slots by what
keeps them: "2 of 6 instances are not running: 1 unplaced (3 of 5 nodes lack 512 MiB), 1 exited with code 1, next start in 8 s".

An instance on a lost node keeps its container from nothing once its slot is served elsewhere: nobody can say whether it runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from coordinator.core.orchestrate import is_unplaced
from coordinator.core.rollout import Rollout
from coordinator.core.slots import ContainerView, InstanceView, Slot, arrange
from shared.spec.instance import Phase
from shared.spec.reason import (
    COMPLETED,
    DEPLOYING,
    DEPLOYMENT_FAILED,
    EXITED,
    NODE_LOST,
    REMOVED_OUTSIDE,
    REMOVING,
    STARTING,
    STOPPED,
    UNHEALTHY,
    UNPLACED,
    WAITING_APPROVAL,
    WAITING_PREVIOUS,
    Reason,
)

ContainerStatus = Literal["creating", "running", "deploying", "stopped", "error", "deleting"]
_HARMLESS = frozenset({DEPLOYING, STARTING, COMPLETED, REMOVED_OUTSIDE})


@dataclass(frozen=True, slots=True)
class Overview:
    """`rollout`: of the active deployment. `ever_healthy`: a deployment of the container has succeeded. `failed`: why the last
    deployment failed, empty when it did not. `awaits_approval`: one waits for somebody's word."""

    container: ContainerView
    rollout: Rollout | None = None
    ever_healthy: bool = False
    failed: str = ""
    awaits_approval: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    word: ContainerStatus
    reason: Reason | None = None


def container_status(overview: Overview, now: float) -> Status:
    container = overview.container
    match container.desired:
        case "removed":
            going = _going(container.instances)
            return Status("deleting", Reason(REMOVING, going or "nothing is left on its nodes"))
        case "stopped":
            going = _going(container.instances)
            if any(each.holding for each in container.instances):
                return Status("deploying", Reason(STOPPED, going))
            return Status("stopped", Reason(STOPPED, f"stopped by a user; {going}" if going else "stopped by a user"))
        case "running":
            return _running(overview, now)
        case never:
            assert_never(never)


def instance_status(instance: InstanceView) -> tuple[str, Reason | None]:
    """The phase's word, or "lost"; and why it is not running and healthy."""
    if instance.lost and not instance.ended:
        return "lost", Reason(NODE_LOST, "its node is not heard of; it may still run there")
    word = instance.phase.word
    if instance.reason is not None or instance.ready:
        return word, instance.reason
    if instance.goal != "run":
        return word, Reason(STOPPED, "is stopping" if instance.holding else "was stopped")
    return word, _progress(instance)


def _running(overview: Overview, now: float) -> Status:
    container = overview.container
    if container.target is None:
        return Status("creating", _undeployed(overview))
    slots = arrange(container, container.target)
    others = _others(container, slots)
    if not slots and not others:
        return Status("stopped", Reason(STOPPED, "scaled to 0"))
    if all(slot.ready for slot in slots) and not others:
        return Status("running")
    troubles = [reason for slot in slots if (reason := _slot_reason(slot, container)) is not None]
    word = _word(overview, slots, troubles, others)
    reason = _aggregate(troubles, len(slots), now) or Reason(DEPLOYING, _going(others) or "settling")
    if word != "stopped" and overview.failed and overview.rollout is None:
        return Status("error", Reason(DEPLOYMENT_FAILED, f"{_told(overview.failed)}; {reason.message}", reason.next_at))
    return Status(word, reason)


def _undeployed(overview: Overview) -> Reason:
    if overview.awaits_approval:
        return Reason(
            WAITING_APPROVAL,
            "waits for approval: the environment is protected, and a reviewer decides on the deployment",
        )
    return Reason(DEPLOYING, "not deployed yet")


def _word(
    overview: Overview, slots: Sequence[Slot], troubles: Sequence[Reason], others: Sequence[InstanceView]
) -> ContainerStatus:
    on_its_way: ContainerStatus = "deploying" if overview.ever_healthy else "creating"
    if overview.rollout is not None and overview.rollout.stage != "monitoring":
        return on_its_way
    if any(trouble.code not in _HARMLESS for trouble in troubles):
        return "error"
    if slots and all(slot.done for slot in slots) and not others:
        return "stopped"
    return on_its_way


def _others(container: ContainerView, slots: Sequence[Slot]) -> list[InstanceView]:
    """What lives and is not what a slot is to keep."""
    kept = {slot.incoming[0].id for slot in slots if slot.incoming}
    return [each for each in container.instances if not each.ended and not each.lost and each.id not in kept]


def _slot_reason(slot: Slot, container: ContainerView) -> Reason | None:
    """None when the slot is as it should be. The message completes "1 …"."""
    if slot.ready:
        return None
    if slot.incoming:
        return _instance_reason(slot.incoming[0], slot.last)
    waiting = container.waiting.get(slot.index)
    if slot.outgoing:
        old = slot.outgoing[0]
        if waiting is not None:
            return _waiting(waiting)
        if old.revision != slot.target.revision:
            return Reason(DEPLOYING, f"still of revision {old.revision}")
        return Reason(DEPLOYING, "to leave its node")
    if slot.done:
        assert slot.last is not None
        return _ended(slot.last)
    if waiting is not None:
        return _waiting(waiting)
    if slot.last is not None:
        return slot.last.reason or Reason(STOPPED, slot.last.phase.word)
    if slot.astray:
        return Reason(NODE_LOST, "on a lost node")
    return Reason(DEPLOYING, "not made yet")


def _instance_reason(instance: InstanceView, before: InstanceView | None) -> Reason:
    if is_unplaced(instance) and instance.reason is not None:
        detail = instance.reason.message
        if before is not None and before.reason is not None:
            detail = f"{detail}; before that: {before.reason.message}"
        return Reason(UNPLACED, f"unplaced ({detail})")
    if instance.phase is Phase.RUNNING and instance.health == "unhealthy":
        return Reason(UNHEALTHY, f"unhealthy ({instance.reason.message})" if instance.reason else "unhealthy")
    return instance.reason or _progress(instance)


def _progress(instance: InstanceView) -> Reason:
    match instance.phase:
        case Phase.PENDING:
            return Reason(DEPLOYING, "waits for a node")
        case Phase.ASSIGNED:
            return Reason(DEPLOYING, "waits for its node to begin")
        case Phase.PULLING:
            return Reason(DEPLOYING, "pulls its image")
        case Phase.STARTING:
            return Reason(DEPLOYING, "is starting")
        case Phase.RUNNING if instance.unheard:
            return Reason(STARTING, "on a node that is back and has not reported it yet")
        case Phase.RUNNING:
            return Reason(STARTING, "runs, and its health check has not passed yet")
        case Phase.STOPPED | Phase.FAILED | Phase.REJECTED | Phase.REMOVED:
            return Reason(STOPPED, instance.phase.word)
        case never:
            assert_never(never)


def _waiting(reason: Reason) -> Reason:
    if reason.code == WAITING_PREVIOUS and reason.next_at is not None:
        return Reason(WAITING_PREVIOUS, f"waits after a failure ({reason.message})", reason.next_at)
    return reason


def _ended(last: InstanceView) -> Reason:
    if last.phase is Phase.STOPPED and not last.exit_code:
        return Reason(COMPLETED, "ended by itself, which its restart policy leaves so")
    return last.reason or Reason(EXITED, f"exited with code {last.exit_code}")


def _aggregate(reasons: Sequence[Reason], total: int, now: float) -> Reason | None:
    """One reason for all: the sentence counts them, the code is that of the most frequent one that is no mere progress."""
    if not reasons:
        return None
    counts: dict[tuple[str, str], list[Reason]] = {}
    for reason in reasons:
        counts.setdefault((reason.code, reason.message), []).append(reason)
    groups = sorted(counts.values(), key=lambda group: (group[0].code in _HARMLESS, -len(group), group[0].message))
    parts = ", ".join(_part(group, now) for group in groups)
    if total == 1:
        sentence = f"the instance is not running: {parts.removeprefix('1 ')}"
    else:
        sentence = f"{len(reasons)} of {total} instances {'is' if len(reasons) == 1 else 'are'} not running: {parts}"
    return Reason(groups[0][0].code, sentence, _earliest(reasons))


def _part(group: Sequence[Reason], now: float) -> str:
    text = f"{len(group)} {group[0].message}"
    next_at = _earliest(group)
    return text if next_at is None else f"{text}, next start in {max(0, round(next_at - now))} s"


def _earliest(reasons: Iterable[Reason]) -> float | None:
    return min((reason.next_at for reason in reasons if reason.next_at is not None), default=None)


def _going(instances: Iterable[InstanceView]) -> str:
    """How many are still on their way out, empty when none is."""
    holding = sum(1 for each in instances if each.holding)
    lost = sum(1 for each in instances if each.lost and not each.ended)
    return ", ".join(_counted(holding, lost))


def _counted(holding: int, lost: int) -> Iterator[str]:
    if holding:
        yield f"{holding} {'instance is' if holding == 1 else 'instances are'} still stopping"
    if lost:
        yield f"{lost} {'is' if lost == 1 else 'are'} on a node that is not heard of"


def _told(failed: str) -> str:
    return f"the last deployment failed: {failed}"
