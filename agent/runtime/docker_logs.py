"""Bytes of the Docker Engine's log stream to lines. Pure, and made for floods: whole chunks in, lists of lines out.

The engine sends one frame per log entry (8 bytes: stream, three zeroes, length), each entry beginning with its time. A line
longer than 16 KiB arrives as several entries of which only the last ends in a newline: its beginning is kept, its rest is not.
Containers with a terminal have no frames, only text.
"""

from datetime import UTC, datetime
from struct import Struct

from shared.wire.frames import LogLine

MAX_LINE_BYTES = 16 * 1024
CUT_MARK = " [… cut]"

_HEADER = Struct(">BxxxL")
_MAX_ENTRY_BYTES = 4 * 2**20
"""No log driver writes entries nearly as long; a longer one means the stream is not what it should be."""
_KEPT_BYTES = MAX_LINE_BYTES - len(CUT_MARK.encode())
_TIME_BYTES = 30  # 2006-01-02T15:04:05.000000000Z, always with nine digits
_STDOUT = 1


class FrameSplitter:
    """Cuts the engine's multiplexed stream into (stream, payload)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Raises ValueError when it is no such stream."""
        if self._rest:
            data = self._rest + data
        payloads: list[tuple[int, bytes]] = []
        position, available = 0, len(data)
        while available - position >= _HEADER.size:
            stream, size = _HEADER.unpack_from(data, position)
            if size > _MAX_ENTRY_BYTES:
                raise ValueError(f"a log entry of {size} bytes")
            start = position + _HEADER.size
            if start + size > available:
                break
            position = start + size
            payloads.append((stream, data[start:position]))
        self._rest = data[position:]
        return payloads


class TextSplitter:
    """Cuts a terminal's stream, in which all is stdout, at newlines, or where a line gets longer than is kept."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        *whole, rest = (self._rest + data).split(b"\n")
        payloads = [(_STDOUT, entry.removesuffix(b"\r") + b"\n") for entry in whole]
        if len(rest) > MAX_LINE_BYTES + _TIME_BYTES:
            payloads.append((_STDOUT, rest))
            rest = b""
        self._rest = rest
        return payloads

    def end(self) -> list[tuple[int, bytes]]:
        rest, self._rest = self._rest, b""
        return [(_STDOUT, rest)] if rest else []


class LogDecoder:
    def __init__(self, *, terminal: bool = False) -> None:
        self._splitter = TextSplitter() if terminal else FrameSplitter()
        self._begun: dict[int, tuple[int, bytes]] = {}
        self._second = b""
        self._second_ns = 0

    def feed(self, data: bytes) -> list[LogLine]:
        """The lines that `data` completes. Raises ValueError when it is no log stream."""
        return self._lines(self._splitter.feed(data))

    def end(self) -> list[LogLine]:
        """The lines that never got their newline."""
        lines = self._lines(self._splitter.end()) if isinstance(self._splitter, TextSplitter) else []
        begun, self._begun = self._begun, {}
        return lines + [LogLine(at, stream, _text(kept)) for stream, (at, kept) in begun.items()]

    def _lines(self, entries: list[tuple[int, bytes]]) -> list[LogLine]:
        lines: list[LogLine] = []
        for stream, entry in entries:
            at, text = self._timed(entry)
            complete = text.endswith(b"\n")
            if complete:
                text = text[:-1]
            if stream in self._begun:
                at, kept = self._begun[stream]
                text = _grown(kept, text)
            if complete:
                self._begun.pop(stream, None)
                lines.append(LogLine(at, stream, _text(text)))
            else:
                self._begun[stream] = (at, _grown(b"", text))
        return lines

    def _timed(self, entry: bytes) -> tuple[int, bytes]:
        """(time in nanoseconds, text). The whole seconds are mostly those of the line before."""
        if entry[29:31] != b"Z ":
            return self._second_ns, entry
        try:
            if entry[:19] != self._second:
                moment = datetime.fromisoformat(entry[:19].decode("ascii")).replace(tzinfo=UTC)
                self._second, self._second_ns = entry[:19], int(moment.timestamp()) * 1_000_000_000
            return self._second_ns + int(entry[20:29]), entry[_TIME_BYTES + 1 :]
        except ValueError:
            return self._second_ns, entry


def _grown(kept: bytes, more: bytes) -> bytes:
    """One byte more than fits is kept, as the sign that something is missing."""
    return kept if len(kept) > MAX_LINE_BYTES else (kept + more)[: MAX_LINE_BYTES + 1]


def _text(line: bytes) -> str:
    if len(line) <= MAX_LINE_BYTES:
        return line.decode("utf-8", "replace")
    return line[:_KEPT_BYTES].decode("utf-8", "ignore") + CUT_MARK
