"""A subscription as tRPC's Server-Sent Events: `connected`, the events, `ping` while nothing happens, and `return` at the end.

An error is an event too (`serialized-error`), because EventSource shows its user neither the status nor the body of a refused
request. Without `return` the client connects again: so it does when the coordinator stops. Where the event type has a `cursor` and
the input takes one, each event carries it as its id and a client that comes back goes on behind the last it got; where not, it
begins anew with the same input.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from coordinator.doors import streams
from coordinator.doors.reception import Reception, Visit
from coordinator.doors.trpc import resuming, wire
from coordinator.doors.trpc.asking import Asked
from coordinator.doors.trpc.calls import Calls
from coordinator.doors.trpc.wire import Refusal
from coordinator.procedures.table import TABLE, Stream

INACTIVITY_MS = int(3 * streams.KEEPALIVE_SECONDS * 1000)
"""What the client is told: after this long without even a ping the connection is dead and it makes another."""

_CONNECTED = b"event: connected\ndata: " + wire.encode({"reconnectAfterInactivityMs": INACTIVITY_MS}) + b"\n\n"
_PING = b"event: ping\ndata: \n\n"
_RETURN = b"event: return\ndata: \n\n"


async def subscribe(reception: Reception, visit: Visit, asked: Asked) -> AsyncIterator[msgspec.Struct]:
    """The events. Raises Refusal, or what the procedure raises."""
    (path,) = asked.paths
    procedure = TABLE.get(path)
    if procedure is not None and procedure.event is None:
        raise Refusal("BAD_REQUEST", f"{path} is a {procedure.kind} without events: it cannot be subscribed to")
    resume = None if procedure is None else resuming.read(visit.request, procedure)
    visit.request = resuming.without_header(visit.request)
    outcome = await Calls(reception, visit, asked).run(0, asyncio.Event(), resume)
    if not isinstance(outcome.output, Stream):
        raise Refusal("BAD_REQUEST", f"{path}: with this input it ends: call it as a query instead of subscribing")
    return outcome.output.events


async def frames(
    events: AsyncIterator[msgspec.Struct], tracked: bool, tell: Callable[[Exception], bytes], ends: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """`tell`: an error's shape. `ends`: whether an end of the events is one for the client too. Closing this iterator closes
    `events`."""
    yield _CONNECTED
    try:
        async with contextlib.aclosing(streams.paced(events)) as beats:
            async for event in beats:
                yield _PING if event is None else _frame(event, tracked)
    except Exception as error:  # the head is out: what goes wrong from here on can only be told as an event
        yield _error(tell(error))
        return
    if ends():
        yield _RETURN


async def refusal(shape: bytes) -> AsyncIterator[bytes]:
    yield _CONNECTED
    yield _error(shape)


def _frame(event: msgspec.Struct, tracked: bool) -> bytes:
    place = b"id: " + resuming.event_id(event).encode() + b"\n" if tracked else b""
    return place + b"data: " + wire.encode(event) + b"\n\n"


def _error(shape: bytes) -> bytes:
    return b"event: serialized-error\ndata: " + shape + b"\n\n"
