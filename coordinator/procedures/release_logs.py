"""Logs of one release: what the instances write that run exactly this, whatever the container ran before or runs beside it.

Lines carry a cursor in both ways of reading, so that a caller may ask from time to time instead of holding a connection: the next
call gets what came behind the last line, each line once.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from coordinator.errors import NotFound
from coordinator.logs.bookmark import Bookmark
from coordinator.logs.broker import LogEvent, LogQuery, LogText
from coordinator.procedures import log_lines, scopes
from coordinator.procedures.container_logs import SEARCHED_LINES, FollowedEntry
from coordinator.procedures.context import Context, Scope, Services
from coordinator.procedures.inputs import Id
from coordinator.procedures.log_following import Following, Readable, follow, resume
from coordinator.procedures.log_lines import Cursor, Search
from coordinator.procedures.table import Stream, procedure
from coordinator.store import containers, instances, releases
from shared.spec.container import Part
from shared.spec.instance import Phase

RETRY_SECONDS = 2.0
QUERY_SECONDS = 20.0
"""What has not been read by then is left out, and said to be."""


class ReadReleaseLogs(Part, frozen=True):
    """`limit`: so many last lines; with `cursor`, so many next ones. `search`: only lines that contain it; without `cursor`, among
    the last 10,000. `cursor`, or `lastEventId`: that of the last line a reader got; it goes on right behind it."""

    release_id: Id
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    search: Search = ""
    follow: bool = False
    cursor: Cursor = ""
    last_event_id: Cursor = ""


async def _release(context: Context, data: ReadReleaseLogs) -> Scope:
    """The record is the container's: whoever may see it may read what its releases write."""
    async with context.services.store.read() as conn:
        release = await releases.get(conn, data.release_id)
        found = await containers.get_guarded(conn, release.container_id) if release else None
    return scopes.of_container("release", found)


@procedure("container.releaseLogs", "GET", "viewer", _release, rest="/releases/{releaseId}/logs")
async def logs(context: Context, data: ReadReleaseLogs) -> list[FollowedEntry] | Stream[FollowedEntry]:
    """Lines of all instances of a release merged by time. With `follow` they go on, instances that appear are joined, and a reader
    that comes back with its last `cursor` misses nothing and gets nothing twice."""
    container_id = context.record.id
    cursor = data.cursor or data.last_event_id or context.last_event_id
    bookmark, query = resume(context, cursor, LogQuery(tail=data.limit, follow=True))
    readable = await _readable(context.services, container_id, data.release_id)
    if data.follow:
        return Stream(_follow(context.services, data, container_id, (query, bookmark, readable)))
    if cursor:
        return await _read(context, data, LogQuery(), bookmark, readable, next_ones=True)
    tail = SEARCHED_LINES if data.search else data.limit
    return await _read(context, data, LogQuery(tail=tail), bookmark, readable, next_ones=False)


async def _read(
    context: Context, data: ReadReleaseLogs, query: LogQuery, bookmark: Bookmark, readable: Readable, *, next_ones: bool
) -> list[FollowedEntry]:
    """Once. Of the next ones only as many as are wanted, or a long log would be read whole for its beginning."""
    found: deque[FollowedEntry] = deque(maxlen=data.limit)
    async with context.services.broker.open([], query, max(1, len(readable))) as subscription:
        for instance_id, node_id in readable:
            subscription.add(instance_id, node_id, bookmark.start(instance_id))
        over = f"this was not read to its end in {QUERY_SECONDS:g} seconds: ask again, for fewer lines"
        timer = asyncio.get_running_loop().call_later(QUERY_SECONDS, subscription.cut, over)
        try:
            async for event in subscription:
                if isinstance(event, LogText):
                    bookmark.passed(event.instance_id, event.at_ns, event.stream, event.text)
                if log_lines.matches(event, data.search):
                    found.append(_entry(event, bookmark.cursor(), context.now()))
                if next_ones and len(found) == data.limit:
                    break
        finally:
            timer.cancel()
    return list(found)


async def _follow(
    services: Services, data: ReadReleaseLogs, container_id: str, begun: tuple[LogQuery, Bookmark, Readable]
) -> AsyncIterator[FollowedEntry]:
    query, bookmark, readable = begun
    following = Following(
        about=data.release_id,
        query=query,
        look=lambda: _readable(services, container_id, data.release_id),
        concerns=lambda changed: any(key == container_id for _, key in changed),
        retry=RETRY_SECONDS,
    )
    async for event, cursor in follow(services, following, bookmark, readable):
        if log_lines.matches(event, data.search):
            yield _entry(event, cursor, services.clock.wall())


async def _readable(services: Services, container_id: str, release_id: str) -> Readable:
    """(instance, node) of what may have an engine container to read from. Raises NotFound when the container is gone."""
    async with services.store.read() as conn:
        if await containers.get(conn, container_id) is None:
            raise NotFound("release not found")
        found = await instances.of_container(conn, container_id)
    return [
        (one.id, one.node_id)
        for one in found
        if one.release_id == release_id and one.node_id is not None and one.phase >= Phase.STARTING
    ]


def _entry(event: LogEvent, cursor: str, now: float) -> FollowedEntry:
    ts, stream, line, dropped = log_lines.parts(event, now)
    return FollowedEntry(
        ts=ts,
        instance_id=event.instance_id,
        node_id=event.node_id,
        stream=stream,
        line=line,
        dropped=dropped,
        cursor=cursor,
    )
