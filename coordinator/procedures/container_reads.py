"""A container's history, its logs and its metrics."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from coordinator.errors import BadRequest, NotFound
from coordinator.logs.broker import LogQuery
from coordinator.logs.merging import LogEntry
from coordinator.procedures import paging, scopes
from coordinator.procedures.container_actions import DeploymentId
from coordinator.procedures.container_views import (
    DeploymentView,
    ReleaseView,
    deployment_view,
    deployment_views,
    release_view,
)
from coordinator.procedures.context import Context, Services
from coordinator.procedures.inputs import Id, Page, View
from coordinator.procedures.table import Stream, procedure
from coordinator.store import deployments, instances, releases
from shared.kit.clock import from_iso, iso
from shared.spec.container import Part
from shared.spec.instance import Phase

Timestamp = Annotated[str, Meta(max_length=40)]


class History(Page, frozen=True, kw_only=True):
    container_id: Id


class ReadLogs(Part, frozen=True):
    """`tail`: last lines of all replicas together. `since`, `until`: ISO 8601, UTC when they name no offset. `search`: only lines
    that contain it, among the last 10,000 of each replica."""

    container_id: Id
    tail: Annotated[int, Meta(ge=0, le=10_000)] = 100
    since: Timestamp | None = None
    until: Timestamp | None = None
    follow: bool = False
    instance_id: Id | None = None
    search: Annotated[str, Meta(max_length=256)] = ""


class ReadStats(Part, frozen=True):
    """`range`: seconds back from now."""

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


@procedure("container.logs", "GET", "viewer", scopes.container, rest="/containers/{containerId}/logs")
async def logs(context: Context, data: ReadLogs) -> list[LogEntry] | Stream:
    """Lines of all replicas merged by time. With `follow` they go on: Server-Sent Events, or JSON lines, by `Accept`."""
    query = LogQuery(
        tail=data.tail,
        since=_timestamp("since", data.since),
        until=_timestamp("until", data.until),
        follow=data.follow,
        search=data.search,
    )
    if data.follow:
        return Stream(_follow(context.services, data, query))
    subscription = context.services.broker.open(query, await _readable(context.services, data))
    try:
        return [entry async for entry in subscription.entries()]
    finally:
        subscription.close()


@procedure("container.stats", "GET", "viewer", scopes.container, rest="/containers/{containerId}/stats")
async def stats(context: Context, data: ReadStats) -> list[InstanceSeries]:
    """Processor, memory, network and block IO of each instance, for as long as the coordinator has watched it."""
    oldest = context.now() - data.range
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
                for sample in context.services.samples.of_instance(one.node_id, one.id)
                if sample.at >= oldest
            ],
        )
        for one in found
        if one.node_id is not None
    ]


async def _follow(services: Services, data: ReadLogs, query: LogQuery) -> AsyncIterator[LogEntry]:
    """Replicas that appear later are joined: a follower goes through deployments and moves without noticing."""
    changes = services.store.changes.subscribe("instance")
    subscription = services.broker.open(query, await _readable(services, data))

    async def join_new() -> None:
        while True:
            entries = await changes.take()
            if ("instance", data.container_id) in entries:
                for instance_id, node_id in await _readable(services, data):
                    subscription.add(instance_id, node_id)

    joining = asyncio.create_task(join_new())
    try:
        async for entry in subscription.entries():
            yield entry
    finally:
        joining.cancel()
        changes.close()
        subscription.close()


async def _readable(services: Services, data: ReadLogs) -> list[tuple[str, str]]:
    """(instance, node) of what may have an engine container to read from."""
    async with services.store.read() as conn:
        found = await instances.of_container(conn, data.container_id)
    wanted = [
        (one.id, one.node_id)
        for one in found
        if one.node_id is not None and one.phase >= Phase.STARTING and data.instance_id in (None, one.id)
    ]
    if data.instance_id is not None and data.instance_id not in {one.id for one in found}:
        raise NotFound("instance not found in this container")
    return wanted


def _timestamp(field: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return from_iso(text)
    except ValueError as error:
        raise BadRequest(f"{field}: {text!r} is not an ISO 8601 timestamp such as 2026-01-31T12:00:00Z") from error
