"""What an engine in trouble merely lists, without times, exit code and ports: nothing that is to run is judged by it."""

import pytest

from agent.core.actions import Action, Remove, Stop
from agent.core.history import History
from agent.core.observe import EngineState, Observed
from agent.core.plan import Desired, Plan, diff
from shared.spec.container import RestartPolicy
from shared.spec.instance import Assignment, Goal, InstanceSpec, Phase

NOW = 1000.0
RUNNING = History(
    stage=Phase.RUNNING, engine_id="e", image_ready=True, running=True, ever_started=True, started_at=NOW - 50
)
CRASHED = History(
    attempt=2,
    stage=Phase.STARTING,
    engine_id="e",
    image_ready=True,
    ever_started=True,
    finished_at=NOW - 5,
    exit_code=1,
    exit_id="e",
    crashes=1,
    next_at=NOW + 20,
)


def planned(
    record: History, state: EngineState, *, goal: Goal = "run", policy: RestartPolicy = "always", full: bool = False
) -> Plan:
    spec = InstanceSpec("busybox", restart_policy=policy)
    assignment = Assignment("ins", "con", "web", 0, 1, "hash", goal=goal, spec=spec)
    seen = Observed("e", "ins", "hash", state, started_at=NOW - 40 if full else None)
    return diff(Desired(True, {"ins": assignment}), {"ins": seen}, {"ins": record}, NOW)


def test_a_running_one_was_not_restarted() -> None:
    assert planned(RUNNING, "running") == Plan()
    assert planned(RUNNING, "running", full=True).history["ins"].attempt == 2, "with another start time, it was"


def test_an_ended_one_did_not_crash_a_second_time() -> None:
    assert planned(CRASHED, "exited") == Plan()


def test_without_its_exit_code_no_job_has_failed() -> None:
    assert planned(RUNNING, "exited", policy="never") == Plan()
    assert planned(RUNNING, "exited", policy="never", full=True).history["ins"].end is Phase.FAILED


@pytest.mark.parametrize(
    ("state", "goal", "action"),
    [
        ("running", "stop", Stop("ins", "e", 10)),
        ("running", "remove", Stop("ins", "e", 10)),
        ("exited", "remove", Remove("ins", "e")),
    ],
)
def test_what_is_to_end_does_not_wait_for_more(state: EngineState, goal: Goal, action: Action) -> None:
    assert planned(RUNNING, state, goal=goal).actions == (action,)
