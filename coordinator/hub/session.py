"""One agent's connection, from the first frame to the close.

Three tasks: a reader that never waits for anything but the handshake's own transactions, a writer that empties the lanes, and,
once the node is admitted, a worker that stores reports and sends assignments. `HubSession` decides what frames mean; the hub's one
ticker calls `tick`, so no connection has timers of its own. Whatever an agent does, the worst that happens is its own close.
"""

import asyncio
import os
from typing import assert_never

import structlog

from coordinator.hub.admission import Admission
from coordinator.hub.enrol import enrol
from coordinator.hub.greeting import Admitted, RefusedError, admit, check_known
from coordinator.hub.lanes import Lanes
from coordinator.hub.parts import HubParts, Socket
from coordinator.hub.registry import NodeRegistry
from coordinator.hub.worker import Worker
from coordinator.store import nodes
from coordinator.store.errors import StoreError
from coordinator.store.tokens import TokenError
from shared.wire.closing import CloseReason
from shared.wire.codec import FrameError, decode_from_agent, encode
from shared.wire.frames import AgentFrame, AgentHello
from shared.wire.session import Closed, EnrollAsked, Enrolled, Event, HelloAsked, HubSession, Ready, Received

log = structlog.get_logger()
SEND_SECONDS = 15.0
"""How long one frame may wait for the other side to read before the session ends as too slow."""
CLOSE_SECONDS = 5.0
_DATABASE_AWAY = 5.0


