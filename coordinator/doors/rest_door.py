"""Resource paths: `GET /api/containers/{containerId}` is `container.one`, `DELETE` of it `container.remove`.

The path's parameters are fields of the input like any other, so a procedure does not know which door it was called through. The
others come from the query or from a JSON body. A field may come twice, as it does from clients that send whole objects back, but
then it has to be the same.

A method that a path does not have is answered with 405 and `Allow`, as HTTP demands and as generic clients expect, although the
procedures themselves never give that answer.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, Response, route
from litestar.handlers import HTTPRouteHandler

from coordinator.doors import answers, decode
from coordinator.doors.reception import Reception, Visit
from coordinator.doors.resources import METHODS, PREFIX, Resource, allow, resources
from coordinator.errors import BadRequest, MethodNotSupported
from coordinator.procedures.table import Procedure


def rest_routes(reception: Reception) -> list[HTTPRouteHandler]:
    """One route for each path, whatever the number of its methods."""
    paths: dict[str, dict[str, Resource]] = defaultdict(dict)
    for one in resources():
        paths[one.path][one.procedure.method] = one
    return [_route(reception, path, methods) for path, methods in paths.items()]


def _route(reception: Reception, path: str, methods: dict[str, Resource]) -> HTTPRouteHandler:
    template = PREFIX + path.replace("}", ":str}")

    @route(template, http_method=METHODS, include_in_schema=False)
    async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
        if request.method == "OPTIONS":
            return answers.options(allow(methods))
        resource = methods.get("GET" if request.method == "HEAD" else request.method)
        if resource is None:
            raise MethodNotSupported(f"{request.url.path} does not take {request.method}", allow(methods))
        visit = Visit(request)

        async def read(procedure: Procedure) -> msgspec.Struct:
            return await _input(request, procedure)

        outcome = await reception.run(visit, resource.procedure.name, read)
        return answers.outcome(visit, outcome)

    return answer


async def _input(request: Request[Any, Any, Any], procedure: Procedure) -> msgspec.Struct:
    path: dict[str, str] = request.path_params
    query = list(request.query_params.multi_items())
    if request.method in ("GET", "HEAD"):
        return decode.from_query(_with_path(query, path), procedure.input)
    body = await request.body()
    if not query:
        return decode.from_json(_body_with_path(body, path), procedure.input)
    if procedure.method != "DELETE":
        raise BadRequest(f"{query[0][0]}: {request.method} takes its fields in the body, not in the query")
    if body:
        raise BadRequest(f"{query[0][0]}: give the fields in the query or in the body, not in both")
    return decode.from_query(_with_path(query, path), procedure.input)


def _with_path(query: list[tuple[str, str]], path: Mapping[str, str]) -> list[tuple[str, str]]:
    rest: list[tuple[str, str]] = []
    for key, value in query:
        if key not in path:
            rest.append((key, value))
        elif value != path[key]:
            raise _differs(key, "query")
    return [*path.items(), *rest]


def _body_with_path(body: bytes, path: Mapping[str, str]) -> bytes:
    """The body with the path's fields before its own. What is not an object stays as it is, for `decode` to say what is wrong."""
    if not path or len(body) > decode.MAX_BODY_BYTES:
        return body
    try:
        given = msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
        same = {key for key in path if key in given and _same(given[key], path[key], key)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    members = msgspec.json.encode({key: value for key, value in path.items() if key not in same})[1:-1]
    inside = body.strip()[1:] if body else b"}"
    return b"{" + members + (b"," if members and given else b"") + inside


def _same(given: msgspec.Raw, wanted: str, key: str) -> bool:
    if msgspec.json.decode(given) != wanted:
        raise _differs(key, "body")
    return True


def _differs(key: str, place: str) -> BadRequest:
    return BadRequest(f"{key}: given in the path and in the {place}, and not the same")
