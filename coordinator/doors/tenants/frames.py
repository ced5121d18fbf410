"""Streams as this door's clients read them: Server-Sent Events without names, each a JSON object whose `type` says what it is.

`log` is a line, `status` is what the deployment's status is now, `done` says that nothing more will come: whoever reads it closes
the connection. A stream that ends without `done` was interrupted; the reader comes back with the id of its last frame, as a browser
does by itself.
"""

import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from coordinator.doors import streams

KEEPALIVE = b": keepalive\n\n"
_encoder = msgspec.json.Encoder()


class Frame(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """What is sent as `data`."""


class EventFrame(Frame, frozen=True, kw_only=True, tag="log"):
    """An event of a deployment. `seq` counts them."""

    seq: int
    ts: str
    line: str


class LineFrame(Frame, frozen=True, kw_only=True, tag="log"):
    """A line that an instance wrote, or what Argosy has to say about it in the stream `argosy`."""

    cursor: str
    ts: str
    instance_id: str
    node_id: str
    stream: str
    line: str
    dropped: int


class StatusFrame(Frame, frozen=True, kw_only=True, tag="status"):
    status: str


class DoneFrame(Frame, frozen=True, kw_only=True, tag="done"):
    """Both null for logs, which have neither."""

    status: str | None = None
    error: str | None = None


Place = str
"""Where a reader that got a frame goes on; empty for nowhere yet."""
Shape = Callable[[msgspec.Struct], tuple[Frame, Place]]


async def encoded(
    events: AsyncIterator[msgspec.Struct], shape: Shape, ends: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """`ends`: whether an end of the events is one for the reader too, where they do not say so themselves. Closing this iterator
    closes `events`."""
    done = False
    async with contextlib.aclosing(streams.paced(events)) as beats:
        async for event in beats:
            if event is None:
                yield KEEPALIVE
                continue
            frame, place = shape(event)
            done = isinstance(frame, DoneFrame)
            yield _bytes(frame, place)
    if not done and ends():
        yield _bytes(DoneFrame(), "")


def _bytes(frame: Frame, place: Place) -> bytes:
    head = b"id: %b\n" % place.encode() if place else b""
    return b"%bdata: %b\n\n" % (head, _encoder.encode(frame))
