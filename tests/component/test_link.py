"""The agent's link against a real websocket server that speaks the hub's half of the session: who it is, and how it ends."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from agent.errors import RefusedError
from agent.identity import IdentityFile
from agent.link.connection import Connection
from agent.link.dialer import Dialer, Link, enrol
from agent.link.retry import Ending
from shared.kit.backoff import Backoff
from shared.kit.seal import SigningKey
from shared.spec.instance import Phase
from shared.wire import frames
from shared.wire.closing import CloseReason
from shared.wire.join import new_token
from tests.fakes.link import CLOCK, FACTS, World, assignment, link_world, report, told

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with link_world(tmp_path) as made:
        yield made


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


async def test_a_wrong_server_is_tried_again_until_the_right_one_is_there() -> None:
    """As behind a proxy whose coordinator restarts: something answers, only not what is wanted."""

    def no_such_page(connection: ServerConnection, request: Request) -> Response:
        answered.set()
        return connection.respond(404, "no such page\n")

    answered = asyncio.Event()
    async with serve(_never, "127.0.0.1", 0, process_request=no_such_page) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        dialer = Dialer(f"ws://127.0.0.1:{port}/agent/v1", Backoff(base=0.001, ceiling=0.002))
        trying = asyncio.create_task(dialer.run(_done_at_once))
        for _ in range(3):
            await answered.wait()
            answered.clear()
        assert not trying.done()
    async with serve(_accept, "127.0.0.1", port):
        await trying


@pytest.mark.parametrize("reason", [reason for reason in CloseReason if reason.retry == "never"])
async def test_a_close_code_alone_ends_no_agent_for_good(tmp_path: Path, reason: CloseReason) -> None:
    met = asyncio.Semaphore(0)

    async def impostor(connection: ServerConnection) -> None:
        met.release()
        await connection.close(reason.code, "go")

    async with link_world(tmp_path) as world, serve(impostor, "127.0.0.1", 0) as server:
        identity = await world.enrol()
        port = next(iter(server.sockets)).getsockname()[1]
        dialer = Dialer(f"ws://127.0.0.1:{port}/agent/v1", Backoff(base=0.001, ceiling=0.002))
        await asyncio.to_thread((tmp_path / "other").mkdir)
        joining = await asyncio.to_thread(IdentityFile.open, tmp_path / "other", world.hub.token())
        for trying in (Link(dialer, identity, world.node, CLOCK).run(), enrol(dialer, joining, FACTS, CLOCK)):
            running = asyncio.create_task(trying)
            for _ in range(3):
                await met.acquire()
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_full_disk_keeps_no_node_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = await world.enrol()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.identity._replace_file", full)
    running = asyncio.create_task(Link(world.dialer, identity, world.node, CLOCK).run())
    await world.ready()
    assert identity.current.epoch == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    monkeypatch.undo()
    assert (await world.identity()).current.epoch == 0
    running = asyncio.create_task(Link(world.dialer, identity, world.node, CLOCK).run())
    await world.ready()
    assert (await world.identity()).current.epoch == 2, "written at the next connect"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _never(connection: ServerConnection) -> None:
    raise AssertionError("refused before the upgrade")


async def _accept(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def _done_at_once(connection: Connection) -> Ending | None:
    return None
