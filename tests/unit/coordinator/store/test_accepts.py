"""Which report may replace what is known: a table, and the rule that no order of delivery matters."""

import itertools

import pytest

from coordinator.store.instances import InstanceRecord
from coordinator.store.reports import accepts
from shared.spec.instance import Goal, InstanceReport, Phase


def known(attempt: int, phase: Phase, goal: Goal = "run") -> InstanceRecord:
    return InstanceRecord(
        id="i",
        organization_id="o",
        container_id="c",
        cluster_id="k",
        release_id="r",
        revision=1,
        slot=0,
        node_id="n",
        goal=goal,
        phase=phase,
        attempt=attempt,
        created_at=0.0,
        updated_at=0.0,
    )


@pytest.mark.parametrize(
    ("old", "new", "goal", "expected"),
    [
        ((0, Phase.ASSIGNED), (1, Phase.PULLING), "run", True),
        ((0, Phase.ASSIGNED), (1, Phase.ASSIGNED), "run", True),
        ((1, Phase.RUNNING), (1, Phase.RUNNING), "run", True),
        ((1, Phase.RUNNING), (1, Phase.STARTING), "run", False),
        ((1, Phase.RUNNING), (2, Phase.STARTING), "run", True),
        ((2, Phase.STARTING), (1, Phase.RUNNING), "run", False),
        ((1, Phase.RUNNING), (2, Phase.PENDING), "run", False),
        ((1, Phase.STOPPED), (2, Phase.STARTING), "run", False),
        ((1, Phase.STOPPED), (1, Phase.FAILED), "run", False),
        ((1, Phase.FAILED), (1, Phase.FAILED), "run", True),
        ((1, Phase.FAILED), (1, Phase.REMOVED), "run", True),
        ((5, Phase.RUNNING), (0, Phase.REMOVED), "remove", True),
        ((5, Phase.RUNNING), (0, Phase.REMOVED), "run", False),
        ((5, Phase.REMOVED), (6, Phase.RUNNING), "run", False),
    ],
)
def test_the_table(old: tuple[int, Phase], new: tuple[int, Phase], goal: Goal, expected: bool) -> None:
    assert accepts(known(*old, goal), InstanceReport("i", *new)) is expected


def test_reports_of_one_life_end_the_same_in_whatever_order_they_arrive() -> None:
    life = [(1, Phase.PULLING), (1, Phase.RUNNING), (2, Phase.STARTING), (2, Phase.RUNNING), (2, Phase.STOPPED)]
    for order in itertools.permutations(life):
        record = known(0, Phase.ASSIGNED)
        for attempt, phase in order:
            if accepts(record, InstanceReport("i", attempt, phase)):
                record = known(attempt, phase)
        assert (record.attempt, record.phase) == (2, Phase.STOPPED)
