"""What goes on the wire next: control before reports before the node's status and metrics before logs, strictly.

Control frames are few and never dropped. Reports are taken from their box only when they can be sent, so that while one batch
is under way the newer reports coalesce behind it; one batch at a time also means the coordinator can never store an older
report after a newer one. Status and metrics keep their latest value only. Logs are bounded: the oldest chunk goes first, and the
next chunk of its stream says how much is missing.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from agent.link.node import Reports
from shared.kit.wakeup import Wakeup
from shared.spec.instance import InstanceReport
from shared.wire.codec import plain_size
from shared.wire.credit import lines_cost
from shared.wire.frames import AgentFrame, InstanceReports, LogChunk, LogCredit, LogEnd, MetricsSample, NodeStatus

BATCH_REPORTS = 256
BATCH_BYTES = 48 * 1024
"""Of a batch before compression: it fits a frame however badly it compresses."""
RESEND_SECONDS = 30.0
"""A batch the coordinator did not store by then is overtaken by a complete new round."""
LOG_BYTES = 2 * 1024 * 1024
_MESSAGE_CHARACTERS = 1024


class ReportLane:
    """Batches of reports, one under way at a time, until each is acknowledged."""

    def __init__(self, box: Reports) -> None:
        self._box = box
        self._batch = 0
        self._underway: list[InstanceReport] = []
        self._waiting: deque[InstanceReport] = deque()
        self.resend_at: float | None = None
        box.restart_session()

    @property
    def settled(self) -> bool:
        return not self._underway and not self._waiting

    def next(self, now: float) -> InstanceReports | None:
        if self.resend_at is not None:
            if now < self.resend_at:
                return None
            self._box.restart_session()
            self._waiting.clear()
        if not self._waiting:
            self._waiting.extend(self._box.take(BATCH_REPORTS))
        self._underway = _fitting(self._waiting)
        self.resend_at = now + RESEND_SECONDS if self._underway else None
        if not self._underway:
            return None
        self._batch += 1
        return InstanceReports(self._batch, [_clipped(report) for report in self._underway])

    def acknowledged(self, batch: int) -> None:
        if batch == self._batch and self._underway:
            self._box.acked(self._underway)
            self._underway, self.resend_at = [], None


class LogLane:
    """A bounded queue of log frames. Ends of streams are never dropped: they are small, and somebody waits for them.

    Lines dropped here were paid for with the reader's credit. `refund` gives it back when the gap they leave is told, or a
    stream that lost lines here would one day stand still.
    """

    def __init__(self, refund: Callable[[LogCredit], None]) -> None:
        self._refund = refund
        self._queue: deque[LogChunk | LogEnd] = deque()
        self._bytes = 0
        self._owed: dict[str, int] = {}

    def put(self, frame: LogChunk | LogEnd) -> None:
        self._queue.append(frame)
        self._bytes += _weight(frame)
        while self._bytes > LOG_BYTES and self._drop_oldest():
            pass

    def next(self) -> LogChunk | LogEnd | None:
        if not self._queue:
            return None
        frame = self._queue.popleft()
        self._bytes -= _weight(frame)
        owed = self._owed.pop(frame.stream_id, 0)
        if owed:
            self._refund(LogCredit(frame.stream_id, owed))
        return frame

    def _drop_oldest(self) -> bool:
        """The gap is told by the next chunk of the same stream, or in its own place when there is none."""
        full = ((at, frame) for at, frame in enumerate(self._queue) if isinstance(frame, LogChunk) and frame.lines)
        index, frame = next(full, (-1, None))
        if frame is None:
            return False
        cost = lines_cost(frame.lines)
        lost, lost_bytes = frame.dropped + len(frame.lines), frame.dropped_bytes + cost
        self._owed[frame.stream_id] = self._owed.get(frame.stream_id, 0) + cost
        self._bytes -= _weight(frame)
        for later in range(index + 1, len(self._queue)):
            heir = self._queue[later]
            if isinstance(heir, LogChunk) and heir.stream_id == frame.stream_id:
                self._queue[later] = _after_gap(heir, lost, lost_bytes)
                del self._queue[index]
                return True
        self._queue[index] = LogChunk(frame.stream_id, [], lost, lost_bytes)
        self._bytes += _weight(self._queue[index])
        return True


class Lanes:
    """All lanes of one session. Until `open` only control frames leave: the handshake."""

    def __init__(self, wakeup: Wakeup, refund: Callable[[LogCredit], None]) -> None:
        self._wakeup = wakeup
        self._control: deque[AgentFrame] = deque()
        self._status: NodeStatus | None = None
        self._metrics: MetricsSample | None = None
        self._logs = LogLane(refund)
        self._reports: ReportLane | None = None

    def open(self, reports: Reports) -> None:
        self._reports = ReportLane(reports)
        self._wakeup.wake()

    def control(self, *frames: AgentFrame) -> None:
        if frames:
            self._control.extend(frames)
            self._wakeup.wake()

    def put(self, frame: NodeStatus | MetricsSample | LogChunk | LogEnd) -> None:
        match frame:
            case NodeStatus():
                self._status = frame
            case MetricsSample():
                self._metrics = frame
            case LogChunk() | LogEnd():
                self._logs.put(frame)
        self._wakeup.wake()

    def acknowledged(self, batch: int) -> None:
        if self._reports is not None:
            self._reports.acknowledged(batch)
            self._wakeup.wake()

    def next(self, now: float) -> AgentFrame | None:
        if self._control:
            return self._control.popleft()
        if self._reports is None:
            return None
        batch = self._reports.next(now)
        if batch is not None:
            return batch
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            return metrics
        return self._logs.next()

    @property
    def look_at(self) -> float | None:
        """When `next` may have something although nothing was put in."""
        return self._reports.resend_at if self._reports is not None else None

    @property
    def settled(self) -> bool:
        """Nothing that must not be lost is left to send or to be acknowledged."""
        return not self._control and (self._reports is None or self._reports.settled)


def _fitting(waiting: deque[InstanceReport]) -> list[InstanceReport]:
    """As many as fit one frame, always at least one."""
    batch: list[InstanceReport] = []
    size = 0
    while waiting:
        size += plain_size(_clipped(waiting[0]))
        if batch and size > BATCH_BYTES:
            break
        batch.append(waiting.popleft())
    return batch


def _clipped(report: InstanceReport) -> InstanceReport:
    """An engine's error text may be of any length, a frame not."""
    reason = report.reason
    if reason is None or len(reason.message) <= _MESSAGE_CHARACTERS:
        return report
    shorter = msgspec.structs.replace(reason, message=reason.message[: _MESSAGE_CHARACTERS - 1] + "…")
    return msgspec.structs.replace(report, reason=shorter)


def _after_gap(chunk: LogChunk, lines: int, size: int) -> LogChunk:
    return msgspec.structs.replace(chunk, dropped=chunk.dropped + lines, dropped_bytes=chunk.dropped_bytes + size)


def _weight(frame: LogChunk | LogEnd) -> int:
    """Bytes in memory, roughly: a line costs more than its text."""
    return 64 + (sum(len(line.text) + 96 for line in frame.lines) if isinstance(frame, LogChunk) else 0)
