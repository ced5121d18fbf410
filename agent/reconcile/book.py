"""What this node is told to run. An order counts once it is on the disk: a node that acted on one it then forgot would
not know, after a restart, what it had been about."""

import asyncio
from collections.abc import Mapping

import structlog

from agent.core.plan import Desired
from agent.journal.journal import Journal, JournalState
from shared.kit.wakeup import DirtySet
from shared.spec.instance import Assignment
from shared.wire.frames import AssignmentDelta, AssignmentSet

log = structlog.get_logger()


class AssignmentBook:
    """`changes`: the instances to look at again; the reconciler takes from it, and whoever learns something adds to it.

    Both `apply` methods raise JournalError when the disk does not take the order; nothing has changed then.
    """

    def __init__(self, journal: Journal, state: JournalState) -> None:
        self._journal = journal
        self._assignments = dict(state.assignments)
        self._parts: dict[str, Assignment] = {}
        self._parts_of: tuple[int, int] | None = None
        self._lock = asyncio.Lock()
        self.sequence = state.sequence
        self.changes = DirtySet()

    @property
    def desired(self) -> Desired:
        return Desired(self.sequence is not None, self._assignments)

    @property
    def assignments(self) -> Mapping[str, Assignment]:
        return self._assignments

    async def apply_set(self, frame: AssignmentSet) -> None:
        """The set counts, and `sequence` is its own, once the final part is there. Part 0 begins anew, whatever came before; a
        part out of order drops what was gathered, and the next delta then shows the gap."""
        async with self._lock:
            if frame.part == 0:
                self._parts = {}
            elif self._parts_of != (frame.sequence, frame.part):
                log.warning("part of an assignment set out of order", sequence=frame.sequence, part=frame.part)
                self._parts_of = None
                return
            self._parts.update((assignment.instance_id, assignment) for assignment in frame.assignments)
            self._parts_of = (frame.sequence, frame.part + 1)
            if not frame.final:
                return
            complete, self._parts, self._parts_of = self._parts, {}, None
            await asyncio.to_thread(self._journal.save_set, frame.sequence, complete)
            touched = {*self._assignments, *complete}
            self._assignments, self.sequence = complete, frame.sequence
            self.changes.add(*touched)

    async def apply_delta(self, frame: AssignmentDelta) -> bool:
        """False when it does not apply to what is held: ask for the complete set."""
        async with self._lock:
            if self.sequence is None or frame.base != self.sequence:
                return False
            upserts = {assignment.instance_id: assignment for assignment in frame.assignments}
            await asyncio.to_thread(self._journal.save_delta, frame.sequence, upserts, frame.forget)
            for name in frame.forget:
                self._assignments.pop(name, None)
            self._assignments.update(upserts)
            self.sequence = frame.sequence
            self.changes.add(*upserts, *frame.forget)
            return True
