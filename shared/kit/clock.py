"""Time as an argument. Wall time is for people and records, monotonic time for every duration and deadline."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def wall(self) -> float:
        """Unix seconds, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never jumps with the machine's clock."""


class SystemClock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def iso(timestamp: float) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`, the form of every timestamp in the API."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> float:
    """Unix seconds of an ISO 8601 timestamp; a timestamp without an offset is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
