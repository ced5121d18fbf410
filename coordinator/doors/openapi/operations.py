"""One operation of the document: what a procedure takes and answers at one method and path of one door."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from coordinator.doors import streams
from coordinator.doors.openapi.responses import errors, headers
from coordinator.doors.openapi.schemas import Schema, Schemas, bare
from coordinator.doors.resources import Resource
from coordinator.procedures.inputs import Page
from coordinator.procedures.table import Nothing, Procedure

Operation = dict[str, Any]
JSON = "application/json"
BEARER, SESSION, CSRF = "bearer", "session", "csrf"
_ID_PREFIX = {
    "organizationId": "org",
    "projectId": "proj",
    "environmentId": "env",
    "containerId": "ctr",
    "deploymentId": "dep",
    "releaseId": "rel",
    "registryId": "reg",
    "invitationId": "inv",
    "tokenId": "tok",
    "instanceId": "inst",
    "secretId": "sec",
}


@dataclass(frozen=True)
class Form:
    """How one door offers a procedure. `path`: the fields its path gives. `method`: as asked, not the procedure's own."""

    operation_id: str
    tag: str
    method: str
    path: tuple[str, ...] = ()


def rest_form(resource: Resource) -> Form:
    """A further path is called by what it names: `container.rollback.byReleaseId`."""
    procedure = resource.procedure
    operation_id = procedure.name if resource.path == procedure.rest else f"{procedure.name}.{_by(resource.parameters)}"
    return Form(operation_id, router(procedure), procedure.method, resource.parameters)


def _by(parameters: tuple[str, ...]) -> str:
    assert parameters, "a further path names what it is about in another way"
    return f"by{parameters[-1][:1].upper()}{parameters[-1][1:]}"


def procedure_forms(procedure: Procedure) -> Iterable[Form]:
    """The documented method, and POST, which always works."""
    tag = procedure_tag(router(procedure))
    yield Form(f"procedure.{procedure.name}", tag, procedure.method)
    if procedure.method != "POST":
        yield Form(f"procedure.{procedure.name}.post", tag, "POST")


def router(procedure: Procedure) -> str:
    return procedure.name.partition(".")[0]


def procedure_tag(router: str) -> str:
    return f"{router} (procedures)"


def operation(procedure: Procedure, form: Form, schemas: Schemas) -> Operation:
    fields, required = schemas.fields(procedure.input)
    in_query = form.method == "GET" or (form.method == "DELETE" and bool(form.path))
    body = None if in_query else _body(procedure, form, schemas)
    parameters = [_parameter(name, "path", fields[name], procedure, required=True) for name in form.path]
    if in_query:
        left = {name: schema for name, schema in fields.items() if name not in form.path}
        parameters += [_parameter(name, "query", one, procedure, name in required) for name, one in left.items()]
    return {
        "operationId": form.operation_id,
        "tags": [form.tag],
        "summary": procedure.summary,
        "description": _description(procedure),
        **({} if _security(procedure) is None else {"security": _security(procedure)}),
        "parameters": [*parameters, *_headers(procedure)],
        **({} if body is None else {"requestBody": body}),
        "responses": {
            **_success(procedure, form, schemas),
            **errors(procedure, reads_body=not in_query, has_input=bool(fields)),
        },
    }


def _parameter(name: str, place: str, schema: Schema, procedure: Procedure, required: bool) -> Schema:
    schema = bare(schema)
    description = schema.pop("description", None)
    example = procedure.example.get(name, _example_id(name, schema))
    return {
        "name": name,
        "in": place,
        **({"required": True} if required else {}),
        **({"description": description} if description else {}),
        "schema": schema,
        **({"example": example} if example is not None else {}),
    }


def _example_id(name: str, schema: Schema) -> str | None:
    if not name.endswith("Id") or not schema.get("pattern", "").startswith("^[a-z]+_"):
        return None
    return f"{_ID_PREFIX.get(name, name.removesuffix('Id').lower())}_abc123"


