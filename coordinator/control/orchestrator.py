"""Keeps containers without a deployment under way as declared: filled, replaced, scaled, stopped, removed.

Those with one are the rollouts' alone, which keep them filled by the same function, so the two loops never act on one container.
Whoever starts a deployment writes the container, which fences off what was decided here before that.
"""

from functools import partial

from coordinator.control.execution import carry_out, changes_nothing, require_current
from coordinator.control.snapshots import Snapshot
from coordinator.control.sweep import Sweep
from coordinator.core.orchestrate import orchestrate
from coordinator.core.slots import Plan
from coordinator.store.database import Store
from coordinator.store.deployments import Current
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
        plan = orchestrate(snapshot.view(), self._clock.wall())
        if not changes_nothing(snapshot, plan):
            await self._store.write(partial(_commit, snapshot=snapshot, plan=plan))
        return plan.wake_at


def _mine(current: Current | None) -> bool:
    return current is None or current.active is None


async def _commit(tx: Tx, snapshot: Snapshot, plan: Plan) -> None:
    await require_current(tx, snapshot)
    await carry_out(tx, snapshot, plan)
