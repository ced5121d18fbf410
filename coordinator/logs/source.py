"""One instance's stream as one reader receives it: what was granted, what is owed, what is buffered."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from coordinator.logs.events import LogGap, LogText
from shared.wire.credit import line_cost
from shared.wire.frames import LogChunk, LogLine

_LATEST_NS = 253_402_300_799 * 10**9  # the last second a calendar of four-digit years can show
_TEXT = 32 * 1024


@dataclass
class Source:
    """`taken`: bytes the reader took since the last grant. `last_ns`: of the newest line received, to go on from after a
    reconnect. `lines`: how many were received, that is how far a tail has got."""

    stream_id: str
    instance_id: str
    node_id: str
    window: int
    heard_at: float
    ended: bool = False
    connected: bool = True
    last_ns: int = -1
    lines: int = 0
    held: int = 0
    taken: int = 0
    lost_lines: int = 0
    lost_bytes: int = 0
    skip_until: int = field(default=-1)

    def receive(self, chunk: LogChunk, now: float) -> Iterator[tuple[LogText | LogGap, int]]:
        """Events with their cost in credit. An agent that sends more than it was granted loses the rest, counted."""
        self.heard_at = now
        if chunk.dropped:
            first = chunk.lines[0].at_ns if chunk.lines else self.last_ns
            yield self._gap(first, chunk.dropped, chunk.dropped_bytes), 0
        for line in chunk.lines:
            cost = line_cost(line)
            if self.held + cost > 2 * self.window + _TEXT:
                self.lost_lines += 1
                self.lost_bytes += cost
                continue
            if self.lost_lines:
                yield self._gap(line.at_ns, self.lost_lines, self.lost_bytes), 0
                self.lost_lines = self.lost_bytes = 0
            text = self._text(line)
            if text.at_ns <= self.skip_until:  # seen before the reconnect
                self.taken += cost
                continue
            self.held += cost
            self.lines += 1
            self.last_ns = max(self.last_ns, text.at_ns)
            yield text, cost

    def take(self, cost: int) -> None:
        """The reader has it."""
        self.held -= cost
        self.taken += cost

    def grant(self) -> int:
        """Credit that is worth a frame, 0 while it is not."""
        return self.taken if self.taken * 2 >= self.window else 0

    def renew(self, stream_id: str, now: float) -> None:
        """The same instance over a new session: what was granted in the old one counts no more."""
        self.stream_id = stream_id
        self.connected = True
        self.taken = 0
        self.skip_until = self.last_ns
        self.heard_at = now

    def _text(self, line: LogLine) -> LogText:
        at_ns = min(max(line.at_ns, 0), _LATEST_NS)
        stream = 2 if line.stream == 2 else 1
        return LogText(at_ns, self.instance_id, self.node_id, stream, line.text[:_TEXT])

    def _gap(self, at_ns: int, lines: int, size: int) -> LogGap:
        return LogGap(min(max(at_ns, 0), _LATEST_NS), self.instance_id, self.node_id, lines, size)
