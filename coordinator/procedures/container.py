"""Containers: declaring them, changing the declaration, letting them go. What moves them is in `container_actions.py`."""

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.errors import BadRequest, Conflict, DomainError, NotFound, PreconditionFailed
from coordinator.procedures import declaring, inheriting, paging, releasing, scopes
from coordinator.procedures.auditing import note
from coordinator.procedures.container_views import ContainerDetail, ContainerRow, detail, rows
from coordinator.procedures.context import Context, Scope
from coordinator.procedures.inputs import Id, Page
from coordinator.procedures.project import FIRST_ENVIRONMENT
from coordinator.procedures.table import Nothing, procedure
from coordinator.procedures.writing import given, write_named
from coordinator.store import clusters, containers, organizations, projects
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Store, Tx
from coordinator.store.projects import EnvironmentRecord, ProjectRecord
from coordinator.store.vault import Compartment
from shared.kit.ids import new_id
from shared.spec.container import (
    MAX_REPLICAS,
    Declaration,
    ImageName,
    Name,
    Part,
    RegistryCredentials,
    RegistryId,
    Template,
)

_TAKEN = "the environment already has a container"
Replicas = Annotated[int, Meta(ge=0, le=MAX_REPLICAS)]


class RegistrySource(Part, frozen=True):
    """An image by name, with what its registry asks for: a registry of the organisation, or credentials of its own. With neither,
    the organisation's registry of the image's server applies, where there is one."""

    image: ImageName
    type: str = "registry"
    credentials: RegistryCredentials | None = None
    registry_id: RegistryId | None = None


class ContainerId(Part, frozen=True):
    container_id: Id


class ListContainers(Page, frozen=True, kw_only=True):
    project_id: Id
    environment_id: Id | None = None
    cluster_id: Id | None = None
    status: Annotated[str, Meta(max_length=32)] | None = None


class CreateContainer(Declaration, frozen=True, kw_only=True):
    """`environmentId`: the project's `production` when absent. `clusterId`: the environment's when absent."""

    project_id: Id
    name: Name
    cluster_id: Id | None = None
    environment_id: Id | None = None
    image: ImageName | None = None
    credentials: RegistryCredentials | None = None
    registry_id: RegistryId | None = None
    source: RegistrySource | None = None
    replicas: Replicas = 1


def _optional_fields() -> list[tuple[str, Any, Any]]:
    return [(one.name, one.type | UnsetType, UNSET) for one in msgspec.structs.fields(Template)]


UpdateContainer = msgspec.defstruct(
    "UpdateContainer",
    [
        ("container_id", Id),
        ("name", Name | UnsetType, UNSET),
        ("replicas", Replicas | UnsetType, UNSET),
        *_optional_fields(),
    ],
    bases=(Part,),
    frozen=True,
    kw_only=True,
)
"""Any field of a declaration, each replaced whole when given."""


async def _project_and_cluster(context: Context, data: CreateContainer) -> Scope:
    """Permission is asked of the cluster that the container would use. Where there is none to be found, the procedure says why: not
    before the caller is known to be a member."""
    scope = await scopes.project(context, data)
    async with context.services.store.read() as conn:
        try:
            environment, cluster_id = await _home(conn, scope.record, data)
        except DomainError:
            return scope
    return replace(scope, cluster_id=cluster_id, guard=scopes.guard_of(environment))


@procedure("container.all", "GET", "viewer", scopes.project, rest="/containers")
async def list_containers(context: Context, data: ListContainers) -> list[ContainerRow]:
    """A project's containers with their derived status."""
    async with context.services.store.read() as conn:
        found = await containers.of_project(
            conn,
            data.project_id,
            environment_id=data.environment_id,
            cluster_id=data.cluster_id,
            after=data.cursor or "",
            limit=paging.fetch(data),
        )
        listed = await rows(conn, paging.cut(context, data, found), context.now())
    return [row for row in listed if data.status in (None, row.status)]


@procedure(
    "container.create", "POST", "deploy", _project_and_cluster, created=True, rest="/containers", effect="deploys"
)
async def create(context: Context, data: CreateContainer) -> ContainerDetail:
    """Declare a container and start its first deployment, which waits for an approval where the environment asks for one."""
    container_id = new_id("ctr")
    compartment = await open_compartment(context.services.store, context, context.record.organization_id)
    template = _template(data)
    declaring.check(template, None)
    template = declaring.conceal(template, compartment, container_id, None)

    async def unit(tx: Tx) -> ContainerDetail:
        environment, cluster_id = await _home(tx.conn, context.record, data)
        if cluster_id != context.cluster_id:
            raise Conflict("clusterId: the environment was moved to another cluster meanwhile; try again")
        record = ContainerRecord(
            id=container_id,
            organization_id=context.record.organization_id,
            project_id=data.project_id,
            environment_id=environment.id,
            cluster_id=cluster_id,
            name=data.name,
            template=template,
            declared_replicas=data.replicas,
            replicas=data.replicas,
            created_at=tx.now,
        )
        await inheriting.check_registry(tx.conn, record.organization_id, template)
        await containers.insert(tx, record)
        release = await releasing.new_release(tx, context, record, template, note="created")
        await releasing.start(tx, context, record, release, "create")
        await note(
            tx, context, "container.create", container_id, record.organization_id, name=data.name, image=template.image
        )
        return await detail(tx.conn, await require(tx.conn, container_id), tx.now)

    return await write_named(context, unit, _TAKEN, data.name)


