"""The procedure door over a real store: envelopes, codes, permissions, and what the procedures leave behind.

No loop and no agent runs here: what is declared stays `pending`, which is just what these tests look at.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coordinator.procedures.bootstrap import TOKEN_FILE, first_start
from coordinator.procedures.table import TABLE
from coordinator.store import containers, organizations
from coordinator.store.vault import Vault
from tests.component.api.caller import Api, Home, make


async def test_the_first_start_leaves_somewhere_to_deploy_to_and_a_token_only_its_owner_reads(
    api: Api, home: Home, tmp_path: Path
) -> None:
    file = tmp_path / TOKEN_FILE
    assert file.read_text().strip() == api.token
    assert file.stat().st_mode & 0o777 == 0o600
    project = await api.call("project.one", projectId=home.project_id)
    assert [one["name"] for one in project["environments"]] == ["production"]


async def test_a_second_start_makes_nothing_new(api: Api, home: Home, tmp_path: Path) -> None:
    assert await first_start(api.store, Vault(b"k" * 32), tmp_path) is None
    assert len(await api.call("organization.all", method="GET")) == 1


async def test_every_procedure_but_the_public_ones_needs_a_valid_token(api: Api) -> None:
    for procedure in TABLE.values():
        for headers in ({}, {"Authorization": "Bearer argosy_wrong"}, {"Authorization": "Basic x"}):
            response = await api.client.post(f"/api/{procedure.name}", json={}, headers=headers)
            if procedure.access == "public":
                assert response.status_code in (200, 400), procedure.name  # of some, the input is missing
            else:
                assert response.status_code == 401, procedure.name
                assert response.json()["error"]["code"] == "UNAUTHORIZED"


async def test_every_procedure_says_what_it_is(api: Api) -> None:
    listed = await api.call("system.procedures", method="GET")
    assert {one["name"] for one in listed} == set(TABLE)
    assert all(one["summary"] and one["rest"] for one in listed)


async def test_unknown_procedures_and_wrong_methods_are_told_so(api: Api) -> None:
    assert (await api.call("container.fly", 404))["code"] == "NOT_FOUND"
    error = await api.call("container.create", 405, method="GET")
    assert "POST" in error["message"]


async def test_a_container_is_created_with_its_first_deployment(api: Api, home: Home) -> None:
    made = await make(api, home, port=8080, replicas=3, healthCheck={"path": "/health", "port": 8080, "interval": 30})
    assert (made["status"], made["replicas"], made["port"]) == ("creating", 3, 8080)
    assert made["healthCheck"] == {"path": "/health", "port": 8080, "interval": 30}
    assert made["release"]["revision"] == 1
    assert made["pendingChanges"] == []
    assert made["reason"]["message"]
    (listed,) = await api.call("container.all", method="GET", projectId=home.project_id)
    assert set(listed) == {"id", "name", "image", "status", "replicas", "port", "clusterId", "createdAt"}
    (deployment,) = await api.call("container.deployments", method="GET", containerId=made["id"])
    assert (deployment["kind"], deployment["status"]) == ("create", "in_progress")


async def test_secrets_are_masked_in_answers_and_sealed_at_rest(api: Api, home: Home) -> None:
    secret = "correct horse battery staple"
    made = await make(
        api,
        home,
        env=[{"key": "TOKEN", "value": secret, "secret": True}, {"key": "MODE", "value": "fast"}],
        credentials={"username": "u", "password": secret},
    )
    assert made["env"] == [{"key": "TOKEN", "value": "***", "secret": True}, {"key": "MODE", "value": "fast"}]
    assert made["credentials"] == {"username": "u", "password": "***"}
    async with api.store.read() as conn:
        for table in ("container", "release", "audit"):
            dump = str((await conn.exec_driver_sql(f"SELECT * FROM {table}")).all())
            assert secret not in dump


async def test_writing_the_mask_back_keeps_a_secret_and_invents_none(api: Api, home: Home) -> None:
    made = await make(api, home, env=[{"key": "TOKEN", "value": "s3cret", "secret": True}])

    async def stored() -> str:
        async with api.store.read() as conn:
            return str((await conn.exec_driver_sql("SELECT template FROM container")).scalar())

    before = await stored()
    updated = await api.call("container.update", method="PATCH", containerId=made["id"], env=made["env"], replicas=2)
    assert await stored() == before
    assert updated["pendingChanges"] == ["replicas"]
    fresh = [{"key": "OTHER", "value": "***", "secret": True}]
    error = await api.call("container.update", 400, method="PATCH", containerId=made["id"], env=fresh)
    assert error["message"].startswith("env.OTHER:")


async def test_an_update_changes_nothing_that_runs_until_it_is_deployed(api: Api, home: Home) -> None:
    made = await make(api, home)
    updated = await api.call("container.update", method="PATCH", containerId=made["id"], image="web:2", replicas=5)
    assert (updated["image"], updated["replicas"]) == ("web:2", 5)
    assert sorted(updated["pendingChanges"]) == ["image", "replicas"]
    assert updated["release"]["image"] == "web:1"
    deployed = await api.call("container.deploy", containerId=made["id"])
    assert (deployed["previousImage"], deployed["newImage"], deployed["status"]) == ("web:1", "web:2", "in_progress")
    after = await api.call("container.one", method="GET", containerId=made["id"])
    assert after["pendingChanges"] == []
    assert after["release"]["revision"] == 2
    newest, oldest = await api.call("container.deployments", method="GET", containerId=made["id"])
    assert newest["id"] == deployed["deploymentId"]
    assert oldest["status"] == "cancelled"
    assert newest["id"] in oldest["error"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"replicas": 101}, "replicas: expected int <= 100"),
        ({"resources": {"cpuLimit": "lots"}}, "resources.cpuLimit: 'lots' is not"),
        ({"resources": {"memoryLimit": "1Mi"}}, "resources.memoryLimit: must be at least 6Mi"),
        ({"healthCheck": {}}, "healthCheck.port: is required"),
        ({"env": [{"key": "A"}, {"key": "A"}]}, "env: 'A' is declared twice"),
        ({"labels": {"argosy.x": "1"}}, "labels.argosy.x:"),
        ({"strategy": {"maxSurge": 0}}, "strategy.maxSurge:"),
        ({"name": "Not A Label"}, "name:"),
        ({"clusterId": "cluster_missing"}, "clusterId: no such cluster"),
        ({"source": {"image": "a"}}, "image: give either image or source"),
        ({"type": "cronjob"}, "type:"),
    ],
)
async def test_bad_declarations_are_refused_and_leave_nothing(
    api: Api, home: Home, fields: dict[str, Any], message: str
) -> None:
    error = await make(api, home, expect=400, **fields)
    assert error["message"].startswith(message)
    assert await api.call("container.all", method="GET", projectId=home.project_id) == []


async def test_a_name_is_taken_once_per_environment(api: Api, home: Home) -> None:
    await make(api, home)
    assert (await make(api, home, expect=409))["code"] == "CONFLICT"


async def test_another_organisations_things_are_not_found(api: Api, home: Home) -> None:
    made = await make(api, home)
    stranger = await api.as_user("stranger@example.test")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("organization.one", {"organizationId": home.organization_id}),
        ("project.one", {"projectId": home.project_id}),
        ("project.all", {"organizationId": home.organization_id}),
        ("cluster.one", {"clusterId": home.cluster_id}),
        ("cluster.joinToken", {"clusterId": home.cluster_id}),
        ("container.one", {"containerId": made["id"]}),
        ("container.remove", {"containerId": made["id"]}),
        ("container.logs", {"containerId": made["id"]}),
        ("container.rollback", {"releaseId": made["release"]["id"]}),
        ("container.deployment", {"deploymentId": made["deploymentId"]}),
    ]
    for name, data in calls:
        foreign = await stranger.call(name, 404, **data)
        missing = {key: f"{value.split('_')[0]}_none" for key, value in data.items()}
        assert foreign == await stranger.call(name, 404, **missing), name
    assert await stranger.call("organization.all", method="GET") == []


@pytest.mark.parametrize(
    ("role", "allowed"), [("viewer", False), ("billing", False), ("developer", True), ("admin", True)]
)
async def test_roles_decide_who_may_deploy(api: Api, home: Home, role: str, allowed: bool) -> None:
    made = await make(api, home)
    member = await api.as_user("member@example.test", role, home.organization_id)
    error = await member.call("container.scale", 200 if allowed else 403, containerId=made["id"], replicas=2)
    if not allowed:
        assert error["code"] == "FORBIDDEN"
        assert role in error["message"]


async def test_lists_go_on_by_cursor_without_gap_or_repeat(api: Api, home: Home) -> None:
    names = {(await make(api, home, name=f"web-{index}"))["name"] for index in range(5)}
    headers = {"Authorization": f"Bearer {api.token}"}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"projectId": home.project_id, "limit": "2", **({"cursor": cursor} if cursor else {})}
        response = await api.client.get("/api/container.all", params=params, headers=headers)
        seen += [one["name"] for one in response.json()["result"]["data"]]
        cursor = response.headers.get("X-Next-Cursor")
        if cursor is None:
            break
    assert sorted(seen) == sorted(names)


async def test_a_join_token_is_shown_once_and_stored_hashed(api: Api, home: Home) -> None:
    made = await api.call("cluster.joinToken", clusterId=home.cluster_id)
    assert made["token"] in made["command"]
    secret = made["token"].split(".")[2]
    async with api.store.read() as conn:
        assert secret not in str((await conn.exec_driver_sql("SELECT * FROM join_token")).all())
    assert (await api.call("cluster.joinToken", 400))["message"].startswith("clusterId:")


async def test_what_still_holds_containers_is_not_removed(api: Api, home: Home) -> None:
    await make(api, home)
    for name, key, value in (
        ("project.remove", "projectId", home.project_id),
        ("cluster.remove", "clusterId", home.cluster_id),
    ):
        error = await api.call(name, 412, **{key: value})
        assert "containers" in error["message"]


async def test_an_environment_goes_with_its_last_container(api: Api, home: Home) -> None:
    environment = await api.call("environment.create", 201, projectId=home.project_id, name="staging")
    made = await make(api, home, environmentId=environment["id"])
    await api.call("environment.remove", 204, method="DELETE", environmentId=environment["id"])
    after = await api.call("container.one", method="GET", containerId=made["id"])
    assert after["status"] == "deleting"
    listed = await api.call("environment.all", method="GET", projectId=home.project_id)
    assert [one["name"] for one in listed] == ["production"]
    await api.store.write(partial(containers.purge, container_id=made["id"]))
    await api.call("environment.create", 201, projectId=home.project_id, name="staging")


async def test_an_empty_cluster_says_what_to_do(api: Api, home: Home) -> None:
    cluster = await api.call("cluster.one", method="GET", clusterId=home.cluster_id)
    assert cluster["status"] == "provisioning"
    assert "joinToken" in cluster["reason"]["message"]


async def test_a_defect_answers_with_a_reference_and_no_traceback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(organizations, "of_ids", broken)
    with capture_logs() as logged:
        error = await api.call("organization.all", 500, method="GET")
    assert logged[0]["reference"] in error["message"]
    assert "secret detail" not in str(error)


async def test_health_is_public(api: Api) -> None:
    response = await api.client.get("/api/system.health")
    assert response.json()["result"]["data"]["status"] == "ok"


async def test_metrics_count_only_what_is_the_callers(api: Api, home: Home) -> None:
    await make(api, home)
    assert (await api.client.get("/metrics")).status_code == 401
    mine = await api.client.get("/metrics", headers={"Authorization": f"Bearer {api.token}"})
    wanted = f'argosy_containers{{desired="running",organization="{home.organization_id}"}} 1.0'
    assert wanted in mine.text
    stranger = await api.as_user("stranger@example.test")
    theirs = await api.client.get("/metrics", headers={"Authorization": f"Bearer {stranger.token}"})
    assert home.organization_id not in theirs.text
    assert "argosy_build_info" in theirs.text
