"""Delays stay between nothing and a ceiling that grows to a limit, and are forgotten only after a healthy while."""

from hypothesis import given
from hypothesis import strategies as st

from agent.link.retry import LONGEST_WISH, Ending, delay
from shared.kit.backoff import Backoff
from shared.wire.closing import CloseReason

DRAWS = st.floats(0, 1, exclude_max=True)
ENDINGS = st.builds(
    Ending,
    st.one_of(st.none(), st.sampled_from(CloseReason)),
    st.just("why"),
    st.floats(0, 10_000),
    st.floats(0, 300),
)


@given(base=st.floats(0.001, 10), factor=st.floats(1, 1000), draws=st.lists(DRAWS, min_size=1, max_size=60))
def test_delays_lie_under_a_doubling_ceiling(base: float, factor: float, draws: list[float]) -> None:
    source = iter(draws)
    backoff = Backoff(base, base * factor, draw=lambda: next(source))
    for tries, drawn in enumerate(draws):
        limit = min(base * 2**tries, base * factor)
        assert backoff.next_delay() == limit * drawn


def test_the_first_delay_is_jittered_too() -> None:
    assert Backoff(draw=lambda: 0.25).next_delay() == 0.25


@given(failures=st.integers(1, 10_000), held=st.floats(0, 200))
def test_only_a_healthy_while_resets(failures: int, held: float) -> None:
    backoff = Backoff(draw=lambda: 1.0)
    for _ in range(min(failures, 50)):
        backoff.next_delay()
    count = backoff.failures
    backoff.settled(held)
    assert backoff.failures == (0 if held >= 60 else count)
    assert backoff.next_delay() <= 60


def test_a_very_long_run_of_failures_does_not_overflow() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    backoff.failures = 10**6
    assert backoff.next_delay() == 60


@given(endings=st.lists(ENDINGS, max_size=30), drawn=DRAWS)
def test_an_agent_waits_as_the_closing_table_says(endings: list[Ending], drawn: float) -> None:
    backoff = Backoff(draw=lambda: drawn)
    for ending in endings:
        wait = delay(ending, backoff)
        policy = ending.reason.retry if ending.reason else "soon"
        assert (wait is None) == (policy == "never")
        if wait is None:
            continue
        wish = min(ending.after, LONGEST_WISH)
        assert wish <= wait <= wish + 60
        if policy == "slow":
            assert wait >= wish + 30


def test_a_connection_dropped_at_once_each_time_is_tried_ever_more_rarely() -> None:
    backoff = Backoff(draw=lambda: 0.5)
    waits = [delay(Ending(CloseReason.GOING_AWAY, "bye", held_for=0.1), backoff) for _ in range(9)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert delay(Ending(CloseReason.GOING_AWAY, "bye", held_for=61.0), backoff) == 0.5