@procedure(
    "container.update",
    "PATCH",
    "deploy",
    scopes.container,
    rest="/containers/{containerId}",
    effect="declares",
    takes=UpdateContainer,
)
async def update(context: Context, data: Any) -> ContainerDetail:
    """Change the declaration. Nothing that runs changes until `container.deploy`; `pendingChanges` names what waits for it."""
    changes = given(data, "container_id")
    columns = {"name": "name", "replicas": "declared_replicas"}
    compartment = await open_compartment(context.services.store, context, context.record.organization_id)

    async def unit(tx: Tx) -> ContainerDetail:
        record = await require(tx.conn, data.container_id)
        template = declaring.overlay(record.template, {k: v for k, v in changes.items() if k not in columns})
        declaring.check(template, record.template)
        declaring.check_credentials(template, record.template)
        await inheriting.check_registry(tx.conn, record.organization_id, template)
        template = declaring.conceal(template, compartment, record.id, record.template)
        plain = {columns[name]: value for name, value in changes.items() if name in columns}
        await containers.change(tx, record.id, template=template, generation=record.generation + 1, **plain)
        await note(tx, context, "container.update", record.id, record.organization_id, fields=sorted(changes))
        return await detail(tx.conn, await require(tx.conn, record.id), tx.now)

    return await write_named(context, unit, _TAKEN, str(changes.get("name", "")))


@procedure("container.remove", "DELETE", "deploy", scopes.container, rest="/containers/{containerId}", effect="moves")
async def remove(context: Context, data: ContainerId) -> Nothing:
    """Stop every instance and remove them with their volumes. The container is `deleting` until its nodes have done so."""

    async def unit(tx: Tx) -> None:
        record = await require(tx.conn, data.container_id)
        await containers.change(tx, record.id, desired="removed")
        await note(tx, context, "container.remove", record.id, record.organization_id)

    await context.services.store.write(unit)
    return Nothing()


async def require(conn: AsyncConnection, container_id: str) -> ContainerRecord:
    """The container as it is in this transaction. Raises NotFound, and PreconditionFailed when it is being removed."""
    record = await containers.get(conn, container_id)
    if record is None:
        raise NotFound("container not found")
    if record.desired == "removed":
        raise PreconditionFailed("the container is being removed")
    return record


async def open_compartment(store: Store, context: Context, organization_id: str) -> Compartment:
    async with store.read() as conn:
        organization = await organizations.get(conn, organization_id)
    assert organization is not None, "the scope was found in this organisation"
    return context.services.vault.unlock(organization.sealed_key, organization_id)


def _template(data: CreateContainer) -> Template:
    if (data.image is None) == (data.source is None):
        raise BadRequest("image: give either image or source")
    if data.source is not None and data.source.type != "registry":
        raise BadRequest(f"source.type: must be 'registry', not {data.source.type!r}")
    image = data.source.image if data.source else data.image
    pulled_with = data.source or data
    declared = {one.name: getattr(data, one.name) for one in msgspec.structs.fields(Declaration)}
    return Template(
        image=image or "", credentials=pulled_with.credentials, registry_id=pulled_with.registry_id, **declared
    )


async def _home(conn: AsyncConnection, project: ProjectRecord, data: CreateContainer) -> tuple[EnvironmentRecord, str]:
    """The environment and the cluster the new container belongs to, checked to be the project's and the organisation's, and not to
    be on their way out."""
    if await projects.get(conn, project.id) is None:
        raise NotFound("project not found")
    environments = await projects.environments_of(conn, data.project_id)
    wanted = [
        one
        for one in environments
        if (one.id == data.environment_id if data.environment_id else one.name == FIRST_ENVIRONMENT)
    ]
    if not wanted:
        missing = "no such environment in this project" if data.environment_id else "the project has no 'production'"
        raise BadRequest(f"environmentId: {missing}")
    cluster_id = data.cluster_id or wanted[0].cluster_id
    if cluster_id is None:
        raise BadRequest("clusterId: is required, for the environment has no cluster of its own")
    cluster = await clusters.get(conn, cluster_id)
    if cluster is None or cluster.organization_id != project.organization_id:
        raise BadRequest("clusterId: no such cluster in this organisation")
    return wanted[0], cluster_id
