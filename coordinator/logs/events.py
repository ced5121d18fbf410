"""What a reader of logs asks for and gets. Losses and absences are events: a reader never mistakes them for silence."""

from dataclasses import dataclass

from msgspec import Struct


@dataclass(frozen=True)
class LogQuery:
    """`tail`: so many last lines of all instances together, None for all. `each`: how many of one instance are looked through for
    them, None for as many. Unix seconds."""

    tail: int | None = None
    since: float | None = None
    until: float | None = None
    follow: bool = False
    each: int | None = None

    @property
    def asked(self) -> int | None:
        """How many last lines a node is asked for. An engine counts them from the end of its log, before it looks at their time:
        where `until` is in the past that would be the wrong ones, so then it is asked for all and the rest is cut here."""
        if self.until is not None and not self.follow:
            return None
        return self.tail if self.each is None else self.each


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
