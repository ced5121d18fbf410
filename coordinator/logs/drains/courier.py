"""One drain: takes the lines that are for it, buffers them on the disk, and carries them to the other side.

Carrying knows nothing of reading: the buffer is between them, so a dead endpoint costs the other drains and all readers nothing.
A batch is carried until the other side has it or refuses it for good; after a failure with full jitter, from one second to a
minute, or as long as the other side asks.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Literal

import structlog

from coordinator.logs.drains.lines import NOTICE, Entry, Line, Origin, pack, unpack
from coordinator.logs.drains.spool import Fate, Spool, Taken
from coordinator.logs.drains.targets import DeliveryError, Target
from coordinator.store.log_drains import DrainFilter, LogDrainRecord
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock
from shared.kit.wakeup import Wakeup

log = structlog.get_logger("drains")

BATCH_BYTES = 512 * 1024
"""Of buffered blocks in one delivery; the last may go beyond."""
FAREWELL_SECONDS = 3.0
"""What a delivery under way gets to finish when its drain stops."""
LOOK_SECONDS = 5.0
_MESSAGE = 500

DrainState = Literal["disabled", "delivering", "failing"]


@dataclass(frozen=True)
class DrainStatus:
    """Lines since the drain was made. `dropped`: those that never arrive, wherever on the way they were lost."""

    state: DrainState = "delivering"
    delivered: int = 0
    dropped: int = 0
    buffered: int = 0
    last_error: str | None = None
    last_error_at: float | None = None
    last_delivered_at: float | None = None


class Courier:
    """`target` None: it cannot be reached at all, for the reason in `fail`."""

    def __init__(
        self, record: LogDrainRecord, spool: Spool, target: Target | None, clock: Clock, backoff: Backoff | None = None
    ) -> None:
        self.record = record
        self.spool = spool
        self._target = target
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._pending: list[Entry] = []
        self._wakeup = Wakeup()
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = False
        self._failing = False
        self._error: tuple[str, float] | None = None
        self.pending_bytes = 0

    @property
    def status(self) -> DrainStatus:
        state, (message, at) = self.spool.state, self._error or (None, None)
        on: DrainState = "failing" if self._failing else "delivering"
        return DrainStatus(
            state=on if self.record.enabled else "disabled",
            delivered=state.delivered,
            dropped=state.dropped,
            buffered=self.spool.buffered + len(self._pending),
            last_error=message,
            last_error_at=at,
            last_delivered_at=state.delivered_at,
        )

    def fail(self, message: str) -> None:
        self._failing = True
        self._error = message[:_MESSAGE], self._clock.wall()

    def wants(self, origin: Origin) -> bool:
        return matches(self.record.config.filter, origin)

    def offer(self, origin: Origin, line: Line) -> None:
        """Take the line, if it is for this drain, until the next `store`."""
        search = self.record.config.filter.search
        if not self.wants(origin) or (search and line.stream != NOTICE and search not in line.text):
            return
        self._pending.append((origin, line))
        self.pending_bytes += len(line.text) + 32

    def take_pending(self) -> list[Entry]:
        taken, self._pending, self.pending_bytes = self._pending, [], 0
        return taken

    async def store(self, entries: list[Entry]) -> None:
        """Into the buffer. What cannot even be written there is lost, and said to be: nobody waits for this drain's disk."""
        if not entries:
            return
        try:
            await asyncio.to_thread(self._append, entries)
        except OSError as error:
            await asyncio.to_thread(self.spool.lost, len(entries))
            self.fail(f"the buffer cannot be written: {error.strerror or error}")
        self._wakeup.wake()

    async def run(self) -> None:
        """Carry until cancelled; whoever cancels calls `farewell` first."""
        assert self._target is not None
        while not self._leaving:
            taken = await asyncio.to_thread(self.spool.take, BATCH_BYTES)
            if taken is None:
                # Not for ever: what the courier before this one was handed last has woken that one.
                await self._wakeup.wait(LOOK_SECONDS)
                continue
            self._idle.clear()
            try:
                fate = await self._carry(taken, self._target)
                await asyncio.to_thread(self.spool.settle, fate, self._clock.wall())
            finally:
                self._idle.set()

    async def farewell(self, task: "asyncio.Task[None]") -> None:
        """End `run`, after what is under way when that is quick: a delivery cut off is made again."""
        self._leaving = True
        if not self._failing:
            idle = asyncio.create_task(self._idle.wait())
            await asyncio.wait({idle, task}, timeout=FAREWELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        """Strictly after `run` ended. The buffer stays."""
        if self._target is not None:
            await self._target.close()

    def _append(self, entries: list[Entry]) -> None:
        self.spool.append(pack(entries), len(entries), sum(line.dropped for _, line in entries))

    async def _carry(self, taken: Taken, target: Target) -> Fate:
        entries = await asyncio.to_thread(_unpack, taken)
        missing = self.spool.state.untold
        if missing:
            entries.insert(0, self._notice(missing))
        parts, arrived, told = deque([entries]), 0, 0
        while parts:
            part = parts.popleft()
            try:
                refused = await target.send(part)
            except DeliveryError as error:
                parts.extendleft(reversed(await self._after(error, part)))
                continue
            except Exception as error:  # a defect in making the batch: it would come back with the same one for ever
                log.exception("a batch of log lines cannot be sent", drain=self.record.id)
                self.fail(f"a batch cannot be sent: {type(error).__name__}")
                continue
            self._arrived(refused.message if refused.lines else "")
            arrived += max(0, sum(1 for origin, _ in part if origin.instance_id) - refused.lines)
            if missing and not part[0][0].instance_id:
                told = missing
        return Fate(arrived, taken.lines - arrived, told)

    async def _after(self, error: DeliveryError, part: list[Entry]) -> list[list[Entry]]:
        """What is to be sent next of a part that was not taken; nothing when it is given up."""
        if error.too_large and len(part) > 1:
            half = len(part) // 2
            return [part[:half], part[half:]]
        self.fail(str(error))
        if error.hopeless or error.too_large:
            log.warning("a drain refuses lines", drain=self.record.id, lines=len(part), reason=str(error))
            return []
        await asyncio.sleep(max(self._backoff.next_delay(), error.retry_after or 0.0))
        return [part]

    def _arrived(self, complaint: str) -> None:
        if complaint:
            self.fail(complaint)
        self._failing = False
        self._backoff.settled(self._backoff.healthy_after)

    def _notice(self, lines: int) -> Entry:
        text = f"{lines} lines were dropped: the other side of the drain {self.record.name} was slower than they came"
        at_ns = int(self._clock.wall() * 1e9)
        return Origin(self.record.organization_id), Line(at_ns, 0, NOTICE, text, lines)


def matches(wanted: DrainFilter, origin: Origin) -> bool:
    return (
        wanted.project_id in (None, origin.project_id)
        and wanted.environment_id in (None, origin.environment_id)
        and wanted.container_id in (None, origin.container_id)
    )


def _unpack(taken: Taken) -> list[Entry]:
    """Blocks whose checksum is right and that do not decode are of another version: their lines do not arrive, and are counted."""
    entries: list[Entry] = []
    for payload in taken.payloads:
        try:
            entries += unpack(payload)
        except ValueError as error:
            log.warning("a buffered block of log lines cannot be read", reason=str(error))
    return entries
