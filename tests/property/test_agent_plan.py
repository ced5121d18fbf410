"""The agent's plan, whatever the world looks like: it gets there, from anywhere, and takes nothing away that nobody named."""

import itertools
import random
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.core.actions import Remove, RemoveVolume, Stop
from agent.core.faults import RuntimeFault
from agent.core.history import FRESH, History, resumed
from agent.core.observe import EngineState, Observed
from agent.core.plan import Desired, Plan, diff
from agent.core.status import derive
from shared.spec.instance import TERMINAL, Assignment, Goal, InstanceSpec, Phase, may_write, supersedes
from tests.property.agent_model import Model

NOW = 1_000_000.0
NAMES = [f"ins_{number}" for number in range(3)]
FOREIGN = ["other_1"]

specs = st.builds(
    InstanceSpec,
    image=st.just("busybox"),
    restart_policy=st.sampled_from(["always", "on-failure", "never"]),
    stop_grace_period=st.integers(0, 30),
)
goals: st.SearchStrategy[Goal] = st.sampled_from(["run", "run", "stop", "remove"])


@st.composite
def assignment_for(draw: st.DrawFn, name: str) -> Assignment:
    goal = draw(goals)
    spec = None if goal == "remove" and draw(st.booleans()) else draw(specs)
    volumes = draw(st.lists(st.sampled_from(["vol_a", "vol_b"]), unique=True)) if goal == "remove" else []
    return Assignment(name, "con", "web", 0, 1, "hash", goal=goal, spec=spec, remove_volumes=volumes)


def _seen(state: EngineState, started_at: float | None, **fields: Any) -> Observed:
    """Properly looked at: what was ever started has a start time."""
    started = NOW - 100 if state in ("running", "exited") and started_at is None else started_at
    return Observed(state=state, started_at=started, **fields)


def observed_for(name: str) -> st.SearchStrategy[Observed]:
    return st.builds(
        _seen,
        engine_id=st.sampled_from([f"{name}/a", f"{name}/b"]),
        instance_id=st.just(name),
        spec_hash=st.just("hash"),
        state=st.sampled_from(["created", "running", "running", "exited", "dead"]),
        exit_code=st.sampled_from([None, 0, 1, 137]),
        out_of_memory=st.booleans(),
        started_at=st.sampled_from([None, NOW - 100, NOW - 50]),
        finished_at=st.sampled_from([None, NOW - 90, NOW - 40]),
    )


def record_for(name: str) -> st.SearchStrategy[History]:
    """Anything an agent may have written before it died, and some that none would."""
    return st.builds(
        History,
        attempt=st.integers(1, 5),
        stage=st.sampled_from([Phase.ASSIGNED, Phase.PULLING, Phase.STARTING, Phase.RUNNING]),
        engine_id=st.sampled_from(["", f"{name}/a", f"{name}/b"]),
        image_ready=st.booleans(),
        running=st.booleans(),
        ever_started=st.booleans(),
        unwatched=st.sampled_from(["", "agent", "engine"]),
        condemned=st.sampled_from([None, None, "", "connection refused"]),
        started_at=st.sampled_from([None, NOW - 100, NOW - 50]),
        finished_at=st.sampled_from([None, NOW - 90]),
        exit_id=st.sampled_from(["", f"{name}/a"]),
        crashes=st.integers(0, 9),
        faults=st.integers(0, 9),
        next_at=st.sampled_from([None, NOW - 1, NOW + 20, NOW + 1e6]),
        goal=goals,
    )


@st.composite
def worlds(draw: st.DrawFn) -> Model:
    assigned = draw(st.lists(st.sampled_from(NAMES), unique=True))
    there = draw(st.lists(st.sampled_from(NAMES + FOREIGN), unique=True))
    remembered = draw(st.lists(st.sampled_from(NAMES + FOREIGN), unique=True))
    return Model(
        assignments={name: draw(assignment_for(name)) for name in assigned},
        observed={name: draw(observed_for(name)) for name in there},
        records={name: draw(record_for(name)) for name in remembered},
        now=NOW,
    )


