"""Clears away what is over: containers whose last instance is gone, instances of nodes that were removed, old history.

Deletion follows facts only. A container goes when no node holds anything of it any more; the instances of a removed node are ended
by declaration, because that node will never report again and everybody waiting for it would wait for ever. Both are done as soon
as they can be, since a name is free again only then; history is trimmed now and then.
"""

from collections.abc import Iterable
from functools import partial

import structlog

from coordinator.control.loop import keep
from coordinator.store import containers, history, instances, rates, removals, repeats, tokens, volumes
from coordinator.store.changes import Entry, Subscription
from coordinator.store.database import Store
from coordinator.store.writer import Tx
from shared.kit.clock import Clock
from shared.spec.instance import Phase
from shared.spec.reason import NODE_REMOVED, Reason

TRIM_SECONDS = 300.0
KEPT_PER_SLOT = 5
"""Removed instances that `container.one` still shows."""
YOUNG_SECONDS = 600.0
"""Removed instances are kept at least this long, and none longer than `OLD_SECONDS`."""
OLD_SECONDS = 7 * 86400.0
PART = 500

log = structlog.get_logger()


class Collector:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._doomed: set[str] = set()
        self._trimmed_at = -TRIM_SECONDS
        self._changes: Subscription = store.changes.subscribe("container", "instance", "node")

    async def run(self) -> None:
        try:
            await keep("collector", self._turn)
        finally:
            self._changes.close()

    async def _turn(self, afresh: bool) -> None:
        wait = max(0.0, self._trimmed_at + TRIM_SECONDS - self._clock.monotonic())
        entries = frozenset() if afresh else await self._changes.take(wait)
        if afresh or any(kind == "node" for kind, _ in entries):
            await self._end_orphans()
        await self._purge(entries, afresh=afresh)
        now = self._clock.monotonic()
        if now - self._trimmed_at >= TRIM_SECONDS:
            await self._trim()
            self._trimmed_at = now

    async def _end_orphans(self) -> None:
        """What was bound to nodes that have left, and the volumes that were there."""
        async with self._store.read() as conn:
            orphans = await history.orphans(conn)
        for node_id, instance_ids in orphans.items():
            await self._store.write(partial(_bury, node_id=node_id, instance_ids=instance_ids))
            log.info("a removed node's instances have ended", node=node_id, instances=len(instance_ids))

    async def _purge(self, entries: Iterable[Entry], *, afresh: bool) -> None:
        declared = {key for kind, key in entries if kind == "container"}
        if afresh or declared:
            async with self._store.read() as conn:
                found = await history.doomed(conn, None if afresh else declared)
            self._doomed = found if afresh else (self._doomed - declared) | found
        touched = self._doomed if afresh else self._doomed & {key for _, key in entries}
        for container_id in sorted(touched):
            if await self._store.write(partial(containers.purge, container_id=container_id)):
                self._doomed.discard(container_id)
                log.info("a removed container is gone", container=container_id)

    async def _trim(self) -> None:
        await self._store.write(tokens.forget_old)
        await self._store.write(repeats.forget_old)
        await self._store.write(partial(rates.forget, before=self._clock.wall()))
        given_up = await self._store.write(removals.give_up_lost)
        if given_up:
            log.info("lost nodes of removed organisations are given up", nodes=given_up)
        now = self._clock.wall()
        async with self._store.read() as conn:
            old = await history.outlived(
                conn, keep=KEPT_PER_SLOT, young_since=now - YOUNG_SECONDS, old_before=now - OLD_SECONDS
            )
        for start in range(0, len(old), PART):
            part = old[start : start + PART]
            await self._store.write(partial(instances.forget, instance_ids=part))


async def _bury(tx: Tx, node_id: str, instance_ids: Iterable[str]) -> None:
    reason = Reason(NODE_REMOVED, "its node was removed from the cluster")
    await instances.end(tx, instance_ids, Phase.REMOVED, reason)
    await volumes.forget_node(tx, node_id)
