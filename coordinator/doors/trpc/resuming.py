"""How a subscriber that lost its connection goes on where it was.

tRPC's client says which event it got last in three ways: EventSource in a header, the link in the input, others in the query.
Here that becomes the input's `cursor`, for procedures whose events carry one; nothing behind this door hears of it otherwise.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request

from coordinator.doors.trpc import wire
from coordinator.doors.trpc.connecting import Rewritten
from coordinator.procedures.table import Procedure

CURSOR = "cursor"
START = "-"
"""The id of an event before which there is nothing to come back to. It has one all the same: a client gives its user events with an
id in another form than those without."""
_IN_INPUT = "lastEventId"
_HEADER = "last-event-id"


@dataclass(frozen=True)
class Resume:
    last_event_id: str

    def into(self, raw: bytes) -> bytes:
        """The input with it. What is no object is left to be refused by whoever decodes it."""
        try:
            given = msgspec.json.decode(raw or b"{}", type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError):  # malformed JSON and malformed UTF-8 alike
            return raw
        last = wire.encode(self.last_event_id) if self.last_event_id else bytes(given.get(_IN_INPUT, b""))
        given.pop(_IN_INPUT, None)
        if last and last != wire.encode(START):
            given[CURSOR] = msgspec.Raw(last)
        return wire.encode(given)


def is_tracked(procedure: Procedure) -> bool:
    """Whether its events carry ids that a client can resume from."""
    if procedure.event is None:
        return False
    return all(
        CURSOR in {field.encode_name for field in msgspec.structs.fields(kind)}
        for kind in (procedure.event, procedure.input)
    )


def read(request: Request[Any, Any, Any], procedure: Procedure) -> Resume | None:
    if not is_tracked(procedure):
        return None
    query = request.query_params
    return Resume(request.headers.get(_HEADER) or query.get(_IN_INPUT) or query.get("Last-Event-Id") or "")


def without_header(request: Request[Any, Any, Any]) -> Request[Any, Any, Any]:
    return Rewritten(request, (pair for pair in request.headers.multi_items() if pair[0] != _HEADER))


def event_id(event: msgspec.Struct) -> str:
    return str(getattr(event, CURSOR) or START)
