"""The hub's small parts by themselves: lanes, admission, intake."""

import asyncio

from coordinator.hub.admission import REGISTRATIONS, WITHIN_SECONDS, Admission
from coordinator.hub.intake import Intake
from coordinator.hub.lanes import STREAM_LIMIT, Lanes
from shared.spec.instance import InstanceReport, Phase
from shared.wire.frames import InstanceReports


def least(low: float, high: float) -> float:
    return low


async def test_control_frames_overtake_stream_frames() -> None:
    lanes = Lanes()
    lanes.stream(b"log 1")
    lanes.stream(b"log 2")
    lanes.control(b"ack")
    assert [await lanes.next() for _ in range(3)] == [b"ack", b"log 1", b"log 2"]


async def test_a_full_stream_lane_refuses_and_says_so() -> None:
    lanes = Lanes()
    assert all(lanes.stream(b"x") for _ in range(STREAM_LIMIT))
    assert not lanes.stream(b"x")
    await lanes.next()
    assert lanes.stream(b"x")


async def test_the_farewell_overtakes_everything_and_is_the_last() -> None:
    lanes = Lanes()
    lanes.control(b"assignment")
    lanes.stream(b"log")
    lanes.finish([b"goaway"])
    lanes.control(b"late")
    assert not lanes.stream(b"late")
    assert [await lanes.next(), await lanes.next(), await lanes.next()] == [b"goaway", None, None]


async def test_waiting_for_a_frame_ends_with_its_arrival() -> None:
    lanes = Lanes()
    waiting = asyncio.create_task(lanes.next())
    await asyncio.sleep(0)
    lanes.control(b"now")
    assert await waiting == b"now"


def test_registrations_are_limited_per_node_and_forgotten_in_time() -> None:
    admission = Admission(least)
    for second in range(REGISTRATIONS):
        assert admission.register("a", float(second)) is None
    assert admission.register("b", 3.0) is None
    assert admission.register("a", 3.0) == WITHIN_SECONDS - 3.0
    assert admission.register("a", WITHIN_SECONDS + 0.5) is None


def test_the_memory_of_registrations_is_bounded() -> None:
    admission = Admission(least)
    for number in range(5000):
        admission.register(f"n{number}", number * 1.0)
    assert len(admission._registered) < 1100


def test_reports_coalesce_to_the_latest_and_every_batch_is_acknowledged() -> None:
    intake = Intake()
    intake.put(InstanceReports(1, [InstanceReport("i", 1, Phase.PULLING), InstanceReport("j", 1, Phase.PULLING)]))
    intake.put(InstanceReports(2, [InstanceReport("i", 1, Phase.RUNNING)]))
    taken = intake.take()
    assert taken is not None
    assert {report.instance_id: report.phase for report in taken.reports} == {"i": Phase.RUNNING, "j": Phase.PULLING}
    assert taken.batches == [1, 2]
    assert intake.take() is None
    intake.put(InstanceReports(3, [InstanceReport("j", 1, Phase.FAILED)]))
    intake.put_back(taken)
    again = intake.take()
    assert again is not None
    assert {report.instance_id: report.phase for report in again.reports} == {"i": Phase.RUNNING, "j": Phase.FAILED}
    assert again.batches == [1, 2, 3]
