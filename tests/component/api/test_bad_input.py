"""Input that no client should send: each gets a documented error of the caller's own, in time, and nothing grows by it."""

import asyncio
import json
import re
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from coordinator.doors.application import make_app
from coordinator.doors.decode import MAX_BODY_BYTES
from coordinator.procedures.table import TABLE, Procedure
from coordinator.store.database import Store, StoreError
from tests.component.api.asgi import Exchange, request
from tests.component.api.caller import Api, Home, make
from tests.component.api.conftest import PLENTY

JSON = {"Content-Type": "application/json"}
SECONDS = 10.0
"""What all examples of one test get."""
CODES = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_SUPPORTED": 405,
    "CONFLICT": 409,
    "PRECONDITION_FAILED": 412,
    "PAYLOAD_TOO_LARGE": 413,
    "TOO_MANY_REQUESTS": 429,
}


def refused(response: httpx.Response) -> str:
    """The message of a documented error of the caller's own."""
    error = response.json()["error"]
    assert set(error) == {"message", "code", "httpStatus"}
    assert CODES[error["code"]] == error["httpStatus"] == response.status_code
    assert "Traceback" not in error["message"]
    assert ".py" not in error["message"]
    return str(error["message"])


async def send(api: Api, content: bytes, procedure: str = "organization.create", **headers: str) -> httpx.Response:
    given = {"Authorization": f"Bearer {api.token}", **JSON, **headers}
    return await api.client.post(f"/api/{procedure}", content=content, headers=given)


NESTED = 10_000
BODIES: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"name": "ab', "not valid JSON"),
    "not JSON": (b"name=ab", "not valid JSON"),
    "two values": (b'{"name": "ab"}{}', "not valid JSON"),
    "array": (b"[]", "expected object"),
    "null": (b"null", "expected object"),
    "no UTF-8": (b'{"name": "\xff\xfe"}', "not valid JSON"),
    "UTF-16": ('{"name": "ab"}'.encode("utf-16"), "not valid JSON"),
    "lone surrogate": (b'{"name": "\\ud800ab"}', "not valid JSON"),
    "raw NUL": (b'{"name": "a\x00b"}', "not valid JSON"),
    "escaped NUL": (b'{"name": "a\\u0000b"}', "NUL"),
    "escaped NUL in a key": (b'{"name": "ab", "a\\u0000": 1}', "unknown field"),
    "key given twice": (b'{"name": "ab", "name": "cd"}', "name: given twice"),
    "key given twice, once escaped": (b'{"name": "ab", "n\\u0061me": "cd"}', "name: given twice"),
    "NaN": (b'{"name": NaN}', "not valid JSON"),
    "infinity": (b'{"name": -Infinity}', "not valid JSON"),
    "a number": (b'{"name": 1e999}', "name:"),
    "nested arrays": (b'{"name":' + b"[" * NESTED + b"]" * NESTED + b"}", ""),
    "nested objects": (b'{"name":' + b'{"a":' * NESTED + b"1" + b"}" * NESTED + b"}", ""),
    "unclosed nesting": (b'{"a":' * NESTED, ""),
    "long name": (b'{"name": "' + b"a" * 900_000 + b'"}', "name: expected str of length <= 50"),
    "unknown field": (b'{"name": "ab", "colour": 1}', "colour: unknown field"),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_wrong_body_is_refused_in_words(api: Api, case: str) -> None:
    body, words = BODIES[case]
    response = await send(api, body)
    assert response.status_code == 400
    message = refused(response)
    assert words in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("-1", "replicas: expected int >= 0"),
        ("1e3", "replicas: expected int"),
        ("0.5", "replicas: expected int"),
        ("1" + "0" * 30, "replicas:"),
        ("1" + "0" * 5000, "replicas:"),
        ("-" + "9" * 19, "replicas:"),
        ("9223372036854775808", "replicas:"),
        ('"2"', "replicas: expected int, got str"),
        ("true", "replicas: expected int, got bool"),
    ],
)
async def test_numbers_out_of_range_are_refused(api: Api, home: Home, value: str, words: str) -> None:
    made = await make(api, home)
    body = f'{{"containerId": "{made["id"]}", "replicas": {value}}}'.encode()
    assert words in refused(await send(api, body, "container.scale"))