def _headers(procedure: Procedure) -> list[Schema]:
    if procedure.kind != "mutation":
        return [{"$ref": "#/components/parameters/IfNoneMatch"}] if has_state(procedure) else []
    names = ["IdempotencyKey"] if procedure.access != "public" else []
    return [{"$ref": f"#/components/parameters/{name}"} for name in [*names, *(["IfMatch"] if procedure.scope else [])]]


def has_state(procedure: Procedure) -> bool:
    """Whether the answer may carry an ETag: it is about one thing that can be changed."""
    shown = procedure.output
    if procedure.scope is None or not (isinstance(shown, type) and issubclass(shown, msgspec.Struct)):
        return False
    return procedure.kind == "query" or "generation" in shown.__struct_fields__


def _body(procedure: Procedure, form: Form, schemas: Schemas) -> Schema | None:
    name = f"{procedure.input.__name__}Body"
    if form.operation_id != procedure.name and form.path:
        name += f"B{_by(form.path)[1:]}"
    schema = schemas.body(name, procedure.input, form.path)
    if schema is None:
        return None
    _, required = schemas.fields(procedure.input)
    example = {key: value for key, value in procedure.example.items() if key not in form.path}
    content = {"schema": schema, **({"example": example} if example else {})}
    return {"required": bool(required - set(form.path)), "content": {JSON: content}}


def _description(procedure: Procedure) -> str:
    lines = [procedure.description]
    match procedure.access:
        case "public":
            lines.append("Anybody may call it.")
        case "own":
            lines.append("Any signed-in user may call it, about itself.")
        case "view" | "deploy" | "manage" as permission:
            lines.append(f"Needs the cluster permission `{permission}`.")
        case "reviewer":
            lines.append("Needs a reviewer of the environment, or an admin.")
        case role:
            lines.append(f"Needs the role `{role}` or a higher one in the organisation.")
    if procedure.session_only:
        lines.append("Only from a signed-in session: no token may call it.")
    return "\n\n".join(lines)


def _security(procedure: Procedure) -> list[Mapping[str, list[str]]] | None:
    """None where the document's own applies: a bearer token, or a session, which proves with every change that its own page
    asked for it."""
    if procedure.access == "public":
        return []
    session: dict[str, list[str]] = {SESSION: []} if procedure.method == "GET" else {SESSION: [], CSRF: []}
    return [session] if procedure.session_only else [{BEARER: []}, session]


def _success(procedure: Procedure, form: Form, schemas: Schemas) -> dict[str, Schema]:
    status = str(procedure.status)
    if procedure.status == 204:
        return {status: {"description": "Done. No body.", "headers": headers("Idempotent-Replayed")}}
    answer: Schema = {"description": _answer(procedure), "headers": headers(*_answer_headers(procedure))}
    answer["content"] = _content(procedure, schemas)
    if form.method == "GET" and has_state(procedure):
        unchanged = {"description": "It is as `If-None-Match` says. No body.", "headers": headers("ETag")}
        return {status: answer, "304": unchanged}
    return {status: answer}


def _answer(procedure: Procedure) -> str:
    if procedure.event is None:
        return "Created." if procedure.status == 201 else "Done."
    if procedure.output is Nothing:
        return "Events, for as long as somebody reads."
    return "All at once; or, when asked to go on, events for as long as somebody reads."


def _answer_headers(procedure: Procedure) -> list[str]:
    names = ["ETag"] if has_state(procedure) else []
    if issubclass(procedure.input, Page):
        names.append("X-Next-Cursor")
    return [*names, "Idempotent-Replayed"] if procedure.kind == "mutation" else names


def _content(procedure: Procedure, schemas: Schemas) -> Schema:
    content: Schema = {}
    if procedure.output is not Nothing:
        content[JSON] = {"schema": schemas.result(procedure)}
    if procedure.event is not None:
        event = schemas.ref(procedure.event)
        content[streams.SSE] = {"schema": _framed("Server-Sent Events; the data of each", event)}
        content[streams.NDJSON] = {"schema": _framed("One JSON object a line; each", event)}
    return content


def _framed(how: str, event: Schema) -> Schema:
    """OpenAPI 3.1 has no word for a sequence; the schema of one item is where a reader of this document finds it."""
    return {"type": "string", "description": f"{how} is as in `x-item-schema`.", "x-item-schema": event}
