"""How every loop lives: it never ends by itself, and whatever goes wrong it starts over from a full look.

A turn waits for a reason to look, looks, and acts. When one fails, what it was woken for is forgotten with it, so the next is told
to look at everything: loops are level-triggered and lose nothing by that. Failures are expected only of the database, which may
be away for a while; anything else is a defect, is logged with its traceback, and must not take the other loops down.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from coordinator.store.errors import StoreError
from shared.kit.backoff import Backoff
from shared.kit.clock import Clock, SystemClock

Turn = Callable[[bool], Awaitable[None]]
"""`turn(afresh)`: `afresh` is True for the first turn and after a failure: look at everything, without waiting."""

log = structlog.get_logger()


async def keep(name: str, turn: Turn, *, backoff: Backoff | None = None, clock: Clock | None = None) -> None:
    """Take turns until cancelled."""
    backoff = backoff or Backoff(base=0.5, ceiling=30.0, healthy_after=30.0)
    clock = clock or SystemClock()
    afresh, began = True, clock.monotonic()
    while True:
        try:
            await turn(afresh)
        except StoreError as error:
            log.warning("a loop cannot reach the database", loop=name, reason=str(error))
        except Exception:  # a defect in one loop must not end the others; it is logged in full, and tried again
            log.exception("a loop failed", loop=name)
        else:
            afresh = False
            continue
        afresh = True
        backoff.settled(clock.monotonic() - began)
        await asyncio.sleep(backoff.next_delay())
        began = clock.monotonic()
