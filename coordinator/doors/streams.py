"""A stream of events as Server-Sent Events or as newline-delimited JSON, whichever the reader accepts.

Both send something every few seconds even when nothing happens: a reader that has left is noticed, and no proxy in between
closes a quiet stream.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

KEEPALIVE_SECONDS = 10.0
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"

_encoder = msgspec.json.Encoder()


def media_type(accept: str) -> str:
    return SSE if SSE in accept else NDJSON


async def frames(events: AsyncIterator[msgspec.Struct], media: str) -> AsyncIterator[bytes]:
    """Encoded events. Closing this iterator closes `events`, which ends the subscription behind it."""
    keepalive = b": keepalive\n\n" if media == SSE else b"\n"
    pending: asyncio.Task[msgspec.Struct] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({pending}, timeout=KEEPALIVE_SECONDS)
            if not done:
                yield keepalive
                continue
            try:
                event = pending.result()
            except StopAsyncIteration:
                return
            finally:
                pending = None
            yield _frame(event, media)
    finally:
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
        if hasattr(events, "aclose"):
            await events.aclose()


def _frame(event: msgspec.Struct, media: str) -> bytes:
    body = _encoder.encode(event)
    return b"data: " + body + b"\n\n" if media == SSE else body + b"\n"
