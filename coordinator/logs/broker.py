"""Between the readers of logs and the nodes that have them: opens streams where a reader asks, cancels them when it is gone.

The hub hands in what nodes send and whether they come or go; it is handed the frames for nodes through `Sender`. A chunk for nobody
is answered with a cancel: its reader is gone and the first cancel was lost.
"""

from collections.abc import Iterable

from coordinator.logs.events import LogEvent, LogGap, LogNote, LogQuery, LogText
from coordinator.logs.subscription import LogSubscription, Sender
from shared.kit.clock import Clock
from shared.wire.frames import LogCancel, LogChunk, LogEnd

__all__ = ["LogBroker", "LogEvent", "LogGap", "LogNote", "LogQuery", "LogSubscription", "LogText"]

READER_BYTES = 1024 * 1024
"""What one reader may hold here, shared by its streams."""
_LEAST, _MOST = 16 * 1024, 128 * 1024


class LogBroker:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sender: Sender | None = None
        self._subscriptions: set[LogSubscription] = set()
        self.closed = False

    def attach(self, sender: Sender) -> None:
        """The way to the nodes. STRICTLY BEFORE the first `open`: hub and broker need each other."""
        self._sender = sender

    def open(
        self, instances: Iterable[tuple[str, str]], query: LogQuery, expected: int | None = None
    ) -> LogSubscription:
        """Read these (instance id, node id). Use it as a context manager, or call its `close`. `expected`: how many instances will
        share what the reader may hold, when most are added later."""
        assert self._sender is not None, "attached when the coordinator is put together"
        targets = list(instances)
        window = max(_LEAST, min(_MOST, READER_BYTES // max(1, expected or len(targets))))
        subscription = LogSubscription(self._sender, query, window, self._clock, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        for instance_id, node_id in targets:
            subscription.add(instance_id, node_id)
        return subscription

    def chunk(self, node_id: str, frame: LogChunk) -> None:
        subscription = self._owner(node_id, frame.stream_id)
        if subscription is not None:
            subscription.chunk(node_id, frame)
        elif self._sender is not None:
            self._sender.send(node_id, LogCancel(frame.stream_id))

    def end(self, node_id: str, frame: LogEnd) -> None:
        subscription = self._owner(node_id, frame.stream_id)
        if subscription is not None:
            subscription.end(node_id, frame)

    def joined(self, node_id: str) -> None:
        for subscription in list(self._subscriptions):
            subscription.joined(node_id)

    def left(self, node_id: str) -> None:
        for subscription in list(self._subscriptions):
            subscription.left(node_id)

    def close(self) -> None:
        """End every reader's iteration, as when the coordinator stops. `closed` tells doors that this is why they end: their
        readers are to come back."""
        self.closed = True
        for subscription in list(self._subscriptions):
            subscription.close()

    def _owner(self, node_id: str, stream_id: str) -> LogSubscription | None:
        """A handful of readers with a handful of streams each: looked through, not indexed."""
        return next((each for each in self._subscriptions if each.owns(node_id, stream_id)), None)
