"""How far a reader is in an instance's lines, so that it can go on after an interruption without a gap and without a repeat.

The engine gives each line a time in nanoseconds and takes "since" for a starting point; nothing else. Times alone are no position:
several lines may have the same one, and stdout and stderr are written by two threads of the engine, so that their times are in
order each but not together. A position is therefore the newest time of each of the two, with the number of lines of exactly that
time and a checksum of the last of them: who began with a tail has not seen the first of them, and counts too few. To go on, a
little more than is missing is read again, and a gate holds back what was passed before.
"""

import zlib

from msgspec import Struct, field

OVERLAP_SECONDS = 0.25
"""How much later than a line's time the engine may have written it, behind lines of the other stream."""


class Position(Struct):
    """`floor_ns`: of a stream without a mark nothing older is wanted. `marks`: stream → (newest time, lines of that time, checksum
    of the last)."""

    floor_ns: int = 0
    marks: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def passed(self, at_ns: int, stream: int, text: str) -> None:
        """A clock that was set back does not move the mark: what it repeats in time is told apart no more."""
        known, count, _ = self.marks.get(stream, (-1, 0, 0))
        if at_ns > known:
            self.marks[stream] = (at_ns, 1, checksum(text))
        elif at_ns == known:
            self.marks[stream] = (known, count + 1, checksum(text))

    def since(self) -> float | None:
        """Where to read from, in Unix seconds; None for the beginning."""
        newest = max((at for at, _, _ in self.marks.values()), default=0)
        newest = max(newest, self.floor_ns)
        return max(0.0, newest / 1e9 - OVERLAP_SECONDS) if newest > 0 else None

    def copy(self) -> "Position":
        return Position(self.floor_ns, dict(self.marks))


class Gate:
    """Lets through what comes after a position when the lines around it are told again. A stream's first line that is through
    opens it for good: from there on the engine tells nothing twice, whatever its clock does."""

    def __init__(self, position: Position) -> None:
        self._floor_ns = position.floor_ns
        self._marks = dict(position.marks)
        self._open: set[int] = set()

    def admits(self, at_ns: int, stream: int, text: str) -> bool:
        if stream in self._open:
            return True
        known, left, last = self._marks.get(stream, (self._floor_ns, 0, 0))
        if at_ns < known:
            return False
        if at_ns == known and stream in self._marks:
            left -= 1
            self._marks[stream] = (known, left, last)
            if left <= 0 and checksum(text) == last:
                self._open.add(stream)
            return False
        self._open.add(stream)
        return True


def checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))
