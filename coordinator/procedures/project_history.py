"""A project's history over all its containers, and trying again what failed."""

from typing import Annotated, Literal

from msgspec import Meta

from coordinator.errors import BadRequest, NotFound, PreconditionFailed
from coordinator.procedures import paging, releasing, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.container import require
from coordinator.procedures.container_actions import DeploymentId
from coordinator.procedures.container_views import (
    DeploymentView,
    ReleaseView,
    deployment_view,
    deployment_views,
    release_view,
)
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page
from coordinator.procedures.table import procedure
from coordinator.store import containers, deployments, project_history, releases
from coordinator.store.database import Tx

Status = Literal["pending", "queued", "building", "in_progress", "succeeded", "failed", "rolled_back", "cancelled"]
_NOT_OF_THIS_LIST = "cursor: is not one of this list"


class ListDeployments(Page, frozen=True):
    project_id: Id
    environment_id: Annotated[Id | None, Meta(description="only those of this environment's containers")] = None
    status: Status | None = None


class ListReleases(Page, frozen=True):
    project_id: Id
    environment_id: Annotated[Id | None, Meta(description="only those of this environment's containers")] = None


@procedure("project.deployments", "GET", "viewer", scopes.project, rest="/projects/{projectId}/deployments")
async def list_deployments(context: Context, data: ListDeployments) -> list[DeploymentView]:
    """Every deployment in a project, newest first, with its events."""
    async with context.services.store.read() as conn:
        before = await deployments.get(conn, data.cursor) if data.cursor else None
        home = await containers.get(conn, before.container_id) if before else None
        if data.cursor and (home is None or home.project_id != data.project_id):
            raise BadRequest(_NOT_OF_THIS_LIST)
        found = await project_history.deployments_of(
            conn,
            data.project_id,
            environment_id=data.environment_id,
            status=data.status,
            before=before,
            limit=paging.fetch(data),
        )
        return await deployment_views(conn, paging.cut(context, data, found))


@procedure("project.releases", "GET", "viewer", scopes.project, rest="/projects/{projectId}/releases")
async def list_releases(context: Context, data: ListReleases) -> list[ReleaseView]:
    """Every release in a project, newest first: what its containers ran and can return to."""
    async with context.services.store.read() as conn:
        before = await releases.get(conn, data.cursor) if data.cursor else None
        home = await containers.get(conn, before.container_id) if before else None
        if data.cursor and (home is None or home.project_id != data.project_id):
            raise BadRequest(_NOT_OF_THIS_LIST)
        found = await project_history.releases_of(
            conn, data.project_id, environment_id=data.environment_id, before=before, limit=paging.fetch(data)
        )
    return [release_view(record) for record in paging.cut(context, data, found)]


@procedure(
    "container.retryDeployment",
    "POST",
    "deploy",
    scopes.deployment,
    rest="/deployments/{deploymentId}/retry",
    effect="deploys",
)
async def retry(context: Context, data: DeploymentId) -> DeploymentView:
    """Deploy the release of a deployment that failed, was rolled back or cancelled once more, as it was frozen then."""

    async def unit(tx: Tx) -> DeploymentView:
        ended = await deployments.get(tx.conn, data.deployment_id)
        if ended is None:
            raise NotFound("deployment not found")
        if ended.status not in ("failed", "rolled_back", "cancelled"):
            raise PreconditionFailed(f"the deployment is {ended.status}: only one that did not succeed can be retried")
        record = await require(tx.conn, ended.container_id)
        release = await releases.get(tx.conn, ended.release_id)
        if release is None:
            raise NotFound("release not found")
        started = await releasing.start(tx, context, record, release, "deploy", f"retry of {ended.id}")
        await note(
            tx,
            context,
            "container.retryDeployment",
            record.id,
            record.organization_id,
            deployment=started.id,
            of=ended.id,
        )
        return await deployment_view(tx.conn, started)

    return await context.services.store.write(unit)
