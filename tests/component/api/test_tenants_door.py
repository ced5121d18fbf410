"""The tenants door: its shapes, its pages, its errors, and that nothing of one tenant is found under another's address."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from sqlalchemy import update

from coordinator.doors.application import make_app
from coordinator.doors.limits import Limits
from coordinator.doors.tenants.table import ROUTES
from coordinator.procedures.table import TABLE
from coordinator.store import deployments, numbering
from coordinator.store.database import Store, Tx
from coordinator.store.deployments import DeploymentEvent
from coordinator.store.numbering import Numbered
from coordinator.store.tables import instance
from shared.spec.instance import PortBinding
from tests.component.api.caller import Api, Home, enrolled, finish, make, running_instance
from tests.component.api.conftest import PLENTY
from tests.component.api.tenants import Tenants, at
from tests.fakes.clock import FakeClock
from tests.fakes.seeds import Seeds

DOCUMENTED = Path(__file__).parents[3] / "docs" / "api.md"
PROJECT = {"id", "name", "description", "tenantId", "status", "environmentCount", "containerCount", "createdAt"}
DEPLOYMENT = {
    *("id", "ref", "number", "environmentId", "containerId", "kind", "status", "error", "note", "release"),
    *("previousImage", "events", "approvals", "createdBy", "createdAt", "finishedAt"),
}
RELEASE = {"id", "containerId", "revision", "image", "imageDigest", "note", "createdBy", "createdAt"}
SECRET = {
    *("id", "key", "value", "secret", "scope", "projectId", "environmentId", "version"),
    *("createdBy", "createdAt", "updatedAt"),
}


@pytest.fixture
def here(api: Api, home: Home) -> Tenants:
    return at(api, home)


async def environment_of(here: Tenants, project_id: str) -> str:
    (environment,) = (await here.get(f"./projects/{project_id}"))["environments"]
    return str(environment["id"])


# --- who one is, and projects


async def test_ids_are_found_from_the_token_on(here: Tenants, home: Home) -> None:
    me = await here.get("/auth/me")
    assert set(me) == {"id", "email", "name", "pictureUrl", "memberships", "createdAt"}
    assert me["memberships"] == [{"tenantId": home.organization_id, "role": "owner"}]
    (project,) = await here.get("./projects")
    assert set(project) == PROJECT
    assert (project["id"], project["tenantId"]) == (home.project_id, home.organization_id)
    whole = await here.get(f"./projects/{home.project_id}")
    assert set(whole) == PROJECT | {"environments", "containers"}
    assert [one["name"] for one in whole["environments"]] == ["production"]


async def test_projects_are_made_changed_and_found(here: Tenants, home: Home) -> None:
    made = await here.post("./projects", name="shop", clusterId=home.cluster_id)
    assert set(made) == PROJECT
    assert (made["name"], made["status"], made["environmentCount"]) == ("shop", "empty", 1)
    changed = await here.patch(f"./projects/{made['id']}", description="sells")
    assert changed == {**made, "description": "sells"}
    assert [one["id"] for one in await here.get("./projects", search="SHO")] == [made["id"]]


async def test_a_project_is_found_by_what_its_containers_are_at(here: Tenants, home: Home) -> None:
    empty = await here.post("./projects", name="empty")
    web = await make(here.api, home)
    assert [one["id"] for one in await here.get("./projects", status="deploying")] == [home.project_id]
    assert [one["id"] for one in await here.get("./projects", status="empty")] == [empty["id"]]
    await here.api.call("container.stop", containerId=web["id"])
    assert [one["id"] for one in await here.get("./projects", status="stopped")] == [home.project_id]
    error = await here.get("./projects", 400, status="archived")
    assert error["message"].startswith("status: ")


async def test_pages_have_numbers(here: Tenants) -> None:
    names = [f"p{number:03}" for number in range(60)]
    for name in names:
        await here.post("./projects", name=name)
    first = await here.ask("GET", "./projects", query={"search": "p0"})
    second = await here.ask("GET", "./projects", query={"search": "p0", "page": 2})
    third = await here.ask("GET", "./projects", query={"search": "p0", "page": 3})
    assert [one["name"] for one in [*first.json(), *second.json()]] == names
    assert (len(first.json()), third.json()) == (50, [])
    assert [answer.headers.get("X-Next-Page") for answer in (first, second, third)] == ["2", None, None]
    assert "X-Next-Cursor" not in first.headers
    for page in ("0", "-1", "201", "x"):
        assert (await here.get("./projects", 400, page=page))["message"].startswith("page: ")


# --- deployments and releases


async def test_a_deploy_answers_with_its_deployment(here: Tenants, home: Home) -> None:
    web = await make(here.api, home)
    environment_id = await environment_of(here, home.project_id)
    done = await here.post(
        f"./projects/{home.project_id}/environments/{environment_id}/deployments", note="now", image="web:2"
    )
    assert set(done) == DEPLOYMENT
    assert (done["ref"], done["number"], done["status"], done["note"]) == ("DEP-0002", 2, "in_progress", "now")
    assert done["release"]["image"] == "web:2"
    assert (done["previousImage"], done["containerId"], done["environmentId"]) == (None, web["id"], environment_id)
    assert await here.get(f"./deployments/{done['id']}") == done
    listed = await here.get(f"./projects/{home.project_id}/deployments")
    assert [one["ref"] for one in listed] == ["DEP-0002", "DEP-0001"]
    assert listed[0] == done
    cancelled = await here.get(f"./projects/{home.project_id}/deployments", status="cancelled")
    assert [(one["ref"], one["error"]) for one in cancelled] == [("DEP-0001", f"superseded by {done['id']}")]
    assert await here.get(f"./projects/{home.project_id}/deployments", environmentId="env_other") == []


async def test_where_there_are_several_containers_the_caller_says_which(here: Tenants, home: Home) -> None:
    environment_id = await environment_of(here, home.project_id)
    path = f"./projects/{home.project_id}/environments/{environment_id}/deployments"
    assert "no container" in (await here.post(path, 412))["message"]
    web, worker = await make(here.api, home), await make(here.api, home, name="worker")
    error = await here.post(path, 412)
    assert error["message"].startswith("containerId: is required")
    assert "web, worker" in error["message"]
    assert (await here.post(path, containerId=worker["id"]))["containerId"] == worker["id"]
    staging = await here.api.call("environment.create", 201, projectId=home.project_id, name="staging")
    other = await make(here.api, home, name="other", environmentId=staging["id"])
    assert (await here.post(path, 404, containerId=other["id"]))["error"] == "Not Found"
    await here.api.call("container.remove", 204, containerId=web["id"])
    assert (await here.post(path))["containerId"] == worker["id"]


async def test_numbers_are_the_tenants_own_and_none_is_lost(here: Tenants, home: Home) -> None:
    web = await make(here.api, home)
    failed = await here.api.call("container.deploy", 400, containerId=web["id"], image="web:2", nonsense=1)
    assert failed["code"] == "BAD_REQUEST"
    await make(here.api, home, expect=409)  # its deployment is undone, with its number
    assert (await make(here.api, home, name="bb"))["deploymentId"]
    stranger = await here.api.as_user("ann@example.test")
    theirs = await stranger.call("organization.create", 201, name="theirs")
    cluster = await stranger.call(
        "cluster.create", 201, organizationId=theirs["id"], name="cc", provider="byo", orchestrator="docker"
    )
    project = await stranger.call("project.create", 201, organizationId=theirs["id"], name="p1")
    there = Home(theirs["id"], project["id"], cluster["id"])
    made = await make(stranger, there)
    seen = await stranger.call("container.deployment", method="GET", deploymentId=made["deploymentId"])
    assert seen["number"] == 1
    listed = await here.api.call("project.deployments", method="GET", projectId=home.project_id)
    assert [one["number"] for one in listed] == [2, 1]


async def test_cancel_retry_and_rollback(here: Tenants, home: Home) -> None:
    web = await make(here.api, home)
    await finish(here.api, web["deploymentId"])
    first = web["release"]["id"]
    environment_id = await environment_of(here, home.project_id)
    second = await here.post(f"./projects/{home.project_id}/environments/{environment_id}/deployments", image="web:2")
    assert (await here.post(f"./deployments/{second['id']}/cancel", 200))["id"] == second["id"]
    await finish(here.api, second["id"], "cancelled")
    again = await here.post(f"./deployments/{second['id']}/retry", 200)
    assert (again["ref"], again["release"]) == ("DEP-0003", second["release"])
    back = await here.post("./rollback", 200, releaseId=first, reason="it was better")
    assert (back["kind"], back["note"], back["release"]["id"]) == ("rollback", "it was better", first)
    assert (await here.post("./rollback", 400))["message"] == "releaseId: is required"
    releases = await here.get(f"./projects/{home.project_id}/releases", environmentId=environment_id)
    assert [(set(one), one["image"]) for one in releases] == [(RELEASE, "web:2"), (RELEASE, "web:1")]


async def test_a_deployments_events_are_its_log(here: Tenants, home: Home) -> None:
    web = await make(here.api, home)
    told = [DeploymentEvent(1.0, "began", 1), DeploymentEvent(2.0, "went on", 2)]

    async def unit(tx: Tx) -> None:
        await deployments.change(tx, web["deploymentId"], events=told)

    await here.api.store.write(unit)
    path = f"./deployments/{web['deploymentId']}/logs"
    lines = [
        {"seq": 1, "ts": "1970-01-01T00:00:01.000Z", "line": "began"},
        {"seq": 2, "ts": "1970-01-01T00:00:02.000Z", "line": "went on"},
    ]
    assert await here.get(path) == lines
    assert await here.get(path, after=1) == lines[1:]
    assert await here.get(path, after=2) == []
    for after in ("x", "-1"):
        assert (await here.get(path, 400, after=after))["message"].startswith("after: ")


async def test_the_runtime_shows_what_can_be_reached(here: Tenants, home: Home) -> None:
    web = await make(here.api, home, port=80)
    environment_id = await environment_of(here, home.project_id)
    node_id = await enrolled(here.api, home, "n1")
    healthy = await running_instance(here.api, home, web, node_id)
    sick = await running_instance(here.api, home, web, node_id, slot=1)
    for instance_id, health, address in ((healthy, "healthy", "10.0.0.1"), (sick, "unhealthy", "fd00::2")):
        await _observed(here.api, instance_id, health, address)
    path = f"./projects/{home.project_id}/environments/{environment_id}/runtime"
    found = await here.get(path)
    assert set(found) == {"environmentId", "projectId", "name", "urls", "containers", "domains"}
    assert (found["urls"], found["domains"], found["name"]) == (["http://10.0.0.1:32001"], [], "production")
    (shown,) = found["containers"]
    assert set(shown) == {
        *("containerId", "name", "status", "reason", "replicas", "urls", "release", "deploymentId", "instances"),
    }
    assert shown["release"]["id"] == web["release"]["id"]
    assert [(one["id"], one["health"]) for one in shown["instances"]] == [(healthy, "healthy"), (sick, "unhealthy")]
    await _observed(here.api, sick, "healthy", "fd00::2")
    assert (await here.get(path))["urls"] == ["http://10.0.0.1:32001", "http://[fd00::2]:32001"]


async def _observed(api: Api, instance_id: str, health: str, address: str) -> None:
    bound = [PortBinding(80, 32001, address), PortBinding(53, 53, address, "udp")]
    ports = msgspec.json.encode(bound).decode()

    async def unit(tx: Tx) -> None:
        await tx.conn.execute(update(instance).where(instance.c.id == instance_id).values(health=health, ports=ports))

    await api.store.write(unit)


# --- secrets


async def test_secrets_belong_to_the_tenant_a_project_or_an_environment(here: Tenants, home: Home) -> None:
    environment_id = await environment_of(here, home.project_id)
    whole = await here.post("./secrets", key="A", value="1")
    project = await here.post("./secrets", key="B", value="2", projectId=home.project_id, scope="project", secret=False)
    inside = await here.post("./secrets", key="C", value="3", environmentId=environment_id, scope="environment")
    assert set(whole) == SECRET
    assert [(one["scope"], one["value"]) for one in (whole, project, inside)] == [
        ("workspace", "***"),
        ("project", "2"),
        ("environment", "***"),
    ]
    assert [one["key"] for one in await here.get("./secrets")] == ["A", "B", "C"]
    assert [one["key"] for one in await here.get("./secrets", environmentId=environment_id)] == ["C"]
    changed = await here.patch(f"./secrets/{whole['id']}", value="9")
    assert (changed["version"], changed["value"]) == (2, "***")
    await here.delete(f"./secrets/{whole['id']}")
    assert (await here.delete(f"./secrets/{whole['id']}", 404))["message"] == "secret not found"


@pytest.mark.parametrize(
    "place", [{"scope": "project"}, {"scope": "galaxy"}, {"scope": "workspace", "projectId": "proj_1"}]
)
async def test_a_scope_that_is_not_what_the_ids_say_is_refused(here: Tenants, place: dict[str, str]) -> None:
    assert (await here.post("./secrets", 400, key="A", value="1", **place))["message"].startswith("scope: ")


async def test_a_secret_is_in_one_place(here: Tenants) -> None:
    error = await here.post("./secrets", 400, key="A", value="1", projectId="proj_1", environmentId="env_1")
    assert error["message"] == "projectId: give projectId or environmentId, not both"


# --- errors


def is_error(answer: httpx.Response, status: int, phrase: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["statusCode", "error", "message"]
    assert (body["statusCode"], body["error"]) == (status, phrase)
    assert "X-RateLimit-Limit" in answer.headers
    return str(body["message"])


@pytest.mark.parametrize(
    "path", ["/tenants", "/tenants/org_1", "/auth/you", "/account", "/tenants/org_1/no/such", "/auth"]
)
async def test_what_is_not_there_is_said_in_this_doors_words(here: Tenants, path: str) -> None:
    assert is_error(await here.ask("GET", path), 404, "Not Found") == f"nothing is served at {path}"


async def test_other_doors_keep_their_own_words(here: Tenants) -> None:
    for path in ("/nothing", "/tenantsx/1", "/api/tenants/1"):
        assert set((await here.ask("GET", path)).json()) == {"error"}


async def test_methods_that_are_not_there(here: Tenants, home: Home) -> None:
    for method in ("PUT", "DELETE", "QUERY"):
        answer = await here.ask(method, f"./projects/{home.project_id}")
        is_error(answer, 405, "Method Not Allowed")
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, PATCH"
    asked = await here.ask("OPTIONS", "./projects")
    assert (asked.status_code, asked.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")


async def test_bad_bodies(here: Tenants) -> None:
    async def send(content: bytes, kind: str = "application/json") -> httpx.Response:
        headers = {"Authorization": f"Bearer {here.api.token}", "Content-Type": kind}
        return await here.api.client.post(here.path("./projects"), content=content, headers=headers)

    assert "not valid JSON" in is_error(await send(b"{"), 400, "Bad Request")
    assert is_error(await send(b"{}"), 400, "Bad Request") == "name: is required"
    assert is_error(await send(b'{"name": "x1", "type": "node"}'), 400, "Bad Request") == "type: unknown field"
    assert is_error(await send(b'{"name": "x"}'), 400, "Bad Request").startswith("name: expected")
    assert "Content-Type" in is_error(await send(b"name=x", "text/plain"), 400, "Bad Request")
    is_error(await send(b'"' + b"x" * 1024 * 1024 + b'"'), 413, "Request Entity Too Large")
    deep = b'{"name":' + b"[" * 100_000
    is_error(await send(deep), 400, "Bad Request")
    query = await here.ask("POST", "./projects?name=x", body={})
    assert is_error(query, 400, "Bad Request").startswith("name: POST takes its fields in the body")


async def test_unknown_fields_of_a_query_are_refused(here: Tenants) -> None:
    for path in ("./projects", "/auth/me", "./secrets"):
        answer = await here.ask("GET", path, query={"colour": "red"})
        assert is_error(answer, 400, "Bad Request") == "colour: unknown field"


async def test_strangers_are_told_nothing_else(here: Tenants) -> None:
    for route in ROUTES:
        path = route.path.replace("{tenantId}", here.tenant_id).replace("{", "").replace("}", "")
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            answer = await here.api.client.request(route.method, path, headers=headers)
            is_error(answer, 401, "Unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_limits_are_the_same(api: Api, home: Home) -> None:
    transport = httpx.ASGITransport(
        cast("Any", make_app(api.services, limits=Limits(reads=2, writes=1, streams=1))), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        fresh = await api.as_user("fresh@example.test", "owner", home.organization_id)  # whom nobody has counted yet
        here = at(replace(fresh, client=client), home)
        for _ in range(2):
            await here.get("/auth/me")
        answer = await here.ask("GET", "/auth/me")
        assert "used up" in is_error(answer, 429, "Too Many Requests")
        assert int(answer.headers["Retry-After"]) >= 1
        await here.post("./projects", name="one")
        is_error(await here.ask("POST", "./projects", body={"name": "two"}), 429, "Too Many Requests")


async def test_a_repeated_deploy_is_carried_out_once(here: Tenants, home: Home) -> None:
    await make(here.api, home)
    path = f"./projects/{home.project_id}/environments/{await environment_of(here, home.project_id)}/deployments"
    first = await here.ask("POST", path, body={"note": "once"}, Idempotency_Key="k1")
    again = await here.ask("POST", path, body={"note": "once"}, Idempotency_Key="k1")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    listed = await here.get(f"./projects/{home.project_id}/deployments")
    assert [one["note"] for one in listed] == ["once", ""]


async def test_what_is_known_is_not_sent_again_and_only_what_was_seen_is_changed(here: Tenants, home: Home) -> None:
    seen = await here.ask("GET", f"./projects/{home.project_id}")
    same = await here.ask("GET", f"./projects/{home.project_id}", If_None_Match=seen.headers["ETag"])
    assert (same.status_code, same.content) == (304, b"")
    await here.patch(f"./projects/{home.project_id}", description="other")
    late = await here.ask(
        "PATCH", f"./projects/{home.project_id}", body={"name": "late"}, If_Match=seen.headers["ETag"]
    )
    assert is_error(late, 412, "Precondition Failed").startswith("If-Match: ")


# --- tenancy


async def test_nothing_is_found_under_another_tenants_address(here: Tenants, home: Home) -> None:
    """A member of both finds each thing only where it is; ids that are nobody's get the same answer."""
    web = await make(here.api, home)
    secret = await here.post("./secrets", key="A", value="1")
    environment_id = await environment_of(here, home.project_id)
    other = await here.api.call("organization.create", 201, name="other")
    elsewhere = await here.api.call("project.create", 201, organizationId=other["id"], name="p1")
    there = Tenants(here.api, other["id"])
    known = {
        "projectId": home.project_id,
        "environmentId": environment_id,
        "deploymentId": web["deploymentId"],
        "releaseId": web["release"]["id"],
        "secretId": secret["id"],
    }
    unknown = {name: f"{value.partition('_')[0]}_nobodys" for name, value in known.items()}
    tried = 0
    for route in ROUTES:
        _, below, rest = route.path.partition("/tenants/{tenantId}")
        if not below or not ("{" in rest or route.procedure == "container.rollback"):
            continue
        body = {"releaseId": known["releaseId"]} if route.procedure == "container.rollback" else None
        nobodys = {"releaseId": unknown["releaseId"]} if body else None
        answer = await there.ask(route.method, "." + rest.format(**known), body=body)
        same = await there.ask(route.method, "." + rest.format(**unknown), body=nobodys)
        message = is_error(answer, 404, "Not Found")
        assert same.content == answer.content, f"{route.method} {route.path}: {message}"
        tried += 1
    assert tried == 16
    await there.get(f"./projects/{elsewhere['id']}/environments/{environment_id}/runtime", 404)
    await here.get(f"./projects/{elsewhere['id']}", 404)
    await there.get(f"./projects/{elsewhere['id']}")
    await there.post("./secrets", 404, key="B", value="2", projectId=home.project_id)
    path = f"./projects/{elsewhere['id']}/environments/{environment_id}/deployments"
    await there.post(path, 404)
    await here.post(path, 404)


