"""Merging the streams of all instances by time, three ways. Pure: time is an argument.

* `Whole` reads complete streams: the earliest head goes out as soon as every stream has one or has ended.
* `Tail` waits for all streams to end and keeps the newest lines of all together.
* `Live` never ends, so it cannot wait for everybody: lines rest a moment in case an earlier one is still on its way, then go out
  by timestamp. Its first moment is a little longer, to cut the tails of all instances down to one.
"""

import heapq
from collections import deque
from itertools import count
from typing import Protocol

from coordinator.logs.events import LogGap, LogText
from coordinator.logs.source import Source

Timed = LogText | LogGap
REORDER_SECONDS = 0.15
OPENING_SECONDS = 0.3
TAIL_BYTES = 32 * 1024 * 1024
"""What a tail may hold in memory; older lines then become a gap."""


class Merge(Protocol):
    def add(self, source: Source, event: Timed, cost: int, now: float) -> None: ...

    def next(self, sources: list[Source], now: float) -> Timed | None:
        """The event to go out now, whose cost was taken from its source."""

    def due(self) -> float | None:
        """When `next` may have something without any `add`, None when never."""

    @property
    def empty(self) -> bool: ...


_Entry = tuple[int, int, Timed, int, Source]
"""Time, order of arrival, event, cost, source: ordered by the first two, which are never both equal."""


class Whole:
    def __init__(self) -> None:
        self._queues: dict[int, deque[_Entry]] = {}
        self._heads: list[_Entry] = []
        self._arrivals = count()

    @property
    def empty(self) -> bool:
        return not self._heads

    def add(self, source: Source, event: Timed, cost: int, now: float) -> None:
        entry = (event.at_ns, next(self._arrivals), event, cost, source)
        queue = self._queues.setdefault(id(source), deque())
        queue.append(entry)
        if len(queue) == 1:
            heapq.heappush(self._heads, entry)

    def next(self, sources: list[Source], now: float) -> Timed | None:
        if not self._heads or any(not source.ended and not self._queues.get(id(source)) for source in sources):
            return None
        _, _, event, cost, source = heapq.heappop(self._heads)
        queue = self._queues[id(source)]
        queue.popleft()
        if queue:
            heapq.heappush(self._heads, queue[0])
        source.take(cost)
        return event

    def due(self) -> float | None:
        return None


class Tail:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[_Entry] = []
        self._bytes = 0
        self._cut: dict[int, tuple[Source, int, int]] = {}
        self._arrivals = count()
        self._out: deque[Timed] | None = None

    @property
    def empty(self) -> bool:
        return not self._entries and not self._cut and not self._out

    def add(self, source: Source, event: Timed, cost: int, now: float) -> None:
        source.take(cost)
        if isinstance(event, LogGap):
            self._count(source, event.lines, event.bytes)
            return
        heapq.heappush(self._entries, (event.at_ns, next(self._arrivals), event, cost, source))
        self._bytes += cost
        while len(self._entries) > self._limit or self._bytes > TAIL_BYTES:
            too_big = len(self._entries) <= self._limit
            _, _, _, lost, loser = heapq.heappop(self._entries)
            self._bytes -= lost
            if too_big:
                self._count(loser, 1, lost)

    def next(self, sources: list[Source], now: float) -> Timed | None:
        if self._out is None:
            if any(not source.ended for source in sources):
                return None
            self._out = self._sorted()
        return self._out.popleft() if self._out else None

    def due(self) -> float | None:
        return None

    def _sorted(self) -> deque[Timed]:
        lines: list[Timed] = [entry[2] for entry in sorted(self._entries, key=lambda entry: entry[:2])]
        first = lines[0].at_ns if lines else 0
        gaps = [
            LogGap(first, source.instance_id, source.node_id, number, size)
            for source, number, size in self._cut.values()
        ]
        self._entries, self._cut = [], {}
        return deque([*gaps, *lines])

    def _count(self, source: Source, lines: int, size: int) -> None:
        _, known, known_size = self._cut.get(id(source), (source, 0, 0))
        self._cut[id(source)] = (source, known + lines, known_size + size)


class Live:
    """`tail`: None shows all that comes."""

    def __init__(self, tail: int | None, now: float) -> None:
        self._tail = tail
        self._entries: list[_Entry] = []
        self._waiting: deque[tuple[float, int]] = deque()
        self._arrived: dict[int, float] = {}
        self._past: list[_Entry] = []
        self._opening_until = now + OPENING_SECONDS if tail else now
        self._alone = False
        self._arrivals = count()

    @property
    def empty(self) -> bool:
        return not self._entries and not self._past

    def add(self, source: Source, event: Timed, cost: int, now: float) -> None:
        number = next(self._arrivals)
        entry = (event.at_ns, number, event, cost, source)
        if self._tail and now < self._opening_until and source.lines <= self._tail and isinstance(event, LogText):
            self._keep_last(entry, self._tail)
            return
        self._push(entry, now)

    def next(self, sources: list[Source], now: float) -> Timed | None:
        self._alone = len(sources) <= 1
        if self._past:
            if now < self._opening_until and not self._alone:
                return None
            for entry in self._past:
                self._push(entry, self._opening_until - REORDER_SECONDS)
            self._past = []
            self._waiting = deque(sorted(self._waiting))
        self._drop_gone()
        if not self._waiting or (not self._alone and self._waiting[0][0] + REORDER_SECONDS > now):
            return None
        _, number, event, cost, source = heapq.heappop(self._entries)
        del self._arrived[number]
        source.take(cost)
        return event

    def due(self) -> float | None:
        self._drop_gone()
        times = [self._waiting[0][0] + REORDER_SECONDS] if self._waiting else []
        return min([*times, self._opening_until] if self._past else times, default=None)

    def _keep_last(self, entry: _Entry, limit: int) -> None:
        heapq.heappush(self._past, entry)
        if len(self._past) > limit:
            _, _, _, cost, source = heapq.heappop(self._past)
            source.take(cost)

    def _push(self, entry: _Entry, arrived: float) -> None:
        heapq.heappush(self._entries, entry)
        self._arrived[entry[1]] = arrived
        self._waiting.append((arrived, entry[1]))

    def _drop_gone(self) -> None:
        while self._waiting and self._waiting[0][1] not in self._arrived:
            self._waiting.popleft()
