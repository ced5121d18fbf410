"""Variables and secrets: who reads what, how they are inherited, and when a change counts."""

from typing import Any

import pytest

from coordinator.procedures.keeping import MAX_VARIABLES
from coordinator.store import audit, releases
from coordinator.store.variables import KEPT_VERSIONS
from shared.spec.release import Inherited
from tests.component.api.caller import Api, Home, finish, make


async def environment_of(api: Api, home: Home) -> str:
    (environment,) = await api.call("environment.all", method="GET", projectId=home.project_id)
    return str(environment["id"])


async def add(api: Api, key: str, value: str, *, secret: bool = True, expect: int = 201, **where: str) -> Any:
    return await api.call("secret.create", expect, key=key, value=value, secret=secret, **where)


async def frozen(api: Api, container_id: str) -> dict[str, Inherited]:
    """What the release in force inherited."""
    shown = await api.call("container.one", method="GET", containerId=container_id)
    async with api.store.read() as conn:
        found = await releases.get(conn, shown["release"]["id"])
    assert found is not None
    return {each.key: each for each in found.variables}


async def pending(api: Api, container_id: str) -> list[str]:
    shown = await api.call("container.one", method="GET", containerId=container_id)
    changes: list[str] = shown["pendingChanges"]
    return changes


async def actions(api: Api, home: Home) -> list[tuple[str, dict[str, Any]]]:
    async with api.store.read() as conn:
        found = await audit.of_organization(conn, home.organization_id)
    return [(entry.action, entry.detail) for entry in found]


async def test_a_secret_goes_in_and_comes_out_masked(api: Api, home: Home) -> None:
    made = await add(api, "TOKEN", "hush-hush", organizationId=home.organization_id)
    assert (made["value"], made["secret"], made["scope"], made["version"]) == ("***", True, "organization", 1)
    plain = await add(api, "LEVEL", "info", secret=False, projectId=home.project_id)
    assert (plain["value"], plain["scope"], plain["projectId"]) == ("info", "project", home.project_id)
    environment_id = await environment_of(api, home)
    there = await add(api, "TOKEN", "other", environmentId=environment_id)
    assert (there["projectId"], there["environmentId"]) == (home.project_id, environment_id)
    listed = await api.call("secret.all", method="GET", organizationId=home.organization_id)
    assert {one["id"]: one["value"] for one in listed} == {made["id"]: "***", plain["id"]: "info", there["id"]: "***"}
    narrowed = await api.call(
        "secret.all", method="GET", organizationId=home.organization_id, environmentId=environment_id
    )
    assert [one["id"] for one in narrowed] == [there["id"]]


async def test_it_belongs_to_exactly_one_place_and_its_key_is_unique_there(api: Api, home: Home) -> None:
    environment_id = await environment_of(api, home)
    both = {"projectId": home.project_id, "environmentId": environment_id}
    error = await api.call("secret.create", 400, key="A", value="1", **both)
    assert error["message"].startswith("organizationId: give exactly one")
    await api.call("secret.create", 400, key="A", value="1")
    await add(api, "A", "1", projectId=home.project_id)
    await add(api, "A", "2", projectId=home.project_id, expect=409)
    await add(api, "A", "3", environmentId=environment_id)


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=B", "Ä", "A\n", "A" * 257])
async def test_a_key_is_one_of_an_environment(api: Api, home: Home, key: str) -> None:
    await add(api, key, "1", organizationId=home.organization_id, expect=400)


async def test_a_value_is_bounded_in_bytes(api: Api, home: Home) -> None:
    await add(api, "A", "é" * 16384, organizationId=home.organization_id)
    await add(api, "B", "é" * 16385, organizationId=home.organization_id, expect=400)
    await add(api, "C", "***", organizationId=home.organization_id, expect=400)


async def test_a_place_holds_so_many(api: Api, home: Home) -> None:
    environment_id = await environment_of(api, home)
    many = [{"key": f"K{number}", "value": "v"} for number in range(MAX_VARIABLES)]
    await api.call("environment.update", environmentId=environment_id, variables=many)
    error = await api.call("secret.create", 400, key="ONE_MORE", value="v", environmentId=environment_id)
    assert "200" in error["message"]
    many.append({"key": "ONE_MORE", "value": "v"})
    await api.call("environment.update", 400, environmentId=environment_id, variables=many)


