"""Putting the lines of several replicas into one order.

Every line carries its engine's own timestamp, but lines arrive when their node gets round to them. `Window` holds lines back
just long enough for the others to catch up: a line is let go once it, or a later one, has waited `SECONDS`. Lines that come
later than that are let go at once, out of order, rather than lost. With a single source there is nothing to wait for.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush

from msgspec import Struct

SECONDS = 0.15

STREAMS = {1: "stdout", 2: "stderr"}
NOTICE = "argosy"
"""The stream of what Argosy itself has to say: lines dropped, a node that does not answer."""


class LogEntry(Struct, frozen=True, gc=False, rename="camel"):
    """`ts`: ISO 8601 in UTC with nanoseconds, as the engine wrote it. `dropped`: lines missing before this one."""

    ts: str
    instance_id: str
    node_id: str
    stream: str
    line: str
    dropped: int = 0


@dataclass(frozen=True, order=True, slots=True)
class Held:
    at_ns: int
    order: int
    entry: LogEntry = field(compare=False)
    source: str = field(compare=False)
    size: int = field(compare=False)
    arrived: float = field(compare=False)


class Window:
    def __init__(self) -> None:
        self._heap: list[Held] = []
        self._order = 0
        self._newest: list[
            tuple[float, int]
        ] = []  # (arrived, at_ns), in order of arrival: what may be let go, and when

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at_ns: int, entry: LogEntry, source: str, size: int, now: float) -> None:
        self._order += 1
        heappush(self._heap, Held(at_ns, self._order, entry, source, size, now))
        self._newest.append((now, at_ns))

    def due_in(self, now: float) -> float | None:
        """Seconds until the next line may go; None when there is none."""
        return max(0.0, self._newest[0][0] + SECONDS - now) if self._newest else None

    def take(self, now: float, *, wait: bool) -> list[Held]:
        """The lines that may go, in order. Without `wait` all of them."""
        due = len(self._newest)
        if wait:
            due = next((i for i, (arrived, _) in enumerate(self._newest) if arrived + SECONDS > now), due)
        if due == 0:
            return []
        cut = max(at_ns for _, at_ns in self._newest[:due])
        taken: list[Held] = []
        while self._heap and self._heap[0].at_ns <= cut:
            taken.append(heappop(self._heap))
        # Younger lines with older stamps have gone too: forget them, or the next due time would be theirs.
        self._newest = [(arrived, at_ns) for arrived, at_ns in self._newest[due:] if at_ns > cut]
        return taken
