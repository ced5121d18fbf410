"""tRPC's wire, byte by byte: what goes in and out of `/api/trpc` for calls, alone and in batches. The published clients are another
test's; this one has what they never send."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from structlog.testing import capture_logs

from coordinator.doors.auth import Authenticator
from coordinator.doors.trpc import batches
from coordinator.doors.trpc.calls import Answer
from tests.component.api.caller import Api, Home, make
from tests.component.api.staged import Stage
from tests.fakes.seeds import until

JSON = {"content-type": "application/json"}
MISSING = object()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage().declared() as stage:
        yield stage


async def get(
    api: Api, path: str, given: Any = MISSING, *, batch: bool = False, headers: Mapping[str, str] = {}
) -> httpx.Response:
    params = {"batch": "1"} if batch else {}
    if given is not MISSING:
        params["input"] = given if isinstance(given, str) else json.dumps(given)
    headers = {"authorization": f"Bearer {api.token}", **headers}
    return await api.client.get(f"/api/trpc/{path}", params=params, headers=headers)


async def post(
    api: Api, path: str, body: Any = MISSING, *, batch: bool = False, headers: Mapping[str, str] = {}
) -> httpx.Response:
    content = b"" if body is MISSING else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {api.token}", **JSON, **headers}
    params = {"batch": "1"} if batch else {}
    return await api.client.post(f"/api/trpc/{path}", params=params, content=content, headers=headers)


def error(response: httpx.Response) -> tuple[int, int, str, int]:
    """Status, number, code, and the status inside."""
    told = response.json()["error"]
    return response.status_code, told["code"], told["data"]["code"], told["data"]["httpStatus"]


async def test_a_query_a_mutation_and_one_without_an_answer(api: Api, home: Home) -> None:
    listed = await get(api, "project.all", {"organizationId": home.organization_id})
    assert listed.status_code == 200
    assert [one["id"] for one in listed.json()["result"]["data"]] == [home.project_id]
    made = await post(api, "project.create", {"organizationId": home.organization_id, "name": "more"})
    assert made.status_code == 200  # whatever the other doors say: tRPC's own server knows no other success
    project_id = made.json()["result"]["data"]["id"]
    removed = await post(api, "project.remove", {"projectId": project_id})
    assert (removed.status_code, removed.content) == (200, b'{"result":{}}')


@pytest.mark.parametrize("given", [MISSING, {}, None])
async def test_no_input_may_be_said_in_every_way(api: Api, given: Any) -> None:
    assert (await get(api, "system.whoami", given)).status_code == 200
    assert (await post(api, "system.whoami", given)).status_code == 200


async def test_a_query_may_be_posted(api: Api, home: Home) -> None:
    response = await post(api, "project.one", {"projectId": home.project_id})
    assert response.json()["result"]["data"]["id"] == home.project_id


@pytest.mark.parametrize(
    ("path", "given", "message"),
    [
        ("project.one", MISSING, "projectId: is required"),
        ("project.one", {"projectId": 7}, "projectId: expected str"),
        ("project.one", {"projectId": "proj_1", "x": 1}, "x: unknown field"),
        ("project.one", [], "body: expected object"),
        ("project.one", '{"projectId":"proj_1","projectId":"proj_2"}', "projectId: given twice"),
        ("project.one", '{"projectId"', "the body is not valid JSON"),
        ("project.one", '{"projectId":' + "[" * 10_000, "projectId: expected str"),
        ("container.all", {"limit": "5"}, "limit: expected int"),
        ("project.all", '{"organizationId":"org_1","search":"\\u0000"}', "the body contains a NUL"),
    ],
)
async def test_a_bad_input_is_told_as_at_the_procedure_door(api: Api, path: str, given: Any, message: str) -> None:
    asked = await get(api, path, given)
    assert error(asked) == (400, -32600, "BAD_REQUEST", 400)
    assert asked.json()["error"]["data"]["path"] == path
    raw = b"" if given is MISSING else given.encode() if isinstance(given, str) else json.dumps(given).encode()
    posted = await post(api, path, raw)
    headers = {"authorization": f"Bearer {api.token}", **JSON}
    other = await api.client.post(f"/api/{path}", content=raw, headers=headers)
    told = asked.json()["error"]["message"]
    assert told == posted.json()["error"]["message"] == other.json()["error"]["message"]
    assert told.startswith(message)


async def test_what_is_not_there_or_not_allowed(api: Api, home: Home) -> None:
    unknown = await get(api, "container.fly")
    assert error(unknown) == (404, -32004, "NOT_FOUND", 404)
    assert unknown.json()["error"]["data"]["path"] == "container.fly"
    assert error(await get(api, "nested/path")) == (404, -32004, "NOT_FOUND", 404)
    assert error(await get(api, "project.one", {"projectId": "proj_none"})) == (404, -32004, "NOT_FOUND", 404)
    made = await make(api, home)
    viewer = await api.as_user("viewer@example.test", "viewer", home.organization_id)
    scaled = await post(viewer, "container.scale", {"containerId": made["id"], "replicas": 2})
    assert error(scaled) == (403, -32003, "FORBIDDEN", 403)
    again = {"projectId": home.project_id, "clusterId": home.cluster_id, "name": "web", "image": "web:1"}
    assert error(await post(api, "container.create", again)) == (409, -32009, "CONFLICT", 409)


@pytest.mark.parametrize("authorization", ["Bearer argosy_wrong", "Basic x", None])
async def test_a_strangers_body_is_not_even_read(api: Api, authorization: str | None) -> None:
    headers = {**JSON, **({"authorization": authorization} if authorization else {})}
    response = await api.client.post("/api/trpc/project.create", content=b"{nonsense", headers=headers)
    assert error(response) == (401, -32001, "UNAUTHORIZED", 401)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_wrong_methods(api: Api) -> None:
    asked = await get(api, "project.create", {"name": "x"})
    assert error(asked) == (405, -32005, "METHOD_NOT_SUPPORTED", 405)
    assert asked.headers["allow"] == "POST"
    for method in ("PUT", "PATCH", "DELETE"):
        response = await api.client.request(method, "/api/trpc/system.version")
        assert error(response) == (405, -32005, "METHOD_NOT_SUPPORTED", 405)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_posted_body_is_json_and_says_so(api: Api, kind: str) -> None:
    response = await post(api, "system.version", headers={"content-type": kind})
    assert error(response) == (415, -32015, "UNSUPPORTED_MEDIA_TYPE", 415)
    fine = await post(api, "system.version", headers={"content-type": "Application/JSON; charset=utf-8"})
    assert fine.status_code == 200


async def test_more_than_a_mebibyte_is_refused(api: Api) -> None:
    big = b'{"name":"' + b"x" * 2**20 + b'"}'
    assert error(await post(api, "project.create", big)) == (413, -32013, "PAYLOAD_TOO_LARGE", 413)
    (one,) = (await post(api, "project.create", b'{"0":' + big + b"}", batch=True)).json()
    assert one["error"]["data"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_a_batch_is_answered_in_its_order_with_the_status_of_all_or_207(api: Api, home: Home) -> None:
    inputs = {"0": {"projectId": home.project_id}, "1": {"projectId": "proj_none"}, "2": {"nonsense": 1}}
    mixed = await get(api, "project.one,project.one,project.one,system.version", inputs, batch=True)
    assert mixed.status_code == 207
    first, second, third, fourth = mixed.json()
    assert first["result"]["data"]["id"] == home.project_id
    assert second["error"]["data"] == {"code": "NOT_FOUND", "httpStatus": 404, "path": "project.one"}
    assert third["error"]["message"] == "nonsense: unknown field"
    assert fourth["result"]["data"]["version"]
    both = await get(api, "container.fly,project.one", {"1": {"projectId": "proj_none"}}, batch=True)
    assert (both.status_code, [one["error"]["code"] for one in both.json()]) == (404, [-32004, -32004])
    (alone,) = (await get(api, "system.version", batch=True)).json()
    assert alone["result"]["data"]["version"]


async def test_a_batch_of_mutations(api: Api, home: Home) -> None:
    inputs = {str(index): {"organizationId": home.organization_id, "name": f"p{index}"} for index in range(3)}
    made = await post(api, ",".join(["project.create"] * 3), inputs, batch=True)
    assert [one["result"]["data"]["name"] for one in made.json()] == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("[1]", "the inputs of a batch are an object"),
        ("7", "the inputs of a batch are an object"),
        ("{", "the inputs are not valid JSON"),
        ('{"0":{},"0":{}}', "two inputs are given for one call"),
        ('{"0":' * 5_000, "the inputs are n"),
    ],
)
async def test_what_is_wrong_with_all_inputs_is_told_to_every_call(api: Api, inputs: str, message: str) -> None:
    response = await get(api, "system.version,system.whoami", inputs, batch=True)
    assert response.status_code == 400
    assert [one["error"]["data"]["path"] for one in response.json()] == ["system.version", "system.whoami"]
    assert all(one["error"]["message"].startswith(message) for one in response.json())


@pytest.mark.parametrize("calls", [33, 5_000])
async def test_a_batch_has_its_limit(api: Api, calls: int) -> None:
    response = await get(api, ",".join(["a"] * calls), batch=True)
    assert error(response) == (400, -32600, "BAD_REQUEST", 400)
    assert len(response.content) < 200
    assert "32" in response.json()["error"]["message"]
    fine = await get(api, ",".join(["system.version"] * 32), batch=True)
    assert (fine.status_code, len(fine.json())) == (200, 32)


async def test_a_batch_has_calls_of_one_kind(api: Api) -> None:
    response = await post(api, "system.version,project.create", {}, batch=True)
    assert error(response) == (400, -32600, "BAD_REQUEST", 400)
    assert "mutation and query" in response.json()["error"]["message"]


async def test_a_batch_of_nothing(api: Api) -> None:
    response = await get(api, ",,", batch=True)
    assert (response.status_code, len(response.json())) == (404, 3)


async def test_the_next_page_is_told_to_a_lone_call(api: Api, home: Home) -> None:
    for index in range(3):
        await make(api, home, name=f"web-{index}")
    page = {"projectId": home.project_id, "limit": 2}
    alone = await get(api, "container.all", page)
    assert alone.headers["x-next-cursor"] == alone.json()["result"]["data"][-1]["id"]
    batched = await get(api, "container.all", {"0": page}, batch=True)
    assert batched.headers["x-next-cursor"] == alone.headers["x-next-cursor"]
    both = await get(api, "container.all,container.all", {"0": page, "1": page}, batch=True)
    assert "x-next-cursor" not in both.headers


async def test_the_caller_of_a_batch_is_looked_up_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, look = 0, Authenticator.caller

    async def counting(self: Authenticator, *given: Any) -> Any:
        nonlocal looked
        looked += 1
        await asyncio.sleep(0)
        return await look(self, *given)

    monkeypatch.setattr(Authenticator, "caller", counting)
    response = await get(api, ",".join(["system.whoami"] * 8), batch=True)
    assert (response.status_code, looked) == (200, 1)


async def test_a_defect_in_one_call_leaves_the_others_alone(api: Api, stage: Stage) -> None:
    with capture_logs() as logged:
        response = await get(api, "test.broken,system.version", batch=True)
    failed, fine = response.json()
    assert failed["error"]["data"]["code"] == "INTERNAL_SERVER_ERROR"
    assert failed["error"]["code"] == -32603
    assert next(one for one in logged if "reference" in one)["reference"] in failed["error"]["message"]
    assert "secret detail" not in response.text
    assert fine["result"]["data"]["version"]


async def test_the_calls_of_a_batch_run_at_the_same_time(api: Api, stage: Stage) -> None:
    async def all_wait() -> bool:
        return stage.waiting == 3

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        asking = group.create_task(get(api, "test.held,test.held,test.held", batch=True))
        await until(all_wait, "all three wait at once")
        await post(api, "test.release")
        assert [one["result"]["data"] for one in (await asking).json()] == [{"released": True}] * 3


async def test_version_11s_stream_promises_every_answer_and_keeps_it(api: Api) -> None:
    for header in ({"trpc-accept": "application/jsonl"}, {"accept": "text/html, application/jsonl"}):
        response = await get(api, "system.version,container.fly", batch=True, headers=header)
        assert response.status_code == 200
        assert "trpc-accept" in response.headers["vary"]
        head, *chunks = [json.loads(line) for line in response.text.splitlines()]
        assert head == {"0": [[0], [None, 0, 0]], "1": [[0], [None, 0, 1]]}
        answers = {chunk: value for chunk, _, ((value,),) in chunks}
        assert answers[0]["result"]["data"]["version"]
        assert answers[1]["error"]["data"]["code"] == "NOT_FOUND"


async def test_only_a_batch_is_streamed(api: Api) -> None:
    response = await get(api, "system.version", headers={"trpc-accept": "application/jsonl"})
    assert error(response) == (400, -32600, "BAD_REQUEST", 400)


async def test_version_10s_stream_is_one_object_a_line_for_each_answer(api: Api) -> None:
    response = await get(api, "container.fly,system.version", batch=True, headers={"trpc-batch-mode": "stream"})
    lines = response.text.split("\n")
    assert [line[0] for line in lines] == ["{", ",", "}"]
    answers = json.loads(response.text)
    assert answers["0"]["error"]["data"]["code"] == "NOT_FOUND"
    assert answers["1"]["result"]["data"]["version"]


async def test_version_10s_stream_link_hears_of_a_refusal_in_every_call(api: Api) -> None:
    headers = {"trpc-batch-mode": "stream"}
    refused = (await get(api, ",".join(["system.version"] * 40), batch=True, headers=headers)).json()
    assert {one["error"]["data"]["code"] for one in refused.values()} == {"BAD_REQUEST"}
    assert len(refused) == 40
    endless = await get(api, "," * 5_000, batch=True, headers=headers)
    assert len(endless.json()) == 1024


@pytest.mark.parametrize(
    ("framing", "lines", "ping"),
    [
        (
            batches.json_lines,
            [b'{"0":[[0],[null,0,0]],"1":[[0],[null,0,1]]}\n', b"[1,0,[[B]]]\n", b"[0,0,[[A]]]\n"],
            b" ",
        ),
        (batches.object_lines, [b'{"1":B\n', b',"0":A\n', b"}"], b"\n"),
    ],
)
async def test_a_streamed_batch_waits_for_nobody_and_is_kept_open(
    framing: batches.Framing, lines: list[bytes], ping: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.doors.streams.KEEPALIVE_SECONDS", 0.01)
    gate = asyncio.Event()

    async def slow() -> Answer:
        await gate.wait()
        return Answer(200, b"A")

    async def fast() -> Answer:
        return Answer(200, b"B")

    written = []
    async for part in framing([asyncio.create_task(slow()), asyncio.create_task(fast())]):
        written.append(part)
        if part == ping:  # the fast answer is out, and nothing else happens
            gate.set()
    assert [part for part in written if part != ping] == lines
    assert written.index(ping) > next(index for index, part in enumerate(written) if b"B" in part)


async def test_inputs_in_the_address_may_hold_anything(api: Api, stage: Stage) -> None:
    text = "é 漢 & = + % , # ? / \u2028"
    response = await api.client.get(
        f"/api/trpc/test.echo%2Ctest.echo?batch=1&input={quote(json.dumps({'0': {'text': text}, '1': {'text': ''}}))}",
        headers={"authorization": f"Bearer {api.token}"},
    )
    assert [one["result"]["data"]["text"] for one in response.json()] == [text, ""]
