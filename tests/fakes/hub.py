"""A coordinator as far as the channel sees one: its keys, the tokens it gave out, the nodes it knows.

`FakeHub` is what it knows and decides, without I/O; `HubServer` puts it behind a real websocket.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self, TypeVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from shared.kit.ids import new_id
from shared.kit.seal import SealingKey, SigningKey
from shared.wire.closing import CloseReason
from shared.wire.codec import FrameError, decode_from_agent, encode
from shared.wire.frames import AgentFrame, AgentHello, HubFrame, InstanceReports, ReportAck
from shared.wire.join import JoinToken, new_token
from shared.wire.session import Closed, EnrollAsked, Event, HelloAsked, HubSession, Received, Stage

_F = TypeVar("_F", bound=AgentFrame)
_RECEIVE_BUFFER = 32 * 1024
"""Small, so that a server that does not read is felt by the agent soon."""


@dataclass
class KnownNode:
    signing_key: bytes
    sealing_key: bytes
    epoch: int = 0
    sequence: int = 0


@dataclass
class FakeHub:
    """`period` and `grace` in seconds. `refuse`: close every hello with it."""

    signing: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)
    nodes: dict[str, KnownNode] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    period: float = 2.0
    grace: float = 6.0
    refuse: CloseReason | None = None
    retry_after: float = 0.0

    def token(self) -> JoinToken:
        token = new_token(new_id("jt"), self.signing.public)
        self.secrets[token.token_id] = token.secret
        return token

    def session(self, now: float) -> HubSession:
        return HubSession(self.signing, self.sealing, os.urandom(32), now)

    def decide(self, session: HubSession, event: Event, now: float) -> list[Event]:
        """Answer what the session asks its shell; every other event is the caller's, and given back."""
        match event:
            case EnrollAsked():
                return self._enrol(session, event)
            case HelloAsked():
                return self._admit(session, event.frame, now)
            case _:
                return [event]

    def _enrol(self, session: HubSession, asked: EnrollAsked) -> list[Event]:
        if self.secrets.pop(asked.token_id, None) != asked.secret:
            return [session.close(CloseReason.TOKEN_REFUSED)]
        node_id = new_id("node")
        self.nodes[node_id] = KnownNode(asked.frame.signing_key, asked.frame.sealing_key)
        session.enrolled(node_id)
        return []

    def _admit(self, session: HubSession, hello: AgentHello, now: float) -> list[Event]:
        node = self.nodes.get(hello.node_id)
        if self.refuse is not None:
            return [session.close(self.refuse, retry_after=self.retry_after)]
        if node is None:
            return [session.close(CloseReason.UNKNOWN_NODE)]
        if not session.proves(hello, node.signing_key):
            return [session.close(CloseReason.BAD_SIGNATURE)]
        node.epoch = max(node.epoch, hello.epoch) + 1
        node.sealing_key = hello.sealing_key
        session.admit(node.epoch, node.sequence, self.period, self.grace, now, 1_700_000_000.0)
        return []


class ServedSession:
    """One connection as the server sees it: what came, and the means to answer."""

    def __init__(self, peer: ServerConnection) -> None:
        self._peer = peer
        self._news = asyncio.Event()
        self.hello: AgentHello | None = None
        self.frames: list[tuple[float, AgentFrame]] = []
        self.ready = asyncio.Event()
        self.over = asyncio.Event()
        self.close_code: int | None = None
        self.reading = asyncio.Event()
        """Cleared: the server leaves what comes unread, as a coordinator in trouble does."""
        self.reading.set()

    async def send(self, *frames: HubFrame) -> None:
        for frame in frames:
            await self._peer.send(encode(frame))

    async def send_raw(self, data: bytes | str) -> None:
        await self._peer.send(data)

    async def close(self, code: int, reason: str = "") -> None:
        await self._peer.close(code, reason)

    def vanish(self) -> None:
        """As a power cut does: no close frame."""
        self._peer.transport.abort()

    def of(self, kind: type[_F]) -> list[_F]:
        return [frame for _, frame in self.frames if isinstance(frame, kind)]

    async def wait_for(self, kind: type[_F], count: int = 1) -> list[_F]:
        """At least `count` frames of one kind."""
        while len(found := self.of(kind)) < count:
            self._news.clear()
            await self._news.wait()
        return found

    def note(self, frame: AgentFrame) -> None:
        self.frames.append((time.monotonic(), frame))
        self._news.set()


class HubServer:
    """Speaks HubSession over a real websocket. `arrivals` are connections in their order."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.acknowledge = True
        self.arrivals: asyncio.Queue[ServedSession] = asyncio.Queue()
        self.count = 0
        self.endpoint = ""

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self.endpoint = f"{'wss' if tls else 'ws'}://127.0.0.1:{listener.getsockname()[1]}/agent/v1"
        async with serve(
            self._serve, sock=listener, ssl=tls, compression=None, ping_interval=None, close_timeout=0.2, max_queue=1
        ):
            yield self

    async def session(self) -> ServedSession:
        """The next one that gets as far as ready."""
        while True:
            served = await self.arrivals.get()
            waits = [asyncio.create_task(event.wait()) for event in (served.ready, served.over)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if served.ready.is_set():
                return served

    async def _serve(self, peer: ServerConnection) -> None:
        served = ServedSession(peer)
        self.count += 1
        self.arrivals.put_nowait(served)
        session = self.hub.session(time.monotonic())
        try:
            async for data in peer:
                await served.reading.wait()
                if not await self._take(peer, session, served, data):
                    break
        except ConnectionClosed:
            pass  # the agent's side of a test ended it
        finally:
            served.close_code = peer.close_code
            served.over.set()

    async def _take(
        self, peer: ServerConnection, session: HubSession, served: ServedSession, data: bytes | str
    ) -> bool:
        now = time.monotonic()
        try:
            assert isinstance(data, bytes)
            frame = decode_from_agent(data)
        except FrameError as error:
            events: list[Event] = [session.close(CloseReason.PROTOCOL_ERROR, str(error))]
        else:
            if isinstance(frame, AgentHello):
                served.hello = frame
            served.note(frame)
            events = session.receive(frame, now)
        left = [event for asked in events for event in self.hub.decide(session, asked, now)]
        for outgoing in session.take_outgoing():
            await peer.send(encode(outgoing))
        return await self._act(peer, session, served, left)

    async def _act(
        self, peer: ServerConnection, session: HubSession, served: ServedSession, events: list[Event]
    ) -> bool:
        if session.stage is Stage.READY:
            served.ready.set()
        for event in events:
            match event:
                case Closed():
                    await peer.close(event.reason.code, event.message[:100])
                    return False
                case Received(InstanceReports() as frame) if self.acknowledge:
                    await peer.send(encode(ReportAck(frame.batch)))
                case _:
                    pass
        return True
