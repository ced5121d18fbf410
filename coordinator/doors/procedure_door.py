"""`/api/<router>.<procedure>`: the documented method with a query string or a JSON body; POST with a JSON body always works."""

from typing import Any

import msgspec
from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Stream as StreamResponse

from coordinator.doors import answers, decode, streams
from coordinator.doors.auth import Authenticator
from coordinator.errors import BadRequest, NotFound
from coordinator.procedures.context import Context, Services
from coordinator.procedures.table import TABLE, Procedure, Stream, call


class ProcedureDoor:
    def __init__(self, services: Services, authenticator: Authenticator) -> None:
        self._services = services
        self._authenticator = authenticator

    def handler(self) -> HTTPRouteHandler:
        @route("/api/{name:str}", http_method=["GET", "POST", "PATCH", "DELETE"], include_in_schema=False)
        async def answer(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[Any]:
            return await self.answer(request, name)

        return answer

    async def answer(self, request: Request[Any, Any, Any], name: str) -> Response[Any]:
        procedure = TABLE.get(name)
        if procedure is None:
            raise NotFound(f"there is no procedure {name}")
        caller = None
        if procedure.access != "public":
            caller = await self._authenticator.caller(request.headers.get("authorization"))
        context = Context(
            services=self._services,
            caller=caller,
            address=request.client.host if request.client else "",
        )
        output = await call(procedure, context, await _input(request, procedure))
        if isinstance(output, Stream):
            return _stream(output, streams.media_type(request.headers.get("accept", "")))
        response = answers.success(output, procedure.status)
        if context.next_cursor is not None:
            response.headers["X-Next-Cursor"] = context.next_cursor
        return response


async def _input(request: Request[Any, Any, Any], procedure: Procedure) -> msgspec.Struct:
    method = request.method
    if method not in (procedure.method, "POST"):
        raise BadRequest(f"{procedure.name} is called with {procedure.method} or POST, not {method}")
    if method == "GET":
        return decode.from_query(list(request.query_params.multi_items()), procedure.input)
    return decode.from_json(await request.body(), procedure.input)


def _stream(output: Stream, media: str) -> Response[Any]:
    return StreamResponse(
        streams.frames(output.events, media),
        status_code=200,  # the route takes POST too, for which the framework's own default is 201
        media_type=media,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