@pytest.mark.parametrize("number", ["1" + "0" * 5000, "1e400", "-1e400"])
async def test_a_number_nobody_could_hold_is_refused_where_anything_is_allowed(api: Api, number: str) -> None:
    body = f'{{"name": "ab", "description": {number}}}'.encode()
    refused(await send(api, body))


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "", "ü"],
)
async def test_a_body_of_another_type_is_refused_by_name(api: Api, kind: str) -> None:
    response = await api.client.post(
        "/api/organization.create",
        content=b'{"name": "ab"}',
        headers=[(b"Authorization", f"Bearer {api.token}".encode()), (b"Content-Type", kind.encode("latin-1"))],
    )
    assert response.status_code == 400
    assert "Content-Type: must be application/json" in refused(response)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
)
async def test_json_under_each_of_its_names_is_read(api: Api, kind: str) -> None:
    response = await send(api, b'{"name": "ab"}', **{"Content-Type": kind})
    assert response.status_code == 201


async def test_a_body_without_a_type_and_no_body_at_all_are_read(api: Api) -> None:
    token = {"Authorization": f"Bearer {api.token}"}
    assert (
        await api.client.post("/api/organization.create", content=b'{"name": "ab"}', headers=token)
    ).status_code == 201
    assert (await api.client.post("/api/system.whoami", headers=token)).status_code == 200
    wrong = {**token, "Content-Type": "text/plain"}
    assert (
        await api.client.post("/api/system.whoami", headers=wrong)
    ).status_code == 200  # there is no body to be wrong


# --- size


def app_of(api: Api) -> Any:
    return make_app(api.services, limits=PLENTY)


async def zeros(parts: int, size: int = 65_536) -> AsyncIterator[bytes]:
    for _ in range(parts):
        yield b" " * size


async def big(app: Any, api: Api, parts: int, *headers: tuple[str, str]) -> Exchange:
    return await request(
        app,
        "/api/organization.create",
        method="POST",
        headers=[("Authorization", f"Bearer {api.token}"), *JSON.items(), *headers],
        parts=zeros(parts),
    )


async def test_a_body_that_says_it_is_too_large_is_not_read(api: Api) -> None:
    exchange = await big(app_of(api), api, 160, ("Content-Length", str(160 * 65_536)))
    assert exchange.status == 413
    assert exchange.read == 0
    await exchange.leave()


async def test_a_body_that_turns_out_too_large_is_read_no_further(api: Api) -> None:
    exchange = await big(app_of(api), api, 160, ("Transfer-Encoding", "chunked"))
    assert exchange.status == 413
    assert exchange.read <= MAX_BODY_BYTES + 2 * 65_536
    await exchange.leave()


async def test_a_stream_of_large_bodies_leaves_nothing_behind(api: Api) -> None:
    app = app_of(api)

    async def many(count: int) -> None:
        for _ in range(count):
            exchanges = await asyncio.gather(*(big(app, api, 160, ("Transfer-Encoding", "chunked")) for _ in range(8)))
            assert {one.status for one in exchanges} == {413}
            for one in exchanges:
                await one.leave()

    await many(2)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await many(8)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * 2**20
    assert peak - before < 8 * 4 * MAX_BODY_BYTES  # so many are under way at a time


async def test_a_stranger_s_body_is_not_read(api: Api) -> None:
    exchange = await request(
        app_of(api), "/api/organization.create", method="POST", headers=[*JSON.items()], parts=zeros(10)
    )
    assert (exchange.status, exchange.read) == (401, 0)
    await exchange.leave()


