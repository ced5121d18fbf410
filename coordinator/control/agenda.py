"""Which containers a loop must look at next: those that changed, those on nodes that changed, and those it wanted to see again.

A node's change concerns its containers only when it is about what they are decided by: a node reports its free disk far more often
than it is lost or drained. A reminder is a wall time, as the cores' `wake_at` is: it only makes the loop look, so a clock that
jumps costs a look too many or one that comes late by as much as the clock was set back.
"""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import containers, instances, nodes, volumes
from coordinator.store.database import Store
from coordinator.store.nodes import NodeRecord
from shared.kit.clock import Clock

LONGEST_WAIT = 60.0
_Standing = tuple[bool, str, bool]


class Agenda:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reminders: dict[str, float] = {}
        self._again: set[str] = set()
        self._standing: dict[str, _Standing] = {}
        self._changes = store.changes.subscribe("container", "deployment", "instance", "node")

    def close(self) -> None:
        self._changes.close()

    def remind(self, container_id: str, at: float | None) -> None:
        """Look again at `at`, in place of any earlier wish; None: only when it changes."""
        if at is None:
            self._reminders.pop(container_id, None)
        else:
            self._reminders[container_id] = at

    def repeat(self, container_id: str) -> None:
        """Look again at once: what was decided on was out of date."""
        self._again.add(container_id)

    async def take(self, *, everything: bool) -> set[str]:
        """Container ids to look at; waits until there may be one. `everything`: all of them, without waiting."""
        if everything:
            self._reminders.clear()
            async with self._store.read() as conn:
                self._standing = {node.id: _standing(node) for node in await nodes.every(conn)}
                return await containers.ids(conn)
        entries = await self._changes.take(self._wait())
        found = {key for kind, key in entries if kind != "node"} | self._due() | self._again
        self._again = set()
        changed = {key for kind, key in entries if kind == "node"}
        if changed:
            async with self._store.read() as conn:
                found |= await _concerned(conn, await self._moved(conn, changed))
        return found

    def _wait(self) -> float:
        if self._again:
            return 0.0
        soonest = min(self._reminders.values(), default=None)
        return LONGEST_WAIT if soonest is None else min(LONGEST_WAIT, max(0.0, soonest - self._clock.wall()))

    def _due(self) -> set[str]:
        now = self._clock.wall()
        due = {key for key, at in self._reminders.items() if at <= now}
        for key in due:
            del self._reminders[key]
        return due

    async def _moved(self, conn: AsyncConnection, node_ids: set[str]) -> list[str]:
        """Those whose standing is not what it was."""
        records = await nodes.of_ids(conn, node_ids)
        now = {node_id: _standing(records.get(node_id)) for node_id in sorted(node_ids)}
        moved = [node_id for node_id, standing in now.items() if standing != self._standing.get(node_id)]
        self._standing.update(now)
        return moved


def _standing(node: NodeRecord | None) -> _Standing:
    if node is None:
        return True, "removed", True
    return node.lost, node.availability, node.revoked_at is not None


async def _concerned(conn: AsyncConnection, node_ids: Iterable[str]) -> set[str]:
    """Containers with an instance or a volume on these nodes."""
    found: set[str] = set()
    for node_id in node_ids:
        found |= {one.container_id for one in await instances.of_node(conn, node_id)}
        found |= {one.container_id for one in await volumes.of_node(conn, node_id)}
    return found
