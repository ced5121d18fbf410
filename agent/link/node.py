"""What the link needs of the node behind it. The link carries; it knows neither how assignments are kept nor what a log is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shared.kit.wakeup import Wakeup
from shared.spec.instance import InstanceReport
from shared.spec.node import NodeFacts
from shared.wire.frames import AssignmentDelta, AssignmentSet, Held, LogCancel, LogCredit, LogSubscribe


class Book(Protocol):
    """The assignment set. What `apply_*` accepted is on disk when it returns; JournalError when the disk refused."""

    @property
    def sequence(self) -> int | None: ...

    async def apply_set(self, frame: AssignmentSet) -> None:
        """With the last part, and none missing, the set counts: `sequence` is its own."""

    async def apply_delta(self, frame: AssignmentDelta) -> bool:
        """False: it does not apply to what the book holds."""


class Reports(Protocol):
    """The latest report of each instance, and which of them this session has still to send."""

    wakeup: Wakeup

    def take(self, limit: int) -> list[InstanceReport]: ...

    def acked(self, reports: list[InstanceReport]) -> None: ...

    def restart_session(self) -> None:
        """Everything is to be sent again."""

    def held(self) -> list[Held]: ...


class Logs(Protocol):
    def subscribe(self, asked: LogSubscribe, /) -> None: ...

    def credit(self, granted: LogCredit, /) -> None: ...

    def cancel(self, cancelled: LogCancel, /) -> None: ...

    def cancel_all(self) -> None:
        """The session is gone, and with it every reader."""


@dataclass(frozen=True)
class Node:
    """`facts`: what hello says of this machine. `connected` is called when a session stands."""

    book: Book
    reports: Reports
    logs: Logs
    facts: Callable[[], NodeFacts]
    connected: Callable[[], None]
