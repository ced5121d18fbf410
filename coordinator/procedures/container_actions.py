"""What moves a container: deploying, scaling, restarting, stopping, starting, rolling back, cancelling."""

from typing import Literal

from msgspec import structs

from coordinator.core import rollout
from coordinator.errors import BadRequest, NotFound, PreconditionFailed
from coordinator.procedures import declaring, inheriting, releasing, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.container import ContainerId, Replicas, require
from coordinator.procedures.container_views import ContainerDetail, DeploymentView, deployment_view, detail
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Note, View
from coordinator.procedures.table import demand, procedure
from coordinator.store import approvals, containers, deployments, releases
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.deployments import DeploymentRecord
from coordinator.store.releases import ReleaseRecord
from shared.kit.clock import iso
from shared.spec.container import ImageName, Part


class Deploy(Part, frozen=True):
    container_id: Id
    image: ImageName | None = None
    note: Note = ""


class Scale(Part, frozen=True):
    container_id: Id
    replicas: Replicas


class Rollback(Part, frozen=True):
    """`releaseId`: that release. `containerId` alone: the newest release before the one in force that was healthy and is not the
    same; again goes further back."""

    container_id: Id | None = None
    release_id: Id | None = None
    reason: Note = ""


class DeploymentId(Part, frozen=True):
    deployment_id: Id


class DeployView(View, frozen=True):
    deployment_id: str
    status: str
    previous_image: str | None
    new_image: str
    triggered_at: str


@procedure(
    "container.deploy",
    "POST",
    "deploy",
    scopes.container,
    rest="/containers/{containerId}/deploy",
    effect="deploys",
)
async def deploy(context: Context, data: Deploy) -> DeployView:
    """Release the declaration as it is now, with another image when given, and roll it out, number of replicas included. A stopped
    container starts."""

    async def unit(tx: Tx) -> DeployView:
        record = await require(tx.conn, data.container_id)
        previous = await _in_force(tx, record)
        started, image = await begin_deploy(tx, context, record, data.image, data.note)
        return DeployView(
            deployment_id=started.id,
            status=started.status,
            previous_image=previous.image if previous else None,
            new_image=image,
            triggered_at=iso(started.created_at),
        )

    return await context.services.store.write(unit)


async def begin_deploy(
    tx: Tx, context: Context, record: ContainerRecord, image: str | None, text: str
) -> tuple[DeploymentRecord, str]:
    """The deployment of the declaration as it is now, with another image when given, and the image it brings."""
    template = structs.replace(record.template, image=image) if image else record.template
    declaring.check(template, record.template)
    declaring.check_credentials(template, record.template)
    await inheriting.check_registry(tx.conn, record.organization_id, template)
    if image:
        await containers.change(tx, record.id, template=template, generation=record.generation + 1)
    release = await releasing.new_release(tx, context, record, template, text)
    started = await releasing.start(tx, context, record, release, "deploy", text)
    await note(tx, context, "container.deploy", record.id, record.organization_id, image=template.image)
    return started, template.image


@procedure(
    "container.scale",
    "POST",
    "deploy",
    scopes.container,
    rest="/containers/{containerId}/scale",
    effect="moves",
)
async def scale(context: Context, data: Scale) -> ContainerDetail:
    """Change the number of replicas at once, without a release."""

    async def unit(tx: Tx) -> ContainerDetail:
        record = await require(tx.conn, data.container_id)
        await containers.change(
            tx,
            record.id,
            replicas=data.replicas,
            declared_replicas=data.replicas,
            generation=record.generation + 1,
        )
        await note(tx, context, "container.scale", record.id, record.organization_id, replicas=data.replicas)
        return await _detail(tx, record.id)

    return await context.services.store.write(unit)


@procedure(
    "container.restart",
    "POST",
    "deploy",
    scopes.container,
    rest="/containers/{containerId}/restart",
    effect="deploys",
)
async def restart(context: Context, data: ContainerId) -> ContainerDetail:
    """Replace every instance by a fresh one of the release in force, by the container's own strategy; a stopped container starts.
    What was declared since, the number of replicas and inherited variables too, waits for a deploy."""

    async def unit(tx: Tx) -> ContainerDetail:
        record = await require(tx.conn, data.container_id)
        current = await _in_force(tx, record)
        if current is None:
            raise PreconditionFailed("the container has never been deployed")
        release = await releasing.repeat_release(tx, context, current, note="restart")
        await releasing.start(tx, context, record, release, "restart")
        await note(tx, context, "container.restart", record.id, record.organization_id)
        return await _detail(tx, record.id)

    return await context.services.store.write(unit)


