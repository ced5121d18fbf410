"""What counts against a release while it is rolled out. Only instances that this rollout made can do so: old ones that fail, and
nodes that are lost, say nothing about the release.

A node's own refusal (a taken port, a full disk, its policy) is tried elsewhere first, and counts when it happened `TOLERATED`
times in one slot: one bad node out of many is not the release's fault.
"""

from collections.abc import Iterator, Mapping, Sequence

from coordinator.core.orchestrate import NODE_LOCAL, is_unplaced, streak
from coordinator.core.slots import ContainerView, InstanceView, Slot, Target, is_done
from shared.spec.container import RestartPolicy
from shared.spec.instance import Phase
from shared.spec.reason import NODE_LOST, NODE_REMOVED, REMOVED_OUTSIDE

MAX_RESTARTS = 3
TOLERATED = 3
_NOT_ITS_FAULT = frozenset({NODE_LOST, NODE_REMOVED})


def fault(container: ContainerView, deployment_id: str, target: Target) -> str | None:
    """The first thing that speaks against the release in force, as a sentence."""
    for each in _made(container, deployment_id):
        what = _fault(each, target.restart_policy) if each.revision == target.revision else None
        if what is not None:
            return f"slot {each.slot}: the instance {what}{_because(each)}"
    return None


def starts(container: ContainerView, deployment_id: str, before: Mapping[str, int]) -> dict[str, int]:
    """Engine starts by watched instance: as first seen, but anew after its node was lost or somebody else removed its engine
    container, since the start that follows is nobody's crash."""
    counts: dict[str, int] = {}
    for each in _made(container, deployment_id):
        known = None if _excused(each) else before.get(each.id)
        counts[each.id] = each.attempt if known is None else known
    return counts


def crash(container: ContainerView, deployment_id: str, before: Mapping[str, int]) -> str | None:
    """An instance that started again since the watch began, as a sentence."""
    for each in _made(container, deployment_id):
        if not _excused(each) and each.attempt > before.get(each.id, each.attempt):
            return f"slot {each.slot}: the instance did not keep running{_because(each)}"
    return None


def standstill(slots: Sequence[Slot], seconds: int) -> str:
    sentence = f"no instance got ahead for {seconds} s"
    for slot in slots:
        first = slot.incoming[0] if slot.incoming else None
        if first is not None and not first.ready:
            state = "unplaced" if is_unplaced(first) else first.phase.word
            return f"{sentence}; slot {slot.index} is {state}{_because(first)}"
    return sentence


def _made(container: ContainerView, deployment_id: str) -> Iterator[InstanceView]:
    for each in sorted(container.instances, key=lambda each: (each.slot, each.id)):
        declared = each.slot < container.replicas and each.goal == "run"
        if declared and each.deployment_id == deployment_id and not each.lost:
            yield each


def _fault(instance: InstanceView, policy: RestartPolicy) -> str | None:
    code = instance.reason.code if instance.reason is not None else ""
    match instance.phase:
        case Phase.REJECTED:
            return None if code in NODE_LOCAL and streak(instance) < TOLERATED else "was rejected"
        case Phase.FAILED:
            return None if code in _NOT_ITS_FAULT else "failed"
        case Phase.STOPPED:
            return None if is_done(instance, policy) or code in _NOT_ITS_FAULT else "stopped"
        case Phase.RUNNING if instance.health == "unhealthy":
            return "is unhealthy"
        case _:
            return f"restarted {instance.restarts} times" if instance.restarts >= MAX_RESTARTS else None


def _excused(instance: InstanceView) -> bool:
    return instance.lost or (instance.reason is not None and instance.reason.code == REMOVED_OUTSIDE)


def _because(instance: InstanceView) -> str:
    return f": {instance.reason.message}" if instance.reason is not None else ""
