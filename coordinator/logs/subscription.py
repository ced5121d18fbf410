"""One reader: the streams it opened, merged, as fast as it takes them.

Nothing runs for a reader but its own iteration. Credit goes back to an agent only for what the reader has taken, so a slow reader
holds at most its window of each stream here, and the agents drop the rest at the source and say how much.
"""

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from coordinator.logs.events import LogEvent, LogNote, LogQuery
from coordinator.logs.merge import Live, Merge, Tail, Whole
from coordinator.logs.source import Source
from shared.kit.clock import Clock
from shared.kit.ids import new_id
from shared.kit.wakeup import Wakeup
from shared.wire.frames import LogCancel, LogChunk, LogCredit, LogEnd, LogSubscribe
from shared.wire.positions import Position

SILENCE_SECONDS = 15.0
"""After this long without an answer a stream that is not followed is given up."""
_LOOK_SECONDS = 0.5
_GRANT_EVERY = 32


class Sender(Protocol):
    """`coordinator.hub.registry.NodeRegistry`. `send` is False when the node is not connected or takes no more."""

    def send(self, node_id: str, frame: LogSubscribe | LogCredit | LogCancel) -> bool: ...


class LogSubscription:
    """An async iterator of events and a context manager: leaving it cancels the streams on the nodes. Made by `LogBroker.open`."""

    def __init__(
        self, sender: Sender, query: LogQuery, window: int, clock: Clock, closed: Callable[["LogSubscription"], None]
    ) -> None:
        self._sender = sender
        self._query = query
        self._window = window
        self._clock = clock
        self._on_close = closed
        self._sources: list[Source] = []
        self._streams: dict[str, Source] = {}
        self._known: set[str] = set()
        self._events = 0
        self._notes: deque[LogNote] = deque()
        self._merge = self._merge_for(query)
        self._wakeup = Wakeup()
        self._closed = False

    def add(self, instance_id: str, node_id: str, position: Position | None = None) -> None:
        """Read this instance too, from that position on. One that is or was read already is left as it is."""
        if self._closed or instance_id in self._known:
            return
        self._known.add(instance_id)
        source = Source(new_id("log"), instance_id, node_id, self._window, self._clock.monotonic())
        source.began_at = self._clock.wall()
        if position is not None:
            source.resumed, source.position = True, position.copy()
        self._sources.append(source)
        self._streams[source.stream_id] = source
        self._subscribe(source)
        self._wakeup.wake()

    def knows(self, instance_id: str) -> bool:
        """Whether it is read, or was and is over."""
        return instance_id in self._known

    @property
    def reading(self) -> set[str]:
        """The instances whose streams are not over."""
        return {source.instance_id for source in self._sources if not source.ended}

    def leave(self, instance_id: str) -> None:
        """Read this instance no more; it may be added again."""
        self._known.discard(instance_id)
        for source in [source for source in self._sources if source.instance_id == instance_id and not source.ended]:
            self._cancel(source)
            self._finish(source, "")

    def cut(self, message: str) -> None:
        """What has not ended by now is given up, and said to be."""
        for source in [source for source in self._sources if not source.ended]:
            self._cancel(source)
            self._finish(source, message)

    def owns(self, node_id: str, stream_id: str) -> bool:
        return self._source(node_id, stream_id) is not None

    def chunk(self, node_id: str, frame: LogChunk) -> None:
        source = self._source(node_id, frame.stream_id)
        if source is None:
            return
        now = self._clock.monotonic()
        for event, cost in source.receive(frame, now):
            self._merge.add(source, event, cost, now)
        self._grant(source)
        self._wakeup.wake()

    def end(self, node_id: str, frame: LogEnd) -> None:
        source = self._source(node_id, frame.stream_id)
        if source is not None:
            self._finish(source, frame.error)

    def joined(self, node_id: str) -> None:
        """The node has a new session; whatever ran in the old one is over there."""
        for source in self._open_on(node_id):
            if not self._query.follow:
                self._finish(source, "the node reconnected while its log was read: it is incomplete")
                continue
            del self._streams[source.stream_id]
            source.renew(new_id("log"), self._clock.monotonic(), only_new=self._query.tail == 0)
            self._streams[source.stream_id] = source
            self._subscribe(source)

    def left(self, node_id: str) -> None:
        for source in self._open_on(node_id):
            if source.connected:
                self._absent(source)

    def close(self) -> None:
        """Cancels what still runs on the nodes and ends the iteration. Again is fine."""
        if self._closed:
            return
        self._closed = True
        for source in self._sources:
            if not source.ended:
                self._cancel(source)
        self._on_close(self)
        self._wakeup.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogEvent:
        while not self._closed:
            event = self._next()
            if event is not None:
                return event
            if self._is_complete():
                break
            await self._wakeup.wait(self._patience())
            self._give_up_silent()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> LogEvent | None:
        if self._notes:
            return self._notes.popleft()
        event = self._merge.next(self._sources, self._clock.monotonic())
        self._events += 1
        if event is None or self._events % _GRANT_EVERY == 0:
            for source in self._sources:
                self._grant(source)
        return event

    def _is_complete(self) -> bool:
        return not self._query.follow and all(source.ended for source in self._sources) and self._merge.empty

    def _patience(self) -> float | None:
        """Until something is due by itself: an event at rest, a grant that could not be sent, a silent stream to give up."""
        due = self._merge.due()
        until = [] if due is None else [max(0.001, due - self._clock.monotonic())]
        owed = any(source.grant() and source.connected and not source.ended for source in self._sources)
        if owed or not self._query.follow:
            until.append(_LOOK_SECONDS)
        return min(until, default=None)

    def _give_up_silent(self) -> None:
        if self._query.follow:
            return
        now = self._clock.monotonic()
        for source in self._sources:
            waits_for_us = source.held > 0
            if not source.ended and not waits_for_us and now - source.heard_at > SILENCE_SECONDS:
                self._sender.send(source.node_id, LogCancel(source.stream_id))
                self._finish(source, "the node did not answer in time: the log is incomplete")

    def _subscribe(self, source: Source) -> None:
        query = self._query
        frame = LogSubscribe(
            stream_id=source.stream_id,
            instance_id=source.instance_id,
            credit=max(0, source.window - source.held),
            tail=None if source.resumed else query.asked,
            since=source.begin() if source.resumed else query.since,
            until=query.until,
            follow=query.follow,
        )
        if not self._sender.send(source.node_id, frame):
            self._absent(source)

    def _cancel(self, source: Source) -> None:
        if source.connected:
            self._sender.send(source.node_id, LogCancel(source.stream_id))

    def _absent(self, source: Source) -> None:
        source.connected = False
        if self._query.follow:
            self._note(source, "the node is not connected: its lines are missing until it is back")
        else:
            self._finish(source, "the node is not connected: its lines are missing")

    def _finish(self, source: Source, message: str) -> None:
        source.ended = True
        del self._streams[source.stream_id]
        if self._query.follow:
            self._sources.remove(source)
        if message:
            self._note(source, message)
        self._wakeup.wake()

    def _note(self, source: Source, message: str) -> None:
        self._notes.append(LogNote(source.instance_id, source.node_id, message.replace("\0", "")[:2048]))
        self._wakeup.wake()

    def _grant(self, source: Source) -> None:
        credit = source.grant()
        if (
            credit
            and source.connected
            and not source.ended
            and self._sender.send(source.node_id, LogCredit(source.stream_id, credit))
        ):
            source.taken -= credit
            source.heard_at = self._clock.monotonic()

    def _source(self, node_id: str, stream_id: str) -> Source | None:
        source = self._streams.get(stream_id)
        return source if source is not None and source.node_id == node_id else None

    def _open_on(self, node_id: str) -> list[Source]:
        return [source for source in self._sources if source.node_id == node_id and not source.ended]

    def _merge_for(self, query: LogQuery) -> Merge:
        if query.follow:
            return Live(query.tail, self._clock.monotonic())
        return Whole() if query.tail is None else Tail(query.tail)
