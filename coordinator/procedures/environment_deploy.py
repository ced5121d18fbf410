"""Deploying an environment: for callers who know where they deploy to, and not what the container there is called.

An environment with one container needs no more than its own id. With several, whoever deploys has to say which: guessing would move
something nobody asked to be moved.
"""

from dataclasses import replace

from coordinator.errors import Conflict, NotFound, PreconditionFailed
from coordinator.procedures import scopes
from coordinator.procedures.container import require
from coordinator.procedures.container_actions import begin_deploy
from coordinator.procedures.container_views import DeploymentView, deployment_view
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Note
from coordinator.procedures.table import procedure
from coordinator.store import containers
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from shared.spec.container import ImageName, Part


class DeployEnvironment(Part, frozen=True):
    """`containerId`: needed only where the environment has several. `image`: another than the declared one."""

    environment_id: Id
    container_id: Id | None = None
    image: ImageName | None = None
    note: Note = ""


async def _environment_and_cluster(context: Context, data: DeployEnvironment) -> Scope:
    """Permission is asked of the container's cluster. Where it is not clear which container, the procedure says so: not before the
    caller is known to be a member."""
    scope = await scopes.environment(context, data)
    async with context.services.store.read() as conn:
        found = await containers.of_environment(conn, data.environment_id)
    meant = _meant(found, data.container_id)
    return scope if meant is None else replace(scope, record=meant, cluster_id=meant.cluster_id)


@procedure(
    "environment.deploy",
    "POST",
    "deploy",
    _environment_and_cluster,
    rest="/environments/{environmentId}/deploy",
    effect="deploys",
    created=True,
)
async def deploy(context: Context, data: DeployEnvironment) -> DeploymentView:
    """Release the declaration of the environment's container, with another image when given, and roll it out. Answers with the
    deployment."""

    async def unit(tx: Tx) -> DeploymentView:
        found = await containers.of_environment(tx.conn, data.environment_id)
        meant = _meant(found, data.container_id)
        if meant is None:
            raise _unclear(found, data)
        record = await require(tx.conn, meant.id)
        if record.cluster_id != context.cluster_id:
            raise Conflict("containerId: the environment's containers have changed meanwhile; try again")
        started, _ = await begin_deploy(tx, context, record, data.image, data.note)
        return await deployment_view(tx.conn, started)

    return await context.services.store.write(unit)


def _meant(found: list[ContainerRecord], container_id: str | None) -> ContainerRecord | None:
    if container_id is not None:
        return next((one for one in found if one.id == container_id), None)
    return found[0] if len(found) == 1 else None


def _unclear(found: list[ContainerRecord], data: DeployEnvironment) -> NotFound | PreconditionFailed:
    if data.container_id is not None:
        return NotFound("container not found in this environment")
    if not found:
        return PreconditionFailed("the environment has no container to deploy: create one first")
    names = ", ".join(one.name for one in found[:10])
    return PreconditionFailed(f"containerId: is required, because the environment has several containers: {names}")
