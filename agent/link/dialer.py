"""Keeps this node connected: one connection at a time, for ever, with backoff between them.

`enrol` comes first in a node's life and on its own: a node has no labels to put on engine containers, and nothing to report,
before it has an id. It uses one connection of its own, so that a session proper always begins with a complete hello.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import structlog

from agent import VERSION
from agent.errors import RefusedError
from agent.identity import IdentityFile
from agent.link.connection import Connection, DialError, DisconnectedError, dial
from agent.link.inbox import Inbox
from agent.link.node import Node
from agent.link.pump import Pump
from agent.link.retry import Ending, delay
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock
from shared.spec.node import NodeFacts
from shared.wire.closing import CloseReason, by_transport
from shared.wire.codec import FrameError, decode_from_hub, encode, plain_size
from shared.wire.frames import Held, LogChunk, LogEnd, MetricsSample, NodeStatus
from shared.wire.session import HANDSHAKE_SECONDS, AgentSession, Closed, Enrolled, Holding

_NONCE_BYTES = 32
_HELD_BYTES = 40 * 1024
"""Of the list in hello, so that it fits one frame; what is beyond follows in reports."""

Converse = Callable[[Connection], Awaitable[Ending | None]]
"""Uses one connection to its end. None: it has done what it was for."""


class Dialer:
    def __init__(self, endpoint: str, backoff: Backoff) -> None:
        self._endpoint = endpoint
        self._backoff = backoff
        self._log = structlog.get_logger()

    async def run(self, converse: Converse) -> None:
        """Until `converse` returns None. Raises RefusedError when the coordinator refuses this node for good."""
        while (ending := await self._attempt(converse)) is not None:
            wait = delay(ending, self._backoff)
            code = ending.reason.name.lower() if ending.reason else "transport"
            if wait is None:
                raise RefusedError(f"the coordinator refused this node ({code}): {ending.message}")
            self._log.warning("link.down", reason=code, message=ending.message, next_try_in=round(wait, 1))
            await asyncio.sleep(wait)

    async def _attempt(self, converse: Converse) -> Ending | None:
        try:
            connection = await dial(self._endpoint)
        except DialError as error:
            return Ending(None, str(error), error.after)
        try:
            return await converse(connection)
        finally:
            connection.abort()


class Link:
    """The node's side of every session: who it is, what it holds, and where frames go that others want sent."""

    def __init__(self, dialer: Dialer, identity: IdentityFile, node: Node, clock: Clock) -> None:
        self._dialer = dialer
        self._identity = identity
        self._node = node
        self._clock = clock
        self._inbox = Inbox(node.book)
        self._pump: Pump | None = None
        self._draining = False
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Until drained. Raises RefusedError."""
        refused: RefusedError | None = None
        async with asyncio.TaskGroup() as tasks:
            inbox = tasks.create_task(self._inbox.run())
            try:
                await self._dialer.run(self._converse)
            except RefusedError as error:  # kept out of the exception group, which would hide what it is
                refused = error
            inbox.cancel()
        if refused is not None:
            raise refused

    def send(self, frame: NodeStatus | MetricsSample | LogChunk | LogEnd) -> None:
        """Nothing is kept for a later session: hello and the reports state everything anew."""
        if self._pump is not None:
            self._pump.put(frame)

    async def drain(self, patience: float) -> None:
        """Send what is pending, say goodbye, and do not come back. `run` ends by itself when a session stood."""
        self._draining = True
        if self._pump is not None:
            await self._pump.finish(patience)

    async def _converse(self, connection: Connection) -> Ending | None:
        if self._draining:
            return None
        await self._inbox.restart_session()
        session = AgentSession(
            self._identity.current, self._holding(), os.urandom(_NONCE_BYTES), VERSION, self._clock.monotonic()
        )
        self._pump = Pump(connection, session, self._identity, self._node, self._inbox, self._clock)
        try:
            ending = await self._pump.run()
        finally:
            self._pump = None
        return None if self._draining else ending

    def _holding(self) -> Holding:
        held = self._node.reports.held()
        fitting = _fitting(held)
        if len(fitting) < len(held):
            self._log.warning("link.held_cut", held=len(held), sent=len(fitting))
        return Holding(self._node.facts(), self._node.book.sequence, fitting)


async def enrol(dialer: Dialer, identity: IdentityFile, facts: NodeFacts, clock: Clock) -> None:
    """Give the join token for an identity, and have that on disk. Raises RefusedError."""

    async def converse(connection: Connection) -> Ending | None:
        nonce = os.urandom(_NONCE_BYTES)
        session = AgentSession(identity.current, Holding(facts), nonce, VERSION, clock.monotonic())
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                outcome = await _introduce(connection, session, clock)
        except TimeoutError:
            outcome = session.close(CloseReason.HANDSHAKE_TIMEOUT)
        except FrameError as error:
            outcome = session.close(CloseReason.PROTOCOL_ERROR, str(error))
        except DisconnectedError as error:
            return Ending(by_transport(error.code), str(error))
        if isinstance(outcome, Closed):
            await connection.close(outcome.reason.code, outcome.message)
            return Ending(outcome.reason, outcome.message, outcome.retry_after)
        await asyncio.to_thread(identity.enrolled, outcome.node_id)
        await connection.close(CloseReason.GOING_AWAY.code, "enrolled")
        return None

    await dialer.run(converse)


async def _introduce(connection: Connection, session: AgentSession, clock: Clock) -> Enrolled | Closed:
    while True:
        for frame in session.take_outgoing():
            await connection.send(encode(frame))
        for event in session.receive(decode_from_hub(await connection.receive()), clock.monotonic()):
            if isinstance(event, Enrolled | Closed):
                return event


def _fitting(held: list[Held]) -> list[Held]:
    size = plain_size(held)
    return held if size <= _HELD_BYTES else held[: len(held) * _HELD_BYTES // size]
