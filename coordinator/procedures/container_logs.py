"""A container's logs: every replica's lines in one order, once or for as long as somebody reads."""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from coordinator.errors import NotFound
from coordinator.logs.bookmark import Bookmark
from coordinator.logs.broker import LogEvent, LogQuery
from coordinator.procedures import log_lines, scopes
from coordinator.procedures.context import Context, Services
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.log_following import Following, Readable, follow, resume
from coordinator.procedures.log_lines import Cursor, Search, Timestamp
from coordinator.procedures.table import Stream, procedure
from coordinator.store import containers, instances
from shared.spec.container import Part
from shared.spec.instance import Phase

SEARCHED_LINES = 10_000
"""A search looks through so many last lines."""
RETRY_SECONDS = 2.0
"""After this long a failed look for new replicas is repeated, when no change comes first."""


class ReadLogs(Part, frozen=True):
    """`tail`: last lines of all replicas together. `since`, `until`: ISO 8601, UTC when they name no offset. `search`: only lines
    that contain it; without `follow`, among the last 10,000. `cursor`, or `lastEventId`: with `follow`, the `cursor` of the last
    event a reader got; it goes on right behind it, and `tail` and `since` count no more."""

    container_id: Id
    tail: Annotated[int, Meta(ge=0, le=SEARCHED_LINES)] = 100
    since: Timestamp | None = None
    until: Timestamp | None = None
    follow: bool = False
    instance_id: Id | None = None
    search: Search = ""
    cursor: Cursor = ""
    last_event_id: Cursor = ""


class LogEntry(View, frozen=True):
    """`ts`: UTC with nanoseconds, as the engine wrote it. `stream`: stdout, stderr, or argosy. `dropped`: lines missing here."""

    ts: str
    instance_id: str
    node_id: str
    stream: str
    line: str
    dropped: int = 0


class FollowedEntry(LogEntry, frozen=True):
    """`cursor`: where a reader goes on that comes back with it; also the event's id."""

    cursor: str = ""


@procedure("container.logs", "GET", "viewer", scopes.container, rest="/containers/{containerId}/logs")
async def logs(context: Context, data: ReadLogs) -> list[LogEntry] | Stream[FollowedEntry]:
    """Lines of all replicas merged by time. With `follow` they go on: Server-Sent Events, or JSON lines, by `Accept`."""
    query = LogQuery(
        tail=SEARCHED_LINES if data.search and not data.follow else data.tail,
        since=log_lines.seconds("since", data.since),
        until=log_lines.seconds("until", data.until),
        follow=data.follow,
    )
    readable = await _readable(context.services, data)
    if data.follow:
        bookmark, query = resume(context, data.cursor or data.last_event_id, query)
        return Stream(_follow(context.services, data, _following(context.services, data, query), bookmark, readable))
    async with context.services.broker.open(readable, query) as subscription:
        events = [event async for event in subscription if log_lines.matches(event, data.search)]
    wanted = [_entry(event, context.now()) for event in events]
    return wanted[max(0, len(wanted) - data.tail) :] if data.search else wanted


async def _follow(
    services: Services, data: ReadLogs, following: Following, bookmark: Bookmark, readable: Readable
) -> AsyncIterator[FollowedEntry]:
    """Replicas that appear later are joined: a follower goes through deployments and moves without noticing."""
    async for event, cursor in follow(services, following, bookmark, readable):
        if log_lines.matches(event, data.search):
            entry = _entry(event, services.clock.wall())
            yield FollowedEntry(
                ts=entry.ts,
                instance_id=entry.instance_id,
                node_id=entry.node_id,
                stream=entry.stream,
                line=entry.line,
                dropped=entry.dropped,
                cursor=cursor,
            )


def _following(services: Services, data: ReadLogs, query: LogQuery) -> Following:
    wanted = {("instance", data.container_id), ("container", data.container_id)}
    return Following(
        about=data.container_id,
        query=query,
        look=lambda: _readable(services, data),
        concerns=lambda changed: not wanted.isdisjoint(changed),
        retry=RETRY_SECONDS,
    )


async def _readable(services: Services, data: ReadLogs) -> Readable:
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
    ts, stream, line, dropped = log_lines.parts(event, now)
    return LogEntry(
        ts=ts, instance_id=event.instance_id, node_id=event.node_id, stream=stream, line=line, dropped=dropped
    )
