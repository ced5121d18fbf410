"""`/api/<router>.<procedure>`: the documented method with a query string or a JSON body; POST with a JSON body always works."""

from typing import Any

import msgspec
from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from coordinator.doors import answers, decode
from coordinator.doors.reception import Reception, Visit
from coordinator.doors.resources import METHODS, allow_of
from coordinator.errors import MethodNotSupported
from coordinator.procedures.table import TABLE, Procedure


def procedure_route(reception: Reception) -> HTTPRouteHandler:
    @route("/api/{name:str}", http_method=METHODS, include_in_schema=False)
    async def answer(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[Any]:
        if request.method == "OPTIONS" and name in TABLE:
            return answers.options(allow_of(TABLE[name]))
        visit = Visit(request)

        async def read(procedure: Procedure) -> msgspec.Struct:
            return await _input(request, procedure)

        outcome = await reception.run(visit, name, read)
        return answers.outcome(visit, outcome)

    return answer


async def _input(request: Request[Any, Any, Any], procedure: Procedure) -> msgspec.Struct:
    method = "GET" if request.method == "HEAD" else request.method
    if method not in (procedure.method, "POST"):
        raise MethodNotSupported(
            f"{procedure.name} is called with {procedure.method} or POST, not {method}",
            allow_of(procedure),
        )
    if method == "GET":
        return decode.from_query(list(request.query_params.multi_items()), procedure.input)
    return decode.from_json(await request.body(), procedure.input)
