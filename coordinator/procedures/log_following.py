"""Following logs, of a container or of all that an organisation runs: what appears is joined, and the reader can come back.

Every event goes out with a cursor; a reader that comes back with its last one gets what comes after it, each line once: see
`coordinator.logs.bookmark`. Nothing about a reader is kept here in between.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from coordinator.errors import BadRequest, NotFound
from coordinator.logs.bookmark import MAX_CURSOR, Bookmark
from coordinator.logs.broker import LogEvent, LogQuery, LogSubscription, LogText
from coordinator.procedures.context import Context, Services
from coordinator.store.changes import Entry, Subscription
from coordinator.store.errors import StoreError

log = structlog.get_logger("logs")

Readable = list[tuple[str, str]]
"""(instance, node) of what may have an engine container to read from."""


@dataclass(frozen=True)
class Following:
    """`look`: what there is to read; NotFound when what the reader asked about is gone. `concerns`: whether a change is a reason
    to look again. `pause`: between two looks. `retry`: after a failed look, when no change comes first. `expected`: how many
    instances there may be at once."""

    about: str
    query: LogQuery
    look: Callable[[], Awaitable[Readable]]
    concerns: Callable[[frozenset[Entry]], bool]
    retry: float
    pause: float = 0.0
    expected: int | None = None


def resume(context: Context, cursor: str, query: LogQuery) -> tuple[Bookmark, LogQuery]:
    """Where the reader is, and what it asks for then: one that comes back asks for no tail. A browser's own reconnect says where
    it was in a header. Raises BadRequest."""
    cursor = cursor or context.last_event_id
    if cursor:
        try:
            bookmark = Bookmark.read(cursor[: MAX_CURSOR + 1])
        except ValueError as error:
            raise BadRequest(f"cursor: {error}") from error
        return bookmark, LogQuery(tail=0, until=query.until, follow=True)
    return Bookmark(int(context.now() * 1e9) if query.tail == 0 else 0), query


async def follow(
    services: Services, following: Following, bookmark: Bookmark, readable: Readable
) -> AsyncIterator[tuple[LogEvent, str]]:
    """Events, each with the cursor after it."""
    changes = services.store.changes.subscribe("instance", "container")
    async with services.broker.open([], following.query, following.expected or len(readable)) as subscription:
        _join(subscription, bookmark, readable)
        bookmark.begin()
        joining = asyncio.create_task(_join_new(following, bookmark, changes, subscription))
        try:
            async for event in subscription:
                if isinstance(event, LogText):
                    bookmark.passed(event.instance_id, event.at_ns, event.stream, event.text)
                yield event, bookmark.cursor()
        finally:
            changes.close()
            joining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await joining


def _join(subscription: LogSubscription, bookmark: Bookmark, readable: Readable) -> None:
    for instance_id, node_id in readable:
        if not subscription.knows(instance_id):
            subscription.add(instance_id, node_id, bookmark.start(instance_id))
    # What is read although the look left it out, for there were too many, is still there.
    bookmark.keep({instance_id for instance_id, _ in readable} | subscription.reading)


async def _join_new(
    following: Following, bookmark: Bookmark, changes: Subscription, subscription: LogSubscription
) -> None:
    """Looks at once, for what came between the first look and the subscription to changes; then after each change. Without it
    nothing new would be read, so however it ends, the reader's stream ends too."""
    try:
        while True:
            retry = None
            try:
                _join(subscription, bookmark, await following.look())
            except StoreError as error:
                log.warning("a follower's new replicas cannot be looked up", about=following.about, reason=str(error))
                retry = following.retry
            if following.pause:
                await asyncio.sleep(following.pause)
            changed = await changes.take(retry)
            while retry is None and not following.concerns(changed):
                changed = await changes.take()
    except NotFound:
        log.debug("what a follower reads is gone", about=following.about)
    finally:
        subscription.close()
