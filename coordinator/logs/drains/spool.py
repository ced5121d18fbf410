"""A drain's buffer: a queue of blocks in files, bounded, that survives the process.

Segments are only appended to and only removed whole. Each record has a length, a checksum and the number of its lines, so that
after a crash a torn end is cut off, and of a damaged segment it is known how much was lost. What was delivered is noted in a small
file that is replaced; after a crash it may be a moment old, and what was delivered since is delivered again: at least once, never
not at all.

When the buffer is full the oldest segment gives way, and its lines are counted. What is being delivered at that moment is in the
courier's hands and counts when its fate is known.

Everything here blocks: it runs in threads, one call at a time.
"""

import os
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import msgspec

from coordinator.store import private_files

_HEADER = Struct(">4sIII")
"""Mark, bytes of the payload, its checksum, its lines."""
_MARK = b"ArL1"
_SUFFIX = ".lines"
_STATE = "state.json"
_LONGEST = 64 * 1024 * 1024
SEGMENT_BYTES = 4 * 1024 * 1024
SAVE_SECONDS = 1.0


class State(msgspec.Struct):
    """`segment` and `offset`: what comes before is delivered. `untold`: lines dropped that the other side was not yet told of."""

    segment: int = 0
    offset: int = 0
    delivered: int = 0
    dropped: int = 0
    untold: int = 0
    delivered_at: float | None = None


@dataclass
class _Segment:
    number: int
    size: int
    lines: int


@dataclass(frozen=True)
class Taken:
    """Blocks in the courier's hands. `end`: the offset behind the last in `segment`."""

    payloads: list[bytes]
    lines: int
    segment: int
    end: int


@dataclass(frozen=True)
class Fate:
    """What became of the lines that were taken. `told`: dropped earlier, and the other side knows of so many now."""

    delivered: int
    dropped: int
    told: int = 0


