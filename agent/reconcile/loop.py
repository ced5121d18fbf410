"""The reconciler: wake, decide, hand out, report. The only place where assignments, engine, memory and probes meet.

One task does all of it, so a decision never races another. It looks only at what changed; a complete list of the engine, every
30 seconds at the latest, looks at everything. While the engine does not answer nothing is decided: reports stay as they were.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from agent.core.faults import EngineUnreachable
from agent.core.health import HealthState, begin
from agent.core.history import felt
from agent.core.observe import Observed
from agent.core.plan import Plan, diff
from agent.core.status import Senses, derive
from agent.reconcile.book import AssignmentBook
from agent.reconcile.executor import Executor, Listener, Means
from agent.reconcile.memory import Memory
from agent.reconcile.reports import ReportBox
from agent.reconcile.view import View
from agent.reconcile.watch import RESYNC_SECONDS, Audience, Watch
from shared.spec.instance import Assignment, Phase
from shared.spec.reason import Reason
from shared.wire.frames import Held

_NO_CHECK = begin(None, 0.0)
_STRANGER_PHASES = {
    "created": Phase.STARTING,
    "running": Phase.RUNNING,
    "exited": Phase.STOPPED,
    "dead": Phase.FAILED,
}

log = structlog.get_logger()


class Probes(Protocol):
    """The prober adds to the book's `changes` when an instance's health changed."""

    def watch(self, assignment: Assignment, observed: Observed) -> None: ...

    def forget(self, instance_id: str) -> None: ...

    def health(self, instance_id: str) -> HealthState | None: ...


class Reconciler:
    """`engine_changed` is told why the engine does not answer, and None when it does again: that is the node's status."""

    def __init__(
        self,
        means: Means,
        probes: Probes,
        book: AssignmentBook,
        reports: ReportBox,
        memory: Memory,
        engine_changed: Callable[[Reason | None], None],
    ) -> None:
        self._clock = means.clock
        self._probes = probes
        self._book = book
        self._reports = reports
        self._memory = memory
        self._view = View()
        self._executor = Executor(means, self._view, memory, Listener(self._settled, self._unreachable, self._doubtful))
        audience = Audience(book.changes.add, self._look_at_everything, self._interrupted, engine_changed)
        self._watch = Watch(means.runtime, means.clock, self._view, self._executor.busy, audience)
        self._wakes: dict[str, float] = {}
        self._probed: dict[str, Observed] = {}

    def engine_id(self, instance_id: str) -> str | None:
        """The engine container of an instance, as last seen."""
        seen = self._view.observed.get(instance_id)
        return seen.engine_id if seen is not None else None

    def running(self) -> list[Observed]:
        """Everything of this node's that was last seen running, by instance id."""
        return [seen for _, seen in sorted(self._view.observed.items()) if seen.state == "running"]

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._memory.run())
                group.create_task(self._watch.run())
                await self._loop()
        finally:
            await self._executor.close()
            await self._memory.close()

    async def _loop(self) -> None:
        while True:
            names = await self._book.changes.take(self._patience())
            if self._watch.up:  # else: everything is looked at once it is
                self._step(names | self._due())

    def _patience(self) -> float:
        """Wall time, for what is waited for must outlive the agent; never longer than a resync, for wall time may jump."""
        if not self._wakes or not self._watch.up:
            return RESYNC_SECONDS
        return min(max(0.0, min(self._wakes.values()) - self._clock.wall()), RESYNC_SECONDS)

    def _due(self) -> set[str]:
        now = self._clock.wall()
        return {name for name, at in self._wakes.items() if at <= now}

    def _step(self, names: set[str]) -> None:
        assigned = names & self._book.assignments.keys()
        self._let_go(names - assigned)
        for name in assigned:
            self._feel(self._book.assignments[name])
        now = self._clock.wall()
        desired = self._book.desired.only(assigned)
        plan = diff(desired, self._view.observed, self._memory.records, now, self._executor.busy)
        self._adopt(plan, names)
        for name in assigned:
            self._report(self._book.assignments[name])

    def _adopt(self, plan: Plan, names: set[str]) -> None:
        for name, record in plan.history.items():
            self._memory.put(name, record)
        for name in names:
            self._wakes.pop(name, None)
        self._wakes.update(plan.wakes)
        for action in plan.actions:
            self._executor.submit(action)

    def _feel(self, assignment: Assignment) -> None:
        """The probes' word into the record; and what is not to run is not wanted pulled either."""
        name = assignment.instance_id
        if assignment.goal != "run":
            self._executor.cancel_pull(name)
        if name in self._executor.busy or assignment.spec is None:
            return
        spec = assignment.spec
        state = _NO_CHECK if spec.health_check is None else self._probes.health(name)
        self._memory.put(name, felt(self._memory.get(name), state, spec.restart_policy, self._clock.wall()))

    def _report(self, assignment: Assignment) -> None:
        name = assignment.instance_id
        seen, record = self._view.observed.get(name), self._memory.get(name)
        if assignment.goal == "run" and seen is not None and seen.vague:
            return  # nothing was decided about it, and what was reported still holds
        self._attend(assignment, seen)
        senses = Senses(self._probes.health(name), self._executor.progress(name))
        report = derive(assignment, seen, record, senses)
        if (
            report.phase is not Phase.ASSIGNED or record.reason is not None
        ):  # that it is assigned, the coordinator knows
            self._reports.put(report)

    def _attend(self, assignment: Assignment, seen: Observed | None) -> None:
        """Have it probed while it runs and is to run, and anew after each start."""
        name, spec = assignment.instance_id, assignment.spec
        wanted = assignment.goal == "run" and self._memory.get(name).running
        if not wanted or seen is None or seen.state != "running" or spec is None or spec.health_check is None:
            if self._probed.pop(name, None) is not None:
                self._probes.forget(name)
        elif self._probed.get(name) != seen:
            self._probed[name] = seen
            self._probes.watch(assignment, seen)

    def _let_go(self, names: set[str]) -> None:
        """In no assignment (any more). What runs is left running, and named to the coordinator."""
        for name in names:
            self._executor.cancel_pull(name)
            self._reports.forget(name)
            if self._probed.pop(name, None) is not None:
                self._probes.forget(name)
            if name not in self._view.observed and name not in self._executor.busy:
                self._memory.drop(name)
        if names:
            self._name_strangers()

    def _name_strangers(self) -> None:
        assigned = self._book.assignments
        strangers = [seen for name, seen in self._view.observed.items() if name not in assigned]
        self._reports.hold({seen.instance_id: self._stranger(seen) for seen in strangers})

    def _stranger(self, seen: Observed) -> Held:
        return Held(seen.instance_id, self._memory.get(seen.instance_id).attempt, _STRANGER_PHASES[seen.state])

    def _look_at_everything(self) -> None:
        self._name_strangers()
        self._book.changes.add(*self._book.assignments, *self._view.observed, *self._memory.records)

    def _settled(self, instance_id: str) -> None:
        self._book.changes.add(instance_id)
        self._watch.settled(instance_id)

    def _unreachable(self, fault: EngineUnreachable) -> None:
        self._watch.unreachable(fault)

    def _doubtful(self) -> None:
        self._watch.doubtful()

    def _interrupted(self) -> None:
        self._memory.unwatch("engine")
