"""Logs of all that an organisation runs, or of a part of it: once, or for as long as somebody reads.

Nothing is stored here: lines are read from the nodes when somebody asks, so what is asked of them has limits, and whatever was
left out for their sake is said in an entry of the stream `argosy`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.core.permissions import may
from coordinator.errors import NotFound
from coordinator.logs.bookmark import Bookmark
from coordinator.logs.broker import LogEvent as Event
from coordinator.logs.broker import LogQuery, LogText
from coordinator.procedures import log_lines, scopes
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.log_following import Following, Readable, follow, resume
from coordinator.procedures.log_lines import NOTICE, Cursor, Search, Timestamp
from coordinator.procedures.table import Stream, procedure
from coordinator.store import containers, log_sources, projects
from coordinator.store.changes import Entry
from shared.spec.container import Part

MAX_INSTANCES = 200
"""Instances one query or stream reads; the newest, those that run first."""
MAX_LINES = 10_000
SEARCHED_LINES = 50_000
"""A search looks through so many last lines of all instances together."""
QUERY_SECONDS = 20.0
"""What has not been read by then is left out."""
LOOK_SECONDS = 1.0
"""A stream looks for new instances at most so often; what they wrote meanwhile is not missed."""
RETRY_SECONDS = 2.0
MAX_FOREIGN = 10_000
"""Containers of other organisations that a stream remembers not to look again for."""


class LogSelection(Part, frozen=True, kw_only=True):
    """Of which containers: all of the organisation, or of one project, environment, or just one. `search`: only lines that
    contain it. `since`, `until`: ISO 8601, UTC when they name no offset."""

    organization_id: Id
    project_id: Id | None = None
    environment_id: Id | None = None
    container_id: Id | None = None
    search: Search = ""
    since: Timestamp | None = None
    until: Timestamp | None = None


class QueryLogs(LogSelection, frozen=True, kw_only=True):
    """`limit`: so many last lines of all containers together. With `search`, they are found among the last 50,000. At most 200
    instances are read, for at most 20 seconds."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LINES)] = 100


class StreamLogs(LogSelection, frozen=True, kw_only=True):
    """`tail`: last lines of all containers together that come first. `cursor`, or `lastEventId`: the `cursor` of the last event a
    reader got; it goes on right behind it, and `tail` and `since` count no more. At most 200 instances are read at once."""

    tail: Annotated[int, Meta(ge=0, le=MAX_LINES)] = 100
    cursor: Cursor = ""
    last_event_id: Cursor = ""


class LogRecord(View, frozen=True):
    """`ts`: UTC with nanoseconds, as the engine wrote it. `stream`: stdout, stderr, or argosy, which is about the instance it names
    or, without one, about the whole answer. `dropped`: lines missing here."""

    ts: str
    container_id: str | None
    instance_id: str | None
    node_id: str | None
    stream: str
    line: str
    dropped: int = 0


class LogEvent(LogRecord, frozen=True):
    """`cursor`: where a reader goes on that comes back with it; also the event's id."""

    cursor: str = ""


class Selected:
    """What one reader's selection stands for at the moment, in an order that keeps to the limit."""

    def __init__(self, context: Context, data: LogSelection) -> None:
        self._context = context
        self._data = data
        self._containers: dict[str, str] = {}
        self._foreign: set[str] = set()
        self._unsure: set[str] = set()
        self.left_out = False

    async def look(self) -> Readable:
        """Raises NotFound when what is selected is not there (any more)."""
        data = self._data
        async with self._context.services.store.read() as conn:
            if not await _all_there(conn, data):
                raise NotFound("project, environment or container not found in this organization")
            found = await log_sources.readable(
                conn,
                data.organization_id,
                self._visible(await log_sources.clusters_of(conn, data.organization_id)),
                limit=MAX_INSTANCES + 1,
                project_id=data.project_id,
                environment_id=data.environment_id,
                container_id=data.container_id,
            )
            await self._tell_apart(conn)
        self.left_out = len(found) > MAX_INSTANCES
        found = found[:MAX_INSTANCES]
        self._containers.update({one.instance_id: one.container_id for one in found})
        return [(one.instance_id, one.node_id) for one in found]

    def concerned(self, changed: frozenset[Entry]) -> bool:
        """A container that is not known to be another organisation's may be this one's: the look finds out."""
        self._unsure |= {key for _, key in changed} - self._foreign
        return bool(self._unsure)

    def record(self, event: Event) -> LogRecord:
        ts, stream, line, dropped = log_lines.parts(event, self._context.now())
        return LogRecord(
            ts=ts,
            container_id=self._containers.get(event.instance_id),
            instance_id=event.instance_id,
            node_id=event.node_id,
            stream=stream,
            line=line,
            dropped=dropped,
        )

    def notice(self, line: str) -> LogRecord:
        ts = log_lines.stamp(int(self._context.now() * 1e9))
        return LogRecord(ts=ts, container_id=None, instance_id=None, node_id=None, stream=NOTICE, line=line)

    def notices(self) -> list[LogRecord]:
        if not self.left_out:
            return []
        return [self.notice(f"only {MAX_INSTANCES} instances are read, the newest: select fewer containers")]

    async def _tell_apart(self, conn: AsyncConnection) -> None:
        unsure, self._unsure = self._unsure, set()
        if unsure:
            if len(self._foreign) > MAX_FOREIGN:
                self._foreign.clear()
            self._foreign |= unsure - await log_sources.own(conn, self._data.organization_id, unsure)

    def _visible(self, cluster_ids: list[str]) -> list[str]:
        """Those the caller may look into."""
        role, grants = self._context.role, self._context.user.grants
        return [one for one in cluster_ids if may(role, "view", grants.get(one))]