async def test_an_environment_is_found_in_its_own_project_only(here: Tenants, home: Home) -> None:
    await make(here.api, home)
    environment_id = await environment_of(here, home.project_id)
    second = await here.post("./projects", name="second")
    for method, last in (("GET", "runtime"), ("POST", "deployments")):
        answer = await here.ask(method, f"./projects/{second['id']}/environments/{environment_id}/{last}")
        assert is_error(answer, 404, "Not Found") == "environment not found"


async def test_a_foreign_tenant_is_like_one_that_is_not_there(here: Tenants, home: Home) -> None:
    await make(here.api, home)
    stranger = await here.api.as_user("eve@example.test")
    for path, status in ((".", 404), ("./projects", 404), ("./secrets", 404), (f"./projects/{home.project_id}", 404)):
        foreign = await Tenants(stranger, here.tenant_id).ask("GET", path)
        nobodys = await Tenants(stranger, "org_nobodys").ask("GET", path)
        is_error(foreign, status, "Not Found")
        if path != ".":
            assert foreign.content == nobodys.content
    assert (await Tenants(stranger, here.tenant_id).get("./projects", 404))["message"] == "tenant not found"
    assert (await here.get("/tenants/No-Id!/projects", 404))["message"] == "tenant not found"
    assert (await here.get("./deployments/x", 404))["message"] == "deployment not found"


