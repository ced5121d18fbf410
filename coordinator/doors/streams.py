"""A stream of events as Server-Sent Events or as newline-delimited JSON, whichever the reader accepts.

Both send something every few seconds even when nothing happens: a reader that has left is noticed, and no proxy in between
closes a quiet stream.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

import msgspec

KEEPALIVE_SECONDS = 10.0
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"

E = TypeVar("E", bound=msgspec.Struct)
_encoder = msgspec.json.Encoder()


def media_type(accept: str) -> str:
    return SSE if SSE in accept else NDJSON


async def frames(events: AsyncIterator[msgspec.Struct], media: str) -> AsyncIterator[bytes]:
    """Encoded events. Closing this iterator closes `events`, which ends the subscription behind it."""
    keepalive = b": keepalive\n\n" if media == SSE else b"\n"
    async with contextlib.aclosing(paced(events)) as beats:
        async for event in beats:
            yield keepalive if event is None else _frame(event, media)


async def paced(events: AsyncIterator[E]) -> AsyncGenerator[E | None, None]:
    """The events, and None whenever there was none for a while. Closing this iterator closes `events`."""
    pending: asyncio.Task[E] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({pending}, timeout=KEEPALIVE_SECONDS)
            if not done:
                yield None
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            finally:
                pending = None
            yield event
    finally:
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        if hasattr(events, "aclose"):
            await events.aclose()


def _frame(event: msgspec.Struct, media: str) -> bytes:
    """An event with a `cursor` can be come back to: a browser does so by itself, with the header `Last-Event-ID`."""
    body = _encoder.encode(event)
    if media != SSE:
        return body + b"\n"
    place = getattr(event, "cursor", "")
    return b"id: %b\ndata: %b\n\n" % (place.encode(), body) if place else b"data: %b\n\n" % body
