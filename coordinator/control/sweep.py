"""One turn over containers: what the orchestrator and the rollouts have in common around their decisions.

A turn reads one snapshot for many containers and lets their writes share the writer's transaction. A container whose state a
decision cannot cope with must not keep the others from theirs: that is logged in full, and tried again later.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from coordinator.control.agenda import Agenda
from coordinator.control.execution import OutOfDate
from coordinator.control.loop import keep
from coordinator.control.snapshots import Snapshot, load
from coordinator.store import deployments
from coordinator.store.database import Store
from coordinator.store.deployments import Current
from coordinator.store.errors import StoreError
from shared.kit.clock import Clock
from shared.kit.together import together

Mine = Callable[[Current | None], bool]
"""Whether a container is this loop's, by its deployments."""
Decide = Callable[[Snapshot], Awaitable[float | None]]
"""Decides and commits; returns when to look again without being woken. Raises OutOfDate to be called again at once."""

PART = 64
"""Containers read at once: after a start all of them are looked at, and others wait for the writer meanwhile."""
PUT_OFF = 30.0

log = structlog.get_logger()


class Sweep:
    def __init__(self, name: str, store: Store, clock: Clock) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._agenda = Agenda(store, clock)

    async def run(self, mine: Mine, decide: Decide) -> None:
        try:
            await keep(self._name, partial(self._turn, mine, decide))
        finally:
            self._agenda.close()

    async def _turn(self, mine: Mine, decide: Decide, afresh: bool) -> None:
        left = sorted(await self._agenda.take(everything=afresh))
        while left:
            part, left = set(left[:PART]), left[PART:]
            snapshots = await self._look(mine, part)
            try:
                await together(*(self._decide(decide, snapshot) for snapshot in snapshots.values()))
            except ExceptionGroup as group:  # of StoreErrors, all for one reason: no other leaves `_decide`
                raise group.exceptions[0] from None

    async def _look(self, mine: Mine, part: set[str]) -> dict[str, Snapshot]:
        """Those of `part` that are this loop's. What cannot be loaded is put off alone."""
        try:
            snapshots = await self._load(mine, part)
        except StoreError:
            raise
        except Exception:  # a row that cannot be read; the others of its part are told apart from it
            if len(part) == 1:
                (container_id,) = part
                log.exception("a container cannot be loaded", loop=self._name, container=container_id)
                self._agenda.remind(container_id, self._clock.wall() + PUT_OFF)
                return {}
            found: dict[str, Snapshot] = {}
            for container_id in sorted(part):
                found |= await self._look(mine, {container_id})
            return found
        for container_id in part - snapshots.keys():
            self._agenda.remind(container_id, None)
        return snapshots

    async def _load(self, mine: Mine, part: set[str]) -> dict[str, Snapshot]:
        async with self._store.read() as conn:
            current = await deployments.current_of(conn, part)
            chosen = [each for each in sorted(part) if mine(current.get(each))]
            return await load(conn, chosen, current) if chosen else {}

    async def _decide(self, decide: Decide, snapshot: Snapshot) -> None:
        container_id = snapshot.container.id
        try:
            self._agenda.remind(container_id, await decide(snapshot))
        except OutOfDate:
            self._agenda.repeat(container_id)
        except StoreError:
            raise  # ends the turn: the loop starts over when the database is back
        except Exception:  # a defect met by one container's state; the others' turn goes on, and this one comes again
            log.exception("a container cannot be decided on", loop=self._name, container=container_id)
            self._agenda.remind(container_id, self._clock.wall() + PUT_OFF)