class AgentConnection:
    """`address`: of whoever connected, for the audit log."""

    def __init__(
        self, parts: HubParts, registry: NodeRegistry, admission: Admission, socket: Socket, address: str
    ) -> None:
        self._parts = parts
        self._registry = registry
        self._admission = admission
        self._socket = socket
        self._address = address
        now = parts.clock.monotonic()
        self._session = HubSession(parts.keys.signing, parts.keys.sealing, os.urandom(32), now)
        self._lanes = Lanes()
        self._sending_since: float | None = None
        self._ended: Closed | None = None
        self._abort_at = float("inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._worker: Worker | None = None
        self._shaking = False
        self.node_id = ""
        self.epoch = 0

    @property
    def sequence(self) -> int | None:
        return None if self._worker is None else self._worker.sequence

    async def run(self) -> None:
        """Until the socket is closed, by whichever side."""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave()
            await self._settle()

    def begin(self) -> None:
        """Count as a handshake, or refuse at once when too many are under way: what is refused holds no place."""
        retry_after = self._admission.crowded()
        if retry_after is not None:
            self.close(CloseReason.OVERLOADED, retry_after=retry_after)
        else:
            self._shaking = True
            self._admission.shaking += 1

    def send_stream(self, data: bytes) -> bool:
        return self._lanes.stream(data)

    def wake(self) -> None:
        if self._worker is not None:
            self._worker.wake()

    def close(self, reason: CloseReason, message: str = "", retry_after: float = 0.0) -> None:
        """Say why, then close: the farewell goes before everything that still waits."""
        if self._ended is None:
            self._end(self._session.close(reason, message, retry_after))

    def tick(self, now: float) -> None:
        """Called about once a second: notices silence, and an agent that does not read."""
        if now >= self._abort_at:
            for task in self._tasks:
                task.cancel()
        elif self._sending_since is not None and now - self._sending_since > SEND_SECONDS:
            self.close(CloseReason.TOO_SLOW)
            self._abort_at = now  # the farewell would wait behind the same full socket
        elif self._ended is None and now >= self._session.deadline:
            self._react_all(self._session.tick(now))

    async def _read(self) -> None:
        while (data := await self._socket.receive()) is not None:
            if self._ended is not None:
                continue  # only waiting for the close to be answered
            now = self._parts.clock.monotonic()
            try:
                frame = decode_from_agent(data)
            except FrameError as error:
                self.close(CloseReason.PROTOCOL_ERROR, str(error))
                continue
            for event in self._session.receive(frame, now):
                await self._react(event)
            self._heard(now)

    def _heard(self, now: float) -> None:
        if self._worker is not None and self._ended is None:
            book = self._parts.lease_book
            book.beat(self.node_id, now)
            self._session.period, self._session.grace = book.period, book.grace
        self._flush()

    async def _write(self) -> None:
        while (data := await self._lanes.next()) is not None:
            self._sending_since = self._parts.clock.monotonic()
            try:
                await self._socket.send(data)
            except OSError:  # gone; the reader hears of it too
                return
            self._sending_since = None
        if self._ended is not None:
            await self._socket.close(self._ended.reason.code, self._ended.message)

    async def _react(self, event: Event) -> None:
        match event:
            case EnrollAsked():
                await self._enrol(event)
            case HelloAsked():
                await self._greet(event.frame)
            case Received():
                self._receive(event.frame)  # type: ignore[arg-type]  # the hub's side of a session receives agent frames only
            case Closed():
                self._end(event)
            case Enrolled() | Ready():
                raise AssertionError("only the agent's side of a session has these")
            case _:
                assert_never(event)

    def _react_all(self, events: list[Event]) -> None:
        """A tick brings nothing but the end."""
        for event in events:
            assert isinstance(event, Closed)
            self._end(event)

    async def _enrol(self, asked: EnrollAsked) -> None:
        if not self._sound(asked.token_id):
            return
        try:
            node_id = await self._parts.store.write(lambda tx: enrol(tx, self._parts.notary, asked, self._address))
        except TokenError as error:
            log.info("enrolment refused", address=self._address, token=asked.token_id, reason=str(error))
            self.close(CloseReason.TOKEN_REFUSED, str(error))
        except StoreError as error:
            self._database_away(error)
        else:
            log.info("node enrolled", node=node_id, address=self._address)
            if self._ended is None:
                self._session.enrolled(node_id)

    def _sound(self, *ids: str) -> bool:
        """PostgreSQL's texts hold no NUL: an id with one is nobody's, and not to be asked for."""
        if not any("\0" in each for each in ids):
            return True
        self.close(CloseReason.PROTOCOL_ERROR, "an id contains a NUL byte")
        return False

    async def _greet(self, hello: AgentHello) -> None:
        if not self._sound(hello.node_id, *(each.instance_id for each in hello.held)):
            return
        try:
            await self._prove(hello)
            admitted = await self._parts.store.write(lambda tx: admit(tx, hello))
        except RefusedError as refused:
            log.info("session refused", node=hello.node_id, address=self._address, reason=str(refused))
            self.close(refused.reason, refused.message, refused.retry_after)
        except StoreError as error:
            self._database_away(error)
        else:
            if self._ended is None:  # the handshake may have run out of time meanwhile
                self._admit(hello, admitted)

    async def _prove(self, hello: AgentHello) -> None:
        async with self._parts.store.read() as conn:
            node = check_known(await nodes.get(conn, hello.node_id))
        if not self._session.proves(hello, node.signing_key):
            raise RefusedError(CloseReason.BAD_SIGNATURE)
        # STRICTLY AFTER the proof: nobody else can use up a node's tries.
        retry_after = self._admission.register(node.id, self._parts.clock.monotonic())
        if retry_after is not None:
            raise RefusedError(CloseReason.OVERLOADED, "this node connects too often", retry_after)

    def _admit(self, hello: AgentHello, admitted: Admitted) -> None:
        clock, book = self._parts.clock, self._parts.lease_book
        self.node_id, self.epoch = admitted.node.id, admitted.epoch
        self._session.admit(admitted.epoch, admitted.sequence, book.period, book.grace, clock.monotonic(), clock.wall())
        older = self._registry.put(self)
        if older is not None:
            older.close(CloseReason.SUPERSEDED)
        self._shaken()
        self._worker = Worker(self._parts, admitted, hello.sequence, self._lanes, self.close)
        self._tasks.append(asyncio.create_task(self._worker.run()))
        self._flush()  # `ready` goes before anything the worker sends
        book.connected(self.node_id, self.epoch, clock.monotonic())
        self._parts.broker.joined(self.node_id)
        log.info("node connected", node=self.node_id, epoch=self.epoch, agent=self._session.agent_version)
        if admitted.unknown:
            log.warning(
                "node holds instances nobody knows; they are left alone", node=self.node_id, ids=admitted.unknown[:20]
            )

    def _receive(self, frame: AgentFrame) -> None:
        assert self._worker is not None
        self._worker.receive(frame)
        if self._lanes.overfull:
            self.close(CloseReason.TOO_SLOW)

    def _database_away(self, error: StoreError) -> None:
        log.error("an agent cannot be admitted", address=self._address, reason=str(error))
        self.close(CloseReason.OVERLOADED, "the coordinator's database does not answer", _DATABASE_AWAY)

    def _flush(self) -> None:
        for frame in self._session.take_outgoing():
            self._lanes.control(encode(frame))

    def _end(self, closed: Closed) -> None:
        self._ended = closed
        self._abort_at = self._parts.clock.monotonic() + CLOSE_SECONDS
        self._lanes.finish([encode(frame) for frame in self._session.take_outgoing()][-1:])
        if self.node_id:
            log.info("session ended", node=self.node_id, epoch=self.epoch, reason=closed.message)

    def _shaken(self) -> None:
        if self._shaking:
            self._shaking = False
            self._admission.shaking -= 1

    def _leave(self) -> None:
        self._shaken()
        if self._worker is None:
            return
        if self._registry.remove(self):
            self._parts.broker.left(self.node_id)
            log.info("node disconnected", node=self.node_id, epoch=self.epoch)
        self._parts.lease_book.disconnected(self.node_id, self.epoch, self._parts.clock.monotonic())

    async def _settle(self) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("a session failed", node=self.node_id, exc_info=outcome)
