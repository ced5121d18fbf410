"""Environments: where a project's containers live, with a cluster of their own if wanted."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, NotFound
from coordinator.procedures import keeping, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.keeping import MAX_VARIABLES, Place
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given, write_named
from coordinator.store import clusters, containers, organizations, projects, variables
from coordinator.store.database import Tx
from coordinator.store.projects import EnvironmentRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import MASK, EnvVar, Part
from shared.spec.environment import Protection

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
    protection: Protection | UnsetType = UNSET
    reviewers: Annotated[list[Id], Meta(max_length=50)] | UnsetType = UNSET
    variables: Annotated[list[EnvVar], Meta(max_length=MAX_VARIABLES)] | UnsetType = UNSET


class EnvironmentView(View, frozen=True):
    """`protection`: with `restricted` the deployments of those who are neither admin nor owner wait for one of the `reviewers`;
    with `locked` only owners and admins deploy. `reviewers`: user ids. `variables`: its own, which its containers inherit; secret
    values read `***`."""

    id: str
    name: str
    project_id: str
    cluster_id: str | None
    protection: Protection
    reviewers: list[str]
    variables: list[EnvVar]
    created_at: str


@procedure("environment.all", "GET", "viewer", scopes.project, rest="/projects/{projectId}/environments")
async def list_environments(context: Context, data: ListEnvironments) -> list[EnvironmentView]:
    """A project's environments."""
    async with context.services.store.read() as conn:
        return await views(conn, await projects.environments_of(conn, data.project_id))


@procedure("environment.one", "GET", "viewer", scopes.environment, rest="/environments/{environmentId}")
async def one(context: Context, data: EnvironmentId) -> EnvironmentView:
    """One environment."""
    async with context.services.store.read() as conn:
        return await view(conn, context.record)


@procedure(
    "environment.create", "POST", "admin", scopes.project, created=True, rest="/projects/{projectId}/environments"
)
async def create(context: Context, data: CreateEnvironment) -> EnvironmentView:
    """A new environment of a project."""
    organization_id = context.record.organization_id

    async def unit(tx: Tx) -> EnvironmentView:
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
        return await view(tx.conn, record)

    return await write_named(context, unit, "the project already has an environment", data.name)


@procedure("environment.update", "PATCH", "admin", scopes.environment, rest="/environments/{environmentId}")
async def update(context: Context, data: UpdateEnvironment) -> EnvironmentView:
    """Change its name, the cluster that new containers get by default, its protection, who reviews deployments here, or its
    variables, each time all of them: `***` keeps the value of a secret."""
    changes = given(data, "environment_id", "variables")

    async def unit(tx: Tx) -> EnvironmentView:
        owner = await projects.environment_organization(tx.conn, data.environment_id)
        if owner is None:
            raise NotFound("environment not found")
        if data.variables is not UNSET:
            place = Place(owner, context.record.project_id, data.environment_id)
            changed = await keeping.replace(tx, context, place, data.variables)
            await note(tx, context, "environment.update", data.environment_id, owner, variables=changed)
        if changes:
            await own_cluster(tx.conn, changes.get("cluster_id"), owner or "")
            await _require_members(tx.conn, owner or "", changes.get("reviewers", []))
            await projects.change_environment(tx, data.environment_id, **changes)
            await note(tx, context, "environment.update", data.environment_id, owner, **changes)
        record = await projects.get_environment(tx.conn, data.environment_id)
        if record is None:
            raise NotFound("environment not found")
        return await view(tx.conn, record)

    return await write_named(context, unit, "the project already has an environment", data.name)


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


async def _require_members(conn: AsyncConnection, organization_id: str, reviewers: list[str]) -> None:
    """Raises BadRequest unless they can see what they are to review."""
    if len(set(reviewers)) != len(reviewers):
        raise BadRequest("reviewers: somebody is named twice")
    roles = await organizations.roles_of(conn, organization_id) if reviewers else {}
    unfit = [one for one in reviewers if roles.get(one) in (None, "billing")]
    if unfit:
        raise BadRequest(f"reviewers: {', '.join(unfit)}: no member of this organisation who sees its environments")


async def view(conn: AsyncConnection, record: EnvironmentRecord) -> EnvironmentView:
    (shown,) = await views(conn, [record])
    return shown


async def views(conn: AsyncConnection, records: list[EnvironmentRecord]) -> list[EnvironmentView]:
    kept: dict[str, list[EnvVar]] = {record.id: [] for record in records}
    for each in await variables.of_places(conn, kept):
        kept[each.place].append(EnvVar(key=each.key, value=MASK if each.secret else each.value, secret=each.secret))
    return [_view(record, kept[record.id]) for record in records]


def _view(record: EnvironmentRecord, kept: list[EnvVar]) -> EnvironmentView:
    return EnvironmentView(
        id=record.id,
        name=record.name,
        project_id=record.project_id,
        cluster_id=record.cluster_id,
        protection=record.protection,
        reviewers=list(record.reviewers),
        variables=kept,
        created_at=iso(record.created_at),
    )
