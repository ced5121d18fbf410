"""Keeps containers without a deployment under way as declared: filled, replaced, scaled, stopped, removed.

Those with one are the rollouts' alone, which keep them filled by the same function; so the two loops never act on one container. The
hand-over is the deployment's `active` column, and both ends of it count the container's version up, which fences off whichever
loop decided on the older state.
"""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.control.commands import as_stored, carry_out, change_container
from coordinator.control.snapshots import Snapshot
from coordinator.control.sweep import Sweep
from coordinator.core.orchestrate import orchestrate
from coordinator.core.slots import Plan
from coordinator.store import deployments
from coordinator.store.database import Store
from coordinator.store.writer import Tx
from shared.kit.clock import Clock


class Orchestrator:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._sweep = Sweep("orchestrator", store, clock)

    async def run(self) -> None:
        await self._sweep.run(_mine, self._decide)

    async def _decide(self, snapshot: Snapshot) -> float | None:
        if snapshot.active is not None:
            return None
        plan = orchestrate(snapshot.view(), self._clock.wall())
        if plan.commands or as_stored(plan.waiting) != snapshot.container.waiting:
            await self._store.write(partial(_commit, snapshot=snapshot, plan=plan))
        return plan.wake_at


async def _mine(conn: AsyncConnection, container_ids: set[str]) -> set[str]:
    return container_ids - set(await deployments.active_of_containers(conn, container_ids))


async def _commit(tx: Tx, snapshot: Snapshot, plan: Plan) -> None:
    await change_container(tx, snapshot, plan.waiting)
    await carry_out(tx, snapshot, snapshot.release(snapshot.container.target_release_id), plan.commands)