def look(world: Model, busy: frozenset[str] = frozenset(), *, known: bool = True) -> Plan:
    return diff(Desired(known, world.assignments), world.observed, world.records, world.now, busy)


def assert_reached(world: Model) -> None:
    for name, assignment in world.assignments.items():
        seen, record = world.observed.get(name), world.records[name]
        match assignment.goal:
            case "run":
                running = seen is not None and seen.state == "running" and record.running
                assert running or record.end in TERMINAL, (name, seen, record)
            case "stop":
                assert seen is None or seen.state != "running", (name, seen)
                assert record.end in TERMINAL, record
            case "remove":
                assert seen is None, seen
                assert record.end is Phase.REMOVED, record


@given(worlds())
def test_reaches_what_is_desired_and_then_asks_for_nothing(world: Model) -> None:
    foreign = {name: seen for name, seen in world.observed.items() if name not in world.assignments}
    last = world.settle()
    assert not last.actions
    assert last.wake_at is None
    assert_reached(world)
    again = world.plan()
    assert again == Plan()
    assert {name: seen for name, seen in world.observed.items() if name not in world.assignments} == foreign


@given(worlds(), st.randoms(use_true_random=False))
def test_any_cut_of_any_plan_still_converges(world: Model, chance: random.Random) -> None:
    """Only some actions happen, some of which nobody remembers; agents die, processes end, faults come and go."""
    for _ in range(chance.randrange(1, 8)):
        plan = world.plan()
        for action in plan.actions:
            match chance.randrange(5):
                case 0:
                    continue
                case 1:
                    world.execute(action, remember=False)
                case 2:
                    world.fail(action, RuntimeFault("engine_error", "no", temporary=chance.random() < 0.8))
                case _:
                    world.execute(action)
        if chance.random() < 0.3 and world.assignments:
            world.end(
                chance.choice(list(world.assignments)), chance.choice([0, 1, 137]), chance.choice(["exited", "dead"])
            )
        if chance.random() < 0.3 and world.observed:
            world.observed.pop(chance.choice(list(world.observed)))
        if chance.random() < 0.3:
            boot = chance.random() < 0.5
            world.records = {name: resumed(record, same_boot=boot) for name, record in world.records.items()}
        world.now += chance.uniform(0, 40)
    world.settle()
    assert_reached(world)
    assert world.plan() == Plan()


@given(worlds())
def test_nothing_happens_before_a_set_is_known(world: Model) -> None:
    assert look(world, known=False) == Plan()


@given(worlds())
def test_only_what_is_assigned_is_touched_and_each_once(world: Model) -> None:
    plan = look(world)
    touched = [action.instance_id for action in plan.actions]
    assert set(touched) <= set(world.assignments)
    assert len(touched) == len(set(touched))
    assert set(plan.history) <= set(world.assignments)


@given(worlds())
def test_only_a_tombstone_takes_anything_away(world: Model) -> None:
    for action in look(world).actions:
        goal = world.assignments[action.instance_id].goal
        seen = world.observed.get(action.instance_id)
        match action:
            case Remove():
                assert seen is not None
                assert goal == "remove" or seen.state == "dead"
            case RemoveVolume(volume=volume):
                assert goal == "remove"
                assert volume in world.assignments[action.instance_id].remove_volumes
                assert seen is None, "a volume goes after what uses it"
            case Stop():
                condemned = world.records.get(action.instance_id, FRESH).condemned
                assert goal != "run" or condemned is not None


@given(worlds(), st.frozensets(st.sampled_from(NAMES)))
def test_what_is_in_flight_is_left_alone(world: Model, busy: frozenset[str]) -> None:
    plan = look(world, busy)
    everything = look(world)
    assert not {action.instance_id for action in plan.actions} & busy
    assert not set(plan.history) & busy
    assert plan.actions == tuple(action for action in everything.actions if action.instance_id not in busy)


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_inputs_is_irrelevant(world: Model, chance: random.Random) -> None:
    expected = look(world)
    for attribute in ("assignments", "observed", "records"):
        items = list(getattr(world, attribute).items())
        chance.shuffle(items)
        setattr(world, attribute, dict(items))
    shuffled = look(world)
    assert shuffled == expected
    assert list(shuffled.history) == list(expected.history)


