"""A container's history and its metrics."""

from typing import Annotated

from msgspec import Meta

from coordinator.errors import BadRequest, NotFound
from coordinator.procedures import paging, scopes
from coordinator.procedures.container_actions import DeploymentId
from coordinator.procedures.container_views import (
    DeploymentView,
    ReleaseView,
    deployment_view,
    deployment_views,
    release_view,
)
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.table import procedure
from coordinator.store import deployments, instances, releases
from shared.kit.clock import iso
from shared.spec.container import Part
from shared.spec.node import InstanceSample


class History(Page, frozen=True, kw_only=True):
    container_id: Id


class ReadStats(Part, frozen=True):
    """`range`: seconds back from an instance's newest reading."""

    container_id: Id
    range: Annotated[int, Meta(ge=1, le=86400)] = 3600


class Reading(View, frozen=True):
    """`cpu`: processors in use. Memory, network and block IO in bytes, the last two in total since the instance started."""

    at: str
    cpu: float
    memory: int
    memory_limit: int
    net_rx: int
    net_tx: int
    block_read: int
    block_write: int


class InstanceSeries(View, frozen=True):
    instance_id: str
    node_id: str
    samples: list[Reading]


@procedure("container.releases", "GET", "viewer", scopes.container, rest="/containers/{containerId}/releases")
async def list_releases(context: Context, data: History) -> list[ReleaseView]:
    """What the container ran and can return to, newest first."""
    async with context.services.store.read() as conn:
        before = await releases.get(conn, data.cursor) if data.cursor else None
        if data.cursor and (before is None or before.container_id != data.container_id):
            raise BadRequest("cursor: is not one of this list")
        found = await releases.of_container(
            conn, data.container_id, before=before.revision if before else None, limit=paging.fetch(data)
        )
    return [release_view(record) for record in paging.cut(context, data, found)]


@procedure("container.deployments", "GET", "viewer", scopes.container, rest="/containers/{containerId}/deployments")
async def list_deployments(context: Context, data: History) -> list[DeploymentView]:
    """Every request to move the container to a release, newest first, with its events."""
    async with context.services.store.read() as conn:
        found = await deployments.of_container(
            conn, data.container_id, before=data.cursor or "", limit=paging.fetch(data)
        )
        return await deployment_views(conn, paging.cut(context, data, found))


@procedure("container.deployment", "GET", "viewer", scopes.deployment, rest="/deployments/{deploymentId}")
async def one_deployment(context: Context, data: DeploymentId) -> DeploymentView:
    """One deployment with its events and, when it failed, why."""
    async with context.services.store.read() as conn:
        record = await deployments.get(conn, data.deployment_id)
        if record is None:
            raise NotFound("deployment not found")
        return await deployment_view(conn, record)


@procedure("container.stats", "GET", "viewer", scopes.container, rest="/containers/{containerId}/stats")
async def stats(context: Context, data: ReadStats) -> list[InstanceSeries]:
    """Processor, memory, network and block IO of each instance: its last readings, at most 240, since this coordinator started.
    Times are its node's own, so the range counts from its newest reading and no clock is compared with another."""
    async with context.services.store.read() as conn:
        found = await instances.of_container(conn, data.container_id)
    return [
        InstanceSeries(
            instance_id=one.id,
            node_id=one.node_id,
            samples=[
                Reading(
                    at=iso(sample.at),
                    cpu=sample.cpu,
                    memory=sample.memory,
                    memory_limit=sample.memory_limit,
                    net_rx=sample.net_rx,
                    net_tx=sample.net_tx,
                    block_read=sample.block_read,
                    block_write=sample.block_write,
                )
                for sample in _within(context.services.samples.of_instance(one.node_id, one.id), data.range)
            ],
        )
        for one in found
        if one.node_id is not None
    ]


def _within(samples: list[InstanceSample], seconds: int) -> list[InstanceSample]:
    return [sample for sample in samples if sample.at >= samples[-1].at - seconds]