async def test_roles_are_the_same(here: Tenants, home: Home) -> None:
    viewer = Tenants(await here.api.as_user("view@example.test", "viewer", home.organization_id), here.tenant_id)
    await make(here.api, home)
    path = f"./projects/{home.project_id}/environments/{await environment_of(here, home.project_id)}/deployments"
    assert "deploy" in is_error(await viewer.ask("POST", path, body={}), 403, "Forbidden")
    is_error(await viewer.ask("POST", "./projects", body={"name": "mine"}), 403, "Forbidden")
    assert [one["id"] for one in await viewer.get("./projects")] == [home.project_id]


async def test_a_deploy_to_a_restricted_environment_waits(here: Tenants, home: Home) -> None:
    await make(here.api, home)
    environment_id = await environment_of(here, home.project_id)
    await here.api.call("environment.update", method="PATCH", environmentId=environment_id, protection="restricted")
    dev = Tenants(await here.api.as_user("dev@example.test", "developer", home.organization_id), here.tenant_id)
    path = f"./projects/{home.project_id}/environments/{environment_id}/deployments"
    waiting = await dev.post(path, image="web:2")
    assert (waiting["status"], waiting["approvals"][0]["status"]) == ("pending", "pending")
    await here.api.call("environment.update", method="PATCH", environmentId=environment_id, protection="locked")
    assert "locked" in (await dev.post(path, 403, image="web:2"))["message"]


