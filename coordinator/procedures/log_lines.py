"""A line of a log as the API shows it, for every procedure that shows some; and what they all are asked with.

What Argosy itself has to say (lines dropped, a node that is away) comes as an entry of the stream `argosy`, in its place between
the lines, so that no reader mistakes a loss for silence.
"""

from datetime import UTC, datetime
from typing import Annotated, assert_never

from msgspec import Meta

from coordinator.errors import BadRequest
from coordinator.logs.bookmark import MAX_CURSOR
from coordinator.logs.broker import LogEvent, LogGap, LogNote, LogText
from shared.kit.clock import from_iso

NOTICE = "argosy"
STREAMS = {1: "stdout", 2: "stderr"}

Timestamp = Annotated[str, Meta(max_length=40)]
Search = Annotated[str, Meta(max_length=256)]
Cursor = Annotated[str, Meta(max_length=MAX_CURSOR, pattern=r"^[A-Za-z0-9_-]*$(?!\n)")]


def parts(event: LogEvent, now: float) -> tuple[str, str, str, int]:
    """(time, stream, line, lines dropped)."""
    match event:
        case LogText():
            return stamp(event.at_ns), STREAMS.get(event.stream, "stdout"), event.text, 0
        case LogGap():
            return stamp(event.at_ns), NOTICE, gap_text(event), event.lines
        case LogNote():
            return stamp(int(now * 1e9)), NOTICE, event.message, 0
        case _:
            assert_never(event)


def gap_text(gap: LogGap) -> str:
    return f"{gap.lines} lines ({gap.bytes} bytes) dropped: they came faster than they were read"


def stamp(at_ns: int) -> str:
    """UTC with nanoseconds, as the engine wrote it."""
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def matches(event: LogEvent, search: str) -> bool:
    return not isinstance(event, LogText) or search in event.text


def seconds(field: str, text: str | None) -> float | None:
    """Raises BadRequest."""
    if text is None:
        return None
    try:
        return from_iso(text)
    except ValueError as error:
        raise BadRequest(f"{field}: {text!r} is not an ISO 8601 timestamp such as 2026-01-31T12:00:00Z") from error
