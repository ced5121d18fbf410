"""Errors as this door's clients read them: `{"statusCode", "error", "message"}`, `error` being the status' own phrase.

They begin with the path, not with the route: what is asked for and not there at all, or by a method that is not, never reaches a
route, and is answered in the same words.
"""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response

from coordinator.doors import answers
from coordinator.doors.resources import allow
from coordinator.doors.tenants.table import ROUTES
from coordinator.errors import Code, MethodNotSupported

_PLACES = ("tenants", "account", "auth")
"""First segments of paths that are this door's."""
_NOT_OURS = "/auth/oidc/"
"""Browsers on their way to a session pass there, by another door."""


def concerns(path: str) -> bool:
    return path.removeprefix("/").partition("/")[0] in _PLACES and not path.startswith(_NOT_OURS)


def failure(code: Code, message: str) -> Response[bytes]:
    status = HTTPStatus(answers.STATUS[code])
    said = {"statusCode": status.value, "error": status.phrase, "message": message}
    body = msgspec.json.encode(said)
    headers = {"WWW-Authenticate": "Bearer"} if code == "UNAUTHORIZED" else {}
    return Response(body, status_code=status.value, media_type="application/json", headers=headers)


def from_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    path = request.url.path
    response = failure(*answers.told(path, error))
    if response.status_code == 405:
        allowed = error.allow if isinstance(error, MethodNotSupported) else allowed_at(path)
        response.headers["Allow"] = allowed
    return response


def allowed_at(path: str) -> str:
    """`Allow` of a path of this door."""
    given = path.split("/")
    return allow({route.method for route in ROUTES if _matches(route.path.split("/"), given)})


def _matches(wanted: list[str], given: list[str]) -> bool:
    return len(wanted) == len(given) and all(
        part == value or (part.startswith("{") and value) for part, value in zip(wanted, given, strict=True)
    )
