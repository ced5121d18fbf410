"""A node without an engine: what carrying out an action does to what is there and to what is remembered."""

from dataclasses import dataclass, field, replace

from agent.core import history
from agent.core.actions import Action, Create, Pull, Remove, RemoveVolume, Start, Stop
from agent.core.faults import RuntimeFault
from agent.core.history import FRESH, History
from agent.core.observe import Observed
from agent.core.plan import Desired, Plan, diff
from agent.core.status import derive
from shared.spec.instance import Assignment, InstanceReport


@dataclass
class Model:
    assignments: dict[str, Assignment]
    observed: dict[str, Observed] = field(default_factory=dict)
    records: dict[str, History] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    now: float = 1_000_000.0
    made: int = 0
    reports: dict[str, list[InstanceReport]] = field(default_factory=dict)

    def plan(self, busy: frozenset[str] = frozenset()) -> Plan:
        plan = diff(Desired(True, self.assignments), self.observed, self.records, self.now, busy)
        self.records.update(plan.history)
        for name, assignment in self.assignments.items():
            if name in self.records:
                report = derive(assignment, self.observed.get(name), self.records[name])
                told = self.reports.setdefault(name, [])
                if report not in told[-1:]:  # equal ones are not sent again
                    told.append(report)
        return plan

    def execute(self, action: Action, *, remember: bool = True) -> None:
        """`remember` False: the agent died between the engine's answer and its record."""
        self.now += 0.01
        before = self.records.get(action.instance_id, FRESH)
        after = self._engine(action, before)
        if remember:
            self.records[action.instance_id] = after

    def fail(self, action: Action, fault: RuntimeFault) -> None:
        self.now += 0.01
        before = self.records.get(action.instance_id, FRESH)
        self.records[action.instance_id] = history.faulted(before, action, fault, self.now)

    def end(self, name: str, exit_code: int, state: str = "exited") -> None:
        """The process ends by itself, if it runs."""
        self.now += 0.01
        seen = self.observed.get(name)
        if seen is not None and seen.state == "running":
            self.observed[name] = replace(
                seen, state="dead" if state == "dead" else "exited", exit_code=exit_code, finished_at=self.now
            )

    def settle(self, rounds: int = 60) -> Plan:
        """Everything a plan asks for, and time for what it waits for, until it asks for nothing."""
        plan = self.plan()
        for _ in range(rounds):
            if not plan.actions and plan.wake_at is None:
                break
            for action in plan.actions:
                self.execute(action)
            if not plan.actions and plan.wake_at is not None:
                self.now = max(self.now, plan.wake_at)
            plan = self.plan()
        return plan

    def _engine(self, action: Action, record: History) -> History:
        name = action.instance_id
        seen = self.observed.get(name)
        match action:
            case Pull():
                return history.pulled(record)
            case Create(assignment=assignment):
                if seen is None:
                    self.made += 1
                    seen = Observed(f"made{self.made}", name, assignment.spec_hash, "created")
                    self.observed[name] = seen
                return history.created(record, seen.engine_id)
            case Start(engine_id=engine_id):
                assert seen is not None
                assert seen.engine_id == engine_id
                if seen.state != "running":
                    self.observed[name] = Observed(
                        engine_id, name, seen.spec_hash, "running", started_at=self.now, finished_at=seen.finished_at
                    )
                return history.started(record, engine_id)
            case Stop():
                self.end(name, 143)
                return history.stopped(record)
            case Remove():
                self.observed.pop(name, None)
                return history.removed(record)
            case RemoveVolume(volume=volume):
                self.volumes.discard(volume)
                return history.volume_removed(record, volume)
