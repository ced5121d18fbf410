"""Projects: what belongs together, in environments."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.control import snapshots
from coordinator.core.explain import ContainerStatus, container_status
from coordinator.errors import NotFound, PreconditionFailed
from coordinator.procedures import paging, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.context import Context
from coordinator.procedures.environment import EnvironmentView, own_cluster
from coordinator.procedures.environment import views as environment_views
from coordinator.procedures.inputs import Description, Id, Page, View
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given, write_named
from coordinator.store import containers, organizations, projects
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.projects import EnvironmentRecord, ProjectRecord
from shared.kit.clock import iso
from shared.kit.ids import new_id
from shared.spec.container import Part

FIRST_ENVIRONMENT = "production"
ProjectStatus = Literal["empty", "running", "deploying", "stopped", "error"]
ProjectName = Annotated[str, Meta(min_length=2, max_length=64)]


class ListProjects(Page, frozen=True, kw_only=True):
    organization_id: Id
    search: Annotated[str, Meta(max_length=64)] = ""
    status: Annotated[ProjectStatus | None, Meta(description="only those; a page may then be shorter than `limit`")] = (
        None
    )


class ProjectId(Part, frozen=True):
    project_id: Id


class CreateProject(Part, frozen=True):
    organization_id: Id
    name: ProjectName
    description: Description = ""
    cluster_id: Id | None = None


class UpdateProject(Part, frozen=True):
    project_id: Id
    name: ProjectName | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class ProjectView(View, frozen=True):
    """`status`: the gravest of its containers' statuses; `empty` without any."""

    id: str
    name: str
    description: str
    organization_id: str
    status: ProjectStatus
    environment_count: int
    container_count: int
    created_at: str


class ContainerSummary(View, frozen=True):
    id: str
    name: str
    environment_id: str
    cluster_id: str
    replicas: int


class ProjectDetail(ProjectView, frozen=True):
    environments: list[EnvironmentView]
    containers: list[ContainerSummary]


@procedure("project.all", "GET", "viewer", scopes.organization, rest="/projects")
async def list_projects(context: Context, data: ListProjects) -> list[ProjectView]:
    """An organisation's projects; `search` finds part of a name."""
    async with context.services.store.read() as conn:
        rows = await projects.of_organization(
            conn, data.organization_id, search=data.search, after=data.cursor or "", limit=paging.fetch(data)
        )
        listed = await _views(conn, paging.cut(context, data, rows), context.now())
    return [view for view in listed if data.status in (None, view.status)]


@procedure("project.one", "GET", "viewer", scopes.project, rest="/projects/{projectId}")
async def one(context: Context, data: ProjectId) -> ProjectDetail:
    """A project with its environments and a summary of its containers."""
    async with context.services.store.read() as conn:
        (view,) = await _views(conn, [context.record], context.now())
        environments = await environment_views(conn, await projects.environments_of(conn, data.project_id))
        found = await _all_containers(conn, data.project_id)
    return ProjectDetail(
        id=view.id,
        name=view.name,
        description=view.description,
        organization_id=view.organization_id,
        status=view.status,
        environment_count=view.environment_count,
        container_count=view.container_count,
        created_at=view.created_at,
        environments=environments,
        containers=[
            ContainerSummary(
                id=record.id,
                name=record.name,
                environment_id=record.environment_id,
                cluster_id=record.cluster_id,
                replicas=record.replicas,
            )
            for record in found
        ],
    )


@procedure("project.create", "POST", "admin", scopes.organization, created=True, rest="/projects")
async def create(context: Context, data: CreateProject) -> ProjectView:
    """A new project with the environment `production`, on `clusterId` when given."""
    project_id = new_id("proj")

    async def unit(tx: Tx) -> ProjectView:
        if await organizations.get(tx.conn, data.organization_id) is None:
            raise NotFound("organization not found")
        await own_cluster(tx.conn, data.cluster_id, data.organization_id)
        record = ProjectRecord(
            id=project_id,
            organization_id=data.organization_id,
            name=data.name,
            description=data.description,
            created_at=tx.now,
        )
        await projects.insert(tx, record)
        await projects.insert_environment(
            tx,
            EnvironmentRecord(
                id=new_id("env"),
                project_id=project_id,
                cluster_id=data.cluster_id,
                name=FIRST_ENVIRONMENT,
                created_at=tx.now,
            ),
        )
        await note(tx, context, "project.create", project_id, data.organization_id, name=data.name)
        (view,) = await _views(tx.conn, [record], tx.now)
        return view

    return await write_named(context, unit, "the organisation already has a project", data.name)


@procedure("project.update", "PATCH", "admin", scopes.project, rest="/projects/{projectId}")
async def update(context: Context, data: UpdateProject) -> ProjectView:
    """Change a project's name or description."""
    changes = given(data, "project_id")

    async def unit(tx: Tx) -> ProjectView:
        if changes:
            await projects.change(tx, data.project_id, **changes)
            await note(tx, context, "project.update", data.project_id, context.record.organization_id, **changes)
        record = await projects.get(tx.conn, data.project_id)
        if record is None:
            raise NotFound("project not found")
        (view,) = await _views(tx.conn, [record], tx.now)
        return view

    return await write_named(context, unit, "the organisation already has a project", data.name)


@procedure("project.remove", "DELETE", "admin", scopes.project, rest="/projects/{projectId}")
async def remove(context: Context, data: ProjectId) -> Nothing:
    """Remove a project without containers; with containers it is refused, for nobody stops a workload by the way."""

    async def unit(tx: Tx) -> None:
        await projects.remove(tx, data.project_id)
        await note(tx, context, "project.remove", data.project_id, context.record.organization_id)

    try:
        await context.services.store.write(unit)
    except IntegrityError as error:
        raise PreconditionFailed("the project still has containers: remove them first") from error
    return Nothing()


async def _all_containers(conn: AsyncConnection, project_id: str) -> list[ContainerRecord]:
    """Page by page: no summary is cut short."""
    found: list[ContainerRecord] = []
    while page := await containers.of_project(conn, project_id, after=found[-1].id if found else ""):
        found += page
    return found


async def _views(conn: AsyncConnection, records: list[ProjectRecord], now: float) -> list[ProjectView]:
    counts = await projects.counts(conn, [record.id for record in records])
    found: dict[str, set[ContainerStatus]] = {record.id: set() for record in records}
    for one in (await snapshots.load(conn, await containers.ids_of_projects(conn, list(found)))).values():
        found[one.container.project_id].add(container_status(one.overview(), now).word)
    return [
        ProjectView(
            id=record.id,
            name=record.name,
            description=record.description,
            organization_id=record.organization_id,
            status=_status(found[record.id]),
            environment_count=counts[record.id].environments,
            container_count=counts[record.id].containers,
            created_at=iso(record.created_at),
        )
        for record in records
    ]


def _status(found: set[ContainerStatus]) -> ProjectStatus:
    """What somebody should look at comes first. Stopped only when nothing is meant to run."""
    if "error" in found:
        return "error"
    if found & {"creating", "deploying", "deleting"}:
        return "deploying"
    if not found:
        return "empty"
    return "running" if "running" in found else "stopped"
