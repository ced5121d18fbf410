"""`/api/<router>.<procedure>`: the documented method with a query string or a JSON body; POST with a JSON body always works."""

from typing import Any

import msgspec
from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from coordinator.doors import answers, decode
from coordinator.doors.reception import Reception, Visit
from coordinator.errors import BadRequest
from coordinator.procedures.table import Procedure


def procedure_route(reception: Reception) -> HTTPRouteHandler:
    @route("/api/{name:str}", http_method=["GET", "POST", "PATCH", "DELETE"], include_in_schema=False)
    async def answer(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[Any]:
        visit = Visit(request)

        async def read(procedure: Procedure) -> msgspec.Struct:
            return await _input(request, procedure)

        outcome = await reception.run(visit, name, read)
        return answers.outcome(visit, outcome)

    return answer


async def _input(request: Request[Any, Any, Any], procedure: Procedure) -> msgspec.Struct:
    method = request.method
    if method not in (procedure.method, "POST"):
        raise BadRequest(f"{procedure.name} is called with {procedure.method} or POST, not {method}")
    if method == "GET":
        return decode.from_query(list(request.query_params.multi_items()), procedure.input)
    return decode.from_json(await request.body(), procedure.input)
