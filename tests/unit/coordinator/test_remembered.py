"""An answer is given again only while nothing it is about has changed."""

import msgspec
import pytest

from coordinator.procedures.context import Scope
from coordinator.procedures.remembered import LIFETIME_SECONDS, Answer, Concern, Remembered
from coordinator.store.changes import Changes, Entry
from tests.fakes.clock import FakeClock

SCOPE = Scope("org_1", "container")
ABOUT: tuple[Concern, ...] = (("container", "ctr_1"), ("node", None))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def remembered(changes: Changes, clock: FakeClock) -> Remembered:
    return Remembered(changes, clock)


def keep(remembered: Remembered, key: str = "k", body: bytes = b"{}") -> Answer:
    answer = remembered.begin(key, ABOUT)
    answer.scope, answer.body = SCOPE, msgspec.Raw(body)
    remembered.keep(key, answer)
    return answer


def test_an_answer_is_given_again(remembered: Remembered) -> None:
    keep(remembered, body=b'{"a":1}')
    found = remembered.get("k")
    assert found is not None
    assert (bytes(found.body), found.scope) == (b'{"a":1}', SCOPE)
    assert remembered.get("other") is None


@pytest.mark.parametrize(
    ("entry", "stays"),
    [
        (("container", "ctr_1"), False),
        (("container", "ctr_2"), True),
        (("instance", "ctr_1"), True),
        (("node", "node_7"), False),
    ],
)
def test_what_it_is_about_makes_it_old(remembered: Remembered, changes: Changes, entry: Entry, stays: bool) -> None:
    keep(remembered)
    changes.publish([entry])
    assert (remembered.get("k") is not None) is stays


def test_a_change_while_it_was_read_keeps_it_from_being_given_again(remembered: Remembered, changes: Changes) -> None:
    answer = remembered.begin("k", ABOUT)
    changes.publish([("container", "ctr_1")])
    remembered.keep("k", answer)
    assert remembered.get("k") is None


def test_who_asks_while_it_is_read_may_wait_for_it_until_it_is_old(remembered: Remembered, changes: Changes) -> None:
    first = remembered.begin("k", ABOUT)
    assert remembered.under_way("k") is first
    changes.publish([("container", "ctr_1")])
    assert remembered.under_way("k") is None
    second = remembered.begin("k", ABOUT)
    remembered.drop("k", first)
    assert first.ended.is_set()
    assert remembered.under_way("k") is second  # the end of the old one is not that of the new one


def test_no_answer_outlives_its_second(remembered: Remembered, clock: FakeClock) -> None:
    keep(remembered)
    clock.advance(LIFETIME_SECONDS * 0.9)
    assert remembered.get("k") is not None
    clock.advance(LIFETIME_SECONDS * 0.2)
    assert remembered.get("k") is None


def test_it_holds_no_more_than_its_capacity_and_lets_go_of_what_is_asked_least(clock: FakeClock) -> None:
    small = Remembered(Changes(), clock, capacity=10_000)
    for key in "abc":
        keep(small, key, b"x" * 2000)
    assert small.get("a") is not None  # asked again, so "b" is the oldest
    keep(small, "d", b"x" * 2000)
    assert [small.get(key) is not None for key in "abcd"] == [True, False, True, True]
    keep(small, "huge", b"x" * 20_000)
    assert small.get("huge") is None


def test_nothing_is_left_behind(remembered: Remembered, changes: Changes, clock: FakeClock) -> None:
    """Neither index nor size, whichever way an answer goes."""
    keep(remembered, "changed")
    changes.publish([("node", "node_1")])
    keep(remembered, "again")
    keep(remembered, "again")
    keep(remembered, "old")
    remembered.drop("gone", remembered.begin("gone", ABOUT))
    clock.advance(LIFETIME_SECONDS)
    assert remembered.get("again") is None
    assert remembered.get("old") is None
    assert (len(remembered), remembered._size) == (0, 0)
    assert (remembered._about, remembered._keys, remembered._reading) == ({}, {}, {})
