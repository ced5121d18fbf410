"""Serving log streams: each reader's subscription is one task that reads the engine and hands over chunks as credit allows.

What a reader asked to see of the past waits for its credit: it rests on the disk, and nothing is lost by reading it later. What
is written while the reader follows does not wait: it is dropped, oldest first, and counted, so that a slow reader of a flood
sees the present. Between two handfuls of lines everything else in the agent gets its turn.

A followed stream outlives the attempts of its instance: the node starts the same engine container again and the log goes on.
It ends when the engine container is gone.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import structlog

from agent.core.faults import RuntimeFault
from agent.logs.backlog import Backlog
from shared.kit.wakeup import Wakeup
from shared.wire.frames import LogCancel, LogChunk, LogCredit, LogEnd, LogLine, LogSubscribe
from shared.wire.positions import Gate, Position

log = structlog.get_logger()

MAX_STREAMS = 512
"""A reader of a whole organisation has one for each instance here; what all of them may hold is bounded by `backlog`."""
_TURN_LINES = 256
"""Lines between two yields to the event loop: about a millisecond."""
_TURN_BYTES = 128 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0
"""Seconds between looks at an engine container that does not run, or an engine that does not answer."""

Emit = Callable[[LogChunk | LogEnd], None]


class LogSource(Protocol):
    """The part of a Runtime that logs are read from."""

    def logs(
        self, engine_id: str, *, tail: int | None, since: float | None, until: float | None, follow: bool
    ) -> AsyncGenerator[LogLine, None]: ...


class LogStreams:
    """`resolve`: the engine container of an instance, None when it has none. `emit` must not block; it is never called for a
    stream after its LogEnd or its cancellation."""

    def __init__(
        self,
        source: LogSource,
        resolve: Callable[[str], str | None],
        emit: Emit,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._resolve = resolve
        self._emit = emit
        self._wall = wall
        self._streams: dict[str, _Stream] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def subscribe(self, asked: LogSubscribe) -> None:
        """A second subscription under the same id replaces the first."""
        self._end(asked.stream_id)
        if len(self._streams) >= MAX_STREAMS:
            self._emit(LogEnd(asked.stream_id, f"this node already serves {MAX_STREAMS} log streams"))
            return
        stream = _Stream(asked, self._source, self._resolve, self._emit, self._wall)
        self._streams[asked.stream_id] = stream
        stream.task = asyncio.create_task(self._serve(stream), name=f"log stream {asked.stream_id}")

    def credit(self, granted: LogCredit) -> None:
        stream = self._streams.get(granted.stream_id)
        if stream is not None:
            stream.grant(granted.credit)

    def cancel(self, cancelled: LogCancel) -> None:
        self._end(cancelled.stream_id)

    def cancel_all(self) -> None:
        for stream_id in list(self._streams):
            self._end(stream_id)

    async def close(self) -> None:
        """Returns when nothing of it runs any more."""
        self.cancel_all()
        if self._ending:
            await asyncio.wait(self._ending)

    def _end(self, stream_id: str) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and stream.task is not None:
            stream.cancelled = True
            stream.task.cancel()
            self._ending.add(stream.task)
            stream.task.add_done_callback(self._ending.discard)

    async def _serve(self, stream: "_Stream") -> None:
        error = ""
        try:
            await stream.run()
        except RuntimeFault as fault:
            error = fault.message
        except Exception:  # one reader's stream must not end the agent; the reader is told, and so is the log
            log.exception("a log stream broke", stream=stream.asked.stream_id, instance=stream.asked.instance_id)
            error = "the agent could not read the log"
        if self._streams.get(stream.asked.stream_id) is stream:
            del self._streams[stream.asked.stream_id]
            self._emit(LogEnd(stream.asked.stream_id, error[:2048]))


class _Stream:
    def __init__(
        self,
        asked: LogSubscribe,
        source: LogSource,
        resolve: Callable[[str], str | None],
        emit: Emit,
        wall: Callable[[], float],
    ) -> None:
        self.asked = asked
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        self._source = source
        self._resolve = resolve
        self._emit = emit
        self._backlog = Backlog(asked.stream_id, asked.credit)
        self._room = Wakeup()
        self._flush_due = False
        self._wall = wall
        self._live_from_ns = int(wall() * 1e9)
        self._position = Position()
        self._taken = 0

    def grant(self, credit: int) -> None:
        self._backlog.credit += credit
        self._flush()

    async def run(self) -> None:
        if self._resolve(self.asked.instance_id) is None:
            raise RuntimeFault("", "the instance has no engine container on this node", temporary=False)
        pause = _FIRST_PAUSE
        while (engine_id := self._resolve(self.asked.instance_id)) is not None:
            before = self._taken
            try:
                await self._read(engine_id)
            except RuntimeFault as fault:
                if not (self.asked.follow and fault.temporary):
                    raise
            if not self.asked.follow or (self.asked.until is not None and self._wall() >= self.asked.until):
                break
            pause = _FIRST_PAUSE if self._taken != before else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)
        await self._drain()

    async def _read(self, engine_id: str) -> None:
        """One pass over the engine's log; a later pass goes on where the one before stopped."""
        asked, since, gate = self.asked, self._position.since(), Gate(self._position)
        tail, since = (asked.tail, asked.since) if since is None else (None, since)
        lines = self._source.logs(engine_id, tail=tail, since=since, until=asked.until, follow=asked.follow)
        turn_lines = turn_bytes = 0
        async with aclosing(lines):
            async for line in lines:
                if not gate.admits(line.at_ns, line.stream, line.text):
                    continue
                await self._take(line)
                turn_lines += 1
                turn_bytes += len(line.text)
                if turn_lines >= _TURN_LINES or turn_bytes >= _TURN_BYTES:
                    turn_lines = turn_bytes = 0
                    await asyncio.sleep(0)

    async def _take(self, line: LogLine) -> None:
        waits = not self.asked.follow or line.at_ns < self._live_from_ns
        while waits and self._backlog.full:
            await self._room.wait()
        self._position.passed(line.at_ns, line.stream, line.text)
        self._taken += 1
        self._backlog.add(line)
        if not self._flush_due:
            # When the loop comes to it the engine has nothing more for now, or had its turn: lines leave in handfuls, and a
            # single one leaves at once.
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self.cancelled:
            return
        sent = False
        while (chunk := self._backlog.take()) is not None:
            self._emit(chunk)
            sent = True
        if sent:
            self._room.wake()

    async def _drain(self) -> None:
        self._flush()
        while len(self._backlog):
            await self._room.wait()
