"""`/api/trpc/<router>.<procedure>`, or several of them with commas between: the route, and which framing answers."""

from collections.abc import AsyncIterator
from typing import Any, assert_never

from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Stream as StreamResponse

from coordinator.doors import streams
from coordinator.doors.reception import Reception, Visit
from coordinator.doors.trpc import asking, batches, connecting, resuming, subscribing, wire
from coordinator.doors.trpc.asking import Asked
from coordinator.doors.trpc.calls import Answer, Calls, failure
from coordinator.doors.trpc.wire import Refusal
from coordinator.procedures.table import TABLE

MAX_REFUSED = 1024
"""Calls of one refused request that are told so one by one."""
_JSON = "application/json"
_VARY = {"Vary": "trpc-accept, trpc-batch-mode, accept"}
_STREAMED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def trpc_route(reception: Reception) -> HTTPRouteHandler:
    @route(
        "/api/trpc/{path:path}",
        http_method=["GET", "POST", "PUT", "PATCH", "DELETE"],
        include_in_schema=False,
    )
    async def answer(request: Request[Any, Any, Any], path: FromPath[str]) -> Response[Any]:
        visit = Visit(request)
        try:
            visit.request = connecting.with_token(request)
            asked = asking.read(request, path.removeprefix("/"))
        except Refusal as refusal:
            return _refused(visit, refusal, path)
        match asked.style:
            case "single":
                return await _single(Calls(reception, visit, asked), visit)
            case "batch":
                return await _batch(Calls(reception, visit, asked), visit)
            case "json lines":
                return await _streamed(Calls(reception, visit, asked), visit, batches.json_lines)
            case "object lines":
                return await _streamed(Calls(reception, visit, asked), visit, batches.object_lines)
            case "events":
                return await _subscription(reception, visit, asked)
            case _:
                assert_never(asked.style)

    return answer


async def _single(calls: Calls, visit: Visit) -> Response[bytes]:
    (task,) = calls.start()
    return _whole(visit, await task)


async def _batch(calls: Calls, visit: Visit) -> Response[bytes]:
    answers = [await task for task in calls.start()]
    headers = answers[0].headers if len(answers) == 1 else {}
    status = wire.status_of(answer.status for answer in answers)
    return _whole(visit, Answer(status, batches.whole(answers), headers))


async def _streamed(calls: Calls, visit: Visit, framing: batches.Framing) -> Response[Any]:
    tasks = calls.start()
    await batches.first(tasks)
    return _stream(visit, framing(tasks), _JSON)


async def _subscription(reception: Reception, visit: Visit, asked: Asked) -> Response[Any]:
    """Whatever comes of it, the client is to hear it as an event: the status is 200."""
    (path,) = asked.paths

    def tell(error: Exception) -> bytes:
        return failure(visit, error).shape(path)

    try:
        events = await subscribing.subscribe(reception, visit, asked)
    except Exception as error:
        return _stream(visit, subscribing.refusal(tell(error)), streams.SSE)
    tracked = resuming.is_tracked(TABLE[path])
    frames = subscribing.frames(events, tracked, tell, lambda: not reception.services.broker.closed)
    return _stream(visit, frames, streams.SSE)


def _refused(visit: Visit, refusal: Refusal, path: str) -> Response[Any]:
    """Of the whole request. Most links give a lone error to every call; version 10's stream link does not, and who subscribes hears
    of it only as an event."""
    failed = failure(visit, refusal)
    answer = failed.answer(None)
    if asking.wants_events(visit.request):
        return _stream(visit, subscribing.refusal(failed.shape(None)), streams.SSE)
    if asking.wants_object_lines(visit.request):
        calls = min(path.count(",") + 1, MAX_REFUSED)
        answer = Answer(answer.status, batches.object_lines_of([answer] * calls), answer.headers)
    return _whole(visit, answer)


def _whole(visit: Visit, answer: Answer) -> Response[bytes]:
    headers = {**visit.headers, **answer.headers, **_VARY}
    return Response(answer.body, status_code=answer.status, media_type=_JSON, headers=headers)


def _stream(visit: Visit, frames: AsyncIterator[bytes], media: str) -> Response[Any]:
    headers = {**visit.headers, **_VARY, **_STREAMED}
    return StreamResponse(frames, status_code=200, media_type=media, headers=headers)
