"""Health: quick to see readiness, slow to condemn, and never unhealthy for what happened while it was starting."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from agent.core.health import QUICKEST, HealthState, begin, observe
from shared.spec.container import HealthCheck

checks = st.builds(
    HealthCheck,
    type=st.just("tcp"),
    port=st.just(80),
    interval=st.integers(1, 20),
    retries=st.integers(1, 5),
    start_period=st.integers(0, 40),
)


@dataclass
class Run:
    """One attempt probed exactly when the state asks for it."""

    check: HealthCheck
    state: HealthState
    now: float
    probes: int = 0

    @classmethod
    def of(cls, check: HealthCheck, started_at: float = 100.0) -> "Run":
        return cls(check, begin(check, started_at), started_at)

    def probe(self, passed: bool) -> HealthState:
        assert self.state.next_probe_at is not None
        assert self.state.next_probe_at >= self.now
        self.now = self.state.next_probe_at
        self.probes += 1
        self.state = observe(self.state, self.check, passed, self.now, f"refused {self.probes}")
        return self.state


def test_without_a_check_running_is_healthy_and_nothing_is_probed() -> None:
    state = begin(None, 5.0)
    assert (state.health, state.next_probe_at) == ("healthy", None)


@given(checks)
def test_the_first_probe_is_at_once_and_one_success_is_enough(check: HealthCheck) -> None:
    run = Run.of(check)
    assert run.state.health == "starting"
    assert run.state.next_probe_at == run.now
    assert run.probe(True).health == "healthy"
    assert run.state.next_probe_at == run.now + check.interval


@given(checks, st.floats(0, 60))
def test_readiness_is_seen_soon(check: HealthCheck, ready_after: float) -> None:
    """No later than a tenth of the time it took, or the first step, or one interval."""
    run = Run.of(check)
    while not run.state.passed_once:
        run.probe(run.state.next_probe_at is not None and run.state.next_probe_at >= 100 + ready_after)
    late = run.now - 100 - ready_after
    assert late <= max(QUICKEST, min(ready_after / 10, check.interval)) + 1e-6
    assert run.probes < 200


@given(checks, st.lists(st.booleans(), max_size=60))
def test_nothing_in_the_start_period_counts(check: HealthCheck, results: list[bool]) -> None:
    run = Run.of(check)
    for passed in results:
        run.probe(passed)
        if run.now < 100 + max(check.start_period, check.interval):
            assert run.state.health != "unhealthy"
            assert run.state.failures == 0


@given(checks)
def test_a_dead_instance_is_unhealthy_after_retries_and_stuck_after_as_many_more(check: HealthCheck) -> None:
    run = Run.of(check)
    while run.state.health != "unhealthy":
        run.probe(False)
    earliest = 100 + max(check.start_period, check.interval) + (check.retries - 1) * check.interval
    assert earliest <= run.now + 1e-6
    assert run.now <= earliest + check.retries * check.interval, "each count may be late by less than one pause"
    assert not run.state.stuck
    unhealthy_at = run.now
    while not run.state.stuck:
        assert run.probe(False).health == "unhealthy"
    assert run.now - unhealthy_at >= check.retries * check.interval - 1e-6


@given(checks, st.lists(st.booleans(), min_size=1, max_size=80))
def test_states_follow_from_the_results(check: HealthCheck, results: list[bool]) -> None:
    run = Run.of(check)
    for passed in results:
        before = run.state
        state = run.probe(passed)
        if passed:
            assert (state.health, state.failures, state.failing_since, state.last_error) == ("healthy", 0, None, "")
            assert not state.stuck
        else:
            assert state.failing_since == (before.failing_since if before.failing_since is not None else run.now)
            assert before.failures <= state.failures <= before.failures + 1
            assert (state.health == "unhealthy") == (state.failures >= check.retries)
            assert state.health != "healthy" or before.health == "healthy", "a failure improves nothing"
        assert state.next_probe_at is not None
        assert QUICKEST - 1e-6 <= state.next_probe_at - run.now <= check.interval + 1e-6


@given(checks)
def test_after_the_first_success_probes_keep_to_the_interval(check: HealthCheck) -> None:
    run = Run.of(check)
    run.probe(True)
    for _ in range(10):
        before = run.now
        run.probe(False)
        assert abs(run.now - before - check.interval) < 1e-6


def test_a_changing_error_is_renewed_once_an_interval() -> None:
    run = Run.of(HealthCheck(type="tcp", port=80, interval=10, retries=3, start_period=60))
    errors = {run.probe(False).last_error for _ in range(20)}
    assert errors == {"refused 1"}
