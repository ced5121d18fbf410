"""The routes of this door: every one runs its procedure through the reception, as all doors do, and shows the answer as it is.

Pages have numbers here, while the procedures go on by cursor: whoever asks for a later page pays a call for each few hundred rows
before it. So numbers are for looking around; whoever wants everything asks the other doors.
"""

from collections import defaultdict
from typing import Any

import msgspec
from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream as StreamResponse

from coordinator.doors import answers, conditions, streams
from coordinator.doors.outcome import Outcome
from coordinator.doors.reception import Reception
from coordinator.doors.resources import METHODS, allow
from coordinator.doors.tenants import frames
from coordinator.doors.tenants.asking import Asking
from coordinator.doors.tenants.inputs import Paged
from coordinator.doors.tenants.table import ROUTES, Fields, Route
from coordinator.errors import MethodNotSupported
from coordinator.procedures.table import Stream
from shared.spec.container import Part

PAGE = 50
STRIDE = 200
"""The most that a list procedure gives at a time."""
NEXT_PAGE = "X-Next-Page"
_encoder = msgspec.json.Encoder()


def tenants_routes(reception: Reception) -> list[HTTPRouteHandler]:
    """One route for each path, whatever the number of its methods."""
    paths: dict[str, dict[str, Route]] = defaultdict(dict)
    for one in ROUTES:
        assert one.method not in paths[one.path], f"{one.method} {one.path} is there twice"
        paths[one.path][one.method] = one
    return [_route(reception, path, methods) for path, methods in paths.items()]


def _route(reception: Reception, path: str, methods: dict[str, Route]) -> HTTPRouteHandler:
    @route(path.replace("}", ":str}"), http_method=METHODS, include_in_schema=False)
    async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
        if request.method == "OPTIONS":
            return answers.options(allow(methods))
        found = methods.get("GET" if request.method == "HEAD" else request.method)
        if found is None:
            raise MethodNotSupported(f"{request.url.path} does not take {request.method}", allow(methods))
        asking = Asking(reception, request, found)
        match found.form:
            case "page":
                return await _page(asking)
            case "stream":
                return await _stream(reception, asking)
            case "one":
                return _one(asking, await asking.run())

    return answer


def _one(asking: Asking, done: Outcome) -> Response[Any]:
    headers = {**asking.visit.headers, **done.headers}
    if done.status == 204:
        return Response(b"", status_code=204, headers=headers)
    body = _encoder.encode(_shown(asking, done.output))
    if done.state is not None:
        headers["ETag"] = conditions.etag(done.state, body)
        asked = asking.route.method == "GET"
        if asked and not conditions.has_changed(asking.visit.header("if-none-match"), headers["ETag"]):
            return Response(b"", status_code=304, headers=headers)
    return Response(body, status_code=done.status, media_type="application/json", headers=headers)


async def _page(asking: Asking) -> Response[Any]:
    """Goes through what comes before the page: only the procedure knows where a page ends. A filter may leave its answers short, so
    what counts is what came."""
    rows: list[Any] = []
    cursor: str | None = None

    def more(own: Part) -> Fields:
        wanted = min(STRIDE, _number(own) * PAGE - len(rows))
        return {"limit": wanted} if cursor is None else {"limit": wanted, "cursor": cursor}

    while True:
        done = await asking.run(more)
        rows += done.output
        cursor = done.headers.get("X-Next-Cursor")
        number = _number(asking.own)
        if cursor is None or len(rows) >= number * PAGE:
            break
    shown = [_shown(asking, row) for row in rows[(number - 1) * PAGE :]]
    headers = {} if cursor is None else {NEXT_PAGE: str(number + 1)}
    body, told = _encoder.encode(shown), asking.visit.headers | headers
    return Response(body, status_code=200, media_type="application/json", headers=told)


def _number(own: Part | None) -> int:
    assert isinstance(own, Paged), "a page's input says which"
    return own.page


async def _stream(reception: Reception, asking: Asking) -> Response[Any]:
    done = await asking.run()
    assert isinstance(done.output, Stream), "its route asks for events"
    headers = asking.visit.headers | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if asking.request.method == "HEAD":  # no body: the events, not begun, are dropped, and are counted no more
        return Response(b"", status_code=200, media_type=streams.SSE, headers=headers)
    broker = reception.services.broker
    says_its_end = asking.route.procedure == "container.deploymentEvents"
    body = frames.encoded(
        done.output.events,
        lambda event: _shown(asking, event),
        lambda: not (says_its_end or broker.closed),
    )
    return StreamResponse(body, status_code=200, media_type=streams.SSE, headers=headers)


def _shown(asking: Asking, output: Any) -> Any:
    return output if asking.route.answer is None else asking.route.answer(output, asking.own)
