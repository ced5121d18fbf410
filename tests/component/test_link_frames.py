"""What the agent's link carries: assignments down, reports, logs and measures up, each by its own rule."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.journal.journal import JournalError
from agent.link import inbox as inbox_module
from shared.spec.instance import Assignment, Phase
from shared.spec.node import HostSample, NodeFacts
from shared.wire import frames
from tests.fakes.hub import ServedSession
from tests.fakes.link import World, assignment, link_world, read_again, report, told

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with link_world(tmp_path) as made:
        yield made


# Assignments -----------------------------------------------------------------------------------------------------------------


async def test_sets_and_deltas_are_applied_in_order_and_acknowledged(world: World) -> None:
    async with world.linked():
        served = await world.server.session()
        await served.send(
            frames.AssignmentSet(5, 0, False, [assignment("inst_a")]),
            frames.AssignmentSet(5, 1, True, [assignment("inst_b")]),
            frames.AssignmentDelta(5, 6, [assignment("inst_c")], ["inst_a"]),
        )
        acks = await served.wait_for(frames.AssignmentAck, 2)
        assert [ack.sequence for ack in acks] == [5, 6]
        assert set(world.book.assignments) == {"inst_b", "inst_c"}
        assert set((await asyncio.to_thread(read_again, world.state_dir)).assignments) == {"inst_b", "inst_c"}


async def test_a_gap_asks_once_and_the_set_mends_it(world: World) -> None:
    async with world.linked():
        served = await world.server.session()
        await served.send(frames.AssignmentDelta(8, 9, [assignment("inst_x")]), frames.AssignmentDelta(9, 10))
        [need] = await served.wait_for(frames.AssignmentNeed)
        assert need.have is None
        await served.send(
            frames.AssignmentSet(10, 0, True, [assignment("inst_x")]),
            frames.AssignmentDelta(10, 11, [assignment("inst_y")]),
        )
        acks = await served.wait_for(frames.AssignmentAck, 2)
        assert [ack.sequence for ack in acks] == [10, 11]
        assert len(served.of(frames.AssignmentNeed)) == 1


async def test_a_disk_that_refuses_is_not_acknowledged_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "_DISK_SECONDS", 0.01)
    save, full = world.journal.save_set, [True]

    def save_set(sequence: int, assignments: dict[str, Assignment]) -> None:
        if full.pop():
            raise JournalError("no space left on device")
        full.append(False)
        save(sequence, assignments)

    full.insert(0, False)
    monkeypatch.setattr(world.journal, "save_set", save_set)
    async with world.linked():
        served = await world.server.session()
        await served.send(frames.AssignmentSet(3, 0, True, [assignment("inst_a")]))
        await served.wait_for(frames.AssignmentNeed)
        assert not served.of(frames.AssignmentAck)
        await served.send(frames.AssignmentSet(3, 0, True, [assignment("inst_a")]))
        assert [ack.sequence for ack in await served.wait_for(frames.AssignmentAck)] == [3]


async def test_a_slow_disk_costs_no_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hub.period, world.hub.grace = 0.06, 0.3
    slow = asyncio.Event()
    apply_set = world.book.apply_set

    async def after_the_disk(frame: frames.AssignmentSet) -> None:
        await slow.wait()
        await apply_set(frame)

    monkeypatch.setattr(world.book, "apply_set", after_the_disk)
    async with world.linked():
        served = await world.server.session()
        await served.send(frames.AssignmentSet(3, 0, True))
        await served.wait_for(frames.LeaseRenew, 12)
        slow.set()
        await served.wait_for(frames.AssignmentAck)


# Reports ---------------------------------------------------------------------------------------------------------------------


async def test_a_report_on_an_idle_channel_leaves_at_once_and_is_acknowledged(world: World) -> None:
    async with world.linked():
        served = await world.server.session()
        world.reports.put(report("inst_a"))
        await served.wait_for(frames.InstanceReports)
        world.reports.put(report("inst_b"))
        await served.wait_for(frames.InstanceReports, 2)
        assert told(served) == ["inst_a", "inst_b"]


async def test_reports_coalesce_behind_one_that_is_not_acknowledged(world: World) -> None:
    world.server.acknowledge = False
    async with world.linked():
        served = await world.server.session()
        world.reports.put(report("inst_a", phase=Phase.PULLING))
        await served.wait_for(frames.InstanceReports)
        for phase in (Phase.STARTING, Phase.RUNNING):
            world.reports.put(report("inst_a", phase=phase))
            world.reports.put(report("inst_b", phase=phase))
        await served.send(frames.ReportAck(1))
        [_, second] = await served.wait_for(frames.InstanceReports, 2)
        assert [(told.instance_id, told.phase) for told in second.reports] == [
            ("inst_a", Phase.RUNNING),
            ("inst_b", Phase.RUNNING),
        ]


async def test_what_was_not_acknowledged_is_sent_again_in_the_next_session(world: World) -> None:
    world.server.acknowledge = False
    async with world.linked():
        served = await world.server.session()
        world.reports.put(report("inst_a"))
        world.reports.put(report("inst_b", message="x" * 5000))
        await served.wait_for(frames.InstanceReports)
        served.vanish()
        world.server.acknowledge = True
        again = await world.server.session()
        await again.wait_for(frames.InstanceReports)
        assert sorted(told(again)) == ["inst_a", "inst_b"]


async def test_many_reports_go_in_frames_that_fit(world: World) -> None:
    names = [f"inst_{number:04}" for number in range(700)]
    for name in names:
        world.reports.put(report(name, message=os.urandom(300).hex()))
    async with world.linked():
        served = await world.server.session()
        while len(told(served)) < len(names):
            await served.wait_for(frames.InstanceReports, len(served.of(frames.InstanceReports)) + 1)
        assert told(served) == names
        assert all(len(batch.reports) <= 256 for batch in served.of(frames.InstanceReports))


# Logs, status, metrics -------------------------------------------------------------------------------------------------------


async def test_log_requests_reach_the_streams_and_end_with_the_session(world: World) -> None:
    async with world.linked():
        served = await world.server.session()
        asked = [frames.LogSubscribe("log_1", "inst_a", 1024), frames.LogCredit("log_1", 9), frames.LogCancel("log_1")]
        await served.send(*asked)  # type: ignore[arg-type]
        await world.logs.wait_for(asked[-1])
        assert world.logs.asked[-3:] == asked
        served.vanish()
        await world.logs.wait_for("all")


async def test_a_flood_of_logs_delays_neither_control_nor_reports(world: World) -> None:
    """The server stops reading until the flood has filled every buffer on the way; what is urgent still overtakes the rest."""
    async with world.linked() as link:
        served = await world.ready()
        served.reading.clear()
        lines = [frames.LogLine(number, 1, os.urandom(90).hex()) for number in range(256)]
        for _ in range(100):
            link.send(frames.LogChunk("log_1", lines))
            for _ in range(5):
                await asyncio.sleep(0)  # let the writer push until the socket takes no more
        await served.send(frames.AssignmentSet(1, 0, True))
        while world.book.sequence != 1:
            await asyncio.sleep(0)
        world.reports.put(report("inst_a"))
        served.reading.set()
        while lines_told(served) < 100 * 256:
            await served.wait_for(frames.LogChunk, len(served.of(frames.LogChunk)) + 1)
        assert lines_told(served) == 100 * 256, "sent or counted as dropped, each line once"
        kinds = [type(frame) for _, frame in served.frames if not isinstance(frame, frames.LeaseRenew)]
        assert kinds.index(frames.AssignmentAck) < kinds.index(frames.InstanceReports, 3), "control before reports"
        assert kinds[kinds.index(frames.InstanceReports, 3) :].count(frames.LogChunk) > 20, "reports before logs"


def lines_told(served: ServedSession) -> int:
    return sum(len(chunk.lines) + chunk.dropped for chunk in served.of(frames.LogChunk))


async def test_only_the_latest_status_and_metrics_wait(world: World) -> None:
    async with world.linked() as link:
        served = await world.ready()
        for free in (1, 2, 3):
            link.send(frames.NodeStatus(NodeFacts(disk_free=free)))
            link.send(frames.MetricsSample(HostSample(float(free), 0.0, 0, 0, free)))
        [status] = await served.wait_for(frames.NodeStatus)
        [sample] = await served.wait_for(frames.MetricsSample)
        assert (status.facts.disk_free, sample.host.disk_free) == (3, 3)
