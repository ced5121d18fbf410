"""Resource paths: the same procedures, by the methods and paths that clients of HTTP expect."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from coordinator.doors.resources import resources
from coordinator.procedures.table import TABLE
from tests.component.api.caller import Api, Home, make


async def ask(api: Api, method: str, path: str, **request: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {api.token}", **request.pop("headers", {})}
    return await api.client.request(method, f"/api{path}", headers=headers, **request)


def data(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()["result"]["data"]


def refused(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    assert response.json()["error"]["httpStatus"] == status
    message: str = response.json()["error"]["message"]
    return message


async def test_a_container_lives_on_resource_paths(api: Api, home: Home) -> None:
    listed = data(await ask(api, "GET", "/clusters", params={"organizationId": home.organization_id}))
    assert [one["id"] for one in listed] == [home.cluster_id]
    declared = {"projectId": home.project_id, "clusterId": home.cluster_id, "name": "web", "image": "web:1"}
    made = data(await ask(api, "POST", "/containers", json=declared), 201)
    path = f"/containers/{made['id']}"
    assert data(await ask(api, "GET", path))["name"] == "web"
    assert data(await ask(api, "PATCH", path, json={"replicas": 2}))["pendingChanges"] == ["replicas"]
    deployed = data(await ask(api, "POST", f"{path}/deploy", json={"image": "web:2"}))
    assert (deployed["previousImage"], deployed["newImage"]) == ("web:1", "web:2")
    assert data(await ask(api, "POST", f"{path}/restart"))["id"] == made["id"]
    assert data(await ask(api, "GET", f"{path}/logs", params={"tail": "5"})) == []
    gone = await ask(api, "DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert data(await ask(api, "GET", path))["status"] == "deleting"


async def test_both_ways_of_naming_a_rollback_are_reachable(api: Api, home: Home) -> None:
    made = await make(api, home)
    for path in (f"/releases/{made['release']['id']}/rollback", f"/containers/{made['id']}/rollback"):
        assert "release" in refused(await ask(api, "POST", path, json={"reason": "why not"}), 412)
    assert refused(await ask(api, "POST", "/releases/rel_none/rollback"), 404) == "release not found"


async def test_both_kinds_of_join_tokens_are_made(api: Api, home: Home) -> None:
    for path in (f"/clusters/{home.cluster_id}", f"/organizations/{home.organization_id}"):
        assert data(await ask(api, "POST", f"{path}/join-tokens", json={"uses": 2}))["token"]


@pytest.mark.parametrize(
    ("method", "request_", "sentence"),
    [
        (
            "PATCH",
            {"json": {"name": "other", "projectId": "proj_other"}},
            "projectId: given in the path and in the body",
        ),
        (
            "PATCH",
            {"json": {"name": "other", "projectId": ["proj_other"]}},
            "projectId: given in the path and in the body",
        ),
        ("PATCH", {"params": {"name": "other"}}, "name: PATCH takes its fields in the body"),
        ("PATCH", {"content": b"[1]"}, "body: expected object, got array"),
        ("PATCH", {"content": b'{"name": '}, "the body is not valid JSON"),
        ("PATCH", {"content": b'{"name": 1}'}, "name: expected str, got int"),
        ("PATCH", {"content": b'{"name": ' + b"[" * 100_000}, "name: expected str, got array"),
        ("GET", {"params": {"projectId": "proj_other"}}, "projectId: given in the path and in the query"),
        ("GET", {"params": {"colour": "red"}}, "colour: unknown field"),
        ("DELETE", {"params": {"colour": "red"}}, "colour: unknown field"),
        ("DELETE", {"params": {"projectId": "proj_other"}}, "projectId: given in the path and in the query"),
        ("DELETE", {"params": {"force": "true"}, "json": {}}, "force: give the fields in the query or in the body"),
    ],
)
async def test_what_contradicts_itself_is_refused_by_name(
    api: Api, home: Home, method: str, request_: dict[str, Any], sentence: str
) -> None:
    headers = {"Content-Type": "application/json"} if "content" in request_ else {}
    response = await ask(api, method, f"/projects/{home.project_id}", headers=headers, **request_)
    assert refused(response).startswith(sentence)


async def test_a_field_may_come_twice_when_it_is_the_same(api: Api, home: Home) -> None:
    path = f"/projects/{home.project_id}"
    for body in ({"projectId": home.project_id}, {"projectId": home.project_id, "name": "renamed"}):
        assert data(await ask(api, "PATCH", path, json=body))["id"] == home.project_id
    assert data(await ask(api, "GET", path, params={"projectId": home.project_id}))["name"] == "renamed"


async def test_a_removal_takes_its_fields_from_the_query_or_the_body(api: Api, home: Home) -> None:
    path = f"/clusters/{home.cluster_id}/nodes/node_none"
    assert "node not found" in refused(await ask(api, "DELETE", path, params={"force": "true"}), 404)
    assert "node not found" in refused(await ask(api, "DELETE", path, json={"force": True}), 404)
    assert refused(await ask(api, "DELETE", path, params={"force": "perhaps"})).startswith("force: ")


async def test_a_query_cannot_say_null(api: Api, home: Home) -> None:
    path = f"/containers/{(await make(api, home))['id']}"
    assert refused(await ask(api, "GET", path, params={"waitFor": "null"})).startswith(
        "waitFor: a query cannot say null"
    )
    words = {"projectId": home.project_id, "status": "null"}
    assert data(await ask(api, "GET", "/containers", params=words)) == []


async def test_a_method_a_path_does_not_have_is_told_those_it_has(api: Api, home: Home) -> None:
    for method, path, allowed in (
        ("PUT", "/containers", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/user", "GET, HEAD, OPTIONS, PATCH"),
        ("GET", f"/containers/{home.project_id}/deploy", "OPTIONS, POST"),
        ("DELETE", "/container.one", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/container.create", "OPTIONS, POST"),
    ):
        response = await ask(api, method, path)
        assert refused(response, 405)
        assert response.json()["error"]["code"] == "METHOD_NOT_SUPPORTED"
        assert set(response.headers["Allow"].split(", ")) >= set(allowed.split(", ")) - {"PATCH"}


async def test_head_is_get_without_the_body(api: Api, home: Home) -> None:
    for path in (f"/projects/{home.project_id}", f"/project.one?projectId={home.project_id}"):
        got, head = await ask(api, "GET", path), await ask(api, "HEAD", path)
        assert (head.status_code, head.headers["Content-Type"]) == (200, got.headers["Content-Type"])


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    for path in ("/flying", "/containers/ctr_none/fly", "/containers/a/b/c/d"):
        assert refused(await ask(api, "GET", path), 404)
    assert refused(await ask(api, "GET", "/containers/ctr_none"), 404) == "container not found"


async def test_strangers_are_refused_before_their_input_is_read(api: Api) -> None:
    for one in resources():
        if one.procedure.access == "public":
            continue
        path = one.path
        for parameter in one.parameters:
            path = path.replace(f"{{{parameter}}}", "x")
        response = await api.client.request(one.procedure.method, f"/api{path}", params={"nonsense": "1"})
        assert response.status_code == 401, one.path


def test_every_procedure_has_a_path() -> None:
    assert {one.procedure.name for one in resources()} == set(TABLE)


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("/containers/{id}", "has a parameter that the input has not"),
        ("/containers/{tail}", "tail is not text"),
        ("/trpc/containers", "belongs to another door"),
        ("/containers.all", "is not one of lower-case words"),
        ("containers", "is not one of lower-case words"),
    ],
)
def test_a_path_that_cannot_work_is_found_out_at_start(rest: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        resources([replace(TABLE["container.logs"], rest=rest)])


def test_two_procedures_cannot_share_a_place() -> None:
    one = TABLE["container.one"]
    other = replace(TABLE["container.stats"], rest=one.rest)
    with pytest.raises(AssertionError, match=r"container\.stats and container\.one are both GET"):
        resources([one, other])
