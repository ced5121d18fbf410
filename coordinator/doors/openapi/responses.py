"""What an operation may answer besides what was asked for: the errors, with their headers, and when each can come."""

from typing import Any

from coordinator.doors.answers import STATUS
from coordinator.doors.openapi.schemas import REF, Schema
from coordinator.errors import Code
from coordinator.procedures.table import Procedure

WHEN: dict[Code, str] = {
    "BAD_REQUEST": "A field is missing, unknown, or breaks a rule; the message begins with its name.",
    "UNAUTHORIZED": "No valid credential was sent.",
    "FORBIDDEN": "The caller may see this, but not do it; the message says what that needs.",
    "NOT_FOUND": "It does not exist, or it belongs to an organisation the caller is no member of: nobody can tell which.",
    "METHOD_NOT_SUPPORTED": "The path has no such method; `Allow` names those it has.",
    "CONFLICT": "Something else is in the way: a name that is taken, a change that came first.",
    "PRECONDITION_FAILED": "What it is about is not in the state that this needs, or not the one that `If-Match` asks for.",
    "PAYLOAD_TOO_LARGE": "The body is larger than 1 MiB.",
    "TOO_MANY_REQUESTS": "The limit is used up; `Retry-After` says when to try again.",
    "INTERNAL_SERVER_ERROR": "A defect; the message has a reference to quote.",
    "SERVICE_UNAVAILABLE": "The database does not answer at the moment.",
}
_EXAMPLE: dict[Code, str] = {
    "BAD_REQUEST": "replicas: expected int <= 100",
    "UNAUTHORIZED": "the token is not valid, or has expired",
    "FORBIDDEN": "container.deploy needs the cluster permission 'deploy'; your role here is viewer",
    "NOT_FOUND": "container not found",
    "METHOD_NOT_SUPPORTED": "/api/containers does not take PUT",
    "CONFLICT": "name: the environment already has a container called 'web'",
    "PRECONDITION_FAILED": "the container is being removed",
    "PAYLOAD_TOO_LARGE": "the body has more than 1048576 bytes",
    "TOO_MANY_REQUESTS": "30 write calls a minute are used up: try again in 12 s",
    "INTERNAL_SERVER_ERROR": "internal error, reference 1f2e3d4c: the coordinator's log has the details",
    "SERVICE_UNAVAILABLE": "the database does not answer: try again",
}

ERROR: Schema = {
    "type": "object",
    "description": "The envelope of every error.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "code", "httpStatus"],
            "properties": {
                "message": {"type": "string", "description": "For people: names the field or the thing, and the rule."},
                "code": {"type": "string", "enum": list(STATUS), "description": "For programs."},
                "httpStatus": {
                    "type": "integer",
                    "enum": sorted(STATUS.values()),
                    "description": "The response's own.",
                },
            },
        }
    },
}

_LIMITS = {
    "X-RateLimit-Limit": ("Calls of this kind a minute.", {"type": "integer", "minimum": 0}),
    "X-RateLimit-Remaining": ("Of them left.", {"type": "integer", "minimum": 0}),
    "X-RateLimit-Reset": ("Unix seconds at which all are there again.", {"type": "integer", "minimum": 0}),
}
_OTHERS = {
    "X-Next-Cursor": ("The `cursor` of the next page; absent on the last.", {"type": "string"}),
    "Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0}),
    "WWW-Authenticate": ("The scheme to authenticate by.", {"type": "string"}),
    "ETag": ("The state of what is shown: for `If-Match` and `If-None-Match`.", {"type": "string"}),
    "Idempotent-Replayed": (
        "`true` on the answer that the first call with this `Idempotency-Key` got.",
        {"type": "string"},
    ),
}
HEADERS: dict[str, Schema] = {
    name: {"description": text, "schema": schema} for name, (text, schema) in (_LIMITS | _OTHERS).items()
}
_WITH: dict[Code, tuple[str, ...]] = {
    "UNAUTHORIZED": ("WWW-Authenticate",),
    "TOO_MANY_REQUESTS": ("Retry-After",),
    "SERVICE_UNAVAILABLE": ("Retry-After",),
}


def headers(*names: str) -> dict[str, Schema]:
    """References; the limits are on every answer."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_LIMITS, *names)}


def components() -> dict[str, Any]:
    """The error responses that operations refer to."""
    return {_name(code): _response(code) for code in STATUS if code != "METHOD_NOT_SUPPORTED"}


def errors(procedure: Procedure, *, reads_body: bool, has_input: bool) -> dict[str, Schema]:
    """References by status, for those that this operation can answer."""
    codes: set[Code] = {"BAD_REQUEST", "TOO_MANY_REQUESTS", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE"}
    if procedure.access != "public":
        codes |= {"UNAUTHORIZED", "FORBIDDEN"}
    if has_input:
        codes |= {"NOT_FOUND"}
    if procedure.method != "GET":
        codes |= {"UNAUTHORIZED", "FORBIDDEN", "CONFLICT", "PRECONDITION_FAILED"}
    if reads_body:
        codes |= {"PAYLOAD_TOO_LARGE"}
    return {str(STATUS[code]): {"$ref": f"#/components/responses/{_name(code)}"} for code in STATUS if code in codes}


def _name(code: Code) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


def _response(code: Code) -> Schema:
    example = {"error": {"message": _EXAMPLE[code], "code": code, "httpStatus": STATUS[code]}}
    return {
        "description": WHEN[code],
        "headers": headers(*_WITH.get(code, ())),
        "content": {"application/json": {"schema": {"$ref": f"{REF}Error"}, "example": example}},
    }