@procedure(
    "container.stop",
    "POST",
    "deploy",
    scopes.container,
    rest="/containers/{containerId}/stop",
    effect="moves",
)
async def stop(context: Context, data: ContainerId) -> ContainerDetail:
    """Stop every instance and keep it, with its logs; a deployment under way pauses until the container starts again."""
    return await _set_desired(context, data.container_id, "stopped", "container.stop")


@procedure(
    "container.start",
    "POST",
    "deploy",
    scopes.container,
    rest="/containers/{containerId}/start",
    effect="moves",
)
async def start(context: Context, data: ContainerId) -> ContainerDetail:
    """Run a stopped container again, as declared."""
    return await _set_desired(context, data.container_id, "running", "container.start")


async def _container_or_release(context: Context, data: Rollback) -> Scope:
    if (data.container_id is None) == (data.release_id is None):
        raise BadRequest("containerId: give either containerId or releaseId")
    async with context.services.store.read() as conn:
        release = await releases.get(conn, data.release_id) if data.release_id else None
        container_id = release.container_id if release else data.container_id
        found = await containers.get_guarded(conn, container_id or "")
    return scopes.of_container("release" if data.release_id else "container", found)


@procedure(
    "container.rollback",
    "POST",
    "deploy",
    _container_or_release,
    rest="/containers/{containerId}/rollback",
    also=("/releases/{releaseId}/rollback",),
    effect="deploys",
)
async def rollback(context: Context, data: Rollback) -> DeploymentView:
    """Return to an earlier release, as it was frozen: nothing is rebuilt. The number of replicas stays as it is; a stopped
    container starts."""

    async def unit(tx: Tx) -> DeploymentView:
        record = await require(tx.conn, context.record.id)
        target = await _rollback_target(tx, record, data.release_id)
        if target.id == record.target_release_id:
            raise PreconditionFailed(f"release {target.revision} is in force already")
        started = await releasing.start(tx, context, record, target, "rollback", data.reason)
        await note(tx, context, "container.rollback", record.id, record.organization_id, revision=target.revision)
        return await deployment_view(tx.conn, started)

    return await context.services.store.write(unit)


@procedure(
    "container.cancelDeployment",
    "POST",
    "deploy",
    scopes.deployment,
    rest="/deployments/{deploymentId}/cancel",
    effect="declares",
)
async def cancel(context: Context, data: DeploymentId) -> DeploymentView:
    """Stop a deployment that is under way and return to the release before it; withdraw one that waits for an approval. In a
    restricted environment only reviewers, admins and owners stop what is under way."""

    async def unit(tx: Tx) -> DeploymentView:
        record = await deployments.get(tx.conn, data.deployment_id)
        if record is None:
            raise NotFound("deployment not found")
        if record.status == "pending":
            await releasing.drop_held(tx, record, "withdrawn before anybody decided on it")
            await approvals.settle(tx, record.id, "withdrawn", decided_by=context.user.user_id)
        elif record.active:
            demand(context, "container.cancelDeployment", "moves")  # it takes back what a reviewer may have let through
            await deployments.change(tx, record.id, state=rollout.dump(rollout.cancel(rollout.load(record.state))))
        else:
            raise PreconditionFailed(f"the deployment has ended: {record.status}")
        await note(tx, context, "container.cancelDeployment", record.id, context.record.organization_id)
        return await deployment_view(tx.conn, await deployments.get(tx.conn, record.id) or record)

    return await context.services.store.write(unit)


async def _set_desired(
    context: Context, container_id: str, desired: Literal["running", "stopped"], action: str
) -> ContainerDetail:
    async def unit(tx: Tx) -> ContainerDetail:
        record = await require(tx.conn, container_id)
        if record.desired != desired:
            await containers.change(tx, record.id, desired=desired)
            await note(tx, context, action, record.id, record.organization_id)
        return await _detail(tx, record.id)

    return await context.services.store.write(unit)


async def _detail(tx: Tx, container_id: str) -> ContainerDetail:
    return await detail(tx.conn, await require(tx.conn, container_id), tx.now)


async def _in_force(tx: Tx, record: ContainerRecord) -> ReleaseRecord | None:
    return await releases.get(tx.conn, record.target_release_id) if record.target_release_id else None


async def _rollback_target(tx: Tx, record: ContainerRecord, release_id: str | None) -> ReleaseRecord:
    """The release asked for, else the one that `releasing.rollback_target` finds."""
    if release_id is None:
        past = await deployments.past_releases(tx.conn, record.id)
        release_id = releasing.rollback_target(past, record.target_release_id)
        if release_id is None:
            raise PreconditionFailed("there is no earlier healthy release to return to")
    found = await releases.get(tx.conn, release_id)
    if found is None:
        raise NotFound("release not found")
    return found
