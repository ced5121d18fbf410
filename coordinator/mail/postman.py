"""Takes letters and keeps trying until the server has them, or it is clear that it never will.

The queue is in memory and bounded. Letters carry links that open something, of which the database keeps only hashes: to write them
to disk would undo that. What is lost with the process is told to whoever waits for it, at the next start, and can be sent again.
"""

import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Protocol

import structlog

from coordinator.mail.letters import Letter, write
from coordinator.mail.relay import DeliveryError
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock
from shared.kit.wakeup import Wakeup

CAPACITY = 1000
PATIENCE_SECONDS = 6 * 3600.0
"""A letter that no server took for so long is given up."""

log = structlog.get_logger("mail")

Told = Callable[[str], Awaitable[None]]
"""Called once for each letter: `sent`, or `failed: …` with the reason."""


class Mailer(Protocol):
    sender: str

    async def deliver(self, message: EmailMessage) -> None: ...


@dataclass(order=True)
class _Waiting:
    due: float
    place: int
    letter: Letter = field(compare=False)
    told: Told = field(compare=False)
    until: float = field(compare=False)
    backoff: Backoff = field(compare=False)


class Postman:
    def __init__(self, mailer: Mailer, clock: Clock, *, first_delay: float = 5.0) -> None:
        self._mailer = mailer
        self._clock = clock
        self._first_delay = first_delay
        self._queue: list[_Waiting] = []
        self._taken = 0
        self._wakeup = Wakeup()

    def post(self, letter: Letter, told: Told) -> bool:
        """False when too many letters wait already: then nothing was taken."""
        if len(self._queue) >= CAPACITY:
            return False
        now = self._clock.monotonic()
        self._taken += 1
        backoff = Backoff(base=self._first_delay, ceiling=600.0)
        heapq.heappush(self._queue, _Waiting(now, self._taken, letter, told, now + PATIENCE_SECONDS, backoff))
        self._wakeup.wake()
        return True

    async def run(self) -> None:
        """Delivers until cancelled."""
        while True:
            delay = self._queue[0].due - self._clock.monotonic() if self._queue else None
            if delay is None or delay > 0:
                await self._wakeup.wait(delay)
                continue
            await self._try(heapq.heappop(self._queue))

    async def _try(self, waiting: _Waiting) -> None:
        """A letter that fails in a way nobody thought of must not keep the others from going out."""
        outcome = "sent"
        try:
            await self._mailer.deliver(write(waiting.letter, self._mailer.sender, self._clock.wall()))
        except DeliveryError as error:
            if not error.final and self._again(waiting):
                log.warning("a mail waits for another try", reason=str(error))
                return
            log.error("a mail cannot be delivered", reason=str(error))
            outcome = f"failed: {error}"
        except Exception:
            log.exception("a mail cannot be sent")
            outcome = "failed: the coordinator's log has the details"
        await self._tell(waiting, outcome)

    async def _tell(self, waiting: _Waiting, outcome: str) -> None:
        try:
            await waiting.told(outcome)
        except Exception:  # the letter is gone out, or is not: what cannot be noted down changes neither
            log.exception("what became of a mail cannot be noted down", outcome=outcome)

    def _again(self, waiting: _Waiting) -> bool:
        waiting.due = self._clock.monotonic() + waiting.backoff.next_delay()
        if waiting.due > waiting.until:
            return False
        heapq.heappush(self._queue, waiting)
        return True
