"""Carries deployments out: one step of `core.rollout` whenever anything about their containers may have changed.

A step's outcome is stored whole or not at all: the rollout's state, its events, what is in force, and every command. So a
coordinator that dies in the middle of a rollout goes on with the step it had not taken.
"""

from functools import partial
from typing import Any

import structlog

from coordinator.control.execution import OutOfDate, carry_out, changes_nothing, require_current
from coordinator.control.snapshots import Snapshot
from coordinator.control.sweep import Sweep
from coordinator.core import rollout
from coordinator.core.rollout import Rollout, RolloutView, Step
from coordinator.store import containers, deployments
from coordinator.store.database import Store
from coordinator.store.deployments import Current, DeploymentEvent, DeploymentRecord
from coordinator.store.writer import Tx
from shared.kit.clock import Clock

MAX_EVENTS = 100
"""Kept of a deployment's story; the oldest go first."""

log = structlog.get_logger()


class Rollouts:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._sweep = Sweep("rollouts", store, clock)

    async def run(self) -> None:
        await self._sweep.run(_mine, self._decide)

    async def _decide(self, snapshot: Snapshot) -> float | None:
        deployment = snapshot.active
        assert deployment is not None, "those without one are the orchestrator's"
        release = snapshot.target(deployment.release_id)
        assert release is not None, "a deployment's release lives as long as the deployment"
        before = rollout.load(deployment.state)
        previous = snapshot.target(deployment.previous_release_id)
        view = RolloutView(snapshot.view(), deployment.id, release, previous)
        step = rollout.step(before, view, self._clock.wall())
        if _matters(snapshot, before, step):
            await self._store.write(partial(_commit, snapshot=snapshot, deployment=deployment, step=step))
            for message in step.messages:
                log.info("rollout", container=snapshot.container.id, deployment=deployment.id, message=message)
        return step.plan.wake_at


def _mine(current: Current | None) -> bool:
    return current is not None and current.active is not None


def _matters(snapshot: Snapshot, before: Rollout, step: Step) -> bool:
    """Whether there is anything to write: an unchanged row written again would only wake everybody."""
    return step.rollout != before or bool(step.messages) or not changes_nothing(snapshot, step.plan)


async def _commit(tx: Tx, snapshot: Snapshot, deployment: DeploymentRecord, step: Step) -> None:
    """Raises OutOfDate."""
    await require_current(tx, snapshot)
    told = deployment.events[-1].seq if deployment.events else 0
    news = [DeploymentEvent(tx.now, message, told + nth) for nth, message in enumerate(step.messages, 1)]
    events = [*deployment.events, *news]
    stored = await deployments.change(
        tx,
        deployment.id,
        version=deployment.version,
        quietly=_only_noted(deployment, step),
        state=rollout.dump(step.rollout),
        status=rollout.deployment_status(step.rollout),
        active=not step.finished,
        events=events[-MAX_EVENTS:],
        error=step.rollout.error,
        finished_at=tx.now if step.finished else None,
    )
    if not stored:
        raise OutOfDate(deployment.id)
    changes = _in_force(snapshot, deployment, step)
    if changes:
        await containers.change(tx, snapshot.container.id, **changes)
    await carry_out(tx, snapshot, step.plan)


def _only_noted(deployment: DeploymentRecord, step: Step) -> bool:
    """Whether the step did no more than take down how far the slots are: at the same sight the next one would do nothing."""
    before, after = rollout.load(deployment.state), step.rollout
    return (before.stage, before.cancel, before.error) == (after.stage, after.cancel, after.error) and not step.messages


def _in_force(snapshot: Snapshot, deployment: DeploymentRecord, step: Step) -> dict[str, Any]:
    """What the step changes about the container itself."""
    changes: dict[str, Any] = {}
    target = deployment.previous_release_id if step.rollout.reverting else deployment.release_id
    if target != snapshot.container.target_release_id:
        changes["target_release_id"] = target
    if step.succeeded and snapshot.container.replicas:  # none ran: nothing was proven
        changes["healthy_release_id"] = deployment.release_id
    return changes
