"""What is sent next, what waits, what is dropped, and what is said about it."""

import pytest

from agent.link import lanes
from agent.link.lanes import BATCH_BYTES, RESEND_SECONDS, Lanes, LogLane, ReportLane
from agent.reconcile.reports import ReportBox
from shared.kit.wakeup import Wakeup
from shared.spec.instance import InstanceReport, Phase, PortBinding
from shared.spec.node import HostSample, NodeFacts
from shared.spec.reason import Reason
from shared.wire import frames
from shared.wire.codec import encode, plain_size
from shared.wire.credit import line_cost


def report(name: str, phase: Phase = Phase.RUNNING, message: str = "") -> InstanceReport:
    return InstanceReport(name, 1, phase, reason=Reason("exited", message) if message else None)


def box_of(*reports: InstanceReport) -> ReportBox:
    box = ReportBox()
    for each in reports:
        box.put(each)
    return box


def batch_names(batch: frames.InstanceReports | None) -> list[str]:
    assert batch is not None
    return [told.instance_id for told in batch.reports]


# Priority --------------------------------------------------------------------------------------------------------------------


def test_the_order_of_lanes_is_strict() -> None:
    all_lanes = Lanes(Wakeup(), lambda credit: None)
    all_lanes.open(box_of(report("inst_a")))
    all_lanes.put(frames.LogChunk("log_1", []))
    all_lanes.put(frames.MetricsSample(HostSample(1.0, 0.0, 0, 0, 0)))
    all_lanes.put(frames.NodeStatus(NodeFacts()))
    all_lanes.control(frames.AssignmentAck(1), frames.LeaseRenew(2))
    order = []
    while (frame := all_lanes.next(0.0)) is not None:
        order.append(type(frame).__name__)
    assert order == ["AssignmentAck", "LeaseRenew", "InstanceReports", "NodeStatus", "MetricsSample", "LogChunk"]


def test_before_ready_only_the_handshake_leaves() -> None:
    all_lanes = Lanes(Wakeup(), lambda credit: None)
    all_lanes.put(frames.NodeStatus(NodeFacts()))
    all_lanes.control(frames.AgentOpen(bytes(32), [1], "1"))
    assert isinstance(all_lanes.next(0.0), frames.AgentOpen)
    assert all_lanes.next(0.0) is None


# Reports ---------------------------------------------------------------------------------------------------------------------


def test_one_batch_at_a_time_and_the_latest_of_each_behind_it() -> None:
    box = box_of(report("inst_a", Phase.PULLING))
    lane = ReportLane(box)
    first = lane.next(0.0)
    assert batch_names(first) == ["inst_a"]
    box.put(report("inst_a", Phase.STARTING))
    box.put(report("inst_a", Phase.RUNNING))
    assert lane.next(1.0) is None
    assert not lane.settled
    lane.acknowledged(1)
    second = lane.next(2.0)
    assert second is not None
    assert [told.phase for told in second.reports] == [Phase.RUNNING]
    lane.acknowledged(1)  # a repeated ack is of no batch under way
    assert not lane.settled
    lane.acknowledged(2)
    assert lane.settled
    assert box.pending == 0


def test_a_batch_nobody_acknowledges_is_overtaken_by_a_whole_round() -> None:
    box = box_of(report("inst_a"), report("inst_b"))
    lane = ReportLane(box)
    lane.next(0.0)
    box.put(report("inst_b", Phase.FAILED))
    assert lane.next(RESEND_SECONDS - 0.1) is None
    again = lane.next(RESEND_SECONDS)
    assert again is not None
    assert again.batch == 2
    assert {(told.instance_id, told.phase) for told in again.reports} == {
        ("inst_a", Phase.RUNNING),
        ("inst_b", Phase.FAILED),
    }
    lane.acknowledged(1)
    assert not lane.settled, "an ack that came after all is for what was overtaken"


def test_batches_fit_a_frame_however_the_reports_look() -> None:
    ports = [PortBinding(port, port, "2001:db8::ffff:ffff:1") for port in range(1, 65)]
    many = [
        InstanceReport(f"inst_{n}", 1, Phase.RUNNING, reason=Reason("x", "é" * 900), ports=ports) for n in range(200)
    ]
    box = box_of(*many)
    lane = ReportLane(box)
    told: list[str] = []
    while (batch := lane.next(0.0)) is not None:
        assert plain_size(batch) <= BATCH_BYTES + 1024
        encode(batch)
        told += batch_names(batch)
        lane.acknowledged(batch.batch)
    assert told == [each.instance_id for each in many]
    assert box.pending == 0


def test_an_engines_endless_error_text_is_cut_and_still_acknowledged() -> None:
    box = box_of(report("inst_a", message="no " * 100_000))
    lane = ReportLane(box)
    batch = lane.next(0.0)
    assert batch is not None
    encode(batch)
    [told] = batch.reports
    assert told.reason is not None
    assert told.reason.message.endswith("…")
    lane.acknowledged(1)
    assert box.pending == 0


# Logs ------------------------------------------------------------------------------------------------------------------------


def chunk(stream: str, lines: int, dropped: int = 0) -> frames.LogChunk:
    return frames.LogChunk(stream, [frames.LogLine(at, 1, "x" * 10) for at in range(lines)], dropped, dropped * 10)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LOG_BYTES", 30 * (10 + 96))


@pytest.mark.usefixtures("small")
def test_the_oldest_chunk_goes_and_the_next_of_its_stream_says_so() -> None:
    refunds: list[frames.LogCredit] = []
    lane = LogLane(refunds.append)
    for each in (chunk("a", 10, dropped=2), chunk("b", 8), chunk("a", 9)):
        lane.put(each)
    lane.put(chunk("b", 7))
    told = []
    while (frame := lane.next()) is not None:
        assert isinstance(frame, frames.LogChunk)
        told.append((frame.stream_id, len(frame.lines), frame.dropped))
    assert told == [("b", 8, 0), ("a", 9, 12), ("b", 7, 0)]
    assert refunds == [frames.LogCredit("a", 10 * line_cost(frames.LogLine(0, 1, "x" * 10)))], "those of its own doing"


@pytest.mark.usefixtures("small")
def test_a_gap_at_the_end_of_a_stream_is_told_in_its_place() -> None:
    lane = LogLane(lambda credit: None)
    lane.put(chunk("a", 10))
    lane.put(frames.LogEnd("a"))
    for _ in range(4):
        lane.put(chunk("b", 9))
    told = []
    while (frame := lane.next()) is not None:
        told.append((frame.stream_id, type(frame).__name__, frame.dropped if isinstance(frame, frames.LogChunk) else 0))
    assert told[:2] == [("a", "LogChunk", 10), ("a", "LogEnd", 0)]
    assert [name for name, _, _ in told[2:]] == ["b"] * (len(told) - 2)


@pytest.mark.usefixtures("small")
def test_no_line_vanishes_uncounted_and_memory_stays_bounded() -> None:
    lane = LogLane(lambda credit: None)
    put = seen = 0
    for number in range(500):
        lane.put(chunk(f"log_{number % 5}", number % 9))
        put += number % 9
        assert lane._bytes <= lanes.LOG_BYTES + 5 * 64
        if number % 3 == 0 and (frame := lane.next()) is not None:
            assert isinstance(frame, frames.LogChunk)
            seen += len(frame.lines) + frame.dropped
    while (frame := lane.next()) is not None:
        assert isinstance(frame, frames.LogChunk)
        seen += len(frame.lines) + frame.dropped
    assert seen == put
    assert lane._bytes == 0