@given(worlds())
def test_looking_twice_at_the_same_is_looking_once(world: Model) -> None:
    first = look(world)
    world.records.update(first.history)
    second = look(world)
    assert second.actions == first.actions
    assert second.history == {}
    assert second.wakes == first.wakes


@given(worlds())
def test_what_waits_has_a_wake_up_and_no_action(world: Model) -> None:
    plan = look(world)
    assert not set(plan.wakes) & {action.instance_id for action in plan.actions}
    assert all(world.now < at <= world.now + 60 for at in plan.wakes.values())
    assert plan.wake_at == min(plan.wakes.values(), default=None)


@given(worlds())
def test_a_wait_from_another_goal_delays_nothing(world: Model) -> None:
    for name, assignment in list(world.assignments.items()):
        world.assignments[name] = msgspec.structs.replace(assignment, goal="remove")
        world.records[name] = History(goal="run", next_at=world.now + 50, faults=4)
    assert not look(world).wakes


@given(st.lists(st.sampled_from(NAMES), unique=True), st.randoms(use_true_random=False))
def test_reports_only_grow_and_are_written_by_the_agent(names: list[str], chance: random.Random) -> None:
    """From assignment to removal, through crashes, removals from outside and faults: no report is ever behind an earlier one."""
    spec = InstanceSpec("busybox", restart_policy=chance.choice(["always", "on-failure", "never"]))
    world = Model({name: Assignment(name, "con", "web", 0, 1, "hash", spec=spec) for name in names})
    for _ in range(12):
        for action in world.plan().actions:
            if chance.random() < 0.2:
                world.fail(action, RuntimeFault("engine_error", "no", temporary=chance.random() < 0.7))
            else:
                world.execute(action)
        if names and chance.random() < 0.4:
            world.end(chance.choice(names), chance.choice([0, 1]), chance.choice(["exited", "dead"]))
        if world.observed and chance.random() < 0.1:
            world.observed.pop(chance.choice(list(world.observed)))
        world.now += chance.uniform(0, 70)
    for name in names:
        world.assignments[name] = msgspec.structs.replace(world.assignments[name], goal="remove")
    world.settle()
    for name in names:
        reports = world.reports[name]
        assert reports[-1].phase is Phase.REMOVED
        for old, new in itertools.pairwise(reports):
            assert supersedes((old.attempt, old.phase), (new.attempt, new.phase)), (old, new)
            same = old.attempt == new.attempt and old.phase != new.phase
            assert not same or may_write("agent", old.phase, new.phase)


@given(worlds())
def test_a_report_is_never_optimistic(world: Model) -> None:
    plan = look(world)
    world.records.update(plan.history)
    for name, assignment in world.assignments.items():
        seen, record = world.observed.get(name), world.records.get(name, FRESH)
        report = derive(assignment, seen, record)
        if report.health == "healthy":
            assert seen is not None
            assert seen.state == "running"
            assert report.phase is Phase.RUNNING
        if not (report.phase is Phase.RUNNING and report.health == "healthy") and report.phase is not Phase.REMOVED:
            assert report.reason is not None, report
            assert report.reason.message


@given(worlds())
def test_an_agent_that_lost_its_records_restarts_nothing_that_runs(world: Model) -> None:
    world.records = {}
    world.assignments = {
        name: msgspec.structs.replace(assignment, goal="run", spec=InstanceSpec("busybox"))
        for name, assignment in world.assignments.items()
    }
    world.observed = {
        name: replace(seen, state="running", started_at=NOW - 50) for name, seen in world.observed.items()
    }
    plan = look(world)
    assert not {action.instance_id for action in plan.actions} & set(world.observed)
    for name in set(world.assignments) & set(world.observed):
        assert plan.history[name].attempt == 1
        assert plan.history[name].running
