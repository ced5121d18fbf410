"""Which containers a loop must look at next: those that changed, those on nodes that changed, and those it wanted to see again.

A reminder is a wall time, as the cores' `wake_at` is: it only makes the loop look, so a clock that jumps costs a look too many
or one that comes late by as much as the clock was set back.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store import containers, instances, volumes
from coordinator.store.database import Store
from shared.kit.clock import Clock

LONGEST_WAIT = 60.0


class Agenda:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reminders: dict[str, float] = {}
        self._changes = store.changes.subscribe("container", "deployment", "instance", "node")

    def close(self) -> None:
        self._changes.close()

    def remind(self, container_id: str, at: float | None) -> None:
        """Look again at `at`, in place of any earlier wish; None: only when it changes."""
        if at is None:
            self._reminders.pop(container_id, None)
        else:
            self._reminders[container_id] = at

    async def take(self, *, everything: bool) -> set[str]:
        """Container ids to look at; waits until there may be one. `everything`: all of them, without waiting."""
        if everything:
            self._reminders.clear()
            async with self._store.read() as conn:
                return {record.id for record in await containers.every(conn)}
        entries = await self._changes.take(self._wait())
        found = {key for kind, key in entries if kind != "node"} | self._due()
        changed_nodes = [key for kind, key in entries if kind == "node"]
        if changed_nodes:
            async with self._store.read() as conn:
                found |= await _concerned(conn, changed_nodes)
        return found

    def _wait(self) -> float:
        soonest = min(self._reminders.values(), default=None)
        return LONGEST_WAIT if soonest is None else min(LONGEST_WAIT, max(0.0, soonest - self._clock.wall()))

    def _due(self) -> set[str]:
        now = self._clock.wall()
        due = {key for key, at in self._reminders.items() if at <= now}
        for key in due:
            del self._reminders[key]
        return due


async def _concerned(conn: AsyncConnection, node_ids: list[str]) -> set[str]:
    """Containers with an instance or a volume on these nodes."""
    found: set[str] = set()
    for node_id in node_ids:
        found |= {one.container_id for one in await instances.of_node(conn, node_id)}
        found |= {one.container_id for one in await volumes.of_node(conn, node_id)}
    return found
