"""Restarts: spread over a window that grows, said in words, and never waited for longer than the longest delay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core import restart
from agent.core.absorb import absorb
from agent.core.history import FRESH, History, crashed, started
from agent.core.observe import Observed
from shared.spec.container import RestartPolicy
from shared.spec.instance import Assignment, InstanceSpec, Phase
from shared.spec.reason import EXITED, REMOVED_OUTSIDE, Reason

names = st.text(min_size=1, max_size=20)
NOW = 1_000_000.0


@given(names, st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_delay_lies_in_its_window_and_is_always_the_same(name: str, attempt: int, count: int) -> None:
    pause = restart.delay(name, attempt, count)
    assert 0 <= pause <= min(2.0 ** min(count - 1, 32), 60)
    assert pause == restart.delay(name, attempt, count)


def test_delays_of_many_instances_fill_the_window_evenly() -> None:
    pauses = [restart.delay(f"ins_{number}", 3, 10) for number in range(2000)]
    for quarter in range(4):
        share = sum(15 * quarter <= pause < 15 * (quarter + 1) for pause in pauses)
        assert 400 < share < 600


@given(st.floats(0, 2e9), st.one_of(st.none(), st.floats(-1e9, 4e9)))
def test_nothing_is_waited_for_longer_than_the_longest_delay(now: float, next_at: float | None) -> None:
    if restart.waiting(next_at, now):
        assert next_at is not None
        assert 0 < next_at - now <= restart.CEILING


@given(st.integers(0, 255), st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_crashes_in_a_row_count_until_a_minute_of_health(exit_code: int, held: list[float]) -> None:
    record, now, row = FRESH, NOW, 0
    for attempt, seconds in enumerate(held, start=1):
        record = started(record, "engine")
        record = absorb(_assignment(), Observed("engine", "ins", "h", "running", started_at=now), record, now)
        record = replace(record, healthy_at=now)
        now += seconds
        ended = Observed("engine", "ins", "h", "exited", exit_code, started_at=now - seconds, finished_at=now)
        record = absorb(_assignment(), ended, record, now)
        row = 1 if seconds >= restart.HEALTHY_AFTER else row + 1
        assert record.attempt == attempt + 1
        assert record.stage is Phase.STARTING
        assert record.crashes == row
        assert record.reason is not None
        assert record.reason.next_at == record.next_at
        assert record.next_at is not None
        assert now <= record.next_at <= now + 60
        assert (f" {row} times" in record.reason.message) == (row > 2)
        assert absorb(_assignment(), ended, record, now + 1) == record, "an end is counted once"
        now = max(now, record.next_at) + 0.001


def test_a_removal_from_outside_is_forgiven_once() -> None:
    cause = Reason(REMOVED_OUTSIDE, "its engine container was removed by other means than Argosy")
    first = crashed("ins", History(running=True), cause, NOW)
    assert first.next_at == NOW
    assert first.reason is not None
    assert first.reason.message.endswith("; next start at once")
    second = crashed("ins", first, cause, NOW)
    assert second.next_at is not None
    assert second.next_at > NOW


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "sentence"),
    [
        (137, False, "exited with code 137 (killed)"),
        (139, False, "exited with code 139 (segmentation fault)"),
        (137, True, "ran out of memory and was killed"),
        (1, False, "exited with code 1"),
        (127, False, "exited with code 127 (its command was not found)"),
        (None, False, "ended"),
    ],
)
def test_an_end_in_words(exit_code: int | None, out_of_memory: bool, sentence: str) -> None:
    assert restart.exit_sentence(exit_code, out_of_memory=out_of_memory) == sentence


def test_a_row_of_crashes_in_words() -> None:
    record = crashed(
        "ins", History(attempt=3, running=True, crashes=2), Reason(EXITED, "exited with code 137 (killed)"), NOW
    )
    assert record.reason is not None
    assert record.next_at is not None
    expected = f"exited with code 137 (killed) 3 times; next start {restart.in_words(record.next_at - NOW)}"
    assert record.reason.message == expected


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "at once"), (0.4, "in 0.4 s"), (8.2, "in 8 s")])
def test_a_wait_in_words(seconds: float, words: str) -> None:
    assert restart.in_words(seconds) == words


@pytest.mark.parametrize(
    ("policy", "exit_code", "verdict"),
    [
        ("always", 0, "again"),
        ("always", 1, "again"),
        ("on-failure", 0, "completed"),
        ("on-failure", 1, "again"),
        ("on-failure", None, "again"),
        ("never", 0, "completed"),
        ("never", 1, "failed"),
        ("never", None, "failed"),
    ],
)
def test_what_the_policy_makes_of_an_end(
    policy: RestartPolicy, exit_code: int | None, verdict: restart.Verdict
) -> None:
    assert restart.judge(policy, exit_code) == verdict


def _assignment() -> Assignment:
    return Assignment("ins", "con", "web", 0, 1, "h", spec=InstanceSpec("busybox"))
