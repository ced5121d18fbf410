"""A container as it is, its history and its metrics."""

import asyncio
from contextlib import suppress
from typing import Annotated

from msgspec import Meta

from coordinator.core.explain import ContainerStatus
from coordinator.errors import BadRequest, NotFound
from coordinator.procedures import paging, scopes
from coordinator.procedures.container_actions import DeploymentId
from coordinator.procedures.container_views import (
    ContainerDetail,
    DeploymentView,
    ReleaseView,
    deployment_view,
    deployment_views,
    detail,
    release_view,
)
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.remembered import Concern
from coordinator.procedures.table import procedure
from coordinator.store import containers, deployments, instances, releases
from coordinator.store.changes import Kind, Subscription
from shared.kit.clock import iso
from shared.spec.container import Part
from shared.spec.node import InstanceSample

_SETTLE_SECONDS = 0.03
"""Between two looks for somebody who waits: what happens in a burst is looked at once, and not in the way of the burst."""


class ReadContainer(Part, frozen=True):
    """`waitFor`: answer once the container has this status, or after `timeout` seconds with whatever it has by then."""

    container_id: Id
    wait_for: ContainerStatus | None = None
    timeout: Annotated[int, Meta(ge=1, le=300)] = 30


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


def _about(data: ReadContainer) -> tuple[Concern, ...]:
    """What waits is not the same for the next."""
    own: tuple[Kind, ...] = ("container", "deployment", "instance")
    return () if data.wait_for else (*((kind, data.container_id) for kind in own), ("node", None), ("variable", None))


@procedure("container.one", "GET", "viewer", scopes.container, rest="/containers/{containerId}", concerns=_about)
async def one(context: Context, data: ReadContainer) -> ContainerDetail:
    """A container: its declaration, what is in force, and every instance with the reason for anything not as desired. With
    `waitFor` a deploy script needs no polling."""
    if data.wait_for is None:
        return await _read(context, data.container_id)
    changes = context.services.store.changes.subscribe("container", "deployment", "instance", "node")
    try:
        until = asyncio.get_running_loop().time() + data.timeout
        while True:
            found = await _read(context, data.container_id)
            left = until - asyncio.get_running_loop().time()
            if found.status == data.wait_for or left <= 0:
                return found
            await asyncio.sleep(_SETTLE_SECONDS)
            await _concerning(changes, data.container_id, left)
    finally:
        changes.close()


async def _read(context: Context, container_id: str) -> ContainerDetail:
    async with context.services.store.read() as conn:
        return await detail(conn, await containers.get(conn, container_id) or context.record, context.now())


async def _concerning(changes: Subscription, container_id: str, seconds: float) -> None:
    """Until something about the container, or about any node, has changed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not any(kind == "node" or key == container_id for kind, key in await changes.take()):
                pass


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
