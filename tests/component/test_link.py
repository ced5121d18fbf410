"""The agent's link against a real websocket server that speaks the hub's half of the session."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.asyncio.server import serve

from agent.errors import RefusedError
from agent.identity import IdentityFile
from agent.journal.journal import Journal, JournalError, JournalState
from agent.link import inbox as inbox_module
from agent.link.dialer import Dialer, Link, enrol
from agent.link.node import Node
from agent.reconcile.book import AssignmentBook
from agent.reconcile.reports import ReportBox
from shared.kit.backoff import Backoff
from shared.kit.clock import SystemClock
from shared.kit.seal import SigningKey
from shared.spec.instance import Assignment, InstanceReport, Phase
from shared.spec.node import HostSample, NodeFacts
from shared.spec.reason import Reason
from shared.wire import frames
from shared.wire.closing import CloseReason
from shared.wire.join import JoinToken, new_token
from tests.fakes.hub import FakeHub, HubServer, ServedSession

FACTS = NodeFacts(hostname="hafen-1", labels={"zone": "nord"})
CLOCK = SystemClock()
pytestmark = pytest.mark.timeout(20)


@dataclass
class FakeLogs:
    asked: list[object] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def subscribe(self, frame: frames.LogSubscribe) -> None:
        self._note(frame)

    def credit(self, frame: frames.LogCredit) -> None:
        self._note(frame)

    def cancel(self, frame: frames.LogCancel) -> None:
        self._note(frame)

    def cancel_all(self) -> None:
        self._note("all")

    def _note(self, what: object) -> None:
        self.asked.append(what)
        self.news.set()

    async def wait_for(self, what: object) -> None:
        while what not in self.asked:
            self.news.clear()
            await self.news.wait()


class World:
    """One agent's link and one server, and what a test needs of both."""

    def __init__(self, server: HubServer, journal: Journal, state_dir: Path, backoff: Backoff) -> None:
        self.server = server
        self.hub = server.hub
        self.state_dir = state_dir
        self.dialer = Dialer(server.endpoint, backoff)
        self.journal = journal
        self.book = AssignmentBook(self.journal, self.journal.load())
        self.reports = ReportBox()
        self.logs = FakeLogs()
        self.node = Node(self.book, self.reports, self.logs, lambda: FACTS, lambda: None)

    async def identity(self, token: JoinToken | None = None) -> IdentityFile:
        return await asyncio.to_thread(IdentityFile.open, self.state_dir, token)

    async def enrol(self) -> IdentityFile:
        identity = await self.identity(self.hub.token())
        await enrol(self.dialer, identity, FACTS, CLOCK)
        return identity

    async def ready(self) -> ServedSession:
        """A session that stands on both sides: the agent's first report is there."""
        served = await self.server.session()
        self.reports.put(report("inst_first"))
        await served.wait_for(frames.InstanceReports)
        return served

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[Link]:
        link = Link(self.dialer, await self.enrol(), self.node, CLOCK)
        running = asyncio.create_task(link.run())
        try:
            yield link
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with HubServer(FakeHub()).running() as server:
        journal = await asyncio.to_thread(Journal, tmp_path / "journal.db")
        yield World(server, journal, tmp_path, Backoff(base=0.001, ceiling=0.01))
        await asyncio.to_thread(journal.close)


def report(instance_id: str, attempt: int = 1, phase: Phase = Phase.RUNNING, message: str = "") -> InstanceReport:
    return InstanceReport(instance_id, attempt, phase, reason=Reason("starting", message) if message else None)


def assignment(instance_id: str) -> Assignment:
    return Assignment(instance_id, "ctr_1", "web", 0, 1, "0123456789abcdef")


def read_again(state_dir: Path) -> JournalState:
    with closing(Journal(state_dir / "journal.db")) as journal:
        return journal.load()


def told(served: ServedSession) -> list[str]:
    return [report.instance_id for batch in served.of(frames.InstanceReports) for report in batch.reports]


# Enrolment and identity ------------------------------------------------------------------------------------------------------


async def test_enrolment_keeps_the_identity_on_disk_and_uses_it_from_then_on(world: World) -> None:
    identity = await world.enrol()
    node_id = identity.current.node_id
    assert node_id in world.hub.nodes
    path = world.state_dir / "identity.json"
    assert path.stat().st_mode & 0o777 == 0o600
    again = await world.identity()
    assert (again.current.node_id, again.current.token) == (node_id, None)
    assert again.current.signing.public == world.hub.nodes[str(node_id)].signing_key


async def test_a_second_try_to_enrol_comes_with_the_same_keys(world: World) -> None:
    """The agent may die between the coordinator's answer and its own disk."""
    first = await world.identity(world.hub.token())
    second = await world.identity(world.hub.token())
    assert first.current.signing.public == second.current.signing.public


async def test_a_refused_token_is_final(world: World) -> None:
    identity = await world.identity(new_token("jt_unknown", world.hub.signing.public))
    with pytest.raises(RefusedError, match="token_refused"):
        await enrol(world.dialer, identity, FACTS, CLOCK)
    assert world.server.count == 1, "one try, no more"
    assert (await world.identity(world.hub.token())).current.node_id is None


async def test_a_foreign_coordinator_is_not_joined(world: World) -> None:
    identity = await world.identity(new_token("jt_1", SigningKey.generate().public))
    joining = asyncio.create_task(enrol(world.dialer, identity, FACTS, CLOCK))
    served = await world.server.arrivals.get()
    await served.over.wait()
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)
    assert [type(frame) for _, frame in served.frames] == [frames.AgentOpen], "it said nothing about itself"
    assert served.close_code == CloseReason.UNTRUSTED_HUB.code


