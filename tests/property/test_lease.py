"""Who keeps beating is never doubted, who is silent is lost in time, and a silent crowd is doubted before it is believed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.lease import (
    CONFIRMING_GRACES,
    CROWD,
    CROWD_SHARE,
    NEVER,
    PERIODS_OF_GRACE,
    START_GRACES,
    Beat,
    Dropped,
    Event,
    Lease,
    Standing,
    Tick,
    doubts_itself,
    grant,
    pardon,
    period,
    step,
)

PERIOD = 2.0
GRACE = PERIOD * PERIODS_OF_GRACE
seconds = st.floats(0.01, 30, allow_nan=False)


@dataclass
class Fleet:
    """Nodes that beat every `PERIOD` from their own offset on until they go silent; the coordinator ticks every 0.25 s."""

    offsets: list[float]
    silent_from: Callable[[int], float]
    ticks: float = 0.25
    lost_at: dict[int, float] = field(default_factory=dict)
    suspect_at: dict[int, float] = field(default_factory=dict)

    def run(self, until: float) -> None:
        leases = [grant(0.0, PERIOD) for _ in self.offsets]
        next_beat = list(self.offsets)
        for turn in range(1, int(until / self.ticks) + 1):
            now = turn * self.ticks
            for number, lease in enumerate(leases):
                while next_beat[number] <= now:
                    if next_beat[number] < self.silent_from(number):
                        lease, _, _ = step(lease, Beat(next_beat[number], PERIOD))
                    next_beat[number] += PERIOD
                leases[number] = lease
            trusted = not doubts_itself(leases, now)
            for number, lease in enumerate(leases):
                leases[number], events, _ = step(lease, Tick(now, trusted))
                if Event.NODE_LOST in events:
                    self.lost_at[number] = now
                if Event.NODE_SUSPECT in events:
                    self.suspect_at[number] = now


@given(st.lists(st.floats(0, PERIOD, exclude_max=True), min_size=1, max_size=12), st.data())
def test_silent_nodes_are_lost_after_three_periods_or_suspected_when_they_are_a_crowd(
    offsets: list[float], data: st.DataObject
) -> None:
    vanishing = data.draw(st.sets(st.integers(0, len(offsets) - 1)))
    vanish_at = 10.0
    fleet = Fleet(offsets, lambda number: vanish_at if number in vanishing else NEVER)
    fleet.run(vanish_at + GRACE * (2 + CONFIRMING_GRACES))
    assert set(fleet.lost_at) == vanishing
    crowd = len(vanishing) >= CROWD and len(vanishing) >= CROWD_SHARE * len(offsets)
    for number in vanishing:
        waited = fleet.lost_at[number] - vanish_at
        if crowd:
            assert number in fleet.suspect_at
            assert waited > CONFIRMING_GRACES * GRACE
        else:
            assert number not in fleet.suspect_at
            assert GRACE - PERIOD <= waited <= GRACE + fleet.ticks


@pytest.mark.parametrize(("nodes", "gone"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2)])
def test_in_a_small_cluster_a_loss_is_acted_on_at_once(nodes: int, gone: int) -> None:
    fleet = Fleet([0.7 * number for number in range(nodes)], lambda number: 10.0 if number < gone else NEVER)
    fleet.run(10.0 + GRACE + 0.25)
    assert set(fleet.lost_at) == set(range(gone))


@given(st.lists(seconds, min_size=1, max_size=30), st.booleans())
def test_a_node_that_beats_within_its_grace_is_never_doubted(gaps: list[float], trusted: bool) -> None:
    lease, now = grant(0.0, PERIOD), 0.0
    for gap in gaps:
        gap = min(gap, GRACE * 0.99)
        lease, events, _ = step(lease, Tick(now + gap, trusted))
        assert not events
        now += gap
        lease, events, deadline = step(lease, Beat(now, PERIOD))
        assert not events
        assert deadline >= now + GRACE


inputs = st.lists(
    st.tuples(seconds, st.sampled_from(("beat", "tick", "doubtful tick", "dropped")), st.sampled_from((2.0, 10.0))),
    max_size=40,
)


@given(inputs)
def test_events_tell_exactly_the_changes_of_standing(steps: list[tuple[float, str, float]]) -> None:
    lease, now = grant(0.0, PERIOD), 0.0
    says = {Event.NODE_READY: Standing.READY, Event.NODE_SUSPECT: Standing.SUSPECT, Event.NODE_LOST: Standing.LOST}
    for gap, kind, period_now in steps:
        now += gap
        before = lease
        match kind:
            case "beat":
                lease, events, deadline = step(lease, Beat(now, period_now))
                assert lease.standing is Standing.READY
            case "dropped":
                lease, events, deadline = step(lease, Dropped(now))
                assert lease == before
            case _:
                lease, events, deadline = step(lease, Tick(now, kind == "tick"))
                assert lease.standing.value >= before.standing.value
        assert [says[event] for event in events] == ([lease.standing] if lease.standing is not before.standing else [])
        assert deadline == lease.expires_at
        assert deadline > now or kind == "dropped"


@given(inputs)
def test_nobody_is_lost_before_three_periods_of_silence(steps: list[tuple[float, str, float]]) -> None:
    lease, now = grant(0.0, PERIOD), 0.0
    for gap, kind, period_now in steps:
        now += gap
        silence, due = now - lease.heard_at, PERIODS_OF_GRACE * lease.period
        event = Beat(now, period_now) if kind == "beat" else Tick(now, kind == "tick")
        lease, events, _ = step(lease, event)
        assert Event.NODE_LOST not in events or silence >= due - 1e-6  # sums of floats


@given(seconds, seconds)
def test_a_late_beat_takes_nothing_back(earlier: float, later: float) -> None:
    lease, _, _ = step(grant(0.0, PERIOD), Beat(earlier + later, PERIOD))
    again, events, _ = step(lease, Beat(earlier, PERIOD))
    assert again == lease
    assert not events


def test_after_the_coordinators_start_everybody_has_twice_the_time() -> None:
    lease = grant(100.0, PERIOD, graces=START_GRACES)
    lease, events, _ = step(lease, Tick(100.0 + START_GRACES * GRACE - 0.01))
    assert not events
    lease, events, _ = step(lease, Tick(100.0 + START_GRACES * GRACE))
    assert events == (Event.NODE_LOST,)


def test_the_first_heartbeat_after_a_start_does_not_take_that_time_back() -> None:
    """The agent may have dialled in and lost its way again: the network of a coordinator that starts is no settled one."""
    lease, _, deadline = step(grant(100.0, PERIOD, graces=START_GRACES), Beat(101.0, PERIOD))
    assert deadline == 100.0 + START_GRACES * GRACE
    lease, _, deadline = step(lease, Beat(110.0, PERIOD))
    assert deadline == 110.0 + GRACE


def test_a_node_recorded_as_lost_stays_so_until_it_is_heard() -> None:
    lease = grant(100.0, PERIOD, graces=START_GRACES, lost=True)
    lease, events, deadline = step(lease, Tick(10_000.0))
    assert not events
    assert deadline == NEVER
    lease, events, _ = step(lease, Beat(10_001.0, PERIOD))
    assert events == (Event.NODE_READY,)


@given(st.lists(st.floats(0, GRACE * 0.9), min_size=1, max_size=8), st.floats(1, 1000))
def test_the_time_the_coordinator_was_held_up_does_not_count(silences: list[float], absent: float) -> None:
    before = 100.0
    leases = {
        str(number): step(grant(0.0, PERIOD), Beat(before - gone, PERIOD))[0] for number, gone in enumerate(silences)
    }
    pardoned = pardon(leases, before + absent, absent)
    assert doubts_itself(pardoned.values(), before + absent) == doubts_itself(leases.values(), before)
    for lease in pardoned.values():
        _, events, _ = step(lease, Tick(before + absent))
        assert not events


def test_what_was_lost_before_is_no_witness() -> None:
    def silent_since(seconds: float) -> Lease:
        return Lease(100.0 - seconds, PERIOD, 100.0 - seconds + GRACE)

    lost = [grant(0.0, PERIOD, lost=True)] * 100
    assert doubts_itself([*lost, *[silent_since(5.0)] * 3, *[silent_since(1.0)] * 2], 100.0)
    assert not doubts_itself([*lost, *[silent_since(5.0)] * 3, *[silent_since(1.0)] * 3], 100.0)
    assert not doubts_itself([*lost, *[silent_since(5.0)] * 2], 100.0)


@given(st.integers(0, 50_000))
def test_the_period_grows_with_the_fleet_and_within_bounds(nodes: int) -> None:
    assert 2.0 <= period(nodes) <= period(nodes + 1) <= 10.0
    assert nodes > 10_000 or nodes / period(nodes) <= 1_000.0 + 1e-6


def test_the_period_at_the_ends() -> None:
    assert (period(1), period(1_000), period(5_500), period(10_000), period(20_000)) == (2.0, 2.0, 6.0, 10.0, 10.0)