async def test_versions_are_kept_and_revealed_by_admins_only_and_leave_a_trace(api: Api, home: Home) -> None:
    made = await add(api, "TOKEN", "v1", organizationId=home.organization_id)
    for number in range(2, KEPT_VERSIONS + 3):
        changed = await api.call("secret.update", secretId=made["id"], value=f"v{number}")
        assert changed["version"] == number
    shown = await api.call("secret.versions", method="GET", secretId=made["id"])
    newest = KEPT_VERSIONS + 2
    assert [one["version"] for one in shown] == list(range(newest, newest - KEPT_VERSIONS, -1))
    assert {one["value"] for one in shown} == {"***"}
    assert (await api.call("secret.reveal", secretId=made["id"]))["value"] == f"v{newest}"
    assert (await api.call("secret.reveal", secretId=made["id"], version=5))["value"] == "v5"
    await api.call("secret.reveal", 404, secretId=made["id"], version=1)
    developer = await api.as_user("dev@example.com", "developer", home.organization_id)
    error = await developer.call("secret.reveal", 403, secretId=made["id"])
    assert "v" + str(newest) not in error["message"]
    stranger = await api.as_user("stranger@example.com")
    await stranger.call("secret.reveal", 404, secretId=made["id"])
    revealed = [detail["version"] for action, detail in await actions(api, home) if action == "secret.reveal"]
    assert revealed == [5, newest]
    assert not any("v5" in str(detail) for _, detail in await actions(api, home))


async def test_a_secret_becomes_plain_only_with_a_new_value(api: Api, home: Home) -> None:
    made = await add(api, "TOKEN", "hush", organizationId=home.organization_id)
    await api.call("secret.update", 400, secretId=made["id"], secret=False)
    await api.call("secret.update", 400, secretId=made["id"], secret=False, value="***")
    same = await api.call("secret.update", secretId=made["id"], value="***")
    assert same["version"] == 1, "the mask keeps what is stored"
    plain = await api.call("secret.update", secretId=made["id"], secret=False, value="shown")
    assert (plain["value"], plain["version"]) == ("shown", 2)
    hidden = await api.call("secret.update", secretId=made["id"], secret=True)
    assert (hidden["value"], hidden["version"]) == ("***", 3)
    assert (await api.call("secret.reveal", secretId=made["id"]))["value"] == "shown"
    await api.call("secret.remove", 204, method="DELETE", secretId=made["id"])
    await api.call("secret.versions", 404, method="GET", secretId=made["id"])


async def test_the_nearer_place_wins_and_the_container_itself_over_all(api: Api, home: Home) -> None:
    environment_id = await environment_of(api, home)
    for key in ("A", "B", "C", "D"):
        await add(api, key, f"{key}-organization", secret=False, organizationId=home.organization_id)
    for key in ("B", "C", "D"):
        await add(api, key, f"{key}-project", secret=False, projectId=home.project_id)
    for key in ("C", "D"):
        await add(api, key, f"{key}-environment", secret=False, environmentId=environment_id)
    made = await make(api, home, env=[{"key": "D", "value": "D-own"}])
    inherited = await frozen(api, made["id"])
    assert {key: each.value for key, each in inherited.items()} == {
        "A": "A-organization",
        "B": "B-project",
        "C": "C-environment",
    }
    assert await pending(api, made["id"]) == []


async def test_a_change_waits_for_the_next_deploy(api: Api, home: Home) -> None:
    secret = await add(api, "TOKEN", "one", organizationId=home.organization_id)
    made = await make(api, home)
    await finish(api, made["deploymentId"])
    before = (await frozen(api, made["id"]))["TOKEN"]
    assert before.secret
    assert "one" not in before.value
    await api.call("secret.update", secretId=secret["id"], value="two")
    assert await pending(api, made["id"]) == ["variables"]
    await api.call("container.restart", containerId=made["id"])
    assert (await frozen(api, made["id"]))["TOKEN"] == before, "a restart repeats its release"
    assert await pending(api, made["id"]) == ["variables"]
    await api.call("container.deploy", containerId=made["id"])
    assert (await frozen(api, made["id"]))["TOKEN"].origin == f"{secret['id']}@2"
    assert await pending(api, made["id"]) == []
    await api.call("container.rollback", releaseId=made["release"]["id"])
    assert (await frozen(api, made["id"]))["TOKEN"] == before, "a rollback returns to what its release was made with"
    assert await pending(api, made["id"]) == ["variables"]


async def test_the_same_once_more_is_the_same_release_content(api: Api, home: Home) -> None:
    """A secret is concealed anew for each release, and must not make two alike look different."""
    await add(api, "TOKEN", "one", organizationId=home.organization_id)
    made = await make(api, home)
    hashes = []
    for _ in range(2):
        await api.call("container.deploy", containerId=made["id"])
        shown = await api.call("container.one", method="GET", containerId=made["id"])
        async with api.store.read() as conn:
            found = await releases.get(conn, shown["release"]["id"])
        assert found is not None
        hashes.append(found.spec_hash)
    assert hashes[0] == hashes[1]


async def test_what_the_container_sets_itself_is_no_pending_variable(api: Api, home: Home) -> None:
    secret = await add(api, "TOKEN", "one", organizationId=home.organization_id)
    made = await make(api, home)
    await api.call("container.update", containerId=made["id"], env=[{"key": "TOKEN", "value": "own"}])
    assert await pending(api, made["id"]) == ["env"]
    await api.call("container.deploy", containerId=made["id"])
    await api.call("secret.update", secretId=secret["id"], value="two")
    assert await pending(api, made["id"]) == []