async def test_a_revoked_node_stops_with_a_reason(world: World) -> None:
    identity = await world.enrol()
    world.hub.refuse = CloseReason.REVOKED
    with pytest.raises(RefusedError, match="revoked"):
        await Link(world.dialer, identity, world.node, CLOCK).run()


# The session -----------------------------------------------------------------------------------------------------------------


async def test_hello_says_what_the_node_holds(world: World) -> None:
    await world.book.apply_set(frames.AssignmentSet(7, 0, True, [assignment("inst_a")]))
    world.reports.put(report("inst_a", attempt=3))
    async with world.linked():
        served = await world.server.session()
        assert served.hello is not None
        assert served.hello.sequence == 7
        assert served.hello.facts == FACTS
        assert served.hello.held == [frames.Held("inst_a", 3, Phase.RUNNING)]


async def test_each_session_has_a_higher_epoch_and_it_is_on_disk_first(world: World) -> None:
    async with world.linked():
        for _ in range(3):
            served = await world.server.session()
            world.reports.put(report(f"inst_{os.urandom(2).hex()}"))
            await served.wait_for(frames.InstanceReports)  # sent after ready was acted on
            [node] = world.hub.nodes.values()
            assert (await world.identity()).current.epoch == node.epoch
            served.vanish()


async def test_the_lease_is_renewed_at_the_coordinators_pace(world: World) -> None:
    world.hub.period, world.hub.grace = 0.06, 5.0
    async with world.linked():
        served = await world.server.session()
        await served.wait_for(frames.LeaseRenew, 4)
        times = [at for at, frame in served.frames if isinstance(frame, frames.LeaseRenew)]
        assert times[3] - times[0] >= 3 * 0.05


async def test_a_silent_coordinator_is_left_after_the_grace(world: World) -> None:
    world.hub.period, world.hub.grace = 0.1, 0.3
    async with world.linked():
        served = await world.server.session()
        served.reading.clear()  # it hears nothing more, and so answers nothing
        again = await world.server.session()
        assert again is not served
        served.reading.set()
        await served.over.wait()
        assert served.close_code == CloseReason.LEASE_EXPIRED.code


@pytest.mark.parametrize("junk", [b"", b"\x07garbage", b"\x01garbage", b"\x00\x81\xa4type\xa3abc", "text"])
async def test_a_malformed_frame_ends_the_session_and_not_the_agent(world: World, junk: bytes | str) -> None:
    async with world.linked():
        served = await world.server.session()
        await served.send_raw(junk)
        await served.over.wait()
        assert served.close_code == CloseReason.PROTOCOL_ERROR.code
        await world.server.session()


async def test_a_frame_too_large_ends_the_session_and_not_the_agent(world: World) -> None:
    async with world.linked():
        served = await world.server.session()
        await served.send_raw(bytes(200_000))
        await served.over.wait()
        await world.server.session()


async def test_a_goaway_is_obeyed_with_its_wish(world: World) -> None:
    world.hub.refuse, world.hub.retry_after = CloseReason.OVERLOADED, 0.3
    identity = await world.enrol()
    running = asyncio.create_task(Link(world.dialer, identity, world.node, CLOCK).run())
    before = world.server.count
    refused = CLOCK.monotonic()
    while world.server.count < before + 2:
        await (await world.server.arrivals.get()).over.wait()
    assert CLOCK.monotonic() - refused >= 0.3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


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


# Ends ------------------------------------------------------------------------------------------------------------------------


async def test_draining_sends_what_is_pending_and_says_goodbye(world: World) -> None:
    identity = await world.enrol()
    link = Link(world.dialer, identity, world.node, CLOCK)
    running = asyncio.create_task(link.run())
    served = await world.server.session()
    world.reports.put(report("inst_a"))
    await served.wait_for(frames.InstanceReports)
    world.reports.put(report("inst_b", phase=Phase.STOPPED))
    await link.drain(5.0)
    await running
    await served.over.wait()
    assert told(served) == ["inst_a", "inst_b"]
    assert served.close_code == CloseReason.GOING_AWAY.code


async def test_draining_does_not_wait_for_a_coordinator_that_stores_nothing(world: World) -> None:
    identity = await world.enrol()
    world.server.acknowledge = False
    link = Link(world.dialer, identity, world.node, CLOCK)
    running = asyncio.create_task(link.run())
    served = await world.server.session()
    world.reports.put(report("inst_a"))
    await served.wait_for(frames.InstanceReports)
    await link.drain(0.05)
    await running
    assert served.close_code is None or served.close_code == CloseReason.GOING_AWAY.code


async def test_an_unreachable_or_wrong_server_is_tried_again(tmp_path: Path) -> None:
    async def no_such_page(connection: object, request: object) -> object:
        answers.set()
        return connection.respond(404, "no such page\n")  # type: ignore[attr-defined]

    answers = asyncio.Event()
    async with asyncio.timeout(10):
        async with serve(_never, "127.0.0.1", 0, process_request=no_such_page) as server:  # type: ignore[arg-type]
            port = next(iter(server.sockets)).getsockname()[1]
            dialer = Dialer(f"ws://127.0.0.1:{port}/agent/v1", Backoff(base=0.001, ceiling=0.002))
            trying = asyncio.create_task(dialer.run(_unused))
            for _ in range(3):
                await answers.wait()
                answers.clear()
        hub = HubServer(FakeHub())
        async with serve(_accept, "127.0.0.1", port):  # the right one comes up where the wrong one was
            await trying
        assert hub.count == 0


async def _never(connection: object) -> None:
    raise AssertionError("refused before the upgrade")


async def _accept(connection: object) -> None:
    return None


async def _unused(connection: object) -> None:
    return None