class Spool:
    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._segment_bytes = max(64 * 1024, min(SEGMENT_BYTES, limit // 8))
        self._lock = threading.Lock()
        self._taken: Taken | None = None
        self._orphaned = False
        self._saved_at = 0.0
        self._segments: list[_Segment] = []
        self.state = State()
        self._buffered = 0

    @classmethod
    def open(cls, directory: Path, limit: int) -> "Spool":
        """Raises OSError."""
        spool = cls(directory, limit)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool._load()
        return spool

    @property
    def buffered(self) -> int:
        """Lines."""
        return self._buffered

    def append(self, payload: bytes, lines: int, missing: int = 0) -> None:
        """`missing`: lines lost before they got here, of which the block itself tells. Raises OSError; then nothing was added."""
        record = _HEADER.pack(_MARK, len(payload), zlib.crc32(payload), lines) + payload
        with self._lock:
            segment = self._writable(len(record))
            path = self._path(segment)
            try:
                with path.open("ab") as file:
                    file.write(record)
            except OSError:
                if path.exists():
                    os.truncate(path, segment.size)
                raise
            segment.size += len(record)
            segment.lines += lines
            self._buffered += lines
            self.state.dropped += missing
            self._make_room()

    def take(self, most: int) -> Taken | None:
        """The oldest blocks, about `most` bytes, at least one; None when there is none. The same ones until they are settled."""
        with self._lock:
            while self._taken is None and self._segments and self._read(most) is None:
                oldest = self._segments[0]
                if oldest is self._segments[-1] and self._at(oldest) >= oldest.size:
                    return None
                self._drop_oldest()
            return self._taken

    def settle(self, fate: Fate, now: float) -> None:
        with self._lock:
            taken = self._taken
            assert taken is not None, "settled once"
            self._taken = None
            self.state.delivered += fate.delivered
            self.state.dropped += fate.dropped
            self.state.untold -= fate.told
            if fate.delivered:
                self.state.delivered_at = now
            if not self._orphaned:
                self._buffered -= taken.lines
                self._segments[0].lines -= taken.lines
                self.state.segment, self.state.offset = taken.segment, taken.end
            self._orphaned = False
            self._forget_delivered()
            if now - self._saved_at >= SAVE_SECONDS or now < self._saved_at:
                self._saved_at = now
                with suppress(
                    OSError
                ):  # a full disk costs repeats after a crash, and must not cost the delivery's pace
                    self._save()

    def lost(self, lines: int) -> None:
        """Lines that never got here."""
        with self._lock:
            self.state.dropped += lines
            self.state.untold += lines

    def close(self) -> None:
        """Raises OSError."""
        with self._lock:
            if self._taken is not None and self._orphaned:  # nobody will say any more what became of them
                self.state.dropped += self._taken.lines
            self._save()
            if self._segments and self._path(self._segments[-1]).exists():
                with self._path(self._segments[-1]).open("rb") as file:
                    os.fsync(file.fileno())

    # --- inside, under the lock

    def _load(self) -> None:
        self._load_state()
        numbers = sorted(int(path.stem) for path in self._directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal())
        for number in numbers:
            segment = _Segment(number, 0, 0)
            path = self._path(segment)
            if number < self.state.segment:
                path.unlink()
                continue
            done = self._at(segment)
            for end, lines in _records(path):
                segment.size = end
                if end > done:
                    segment.lines += lines
            if (
                segment.size < path.stat().st_size
            ):  # torn by a crash, or damaged: no record begins behind it that can be found
                os.truncate(path, segment.size)
            self._segments.append(segment)
            self._buffered += segment.lines
        if self._segments and self._segments[0].number == self.state.segment:
            self.state.offset = min(self.state.offset, self._segments[0].size)

    def _load_state(self) -> None:
        try:
            self.state = msgspec.json.decode((self._directory / _STATE).read_bytes(), type=State)
        except FileNotFoundError:
            pass
        except msgspec.DecodeError:  # then everything that is there is delivered once more
            self.state = State()

    def _save(self) -> None:
        private_files.replace(self._directory / _STATE, msgspec.json.encode(self.state))

    def _path(self, segment: _Segment) -> Path:
        return self._directory / f"{segment.number:012d}{_SUFFIX}"

    def _at(self, segment: _Segment) -> int:
        return self.state.offset if segment.number == self.state.segment else 0

    def _writable(self, size: int) -> _Segment:
        if not self._segments or self._segments[-1].size + size > self._segment_bytes:
            last = self._segments[-1].number if self._segments else self.state.segment
            self._segments.append(_Segment(last + 1, 0, 0))
        return self._segments[-1]

    def _make_room(self) -> None:
        while len(self._segments) > 1 and sum(segment.size for segment in self._segments) > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """The lines in the courier's hands are not lost with their segment."""
        oldest = self._segments.pop(0)
        self._path(oldest).unlink(missing_ok=True)
        held = 0
        if self._taken is not None and self._taken.segment == oldest.number and not self._orphaned:
            held, self._orphaned = self._taken.lines, True
        self._buffered -= oldest.lines
        self.state.dropped += oldest.lines - held
        self.state.untold += oldest.lines - held
        if not self._segments:
            self._segments.append(_Segment(oldest.number + 1, 0, 0))
        self.state.segment, self.state.offset = self._segments[0].number, 0

    def _read(self, most: int) -> Taken | None:
        """From the oldest segment, which has something left; None when that cannot be read, or nothing is left."""
        segment = self._segments[0]
        start = end = self._at(segment)
        payloads: list[bytes] = []
        lines = 0
        if not self._path(segment).exists():
            return None
        with self._path(segment).open("rb") as file:
            file.seek(start)
            while end < segment.size and (not payloads or end - start < most):
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    break
                mark, size, checksum, count = _HEADER.unpack(header)
                payload = file.read(min(size, _LONGEST))
                if mark != _MARK or zlib.crc32(payload) != checksum:
                    break
                payloads.append(payload)
                lines += count
                end += _HEADER.size + size
        if not payloads:
            return None
        self._taken = Taken(payloads, lines, segment.number, end)
        return self._taken

    def _forget_delivered(self) -> None:
        """Segments without anything left; `lines` of the others are what is left."""
        while self._segments and self._at(self._segments[0]) >= self._segments[0].size and len(self._segments) > 1:
            gone = self._segments.pop(0)
            self._path(gone).unlink(missing_ok=True)
            self.state.segment, self.state.offset = self._segments[0].number, 0


def _records(path: Path) -> list[tuple[int, int]]:
    """(end, lines) of the records up to the first that is not whole."""
    found: list[tuple[int, int]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            mark, length, _, lines = _HEADER.unpack(header)
            at += _HEADER.size + length
            if mark != _MARK or length > _LONGEST or at > size:
                break
            found.append((at, lines))
            file.seek(at)
    return found
