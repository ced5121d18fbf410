"""An agent made of `AgentSession` alone, at the other end of an in-memory websocket: it says and hears frames, nothing more."""

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

from coordinator.hub.hub import Hub
from shared.kit.seal import SealingKey, SigningKey
from shared.spec.node import NodeFacts
from shared.wire.codec import decode_from_hub, encode
from shared.wire.frames import AgentFrame, Held, HubFrame, HubGoaway, HubReady
from shared.wire.join import JoinToken
from shared.wire.session import AgentIdentity, AgentSession, Enrolled, Holding

F = TypeVar("F", bound=HubFrame)
PATIENCE = 5.0


class MemorySocket:
    """`reading` clear: the agent does not read, as a full TCP window."""

    def __init__(self) -> None:
        self.to_hub: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.to_agent: asyncio.Queue[bytes] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        self.code: int | None = None

    async def receive(self) -> bytes | None:
        return await self.to_hub.get()

    async def send(self, data: bytes) -> None:
        await self.reading.wait()
        self.to_agent.put_nowait(data)

    async def close(self, code: int, reason: str) -> None:
        assert len(reason.encode()) <= 2048
        self.code = code
        self.to_hub.put_nowait(None)


class WireAgent:
    """One connection. `connect` shakes hands; `heard` are all frames since, in order."""

    def __init__(self, identity: AgentIdentity, facts: NodeFacts | None = None) -> None:
        self.identity = identity
        self.facts = facts or NodeFacts(hostname="one", platform="linux/amd64", cpu_millis=4000, memory_bytes=2**33)
        self.socket = MemorySocket()
        self.heard: list[HubFrame] = []
        self.ready: HubReady | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(
        self, hub: Hub, *, sequence: int | None = None, held: list[Held] | None = None
    ) -> HubReady | HubGoaway:
        """The answer to the handshake."""
        self.dial(hub)
        holding = Holding(self.facts, sequence, held or [])
        session = AgentSession(self.identity, holding, os.urandom(32), "1.0", 0.0)
        while True:
            for said in session.take_outgoing():
                self.say(said)
            frame = await self.hear()
            if isinstance(frame, HubGoaway):
                return frame
            for event in session.receive(frame, 0.0):
                if isinstance(event, Enrolled):
                    self._become(event.node_id)
            if isinstance(frame, HubReady):
                self.ready = frame
                return frame

    def dial(self, hub: Hub) -> None:
        """Only the websocket, no word yet."""
        self._task = asyncio.create_task(hub.serve(self.socket, "192.0.2.7"))

    def say(self, frame: AgentFrame) -> None:
        self.say_raw(encode(frame))

    def say_raw(self, data: bytes) -> None:
        self.socket.to_hub.put_nowait(data)

    async def hear(self) -> HubFrame:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):
            frame = decode_from_hub(await self.socket.to_agent.get())
        self.heard.append(frame)
        return frame

    async def hear_a(self, kind: type[F], which: Callable[[F], bool] = lambda _: True) -> F:
        """The next frame of this kind; what comes before it is only noted in `heard`."""
        while True:
            frame = await self.hear()
            if isinstance(frame, kind) and which(frame):
                return frame

    async def quiet(self) -> bool:
        """Whether nothing has been said that was not heard."""
        for _ in range(20):
            await asyncio.sleep(0.005)
        return self.socket.to_agent.empty()

    async def hang_up(self) -> None:
        self.socket.to_hub.put_nowait(None)
        await self.gone()

    async def gone(self) -> int | None:
        """Wait until the hub has let go of the connection; the close code it gave."""
        assert self._task is not None
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([self._task])
        assert self._task.exception() is None
        return self.socket.code

    def _become(self, node_id: str) -> None:
        old = self.identity
        self.identity = AgentIdentity(old.signing, old.sealing, old.hub_fingerprint, node_id, None, old.epoch)


def new_identity(hub_fingerprint: bytes, token: JoinToken | None = None) -> AgentIdentity:
    return AgentIdentity(SigningKey.generate(), SealingKey.generate(), hub_fingerprint, None, token)
