"""Environments: where a project's containers live, with a cluster of their own if wanted."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, NotFound
from coordinator.procedures import scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given, write_named
from coordinator.store import clusters, containers, projects
from coordinator.store.database import Tx
from coordinator.store.projects import EnvironmentRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import Part

EnvironmentName = Annotated[str, Meta(min_length=2, max_length=64)]


class ListEnvironments(Part, frozen=True):
    project_id: Id


class EnvironmentId(Part, frozen=True):
    environment_id: Id


class CreateEnvironment(Part, frozen=True):
    project_id: Id
    name: EnvironmentName
    cluster_id: Id | None = None


class UpdateEnvironment(Part, frozen=True):
    environment_id: Id
    name: EnvironmentName | UnsetType = UNSET
    cluster_id: Id | UnsetType | None = UNSET


class EnvironmentView(View, frozen=True):
    id: str
    name: str
    project_id: str
    cluster_id: str | None
    created_at: str


@procedure("environment.all", "GET", "viewer", scopes.project, rest="/projects/{projectId}/environments")
async def list_environments(context: Context, data: ListEnvironments) -> list[EnvironmentView]:
    """A project's environments."""
    async with context.services.store.read() as conn:
        return [view(record) for record in await projects.environments_of(conn, data.project_id)]


@procedure("environment.one", "GET", "viewer", scopes.environment, rest="/environments/{environmentId}")
async def one(context: Context, data: EnvironmentId) -> EnvironmentView:
    """One environment."""
    return view(context.record)


@procedure("environment.create", "POST", "admin", scopes.project, created=True, rest="/environments")
async def create(context: Context, data: CreateEnvironment) -> EnvironmentView:
    """A new environment of a project."""
    organization_id = context.record.organization_id

    async def unit(tx: Tx) -> EnvironmentRecord:
        if await projects.get(tx.conn, data.project_id) is None:
            raise NotFound("project not found")
        await own_cluster(tx.conn, data.cluster_id, organization_id)
        record = EnvironmentRecord(
            id=new_id("env"),
            project_id=data.project_id,
            cluster_id=data.cluster_id,
            name=data.name,
            created_at=tx.now,
        )
        await projects.insert_environment(tx, record)
        await note(tx, context, "environment.create", record.id, organization_id, name=data.name)
        return record

    return view(await write_named(context, unit, "the project already has an environment", data.name))


@procedure("environment.update", "PATCH", "admin", scopes.environment, rest="/environments/{environmentId}")
async def update(context: Context, data: UpdateEnvironment) -> EnvironmentView:
    """Change its name, or the cluster that new containers get by default."""
    changes = given(data, "environment_id")

    async def unit(tx: Tx) -> EnvironmentRecord:
        owner = await projects.environment_organization(tx.conn, data.environment_id)
        if changes:
            await own_cluster(tx.conn, changes.get("cluster_id"), owner or "")
            await projects.change_environment(tx, data.environment_id, **changes)
            await note(tx, context, "environment.update", data.environment_id, owner, **changes)
        record = await projects.get_environment(tx.conn, data.environment_id)
        if record is None:
            raise NotFound("environment not found")
        return record

    return view(await write_named(context, unit, "the project already has an environment", data.name))


@procedure("environment.remove", "DELETE", "admin", scopes.environment, rest="/environments/{environmentId}")
async def remove(context: Context, data: EnvironmentId) -> Nothing:
    """Tear down an environment: its containers are removed from their nodes first, the environment goes with the last."""

    async def unit(tx: Tx) -> None:
        owner = await projects.environment_organization(tx.conn, data.environment_id)
        await containers.let_go_of_environment(tx, data.environment_id)
        await projects.change_environment(tx, data.environment_id, removing=True)
        await projects.purge_environments(tx, context.record.project_id)
        await note(tx, context, "environment.remove", data.environment_id, owner)

    await context.services.store.write(unit)
    return Nothing()


async def own_cluster(conn: AsyncConnection, cluster_id: str | None, organization_id: str) -> None:
    """Raises BadRequest unless `cluster_id` is None or a cluster of this organisation."""
    if cluster_id is None:
        return
    record = await clusters.get(conn, cluster_id)
    if record is None or record.organization_id != organization_id:
        raise BadRequest("clusterId: no such cluster in this organisation")


def view(record: EnvironmentRecord) -> EnvironmentView:
    return EnvironmentView(
        id=record.id,
        name=record.name,
        project_id=record.project_id,
        cluster_id=record.cluster_id,
        created_at=iso(record.created_at),
    )