async def test_what_is_inherited_must_fit_with_what_is_declared(api: Api, home: Home) -> None:
    own = [{"key": "OWN", "value": "x" * 20_000, "secret": True}]
    made = await make(api, home, env=own)
    await add(api, "BIG", "x" * 20_000, organizationId=home.organization_id)
    error = await api.call("container.deploy", 400, containerId=made["id"])
    assert error["message"].startswith("variables: with those inherited, keys and values together may not exceed 32768")


async def test_an_environment_shows_and_takes_its_variables(api: Api, home: Home) -> None:
    environment_id = await environment_of(api, home)
    given: list[dict[str, Any]] = [{"key": "B", "value": "hush", "secret": True}, {"key": "A", "value": "1"}]
    shown = await api.call("environment.update", environmentId=environment_id, variables=given)
    expected: list[dict[str, Any]] = [{"key": "A", "value": "1"}, {"key": "B", "value": "***", "secret": True}]
    assert [{**one, "secret": one.get("secret", False)} for one in shown["variables"]] == [
        {**one, "secret": one.get("secret", False)} for one in expected
    ]
    kept = [*shown["variables"], {"key": "C", "value": "3"}]
    again = await api.call("environment.update", environmentId=environment_id, variables=kept)
    assert [one["key"] for one in again["variables"]] == ["A", "B", "C"]
    listed = await api.call("secret.all", method="GET", organizationId=home.organization_id)
    versions = {one["key"]: (one["id"], one["version"]) for one in listed}
    assert {key: version for key, (_, version) in versions.items()} == {"A": 1, "B": 1, "C": 1}
    assert (await api.call("secret.reveal", secretId=versions["B"][0]))["value"] == "hush"
    fewer = await api.call("environment.update", environmentId=environment_id, variables=[{"key": "A", "value": "2"}])
    assert [one["key"] for one in fewer["variables"]] == ["A"]
    twice = [{"key": "A", "value": "1"}, {"key": "A", "value": "2"}]
    await api.call("environment.update", 400, environmentId=environment_id, variables=twice)
    project = await api.call("project.one", method="GET", projectId=home.project_id)
    assert [one["key"] for one in project["environments"][0]["variables"]] == ["A"]
    assert not any("hush" in str(detail) for _, detail in await actions(api, home))


async def test_they_go_with_their_place(api: Api, home: Home) -> None:
    project = await api.call("project.create", 201, organizationId=home.organization_id, name="short-lived")
    (first,) = await api.call("environment.all", method="GET", projectId=project["id"])
    second = await api.call("environment.create", 201, projectId=project["id"], name="staging")
    await add(api, "A", "1", projectId=project["id"])
    await add(api, "A", "1", environmentId=first["id"])
    await add(api, "A", "1", environmentId=second["id"])
    await api.call("environment.remove", 204, method="DELETE", environmentId=second["id"])
    listed = await api.call("secret.all", method="GET", organizationId=home.organization_id)
    assert {one["scope"] for one in listed} == {"project", "environment"}
    await api.call("project.remove", 204, method="DELETE", projectId=project["id"])
    assert await api.call("secret.all", method="GET", organizationId=home.organization_id) == []


async def test_nothing_of_it_is_anothers(api: Api, home: Home) -> None:
    made = await add(api, "TOKEN", "hush", organizationId=home.organization_id)
    stranger = await api.as_user("stranger@example.com")
    for procedure, method in (("secret.versions", "GET"), ("secret.update", "PATCH"), ("secret.remove", "DELETE")):
        await stranger.call(procedure, 404, method=method, secretId=made["id"])
    await stranger.call("secret.create", 404, key="A", value="1", projectId=home.project_id)
    viewer = await api.as_user("viewer@example.com", "viewer", home.organization_id)
    assert (await viewer.call("secret.all", method="GET", organizationId=home.organization_id))[0]["value"] == "***"
    await viewer.call("secret.create", 403, key="A", value="1", organizationId=home.organization_id)


async def test_what_becomes_a_secret_stands_in_no_version_before(api: Api, home: Home) -> None:
    made = await api.call("secret.create", 201, organizationId=home.organization_id, key="TOKEN", value="was plain")
    await api.call("secret.update", secretId=made["id"], secret=True)
    versions = await api.call("secret.versions", method="GET", secretId=made["id"])
    assert [one["value"] for one in versions] == ["***"]


async def test_a_stored_registry_password_does_not_follow_an_image_elsewhere(api: Api, home: Home) -> None:
    login = {"username": "ann", "password": "hidden"}
    made = await api.call(
        "container.create",
        201,
        projectId=home.project_id,
        clusterId=home.cluster_id,
        name="private",
        image="registry.corp.test/web:1",
        credentials=login,
    )
    for name in ("container.deploy", "container.update"):
        error = await api.call(name, 400, containerId=made["id"], image="evil.test/web:1")
        assert error["message"].startswith("credentials: are to be given again for evil.test")
    await api.call("container.deploy", containerId=made["id"], image="registry.corp.test/web:2")
    await api.call("container.update", containerId=made["id"], image="other.test/web:1", credentials=None)