@procedure(
    "log.query",
    "GET",
    "viewer",
    scopes.organization,
    rest="/logs",
    example={"organizationId": "org_01jabcd", "search": "error", "limit": 50},
)
async def query(context: Context, data: QueryLogs) -> list[LogRecord]:
    """The last lines of all containers of an organisation, or of some, merged by time. An entry of the stream `argosy` says what
    is missing."""
    selected = Selected(context, data)
    readable = await selected.look()
    asked = LogQuery(
        tail=SEARCHED_LINES if data.search else data.limit,
        since=log_lines.seconds("since", data.since),
        until=log_lines.seconds("until", data.until),
        each=max(data.limit, SEARCHED_LINES // max(1, len(readable))) if data.search else None,
    )
    async with context.services.broker.open(readable, asked) as subscription:
        over = f"this was not read to its end in {QUERY_SECONDS:g} seconds: select fewer containers, or a shorter time"
        timer = asyncio.get_running_loop().call_later(QUERY_SECONDS, subscription.cut, over)
        try:
            events = [event async for event in subscription if log_lines.matches(event, data.search)]
        finally:
            timer.cancel()
    lines = [event for event in events if isinstance(event, LogText)]
    first = max(0, len(lines) - data.limit)
    kept = {id(event) for event in lines[first:]}
    shown = [event for event in events if not isinstance(event, LogText) or id(event) in kept]
    return [*selected.notices(), *map(selected.record, shown)]


@procedure(
    "log.stream",
    "GET",
    "viewer",
    scopes.organization,
    rest="/logs/stream",
    example={"organizationId": "org_01jabcd", "environmentId": "env_01jabcd", "tail": 10},
)
async def stream(context: Context, data: StreamLogs) -> Stream[LogEvent]:
    """Lines of all containers of an organisation, or of some, as they are written. Containers and replicas that appear are joined.
    A reader that comes back with the `cursor` of its last event misses nothing and gets nothing twice."""
    selected = Selected(context, data)
    asked = LogQuery(
        tail=data.tail,
        since=log_lines.seconds("since", data.since),
        until=log_lines.seconds("until", data.until),
        follow=True,
    )
    bookmark, asked = resume(context, data.cursor or data.last_event_id, asked)
    readable = await selected.look()
    return Stream(_events(context, data, selected, asked, bookmark, readable))


async def _events(
    context: Context, data: StreamLogs, selected: Selected, asked: LogQuery, bookmark: Bookmark, readable: Readable
) -> AsyncIterator[LogEvent]:
    following = Following(
        about=data.organization_id,
        query=asked,
        look=selected.look,
        concerns=selected.concerned,
        retry=RETRY_SECONDS,
        pause=LOOK_SECONDS,
        expected=max(8, len(readable)),
    )
    for notice in selected.notices():
        yield _tracked(notice, bookmark.cursor())
    async for event, cursor in follow(context.services, following, bookmark, readable):
        if log_lines.matches(event, data.search):
            yield _tracked(selected.record(event), cursor)


def _tracked(record: LogRecord, cursor: str) -> LogEvent:
    return LogEvent(
        ts=record.ts,
        container_id=record.container_id,
        instance_id=record.instance_id,
        node_id=record.node_id,
        stream=record.stream,
        line=record.line,
        dropped=record.dropped,
        cursor=cursor,
    )


async def _all_there(conn: AsyncConnection, data: LogSelection) -> bool:
    """Whether what the selection names is this organisation's."""
    home = data.organization_id
    if data.project_id is not None:
        project = await projects.get(conn, data.project_id)
        if project is None or project.organization_id != home:
            return False
    if data.environment_id is not None and await projects.environment_organization(conn, data.environment_id) != home:
        return False
    if data.container_id is None:
        return True
    container = await containers.get(conn, data.container_id)
    return container is not None and container.organization_id == home
