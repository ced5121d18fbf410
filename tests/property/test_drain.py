"""A drain ends when nothing is left, and until then says what is left and whether somebody has to act."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.drain import NAMED, Resident, assess
from shared.spec.reason import DRAIN_BLOCKED, DRAINING

residents = st.builds(
    Resident,
    instance_id=st.uuids().map(str),
    container=st.sampled_from(("web", "api", "db")),
    slot=st.integers(0, 4),
    leaving=st.booleans(),
    pinned=st.booleans(),
    unplaced=st.sampled_from(("", "", "2 of 2 nodes lack 1 GiB")),
)


@given(st.lists(residents, max_size=8), st.booleans())
def test_it_is_done_exactly_when_nothing_is_left(left: list[Resident], lost: bool) -> None:
    drain = assess(left, lost=lost)
    assert drain.done is (not left)
    assert drain.reason is None or drain.reason.message


@given(st.lists(residents, max_size=8), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_is_irrelevant(left: list[Resident], lost: bool, random: Random) -> None:
    assert assess(random.sample(left, len(left)), lost=lost) == assess(left, lost=lost)


@given(st.lists(residents, min_size=1, max_size=8))
def test_it_is_blocked_exactly_by_what_cannot_go_by_itself(left: list[Resident]) -> None:
    stuck = [each for each in left if not each.leaving and (each.pinned or each.unplaced)]
    reason = assess(left).reason
    assert reason is not None
    assert reason.code == (DRAIN_BLOCKED if stuck else DRAINING)


@given(st.lists(residents, min_size=1, max_size=8))
def test_with_the_node_lost_nothing_goes_by_itself(left: list[Resident]) -> None:
    reason = assess(left, lost=True).reason
    assert reason is not None
    assert reason.code == DRAIN_BLOCKED
    assert "by force" in reason.message


def test_the_sentences() -> None:
    def said(*left: Resident, lost: bool = False) -> str:
        reason = assess(left, lost=lost).reason
        assert reason is not None
        return reason.message

    moving, going = Resident("a", "web", 0), Resident("b", "web", 1, leaving=True)
    assert said(moving, going) == "1 instance is being replaced elsewhere, 1 instance is stopping"
    pinned = [Resident(str(slot), "db", slot, pinned=True) for slot in range(NAMED + 2)]
    expected = (
        "the volumes of db/0, db/1, db/2 and 2 more live here and cannot move: scale down or remove what needs them"
    )
    assert said(moving, *pinned) == expected
    full = Resident("c", "web", 2, unplaced="2 of 3 nodes lack 1 GiB, 1 is draining")
    assert said(moving, full) == "no other node takes web/2: 2 of 3 nodes lack 1 GiB, 1 is draining"
