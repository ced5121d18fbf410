"""Runs one session over one connection: a reader, a writer and a watch over the lease.

The session decides, the pump carries. Whatever ends the session ends all three, and what the pump returns says how it ended;
only a fault of this program leaves it as an exception.
"""

import asyncio

import structlog

from agent.errors import StateError
from agent.identity import IdentityFile
from agent.link.connection import Connection, DisconnectedError
from agent.link.inbox import Inbox
from agent.link.lanes import Lanes
from agent.link.node import Node
from agent.link.retry import Ending
from shared.kit.clock import Clock
from shared.kit.together import together
from shared.kit.wakeup import Wakeup
from shared.wire.closing import CloseReason, by_transport
from shared.wire.codec import FrameError, decode_from_hub, encode
from shared.wire.frames import (
    AssignmentDelta,
    AssignmentSet,
    HubReady,
    LogCancel,
    LogChunk,
    LogCredit,
    LogEnd,
    LogSubscribe,
    MetricsSample,
    NodeStatus,
    ReportAck,
)
from shared.wire.session import AgentSession, Closed, Ready, Received, Stage


class _OverError(Exception):
    """The session ended; takes the three tasks down together."""

    def __init__(self, closed: Closed | None, lost: DisconnectedError | None = None) -> None:
        super().__init__()
        self.closed = closed
        self.lost = lost


class Pump:
    def __init__(
        self,
        connection: Connection,
        session: AgentSession,
        identity: IdentityFile,
        node: Node,
        inbox: Inbox,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._session = session
        self._identity = identity
        self._node = node
        self._inbox = inbox
        self._clock = clock
        self._wakeup = node.reports.wakeup
        self._lanes = Lanes(self._wakeup, node.logs.credit)
        self._retimed = Wakeup()
        self._idle = asyncio.Event()
        self._leaving = asyncio.Event()
        self._ready_at: float | None = None
        self._log = structlog.get_logger()

    async def run(self) -> Ending:
        over = _OverError(None)
        self._lanes.control(*self._session.take_outgoing())
        try:
            await together(self._read(), self._write(), self._watch(), self._leave())
        except* _OverError as group:
            over = _first(group)
        finally:
            self._node.logs.cancel_all()
        return await self._ending(over)

    def put(self, frame: NodeStatus | MetricsSample | LogChunk | LogEnd) -> None:
        """Dropped before the session is ready: measures pass, and nobody reads logs yet. A status is kept: hello may have been
        said already with an older one."""
        if self._ready_at is not None or isinstance(frame, NodeStatus):
            self._lanes.put(frame)

    async def finish(self, patience: float) -> None:
        """Send what is pending and have it acknowledged, for at most `patience` seconds, then end the session."""
        self._idle.clear()
        self._wakeup.wake()
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            self._log.warning("link.unsent", message="the coordinator did not take everything in time")
        self._leaving.set()

    async def _read(self) -> None:
        while True:
            try:
                frame = decode_from_hub(await self._connection.receive())
            except DisconnectedError as error:
                raise _OverError(None, error) from error
            except FrameError as error:
                raise _OverError(self._session.close(CloseReason.PROTOCOL_ERROR, str(error))) from error
            events = self._session.receive(frame, self._clock.monotonic())
            self._lanes.control(*self._session.take_outgoing())
            for event in events:
                match event:
                    case Ready():
                        await self._ready(event.frame)
                    case Received():
                        await self._received(event)
                    case Closed():
                        raise _OverError(event)

    async def _write(self) -> None:
        while True:
            now = self._clock.monotonic()
            frame = self._lanes.next(now)
            if frame is None:
                if self._lanes.settled:
                    self._idle.set()
                look_at = self._lanes.look_at
                await self._wakeup.wait(None if look_at is None else look_at - now)
                continue
            try:
                await self._connection.send(encode(frame))
            except DisconnectedError as error:
                raise _OverError(None, error) from error
            except FrameError as error:
                self._log.error(
                    "link.frame_dropped", message=str(error)
                )  # a fault of ours; the channel goes on without it

    async def _watch(self) -> None:
        while True:
            await self._retimed.wait(self._session.deadline - self._clock.monotonic())
            for event in self._session.tick(self._clock.monotonic()):
                if isinstance(event, Closed):
                    raise _OverError(event)
            self._lanes.control(*self._session.take_outgoing())

    async def _leave(self) -> None:
        await self._leaving.wait()
        raise _OverError(self._session.close(CloseReason.GOING_AWAY, "the agent is stopping"))

    async def _ready(self, frame: HubReady) -> None:
        """The epoch is on disk before anything of this session counts, if the disk takes it: a node with a full disk is alive,
        and of more use connected. The next session's epoch is greater and is written anew."""
        try:
            await asyncio.to_thread(self._identity.advance, frame.epoch)
        except StateError as error:
            self._log.error("link.epoch_unwritten", epoch=frame.epoch, message=str(error))
        self._ready_at = self._clock.monotonic()
        self._lanes.open(self._node.reports)
        self._retimed.wake()
        self._node.connected()
        self._log.info("link.connected", epoch=frame.epoch, period_ms=frame.period_ms, sequence=frame.sequence)

    async def _received(self, event: Received) -> None:
        frame = event.frame
        match frame:
            case ReportAck():
                self._lanes.acknowledged(frame.batch)
            case AssignmentSet() | AssignmentDelta():
                await self._inbox.put(frame, self._lanes.control)
            case LogSubscribe():
                self._node.logs.subscribe(frame)
            case LogCredit():
                self._node.logs.credit(frame)
            case LogCancel():
                self._node.logs.cancel(frame)
            case _:
                raise AssertionError(f"the session passed on a {type(frame).__name__}")

    async def _ending(self, over: _OverError) -> Ending:
        held_for = 0.0 if self._ready_at is None else self._clock.monotonic() - self._ready_at
        if over.lost is not None:
            return Ending(by_transport(over.lost.code), str(over.lost), held_for=held_for)
        closed = over.closed
        assert closed is not None, "every end has a cause"
        assert self._session.stage is Stage.CLOSED
        await self._connection.close(closed.reason.code, closed.message)
        return Ending(closed.reason, closed.message, closed.retry_after, held_for)


def _first(group: BaseExceptionGroup[_OverError]) -> _OverError:
    """Several tasks may notice the end at once; what the session itself said is better than what the transport says after."""
    found = [error for error in group.exceptions if isinstance(error, _OverError)]
    return next((error for error in found if error.closed is not None), found[0])
