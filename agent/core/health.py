"""Health of one attempt as a state machine without a clock or a socket: probe results in, the next probe's time out.

Two rhythms, because two questions are asked. Until the first success: "is it ready yet?", asked often, so that nobody waits
for an instance that answers already. After it: "does it still work?", asked every `interval`. Failures weigh the same in both:
they count at `interval` spacing, the start included, and outside `start_period` only, so the quick rhythm cannot condemn a
slow start.

Times are seconds of one clock, whichever the caller uses for all of them.
"""

from dataclasses import dataclass, replace

from shared.spec.container import HealthCheck
from shared.spec.instance import Health

QUICKEST = 0.05
"""Seconds between the first probes; then a tenth of the time already waited, so that waiting costs at most a tenth more."""


@dataclass(frozen=True)
class HealthState:
    """`failures` are those that counted, in a row. `failing_since`: the first failed probe of the present row, counted or not.
    `last_error` is renewed at most every `interval`, so that a changing text is not a flood of reports. `stuck`: it was
    unhealthy for `retries` intervals more; nothing but a restart is likely to help."""

    health: Health
    next_probe_at: float | None
    started_at: float = 0.0
    failing_since: float | None = None
    last_error: str = ""
    failures: int = 0
    passed_once: bool = False
    stuck: bool = False
    counted_at: float | None = None


def begin(check: HealthCheck | None, started_at: float) -> HealthState:
    """Without a check, running is all there is to ask, and the runtime answers that."""
    if check is None:
        return HealthState("healthy", None, started_at)
    return HealthState("starting", started_at, started_at)


def observe(state: HealthState, check: HealthCheck, passed: bool, now: float, error: str = "") -> HealthState:
    """After a probe that ended at `now`. `error`: what a failed one said, for people."""
    if passed:
        return HealthState("healthy", now + check.interval, state.started_at, passed_once=True)
    counts = _counts(state, check, now)
    failures = state.failures + counts
    return replace(
        state,
        health="unhealthy" if failures >= check.retries else state.health,
        next_probe_at=now + _pause(state, check, now),
        failing_since=now if state.failing_since is None else state.failing_since,
        last_error=error if counts or not state.last_error else state.last_error,
        failures=failures,
        stuck=failures >= 2 * check.retries,
        counted_at=now if counts else state.counted_at,
    )


def _counts(state: HealthState, check: HealthCheck, now: float) -> bool:
    if now < state.started_at + max(check.start_period, check.interval):  # one interval is the least anybody can mean
        return False
    return state.counted_at is None or now - state.counted_at >= check.interval


def _pause(state: HealthState, check: HealthCheck, now: float) -> float:
    if state.passed_once:
        return check.interval
    return min(max(QUICKEST, (now - state.started_at) / 10), check.interval)
