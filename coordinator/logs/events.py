"""What a reader of logs asks for and gets. Losses and absences are events: a reader never mistakes them for silence."""

from dataclasses import dataclass

from msgspec import Struct


@dataclass(frozen=True)
class LogQuery:
    """`tail`: so many last lines of all instances together, None for all. Unix seconds."""

    tail: int | None = None
    since: float | None = None
    until: float | None = None
    follow: bool = False


class LogText(Struct, frozen=True, gc=False):
    """`at_ns`: the engine's time in nanoseconds. `stream`: 1 stdout, 2 stderr."""

    at_ns: int
    instance_id: str
    node_id: str
    stream: int
    text: str


class LogGap(Struct, frozen=True, gc=False):
    """So many lines were thrown away here, because the reader was slower than the instance."""

    at_ns: int
    instance_id: str
    node_id: str
    lines: int
    bytes: int


class LogNote(Struct, frozen=True, gc=False):
    """Why lines of an instance are missing or have ended early."""

    instance_id: str
    node_id: str
    message: str


LogEvent = LogText | LogGap | LogNote
