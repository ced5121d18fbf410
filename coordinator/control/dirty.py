"""Which containers are to be looked at again: those that changed, and those whose time has come.

The orchestrator and the rollouts each keep one. A node's change concerns the containers that have something on it, and only when
what they decide by changed: a node reports its free disk far more often than it is lost or drained.
"""

from heapq import heappop, heappush

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import containers, instances, nodes, volumes
from coordinator.store.changes import Subscription
from coordinator.store.database import Store
from shared.kit.clock import Clock

_Standing = tuple[bool, str, bool]


class DirtyContainers:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._changes: Subscription = store.changes.subscribe("container", "deployment", "instance", "node")
        self._again: set[str] = set()
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._standing: dict[str, _Standing] = {}

    def close(self) -> None:
        self._changes.close()

    async def take(self, *, afresh: bool) -> set[str]:
        """Their ids, after waiting for the first; all there are when `afresh`."""
        if afresh:
            async with self._store.read() as conn:
                await self._moved(conn, {node.id for node in await nodes.every(conn)})
                return await containers.ids(conn)
        entries = await self._changes.take(0 if self._again else self._wait())
        found = {key for kind, key in entries if kind != "node"} | self._again | self._overdue()
        self._again = set()
        changed = {key for kind, key in entries if kind == "node"}
        if changed:
            async with self._store.read() as conn:
                for node_id in await self._moved(conn, changed):
                    found |= {each.container_id for each in await instances.of_node(conn, node_id)}
                    found |= {each.container_id for each in await volumes.of_node(conn, node_id)}
        return found

    def look_again(self, container_id: str) -> None:
        """At once: what was decided on was out of date."""
        self._again.add(container_id)

    def look_at(self, container_id: str, at: float | None) -> None:
        """At this time, unless something changes before; None: only then."""
        if at is None:
            self._due.pop(container_id, None)
        elif self._due.get(container_id) != at:
            self._due[container_id] = at
            heappush(self._heap, (at, container_id))

    def _wait(self) -> float | None:
        self._skip()
        return max(0.0, self._heap[0][0] - self._clock.wall()) if self._heap else None

    def _overdue(self) -> set[str]:
        now, found = self._clock.wall(), set()
        self._skip()
        while self._heap and self._heap[0][0] <= now:
            container_id = heappop(self._heap)[1]
            del self._due[container_id]
            found.add(container_id)
            self._skip()
        return found

    def _skip(self) -> None:
        """Drops appointments that were changed since they were made."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)

    async def _moved(self, conn: AsyncConnection, node_ids: set[str]) -> list[str]:
        """Those of the nodes that containers must be looked at for."""
        records = await nodes.of_ids(conn, node_ids)
        moved = []
        for node_id in sorted(node_ids):
            node = records.get(node_id)
            standing = None if node is None else (node.lost, node.availability, node.revoked_at is not None)
            if standing != self._standing.get(node_id):
                moved.append(node_id)
            if standing is None:
                self._standing.pop(node_id, None)
            else:
                self._standing[node_id] = standing
        return moved
