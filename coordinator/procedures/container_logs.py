"""A container's logs: every replica's lines in one order, once or for as long as somebody reads.

What Argosy itself has to say about them (lines dropped, a node that is away) comes as an entry of the stream `argosy`, in its place
between the lines, so that no reader mistakes a loss for silence.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, assert_never

import structlog
from msgspec import Meta

from coordinator.errors import BadRequest, NotFound
from coordinator.logs.broker import LogEvent, LogGap, LogNote, LogQuery, LogSubscription, LogText
from coordinator.procedures import scopes
from coordinator.procedures.context import Context, Services
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.table import Stream, procedure
from coordinator.store import containers, instances
from coordinator.store.changes import Subscription
from coordinator.store.errors import StoreError
from shared.kit.clock import from_iso
from shared.spec.container import Part
from shared.spec.instance import Phase

log = structlog.get_logger("logs")

SEARCHED_LINES = 10_000
"""A search looks through so many last lines."""
NOTICE = "argosy"
RETRY_SECONDS = 2.0
"""After this long a failed look for new replicas is repeated, when no change comes first."""
_STREAMS = {1: "stdout", 2: "stderr"}

Timestamp = Annotated[str, Meta(max_length=40)]


class ReadLogs(Part, frozen=True):
    """`tail`: last lines of all replicas together. `since`, `until`: ISO 8601, UTC when they name no offset. `search`: only lines
    that contain it; without `follow`, among the last 10,000."""

    container_id: Id
    tail: Annotated[int, Meta(ge=0, le=SEARCHED_LINES)] = 100
    since: Timestamp | None = None
    until: Timestamp | None = None
    follow: bool = False
    instance_id: Id | None = None
    search: Annotated[str, Meta(max_length=256)] = ""


class LogEntry(View, frozen=True):
    """`ts`: UTC with nanoseconds, as the engine wrote it. `stream`: stdout, stderr, or argosy. `dropped`: lines missing here."""

    ts: str
    instance_id: str
    node_id: str
    stream: str
    line: str
    dropped: int = 0


@procedure("container.logs", "GET", "viewer", scopes.container, rest="/containers/{containerId}/logs")
async def logs(context: Context, data: ReadLogs) -> list[LogEntry] | Stream[LogEntry]:
    """Lines of all replicas merged by time. With `follow` they go on: Server-Sent Events, or JSON lines, by `Accept`."""
    query = LogQuery(
        tail=SEARCHED_LINES if data.search and not data.follow else data.tail,
        since=_timestamp("since", data.since),
        until=_timestamp("until", data.until),
        follow=data.follow,
    )
    readable = await _readable(context.services, data)
    if data.follow:
        return Stream(_follow(context.services, data, query, readable))
    async with context.services.broker.open(readable, query) as subscription:
        entries = [_entry(event, context.now()) async for event in subscription]
    wanted = [entry for entry in entries if _matches(entry, data.search)]
    return wanted[max(0, len(wanted) - data.tail) :] if data.search else wanted


async def _follow(
    services: Services, data: ReadLogs, query: LogQuery, readable: list[tuple[str, str]]
) -> AsyncIterator[LogEntry]:
    """Replicas that appear later are joined: a follower goes through deployments and moves without noticing."""
    changes = services.store.changes.subscribe("instance", "container")
    async with services.broker.open(readable, query) as subscription:
        joining = asyncio.create_task(_join_new(services, data, changes, subscription))
        try:
            async for event in subscription:
                entry = _entry(event, services.clock.wall())
                if _matches(entry, data.search):
                    yield entry
        finally:
            changes.close()
            joining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await joining


async def _join_new(services: Services, data: ReadLogs, changes: Subscription, subscription: LogSubscription) -> None:
    """Looks at once, for what came between the first look and the subscription to changes; then after each change. Without it
    nothing new would be read, so however it ends, the reader's stream ends too."""
    wanted = {("instance", data.container_id), ("container", data.container_id)}
    try:
        while True:
            retry = None
            try:
                for instance_id, node_id in await _readable(services, data):
                    subscription.add(instance_id, node_id)
            except StoreError as error:
                log.warning(
                    "a follower's new replicas cannot be looked up", container=data.container_id, reason=str(error)
                )
                retry = RETRY_SECONDS
            changed = await changes.take(retry)
            while retry is None and wanted.isdisjoint(changed):
                changed = await changes.take()
    except NotFound:
        log.debug("what a follower reads is gone", container=data.container_id)
    finally:
        subscription.close()


async def _readable(services: Services, data: ReadLogs) -> list[tuple[str, str]]:
    """(instance, node) of what may have an engine container to read from. Raises NotFound when container or instance are gone."""
    async with services.store.read() as conn:
        if await containers.get(conn, data.container_id) is None:
            raise NotFound("container not found")
        found = await instances.of_container(conn, data.container_id)
    if data.instance_id is not None and data.instance_id not in {one.id for one in found}:
        raise NotFound("instance not found in this container")
    return [
        (one.id, one.node_id)
        for one in found
        if one.node_id is not None and one.phase >= Phase.STARTING and data.instance_id in (None, one.id)
    ]


def _entry(event: LogEvent, now: float) -> LogEntry:
    match event:
        case LogText():
            stream = _STREAMS.get(event.stream, "stdout")
            return _make(event.at_ns, event.instance_id, event.node_id, stream, event.text)
        case LogGap():
            text = f"{event.lines} lines ({event.bytes} bytes) dropped: they came faster than they were read"
            return _make(event.at_ns, event.instance_id, event.node_id, NOTICE, text, event.lines)
        case LogNote():
            return _make(int(now * 1e9), event.instance_id, event.node_id, NOTICE, event.message)
        case _:
            assert_never(event)


def _make(at_ns: int, instance_id: str, node_id: str, stream: str, line: str, dropped: int = 0) -> LogEntry:
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    ts = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
    return LogEntry(ts=ts, instance_id=instance_id, node_id=node_id, stream=stream, line=line, dropped=dropped)


def _matches(entry: LogEntry, search: str) -> bool:
    return entry.stream == NOTICE or search in entry.line


def _timestamp(field: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return from_iso(text)
    except ValueError as error:
        raise BadRequest(f"{field}: {text!r} is not an ISO 8601 timestamp such as 2026-01-31T12:00:00Z") from error
