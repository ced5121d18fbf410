"""One instance's stream as one reader receives it: what was granted, what is owed, what is buffered."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from coordinator.logs.events import LogGap, LogText
from shared.wire.credit import line_cost
from shared.wire.frames import LogChunk, LogLine
from shared.wire.positions import Gate, Position

_LATEST_NS = 253_402_300_799 * 10**9  # the last second a calendar of four-digit years can show
_TEXT = 32 * 1024


@dataclass
class Source:
    """`taken`: bytes the reader took since the last grant. `resumed`: the reader was here before, and wants what comes after
    `position`, which is how far this stream was received. `began_at`: wall time. `lines`: how many were received, that is how far
    a tail has got."""

    stream_id: str
    instance_id: str
    node_id: str
    window: int
    heard_at: float
    ended: bool = False
    connected: bool = True
    resumed: bool = False
    position: Position = field(default_factory=Position)
    began_at: float = 0.0
    lines: int = 0
    held: int = 0
    taken: int = 0
    lost_lines: int = 0
    lost_bytes: int = 0
    gate: Gate | None = None

    def receive(self, chunk: LogChunk, now: float) -> Iterator[tuple[LogText | LogGap, int]]:
        """Events with their cost in credit. An agent that sends more than it was granted loses the rest, counted."""
        self.heard_at = now
        if chunk.dropped:
            first = chunk.lines[0].at_ns if chunk.lines else -1
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
            if self.gate is not None and not self.gate.admits(text.at_ns, text.stream, text.text):  # seen before
                self.taken += cost
                continue
            self.held += cost
            self.lines += 1
            self.position.passed(text.at_ns, text.stream, text.text)
            yield text, cost

    def take(self, cost: int) -> None:
        """The reader has it."""
        self.held -= cost
        self.taken += cost

    def grant(self) -> int:
        """Credit that is worth a frame, 0 while it is not."""
        return self.taken if self.taken * 2 >= self.window else 0

    def renew(self, stream_id: str, now: float, *, only_new: bool = False) -> None:
        """The same instance over a new session: what was granted in the old one counts no more. `only_new`: the reader asked for no
        line of the past, but what was written meanwhile is not past."""
        self.stream_id = stream_id
        self.connected = True
        self.taken = 0
        if only_new and not self.resumed and not self.position.marks:
            self.position.floor_ns = int(self.began_at * 1e9)
        self.resumed |= only_new or bool(self.position.marks)
        self.heard_at = now

    def begin(self) -> float | None:
        """Where the node is to read from, for a source that was here before; what it tells twice is held back."""
        self.gate = Gate(self.position)
        return self.position.since()

    def _text(self, line: LogLine) -> LogText:
        at_ns = min(max(line.at_ns, 0), _LATEST_NS)
        stream = 2 if line.stream == 2 else 1
        return LogText(at_ns, self.instance_id, self.node_id, stream, line.text[:_TEXT])

    def _gap(self, at_ns: int, lines: int, size: int) -> LogGap:
        return LogGap(min(max(at_ns, 0), _LATEST_NS), self.instance_id, self.node_id, lines, size)
