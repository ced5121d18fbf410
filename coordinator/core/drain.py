"""How far a node's drain is: done, going on by itself, or in need of somebody.

Emptying a node is the orchestrator's work: an instance there counts as one to be replaced, so a replacement is started elsewhere
first and the old one goes once the new one is healthy, as in a rollout. A slot with volumes of its own cannot follow: moving it
would start it with empty volumes, so it runs on where its data is and the drain says so until somebody decides. What is
left here is to tell when nothing that may run is left on the node, and until then why not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.spec.reason import DRAIN_BLOCKED, DRAINING, Reason

NAMED = 3
"""Instances named in a sentence; the others are counted."""


@dataclass(frozen=True, slots=True)
class Resident:
    """An instance that may still run on the node. `leaving`: told to go. `pinned`: its slot's volumes live here. `unplaced`: why
    its replacement finds no node, empty when it found one or is not made yet."""

    instance_id: str
    container: str
    slot: int
    leaving: bool = False
    pinned: bool = False
    unplaced: str = ""

    @property
    def name(self) -> str:
        return f"{self.container}/{self.slot}"


@dataclass(frozen=True, slots=True)
class Drain:
    """`reason` None: the node is drained."""

    reason: Reason | None

    @property
    def done(self) -> bool:
        return self.reason is None


def assess(residents: Iterable[Resident], *, lost: bool = False) -> Drain:
    """`lost`: the node is not heard of, so nothing on it can be seen to end."""
    ordered = sorted(residents, key=lambda each: (each.container, each.slot, each.instance_id))
    if not ordered:
        return Drain(None)
    if lost:
        what = _count(ordered, "instance")
        return _blocked(
            f"the node is lost, and what {what} on it do is not known: bring it back, or remove it by force"
        )
    pinned = [each for each in ordered if each.pinned and not each.leaving]
    unplaced = [each for each in ordered if each.unplaced and not each.leaving and not each.pinned]
    if pinned:
        return _blocked(
            f"the volumes of {_names(pinned)} live here and cannot move: scale down or remove what needs them"
        )
    if unplaced:
        return _blocked(f"no other node takes {_names(unplaced)}: {unplaced[0].unplaced}")
    return Drain(Reason(DRAINING, _going_on(ordered)))


def _blocked(sentence: str) -> Drain:
    return Drain(Reason(DRAIN_BLOCKED, sentence))


def _going_on(residents: Sequence[Resident]) -> str:
    leaving = [each for each in residents if each.leaving]
    staying = [each for each in residents if not each.leaving]
    parts = []
    if staying:
        parts.append(f"{_count(staying, 'instance')} {_be(staying)} being replaced elsewhere")
    if leaving:
        parts.append(f"{_count(leaving, 'instance')} {_be(leaving)} stopping")
    return ", ".join(parts)


def _count(residents: Sequence[Resident], noun: str) -> str:
    return f"{len(residents)} {noun}{'' if len(residents) == 1 else 's'}"


def _be(residents: Sequence[Resident]) -> str:
    return "is" if len(residents) == 1 else "are"


def _names(residents: Sequence[Resident]) -> str:
    names = ", ".join(each.name for each in residents[:NAMED])
    more = len(residents) - NAMED
    return f"{names} and {more} more" if more > 0 else names