# --- queries and cursors


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit: expected int >= 1"),
        ("limit=201", "limit: expected int <= 200"),
        ("limit=-1", "limit: expected int >= 1"),
        ("limit=" + "9" * 5000, "limit:"),
        ("limit=NaN", "limit: expected int"),
        ("limit=1&limit=2", "limit: given twice"),
        ("cursor=", "cursor:"),
        ("cursor=%00", "cursor:"),
        ("cursor=ctr_%FF%FE", "cursor:"),
        ("cursor=../../etc", "cursor:"),
        ("cursor=" + "x" * 5000, "cursor:"),
        ("colour=red", "colour: unknown field"),
    ],
)
async def test_a_wrong_query_is_refused(api: Api, home: Home, query: str, words: str) -> None:
    path = f"/api/container.all?projectId={home.project_id}&{query}"
    response = await api.client.get(path, headers={"Authorization": f"Bearer {api.token}"})
    assert response.status_code == 400
    assert words in refused(response)


async def test_a_cursor_of_something_else_shows_nothing_of_it(api: Api, home: Home) -> None:
    await make(api, home)
    listed = await api.call("container.all", method="GET", projectId=home.project_id, cursor="org_0000000000")
    assert [one["name"] for one in listed] == ["web"] or listed == []
    for cursor in ("seq_x", "seq_", "aud_1", "seq_99999999999999999999999"):
        error = await api.call("audit.all", 400, method="GET", organizationId=home.organization_id, cursor=cursor)
        assert error["message"].startswith("cursor:")


@pytest.mark.parametrize(
    "when", ["yesterday", "2026-13-01", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "1e99"]
)
async def test_impossible_times_are_refused_or_read(api: Api, home: Home, when: str) -> None:
    response = await api.client.get(
        "/api/audit.all",
        params={"organizationId": home.organization_id, "since": when},
        headers={"Authorization": f"Bearer {api.token}"},
    )
    assert response.status_code in (200, 400)


@pytest.mark.parametrize(
    "path",
    [
        "/api/%00",
        "/api/%FF%FE",
        "/api/" + "a" * 8000,
        "/api/../../etc/passwd",
        "/api/containers/%00",
        "/api/trpc/%00",
        "//api//",
    ],
)
async def test_a_path_that_leads_nowhere_is_not_found(api: Api, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {api.token}"}):
        response = await api.client.get(path, headers=headers)
        assert response.status_code in (400, 401, 404)
        assert response.json()["error"]


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "bearer  x", "Basic Zm9v", "Bearer a b", "Bearer ü", "Bearer " + "x" * 20_000]
)
async def test_a_credential_that_is_none_is_unauthorized(api: Api, value: str) -> None:
    response = await api.client.get("/api/system.whoami", headers=[(b"Authorization", value.encode("latin-1"))])
    assert response.status_code == 401
    refused(response)


# --- pages of others


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-csrf-token",
    }
    return await client.options("/api/organization.create", headers=headers)


