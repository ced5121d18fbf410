"""The OpenAPI document: valid, complete, the same each time, and of use to the tools that read it."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import msgspec
from openapi_spec_validator import validate

from coordinator.doors import docs
from coordinator.doors.answers import STATUS
from coordinator.doors.openapi.document import document
from coordinator.doors.openapi.responses import WHEN
from coordinator.doors.openapi.schemas import bare
from coordinator.doors.resources import allowed_at, resources
from coordinator.procedures.table import TABLE
from tests.component.api.caller import Api

DOCUMENT = document(TABLE.values())
OPERATIONS = [
    (path, method, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]
SCALARS = {"string", "integer", "number", "boolean"}


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_it_is_the_same_each_time() -> None:
    assert msgspec.json.encode(document(TABLE.values())) == msgspec.json.encode(DOCUMENT)


def test_it_has_every_procedure_in_every_form() -> None:
    described = {(method.upper(), path) for path, method, _ in OPERATIONS}
    wanted = {(one.procedure.method, one.path) for one in resources()}
    wanted |= {(method, f"/{one.name}") for one in TABLE.values() for method in (one.method, "POST")}
    assert described == wanted


def test_every_operation_is_told_apart_and_explained() -> None:
    ids = Counter(operation["operationId"] for _, _, operation in OPERATIONS)
    assert max(ids.values()) == 1
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(tag["description"].strip(".") for tag in DOCUMENT["tags"])
    assert {name for group in DOCUMENT["x-tagGroups"] for name in group["tags"]} == tags
    for path, _, operation in OPERATIONS:
        assert operation["summary"], path
        assert len(operation["summary"]) <= 200, path
        assert set(operation["tags"]) <= tags, path


def test_what_a_path_or_a_query_gives_is_a_single_value() -> None:
    for path, method, operation in OPERATIONS:
        for parameter in operation["parameters"]:
            if "$ref" in parameter:
                continue
            schema = parameter["schema"]
            kinds = {one.get("type") for one in schema.get("anyOf", [schema])}
            assert kinds <= SCALARS, f"{method} {path}: {parameter['name']}"


def test_what_examples_give_is_allowed() -> None:
    for path, method, operation in OPERATIONS:
        for parameter in operation["parameters"]:
            pattern = parameter.get("schema", {}).get("pattern")
            if pattern is not None and "example" in parameter:
                assert re.search(pattern, parameter["example"]), f"{method} {path}: {parameter['name']}"


def test_every_error_has_its_code() -> None:
    assert set(WHEN) == set(STATUS)
    codes = DOCUMENT["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert set(codes) == set(STATUS)


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    text = json.dumps(DOCUMENT)
    wanted = set(re.findall(r'"#/components/(\w+)/([^"]+)"', text))
    given = {(kind, name) for kind, named in DOCUMENT["components"].items() for name in named}
    assert wanted == {(kind, name) for kind, name in given if kind != "securitySchemes"}


def test_fields_are_explained_where_their_structs_docstring_explains_them() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["ReadLogs"]["properties"]["tail"]["description"].startswith("Last lines of all replicas")
    assert "pattern" in schemas["ContainerId"]["properties"]["containerId"]
    assert "(?!" not in json.dumps(DOCUMENT)


def test_a_body_lacks_what_its_path_gives() -> None:
    operation = DOCUMENT["paths"]["/containers/{containerId}/deploy"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    assert "image" in fields
    assert "containerId" not in fields
    assert operation["requestBody"]["required"] is False
    assert "requestBody" not in DOCUMENT["paths"]["/containers/{containerId}/restart"]["post"]


def test_streams_and_pages_are_described() -> None:
    logs = DOCUMENT["paths"]["/containers/{containerId}/logs"]["get"]["responses"]["200"]
    assert set(logs["content"]) == {"application/json", "text/event-stream", "application/x-ndjson"}
    listed = DOCUMENT["paths"]["/containers"]["get"]["responses"]["200"]
    assert {"X-Next-Cursor", "X-RateLimit-Remaining"} <= set(listed["headers"])
    refused = DOCUMENT["components"]["responses"]["TooManyRequests"]
    assert "Retry-After" in refused["headers"]


def test_who_may_call_is_described() -> None:
    assert DOCUMENT["paths"]["/system/health"]["get"]["security"] == []
    assert {"bearer": []} in DOCUMENT["paths"]["/containers"]["get"]["security"]
    for one in TABLE.values():
        security = DOCUMENT["paths"][one.rest][one.method.lower()]["security"]
        assert ({"bearer": []} in security) is (one.access != "public" and not one.session_only), one.name


def test_what_cannot_be_null_in_a_query_is_not_called_so() -> None:
    assert bare({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}) == {"type": "string"}
    several = {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}], "default": 1}
    assert bare(several) == {"anyOf": [{"type": "string"}, {"type": "integer"}], "default": 1}
    assert bare({"type": "integer", "default": 50}) == {"type": "integer", "default": 50}


def test_what_is_allowed_is_known_for_every_path() -> None:
    assert allowed_at("/api/containers") == "GET, HEAD, OPTIONS, POST"
    assert allowed_at("/api/containers/ctr_1/deploy") == "OPTIONS, POST"
    assert allowed_at("/api/container.one") == "GET, HEAD, OPTIONS, POST"
    assert allowed_at("/api/containers/ctr_1/fly") is None


async def test_it_is_served_once_and_then_only_when_it_has_changed(api: Api) -> None:
    first = await api.client.get("/api/openapi.json")
    assert first.headers["Content-Type"] == "application/json"
    assert first.json() == json.loads(msgspec.json.encode(DOCUMENT))
    again = await api.client.get("/api/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await api.client.get("/api/openapi.json", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


async def test_methods_nobody_knows_are_told_what_is_there(api: Api) -> None:
    answer = await api.client.request("QUERY", "/api/containers")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    for path in ("/api/containers", "/api/container.all"):
        asked = await api.client.request("OPTIONS", path)
        assert (asked.status_code, asked.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    page = await api.client.get("/api/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    linked = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(linked) == 5
    for path in linked:
        part = await api.client.get(path)
        assert part.status_code == 200, path
        assert part.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)


async def test_nothing_else_of_the_directory_is_served(api: Api) -> None:
    for name in ("LICENSE", "..%2Fdocs.py", "%2e%2e", "docs.html"):
        assert (await api.client.get(f"/api/docs/{name}")).status_code == 404


def test_the_licence_comes_with_what_is_under_it() -> None:
    vendored = Path(docs.__file__).parent / "assets" / "swagger-ui"
    assert "Apache License" in (vendored / "LICENSE").read_text()
    assert len(gzip.compress((vendored / "swagger-ui-bundle.js").read_bytes())) < 600_000


def test_examples_are_inputs() -> None:
    wrong: list[str] = []
    for one in TABLE.values():
        try:
            if one.example:
                msgspec.convert(one.example, one.input)
        except msgspec.ValidationError as error:
            wrong.append(f"{one.name}: {error}")
    assert not wrong
