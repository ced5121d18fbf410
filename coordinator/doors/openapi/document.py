"""The whole document: the REST door's operations and the procedure door's, with what they share."""

import sys
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec

from coordinator import VERSION
from coordinator.doors import cookies
from coordinator.doors.openapi.operations import (
    BEARER,
    CSRF,
    SESSION,
    operation,
    procedure_forms,
    procedure_tag,
    rest_form,
    router,
)
from coordinator.doors.openapi.responses import ERROR, HEADERS, components
from coordinator.doors.openapi.schemas import Schemas
from coordinator.doors.resources import PREFIX, resources
from coordinator.procedures.table import TABLE, Procedure

_ABOUT = """\
Two ways to the same procedures, with the same envelopes, errors and limits. **Resources** have paths as `GET /clusters` or
`POST /containers/{containerId}/deploy`. **Procedures** are called by name, as `GET /container.one?containerId=…` or
`POST /container.deploy` with a JSON body; POST works for every one of them.

A success is `{"result": {"data": …}}`, an error `{"error": {"message", "code", "httpStatus"}}` with that status. Unknown fields,
wrong types and values out of range are `BAD_REQUEST`, with the field's name first in the message. What belongs to others is
`NOT_FOUND`. A path answers a method it does not have with `METHOD_NOT_SUPPORTED` (405) and `Allow`; HEAD is answered where GET is.

Lists take `limit` and `cursor`; the next page's cursor comes in the header `X-Next-Cursor`, which the last page has not.
Times are ISO 8601 in UTC. Every answer says in `X-RateLimit-*` what is left of the caller's minute.

The published tRPC client works at `/api/trpc`; its types are at `/api/trpc.d.ts`.
"""
PARAMETERS: dict[str, Any] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Sent again with the same key, the call is carried out once and answered alike, for a day.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "Carry it out only if it was not changed since the answer with this `ETag`; otherwise 412.",
        "schema": {"type": "string", "maxLength": 1024},
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "Answer 304 without a body if it is still as in the answer with this `ETag`.",
        "schema": {"type": "string"},
    },
}
SECURITY: dict[str, Any] = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "A personal or service token, or a JWT of the configured issuer.",
    },
    SESSION: {
        "type": "apiKey",
        "in": "cookie",
        "name": cookies.SESSION,
        "description": f"A browser that signed in. Over https its name is `__Host-{cookies.SESSION}`.",
    },
    CSRF: {
        "type": "apiKey",
        "in": "header",
        "name": cookies.CSRF_HEADER,
        "description": f"With a session, on everything that changes something: what the cookie `{cookies.CSRF}` says.",
    },
}


def document(procedures: Iterable[Procedure]) -> dict[str, Any]:
    table = list(procedures)
    schemas = Schemas(table)
    paths: dict[str, dict[str, Any]] = {}
    for resource in resources(table):
        at = paths.setdefault(resource.path, {})
        at[resource.procedure.method.lower()] = operation(resource.procedure, rest_form(resource), schemas)
    for procedure in table:
        at = paths.setdefault(f"/{procedure.name}", {})
        at |= {form.method.lower(): operation(procedure, form, schemas) for form in procedure_forms(procedure)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Argosy", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": PREFIX}],
        "security": [{BEARER: []}],
        "tags": _tags(table),
        "x-tagGroups": _tag_groups(table),
        "paths": paths,
        "components": {
            "schemas": {**dict(sorted(schemas.components.items())), "Error": ERROR},
            "responses": components(),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


@cache
def encoded() -> tuple[bytes, str]:
    """The document of this coordinator, and its ETag. Once: the table does not change while it runs."""
    body = msgspec.json.encode(document(TABLE.values()))
    return body, f'"{sha256(body).hexdigest()[:32]}"'


def _routers(table: list[Procedure]) -> dict[str, str]:
    """With the first sentence that the module of their first procedure opens with."""
    found: dict[str, str] = {}
    for one in table:
        about = " ".join((sys.modules[one.function.__module__].__doc__ or "").split())
        found.setdefault(router(one), f"{about.partition('. ')[0].removesuffix('.')}.")
    return found


def _tags(table: list[Procedure]) -> list[dict[str, str]]:
    found = _routers(table)
    rest = [{"name": name, "description": about} for name, about in found.items()]
    return rest + [{"name": procedure_tag(name), "description": f"{about} By name."} for name, about in found.items()]


def _tag_groups(table: list[Procedure]) -> list[dict[str, Any]]:
    names = list(_routers(table))
    return [
        {"name": "Resources", "tags": names},
        {"name": "Procedures", "tags": [procedure_tag(name) for name in names]},
    ]
