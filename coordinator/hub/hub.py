"""The hub: all agents' connections, what wakes them, and their end.

One ticker serves every connection's deadlines. One subscription to the change feed wakes the sessions whose assignments changed; a
slow sweep compares the stored sequence numbers with those sent, for changes made by another replica, and ends sessions of
nodes that were removed there.
"""

import asyncio
import math
from typing import Any

import structlog

from coordinator.hub.admission import Admission
from coordinator.hub.endpoint import agent_route
from coordinator.hub.parts import HubParts, Socket
from coordinator.hub.registry import NodeRegistry
from coordinator.hub.session import AgentConnection
from coordinator.store import nodes
from coordinator.store.errors import StoreError
from shared.wire.closing import CloseReason

log = structlog.get_logger()
TICK_SECONDS = 0.5
SWEEP_SECONDS = 10.0
FAREWELL_SECONDS = 3.0
_RETURNS_PER_SECOND = 200.0
"""How many agents are asked back per second after a restart."""


class Hub:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts
        self.registry = NodeRegistry()
        self._admission = Admission()
        self._connections: set[AgentConnection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._assignments = parts.store.changes.subscribe("assignment")
        self.handlers = [agent_route(self.serve)]

    async def serve(self, socket: Socket, address: str) -> None:
        """One connection, until it ends."""
        connection = AgentConnection(self._parts, self.registry, self._admission, socket, address)
        if self._closing:
            connection.close(CloseReason.GOING_AWAY, retry_after=self._spread())
        else:
            connection.begin()
        self._connections.add(connection)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self._dispatch())
            group.create_task(self._sweep())

    async def close(self) -> None:
        """Tell every agent when to come back, each at another moment, and wait a little for the farewells to be read."""
        self._closing = True
        for connection in list(self._connections):
            connection.close(CloseReason.GOING_AWAY, retry_after=self._spread())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL_SECONDS)
        for connection in list(self._connections):
            connection.tick(math.inf)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL_SECONDS)
        self._assignments.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._parts.clock.monotonic()
            for connection in list(self._connections):
                connection.tick(now)

    async def _dispatch(self) -> None:
        while True:
            for _, node_id in await self._assignments.take():
                session = self.registry.get(node_id)
                if session is not None:
                    session.wake()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                async with self._parts.store.read() as conn:
                    stored = await nodes.sequences(conn)
            except StoreError as error:
                log.warning("sessions cannot be compared with the database", reason=str(error))
                continue
            except Exception:  # a net under the change feed: its own defects must not end the coordinator
                log.exception("sessions cannot be compared with the database")
                continue
            for session in self.registry:
                if session.node_id not in stored:
                    session.close(CloseReason.REVOKED)
                elif session.sequence != stored[session.node_id]:
                    session.wake()

    def _spread(self) -> float:
        return self._admission.draw(0.2, 1.0 + len(self._connections) / _RETURNS_PER_SECOND)
