"""The report box: the latest of each, once per session, until acknowledged."""

from agent.reconcile.reports import ReportBox
from shared.spec.instance import InstanceReport, Phase
from shared.wire.frames import Held


def report(name: str, phase: Phase = Phase.RUNNING, attempt: int = 1) -> InstanceReport:
    return InstanceReport(name, attempt, phase)


def test_the_latest_of_each_is_taken_once_and_oldest_first() -> None:
    box = ReportBox()
    box.put(report("a", Phase.PULLING))
    box.put(report("b"))
    box.put(report("a"))
    assert box.take(10) == [report("a"), report("b")]
    assert box.take(10) == []


def test_no_more_are_taken_than_asked_for() -> None:
    box = ReportBox()
    for name in "abc":
        box.put(report(name))
    assert [each.instance_id for each in box.take(2)] == ["a", "b"]
    assert [each.instance_id for each in box.take(2)] == ["c"]


def test_the_same_report_is_no_news() -> None:
    box = ReportBox()
    box.put(report("a"))
    taken = box.take(10)
    box.put(report("a"))
    assert box.take(10) == []
    assert box.pending == 1
    box.acked(taken)
    assert box.pending == 0


def test_an_acknowledgement_of_an_older_report_does_not_cover_the_newer() -> None:
    box = ReportBox()
    box.put(report("a", Phase.STARTING))
    old = box.take(10)
    box.put(report("a"))
    new = box.take(10)
    box.acked(old)
    assert box.pending == 1
    box.acked(new)
    assert box.pending == 0


def test_a_new_session_is_told_everything_even_what_was_acknowledged() -> None:
    box = ReportBox()
    box.put(report("a"))
    box.acked(box.take(10))
    box.restart_session()
    assert box.take(10) == [report("a")]


def test_held_names_reports_and_strangers_once_by_id() -> None:
    box = ReportBox()
    box.put(report("b", attempt=3))
    box.hold({"a": Held("a", 1, Phase.STOPPED), "b": Held("b", 1, Phase.STOPPED)})
    assert box.held() == [Held("a", 1, Phase.STOPPED), Held("b", 3, Phase.RUNNING)]
    box.forget("b")
    box.hold({})
    assert box.held() == []
    assert box.take(10) == []
