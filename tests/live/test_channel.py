"""The agents' door against those who do not speak its language, or speak it to lie: the session ends, the hub goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from agent.identity import IdentityFile
from shared.spec.instance import InstanceReport, Phase
from shared.spec.node import NodeFacts
from shared.wire import codec, frames
from shared.wire.closing import CloseReason
from shared.wire.session import AgentSession, Holding, Ready
from tests.hosts import images
from tests.hosts.stack import Agent, Stack
from tests.live import waiting, witness
from tests.live.declared import plain

pytestmark = pytest.mark.live

Dial = Callable[[], ClientConnection]


@pytest.fixture
def dial(stack: Stack) -> Iterator[Dial]:
    url = stack.coordinator.url.replace("http", "ws") + "/agent/v1"
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(
            connect(url, compression=None, max_size=None, open_timeout=5, close_timeout=2)
        )


def closing(connection: ClientConnection, within: float = 15) -> tuple[int, str]:
    """The code and the reason of its end; whatever comes before that is read over."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=within)
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


OPEN = frames.AgentOpen(nonce=b"n" * 32, versions=[1], agent_version="0")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0",
        b"\xff" * 1000,
        b'{"type": "agent.open.v1"}',
        codec.encode(OPEN)[:-5],
        codec.encode(OPEN) + b"more",
        codec.encode(frames.LeaseRenew(1)),
        codec.encode(frames.LeaseAck(1, 1)),
        b"x" * 100_000,
        "text is not spoken here",
    ],
    ids=["empty", "nul", "noise", "json", "cut", "longer", "too early", "wrong way", "too long", "text"],
)
def test_malformed_frames_end_the_session_with_a_reason(stack: Stack, dial: Dial, said: bytes | str) -> None:
    connection = dial()
    connection.send(said)
    code, reason = closing(connection)
    assert code in (CloseReason.PROTOCOL_ERROR.code, 1009), (code, reason)
    assert reason or code == 1009
    assert stack.api.health() == {**stack.api.health(), "status": "ok", "agents": {"connected": 3}}


def test_whoever_says_nothing_is_not_waited_for_for_ever(stack: Stack, dial: Dial) -> None:
    assert closing(dial(), within=20)[0] == CloseReason.HANDSHAKE_TIMEOUT.code


def test_many_strangers_do_not_keep_the_agents_out(stack: Stack, dial: Dial) -> None:
    for _ in range(50):
        dial().send(os.urandom(200))
    for agent in stack.agents:
        agent.kill()
        agent.start()
    stack.await_nodes()


class Liar:
    """An agent with a real identity that says what it likes."""

    def __init__(self, connection: ClientConnection, agent: Agent) -> None:
        self._connection = connection
        identity = IdentityFile.open(agent.state, None).current
        holding = Holding(NodeFacts(hostname="liar"), sequence=0)
        self._session = AgentSession(identity, holding, os.urandom(32), "0", now=0.0)
        self._flush()
        while not self._receive():
            pass

    def _flush(self) -> None:
        for frame in self._session.take_outgoing():
            self._connection.send(codec.encode(frame))

    def _receive(self) -> bool:
        data = self._connection.recv(timeout=10)
        assert isinstance(data, bytes)
        events = self._session.receive(codec.decode_from_hub(data), 0.0)
        self._flush()
        return any(isinstance(event, Ready) for event in events)

    def say(self, frame: frames.AgentFrame) -> None:
        self._connection.send(codec.encode(frame))


def test_a_node_that_lies_about_the_instances_of_another_is_ignored(stack: Stack, dial: Dial) -> None:
    container = stack.api.create("idle", images.BUSYBOX, 3, **plain())
    seen = waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    liar = stack.agents[0]
    others = [one for one in seen.instances if one.node_id != stack.node_ids[liar.host.name]]
    assert len(others) == 2
    liar.kill()
    since = stack.coordinator.mark()
    lies = [InstanceReport(one.id, 99, Phase.FAILED, exit_code=1) for one in others]
    lies.append(InstanceReport("ins_invented", 1, Phase.RUNNING, health="healthy"))
    Liar(dial(), liar).say(frames.InstanceReports(batch=1, reports=lies))
    waiting.until(
        lambda: stack.coordinator.said(since),
        lambda said: others[0].id in said,
        within=10,
        saying="the lie is in the coordinator's log",
    )
    now = {one.id: (one.status, one.restarts) for one in stack.api.one(container.id).instances}
    assert {now[one.id] for one in others} == {("running", 0)}
    liar.start()
    stack.await_nodes(within=90)
    waiting.running(stack, container.id, 3)
    assert witness.sole(stack, container.id, 3) == before
