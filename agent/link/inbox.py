"""Applies what the coordinator wants, in the order it came, beside the reader.

Applying waits for a disk. Were the reader to wait with it, a slow disk would look like a silent coordinator and end the lease
in the middle of the work. The queue is bounded, so a coordinator that outruns the disk is slowed down by TCP in the end.
"""

import asyncio
from collections.abc import Callable

import structlog

from agent.journal.journal import JournalError
from agent.link.node import Book
from shared.wire.frames import AgentFrame, AssignmentAck, AssignmentDelta, AssignmentNeed, AssignmentSet

_QUEUED = 256
_DISK_SECONDS = 5.0
"""Between tries to write to a disk that refused, for example because it is full. Nothing unrecorded is acted on meanwhile."""
Answer = Callable[[AgentFrame], None]


class Inbox:
    def __init__(self, book: Book) -> None:
        self._book = book
        self._queue: asyncio.Queue[tuple[AssignmentSet | AssignmentDelta, Answer]] = asyncio.Queue(_QUEUED)
        self._awaits_set = False
        self._log = structlog.get_logger()

    async def run(self) -> None:
        while True:
            frame, answer = await self._queue.get()
            try:
                await self._apply(frame, answer)
            except JournalError as error:
                self._log.error("assignment.unrecorded", message=str(error), next_try_in=_DISK_SECONDS)
                await asyncio.sleep(_DISK_SECONDS)
                self._ask(answer)
            finally:
                self._queue.task_done()

    async def put(self, frame: AssignmentSet | AssignmentDelta, answer: Answer) -> None:
        await self._queue.put((frame, answer))

    async def restart_session(self) -> None:
        """Forget what an ended session left behind, and wait for what is being applied: the next hello states the result."""
        while not self._queue.empty():
            self._queue.get_nowait()
            self._queue.task_done()
        await self._queue.join()
        self._awaits_set = False

    async def _apply(self, frame: AssignmentSet | AssignmentDelta, answer: Answer) -> None:
        match frame:
            case AssignmentDelta() if self._awaits_set:
                return  # it was sent before the coordinator read our question
            case AssignmentDelta():
                applied = await self._book.apply_delta(frame)
            case AssignmentSet():
                await self._book.apply_set(frame)
                if not frame.final:
                    return
                applied = self._book.sequence == frame.sequence
        if applied:
            self._awaits_set = False
            answer(AssignmentAck(frame.sequence))
        else:
            self._log.info("assignment.gap", have=self._book.sequence, offered=frame.sequence)
            self._ask(answer)

    def _ask(self, answer: Answer) -> None:
        self._awaits_set = True
        answer(AssignmentNeed(self._book.sequence))
