"""Whose thing an input names: resolvers for `table.procedure`, from the id in the input to organisation and record.

Each raises NotFound with the same words a foreign thing gets, so nobody learns that an id exists.
"""

from typing import Protocol

from coordinator.errors import NotFound
from coordinator.procedures.context import Context, Scope
from coordinator.store import clusters, containers, deployments, organizations, projects
from coordinator.store.containers import ContainerRecord
from coordinator.store.projects import EnvironmentRecord, Guard


class OfOrganization(Protocol):
    @property
    def organization_id(self) -> str: ...


class OfProject(Protocol):
    @property
    def project_id(self) -> str: ...


class OfEnvironment(Protocol):
    @property
    def environment_id(self) -> str: ...


class OfCluster(Protocol):
    @property
    def cluster_id(self) -> str: ...


class OfContainer(Protocol):
    @property
    def container_id(self) -> str: ...


class OfDeployment(Protocol):
    @property
    def deployment_id(self) -> str: ...


async def organization(context: Context, data: OfOrganization) -> Scope:
    async with context.services.store.read() as conn:
        record = await organizations.get(conn, data.organization_id)
    if record is None or record.removed_at is not None:
        raise NotFound("organization not found")
    return Scope(record.id, "organization", record)


async def project(context: Context, data: OfProject) -> Scope:
    async with context.services.store.read() as conn:
        record = await projects.get(conn, data.project_id)
    if record is None:
        raise NotFound("project not found")
    return Scope(record.organization_id, "project", record)


async def environment(context: Context, data: OfEnvironment) -> Scope:
    async with context.services.store.read() as conn:
        record = await projects.get_environment(conn, data.environment_id)
        owner = await projects.environment_organization(conn, data.environment_id)
    if record is None or owner is None:
        raise NotFound("environment not found")
    return Scope(owner, "environment", record, guard=guard_of(record))


async def cluster(context: Context, data: OfCluster) -> Scope:
    async with context.services.store.read() as conn:
        record = await clusters.get(conn, data.cluster_id)
    if record is None:
        raise NotFound("cluster not found")
    return Scope(record.organization_id, "cluster", record, record.id)


async def container(context: Context, data: OfContainer) -> Scope:
    async with context.services.store.read() as conn:
        found = await containers.get_guarded(conn, data.container_id)
    return of_container("container", found)


async def deployment(context: Context, data: OfDeployment) -> Scope:
    """The record is the container's: whoever may see or deploy it may see or cancel its deployments."""
    async with context.services.store.read() as conn:
        deployment = await deployments.get(conn, data.deployment_id)
        found = await containers.get_guarded(conn, deployment.container_id) if deployment else None
    return of_container("deployment", found)


def of_container(noun: str, found: tuple[ContainerRecord, Guard] | None) -> Scope:
    """Of `noun`, which belongs to a container."""
    if found is None:
        raise NotFound(f"{noun} not found")
    record, guard = found
    return Scope(record.organization_id, noun, record, record.cluster_id, guard)


def guard_of(record: EnvironmentRecord) -> Guard:
    return Guard(environment_id=record.id, name=record.name, protection=record.protection, reviewers=record.reviewers)