# --- the daily quota


async def test_deploys_of_a_day_are_limited_for_all_doors(api: Api, home: Home) -> None:
    limited = replace(api.services, deploys_per_day=3)
    transport = httpx.ASGITransport(cast("Any", make_app(limited, limits=PLENTY)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        caller = replace(api, client=client, services=limited)
        here = at(caller, home)
        web = await make(caller, home)
        environment_id = await environment_of(here, home.project_id)
        path = f"./projects/{home.project_id}/environments/{environment_id}/deployments"
        await here.post(path, image="web:2")
        await caller.call("container.deploy", containerId=web["id"], image="web:3")
        answer = await here.ask("POST", path, body={"image": "web:4"})
        said = is_error(answer, 429, "Too Many Requests")
        assert said == "the organization's 3 deploys of today (UTC) are used up"
        assert 1 <= int(answer.headers["Retry-After"]) <= 86_401
        error = await caller.call("container.deploy", 429, containerId=web["id"], image="web:4")
        assert error["message"] == said
        await make(caller, home, name="more", expect=429)
        detail = await caller.call("container.one", method="GET", containerId=web["id"])
        assert detail["image"] == "web:3"
        back = await here.post("./rollback", 200, releaseId=web["release"]["id"])
        assert back["number"] == 4, "what was refused has no number, and going back is not limited"
        await caller.call("container.restart", containerId=web["id"])


async def test_a_day_begins_anew_and_what_was_undone_does_not_count(database_url: str) -> None:
    clock = FakeClock()
    store = await Store.open(database_url, clock)
    try:
        home = (await Seeds(store).plant()).organization_id

        async def count(*, counts: bool = True, undone: bool = False) -> tuple[int, int]:
            async def unit(tx: Tx) -> Numbered:
                counted = await numbering.next_deployment(tx, home, counts=counts)
                if undone:
                    raise LookupError
                return counted

            counted = await store.write(unit)
            return counted.number, counted.today

        assert [await count(), await count(counts=False), await count()] == [(1, 1), (2, 1), (3, 2)]
        with pytest.raises(LookupError):
            await count(undone=True)
        assert await count() == (4, 3)
        clock.advance(numbering.DAY_SECONDS)
        assert [await count(counts=False), await count()] == [(5, 0), (6, 1)]
    finally:
        await store.close()


# --- the table


def test_every_address_has_its_procedure() -> None:
    for route in ROUTES:
        procedure = TABLE[route.procedure]
        assert (route.method == "GET") == (procedure.kind != "mutation"), route
        if route.form == "stream":
            assert procedure.event is not None
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_the_documentation_lists_every_address() -> None:
    text = DOCUMENTED.read_text()
    missing = [f"{route.method} {route.path}" for route in ROUTES if f"`{route.method} {route.path}`" not in text]
    assert not missing
