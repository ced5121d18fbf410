"""What a log stream holds between the engine and its reader: bounded, and honest about what did not fit. Pure.

The oldest lines go first: who follows a log wants to see now, and how much is missing.
"""

from collections import deque

from shared.wire.credit import line_cost
from shared.wire.frames import LogChunk, LogLine

CHUNK_BYTES = 48 * 1024
"""Of lines in one chunk: below a frame's limit even when nothing of it can be compressed and its last line is a long one."""
CHUNK_LINES = 1024
_MAX_BYTES = 256 * 1024
_MAX_LINES = 2048


class Backlog:
    """`credit`: bytes the reader will still take. The last line sent may overdraw it; it counts against the next grant."""

    def __init__(self, stream_id: str, credit: int) -> None:
        self._stream_id = stream_id
        self._lines: deque[tuple[LogLine, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._dropped_bytes = 0
        self.credit = credit

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def full(self) -> bool:
        return self._bytes >= _MAX_BYTES or len(self._lines) >= _MAX_LINES

    def add(self, line: LogLine) -> None:
        """Of a full backlog the oldest lines give way."""
        cost = line_cost(line)
        while self._lines and (self._bytes + cost > _MAX_BYTES or len(self._lines) >= _MAX_LINES):
            _, lost = self._lines.popleft()
            self._bytes -= lost
            self._dropped += 1
            self._dropped_bytes += lost
        self._lines.append((line, cost))
        self._bytes += cost

    def take(self) -> LogChunk | None:
        """The next chunk the reader has credit for, None when there is none."""
        lines: list[LogLine] = []
        size = 0
        while self._lines and self.credit > 0 and len(lines) < CHUNK_LINES and size < CHUNK_BYTES:
            line, cost = self._lines.popleft()
            lines.append(line)
            size += cost
            self._bytes -= cost
            self.credit -= cost
        if not lines:
            return None
        chunk = LogChunk(self._stream_id, lines, self._dropped, self._dropped_bytes)
        self._dropped = self._dropped_bytes = 0
        return chunk
