"""Streams end when their reader may no longer read them.

Who may call was decided when the stream began; it is decided again, from the credential on, when anything about the caller's rights
changes, and now and then, because credentials expire without anybody changing anything. A stream ends without a word: whoever asks
again is told why. While the database cannot answer nothing is known to have changed, and the stream goes on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog

from coordinator.errors import DomainError, Unavailable
from coordinator.procedures.table import Stream
from coordinator.store.changes import Changes, Subscription
from coordinator.store.errors import StoreError

RECHECK_SECONDS = 30.0

log = structlog.get_logger("doors")

E = TypeVar("E", bound=msgspec.Struct)
Check = Callable[[], Awaitable[None]]
"""Raises DomainError once the stream is its reader's no more."""


def while_allowed(stream: Stream[E], changes: Changes, user_id: str, check: Check) -> Stream[E]:
    return Stream(_watched(stream.events, changes, user_id, check))


async def _watched(events: AsyncIterator[E], changes: Changes, user_id: str, check: Check) -> AsyncIterator[E]:
    """STRICTLY subscribed before the first check: a change between the caller's admission and now is seen by one or the other."""
    subscription = changes.subscribe("access")
    watching = asyncio.create_task(_until_refused(subscription, user_id, check), name="stream's permission")
    following: asyncio.Future[E] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(events))
            await asyncio.wait({following, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
                return
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        subscription.close()
        await _end(watching)
        if following is not None:
            await _end(following)
        if isinstance(events, AsyncGenerator):
            await events.aclose()


async def _until_refused(subscription: Subscription, user_id: str, check: Check) -> None:
    while True:
        try:
            await check()
        except (StoreError, Unavailable) as error:
            log.warning("a stream's permission cannot be checked", reason=str(error))
        except DomainError as error:
            log.info("a stream ends: its reader may no longer read it", user=user_id, reason=error.message)
            return
        concerned = False
        while not concerned:
            entries = await subscription.take(RECHECK_SECONDS)
            concerned = not entries or ("access", user_id) in entries


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
        await task