def cors(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


async def test_no_page_elsewhere_is_let_in_by_default(api: Api) -> None:
    answer = await preflight(api.client, "https://app.example")
    assert (answer.status_code, cors(answer)) == (204, {})
    got = await api.client.get("/api/system.health", headers={"Origin": "https://app.example"})
    assert cors(got) == {}


async def test_named_pages_are_let_in_and_others_told_nothing(api: Api) -> None:
    app = make_app(api.services, limits=PLENTY, origins=frozenset({"https://app.example"}))
    transport = httpx.ASGITransport(cast("Any", app))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        answer = await preflight(client, "https://app.example")
        assert answer.status_code == 204
        assert cors(answer)["access-control-allow-origin"] == "https://app.example"
        assert "x-csrf-token" in cors(answer)["access-control-allow-headers"]
        assert "POST" in cors(answer)["access-control-allow-methods"]
        got = await client.get("/api/system.health", headers={"Origin": "https://app.example"})
        assert cors(got)["access-control-allow-credentials"] == "true"
        assert "X-Next-Cursor" in cors(got)["access-control-expose-headers"]
        failed = await client.get("/api/no.such", headers={"Origin": "https://app.example"})
        assert cors(failed)["access-control-allow-origin"] == "https://app.example"
        for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example", "*"):
            for answer in (
                await preflight(client, origin),
                await client.get("/api/system.health", headers={"Origin": origin}),
            ):
                assert cors(answer) == {}
                assert answer.headers["vary"] == "Origin"


# --- the database is away


async def test_without_a_database_a_call_is_to_be_made_again_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise StoreError("connection to 10.0.0.1 refused for user argosy")

    await api.call("system.whoami", method="GET")
    monkeypatch.setattr(Store, "read", away)
    monkeypatch.setattr(Store, "write", away)
    with capture_logs() as logged:
        for path in ("/api/organization.all", "/api/organizations", "/api/trpc/organization.all"):
            response = await api.client.get(path, headers={"Authorization": f"Bearer {api.token}"})
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
            assert "SERVICE_UNAVAILABLE" in response.text
            assert "10.0.0.1" not in response.text
    assert any("10.0.0.1" in str(one) for one in logged)


# --- whatever comes

TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def fields(procedure: Procedure) -> list[str]:
    return [one.encode_name for one in msgspec.structs.fields(procedure.input)]


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """(procedure, method, body): nonsense, or an object whose fields are the procedure's and whose values are not."""
    procedure = draw(st.sampled_from(sorted(TABLE)))
    method = draw(st.sampled_from(["POST", TABLE[procedure].method]))
    names = st.sampled_from(fields(TABLE[procedure]) or ["x"]) | TEXT
    shaped = st.dictionaries(names, VALUES | st.from_regex(r"[a-z]{2,7}_[0-9a-z]{1,20}", fullmatch=True), max_size=6)
    body = draw(st.binary(max_size=200) | shaped.map(lambda one: json.dumps(one).encode()) | VALUES.map(_dumped))
    return procedure, method, body


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


async def test_nothing_sent_to_any_procedure_is_a_defect(api: Api) -> None:
    """One loop for all examples: they run in a thread of their own and hand each call to this one."""
    loop = asyncio.get_running_loop()
    until = time.monotonic() + 3 * SECONDS
    token = {"Authorization": f"Bearer {api.token}"}

    async def attempt(procedure: str, method: str, body: bytes) -> httpx.Response:
        path = f"/api/{procedure}"
        if method == "GET":
            return await api.client.get(path, params={"x": body.decode("latin-1")}, headers=token)
        return await api.client.request(method, path, content=body, headers={**token, **JSON})

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(calls())
    def examples(call: tuple[str, str, bytes]) -> None:
        if time.monotonic() > until:
            return
        response = asyncio.run_coroutine_threadsafe(attempt(*call), loop).result(20)
        assert response.status_code < 500, (call, response.text)
        if response.status_code >= 400:
            refused(response)

    await asyncio.to_thread(examples)


@pytest.mark.parametrize("door", ["/api/{}", "/api/trpc/{}", "/api/{}/x"])
async def test_no_bytes_in_a_query_are_a_defect(api: Api, door: str) -> None:
    loop = asyncio.get_running_loop()
    until = time.monotonic() + SECONDS / 2
    app = app_of(api)
    names = [*sorted(TABLE), "containers", "projects", "x"]

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(names), st.binary(max_size=60))
    def examples(name: str, query: bytes) -> None:
        if time.monotonic() > until:
            return
        quoted = re.sub(rb"[^ -~]|[ #]", lambda found: f"%{found[0][0]:02x}".encode(), query).decode()
        exchange = asyncio.run_coroutine_threadsafe(attempt(f"{door.format(name)}?{quoted}"), loop).result(20)
        assert exchange.status < 500, (name, query, exchange.body)

    async def attempt(path: str) -> Exchange:
        exchange = await request(app, path, headers=[("Authorization", f"Bearer {api.token}")])
        await exchange.leave()
        return exchange

    await asyncio.to_thread(examples)
