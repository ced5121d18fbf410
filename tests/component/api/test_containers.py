"""Containers over the API: sizes, releases to return to, and what goes with an environment."""

import asyncio
from functools import partial
from typing import Any

import pytest

from coordinator.store import audit, containers, projects
from coordinator.store.database import Tx
from shared.spec.node import HostSample, InstanceSample
from tests.component.api.caller import Api, Home, enrolled, finish, make, running_instance

KIB = 1024


async def test_an_environment_takes_all_of_its_containers_with_it(api: Api, home: Home) -> None:
    environment = await api.call("environment.create", 201, projectId=home.project_id, name="staging")
    first = await make(api, home, environmentId=environment["id"])

    async def many(tx: Tx) -> None:
        record = await containers.get(tx.conn, first["id"])
        assert record is not None
        for index in range(230):
            copied: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__}
            copied |= {"id": f"ctr_copy{index:04}", "name": f"copy-{index}", "target_release_id": None}
            await containers.insert(tx, type(record)(**copied))

    await api.store.write(many)
    whole = await api.call("project.one", projectId=home.project_id)
    assert len(whole["containers"]) == whole["containerCount"] == 231
    await api.call("environment.remove", 204, environmentId=environment["id"])
    async with api.store.read() as conn:
        assert {one.desired for one in await containers.every(conn)} == {"removed"}


async def test_nothing_is_created_in_an_environment_on_its_way_out(api: Api, home: Home) -> None:
    environment = await api.call("environment.create", 201, projectId=home.project_id, name="staging")
    await make(api, home, environmentId=environment["id"])
    await api.call("environment.remove", 204, environmentId=environment["id"])
    error = await make(api, home, name="late", expect=400, environmentId=environment["id"])
    assert error["message"] == "environmentId: no such environment in this project"


@pytest.mark.parametrize("procedure", ["container.create", "environment.create"])
async def test_a_project_that_goes_meanwhile_is_not_found_and_no_name_is_blamed(
    api: Api, home: Home, monkeypatch: pytest.MonkeyPatch, procedure: str
) -> None:
    """It is there when the caller's right is looked up, and gone when the transaction begins."""
    write = type(api.store).write

    async def after_a_removal(store: Any, unit: Any) -> Any:
        monkeypatch.undo()
        await write(store, partial(projects.remove, project_id=home.project_id))
        return await write(store, unit)

    monkeypatch.setattr(type(api.store), "write", after_a_removal)
    fields = {"clusterId": home.cluster_id, "name": "web", "projectId": home.project_id}
    extra = {"image": "web:1"} if procedure == "container.create" else {}
    assert (await api.call(procedure, 404, **fields, **extra))["message"] == "project not found"


LONG_COMMAND = ["c" * 8000, "c" * 8000]


@pytest.mark.parametrize(
    ("field", "value", "beside"),
    [
        ("healthCheck", {"type": "exec", "command": ["x" * 1024] * 64}, {}),
        ("labels", {f"l{index}": "€" * 256 for index in range(64)}, {"command": LONG_COMMAND}),
        (
            "env",
            [{"key": f"K{index}", "value": "v" * 58, "secret": True} for index in range(512)],
            {"command": LONG_COMMAND},
        ),
    ],
)
async def test_a_declaration_too_large_for_a_node_is_refused_by_its_largest_field(
    api: Api, home: Home, field: str, value: Any, beside: dict[str, Any]
) -> None:
    error = await make(api, home, expect=400, **{field: value}, **beside)
    assert error["message"].startswith(f"{field}: a node is told at most")


async def test_sizes_are_those_of_the_plaintext_of_secrets(api: Api, home: Home) -> None:
    secret = {"key": "TOKEN", "value": "s" * (31 * KIB), "secret": True}
    made = await make(api, home, env=[secret], credentials={"username": "u", "password": "p" * 4096})
    kept = {"key": "TOKEN", "value": "***", "secret": True}
    change = partial(api.call, "container.update", method="PATCH", containerId=made["id"])
    await change(env=[kept, {"key": "MODE", "value": "fast"}])
    await change(replicas=2)
    await api.call("container.deploy", containerId=made["id"], image="web:2")
    error = await change(expect=400, env=[kept, {"key": "MORE", "value": "v" * (2 * KIB)}])
    assert error["message"].startswith("env: keys and values together may not exceed")


async def deploy(api: Api, made: Any, image: str) -> None:
    await finish(api, (await api.call("container.deploy", containerId=made["id"], image=image))["deploymentId"])


async def rolled_back_to(api: Api, made: Any) -> int:
    deployment = await api.call("container.rollback", containerId=made["id"])
    await finish(api, deployment["id"])
    revision: int = deployment["revision"]
    return revision


async def restart(api: Api, made: Any) -> None:
    await finish(api, (await api.call("container.restart", containerId=made["id"]))["deploymentId"])


async def test_rolling_back_again_goes_further_back(api: Api, home: Home) -> None:
    made = await make(api, home)
    await finish(api, made["deploymentId"])
    await deploy(api, made, "web:2")
    failed = await api.call("container.deploy", containerId=made["id"], image="web:3")
    await finish(api, failed["deploymentId"], "failed")
    await deploy(api, made, "web:4")
    assert [await rolled_back_to(api, made) for _ in range(2)] == [2, 1]
    error = await api.call("container.rollback", 412, containerId=made["id"])
    assert error["message"] == "there is no earlier healthy release to return to"


async def test_a_restart_is_no_release_to_return_to_and_turns_nothing_around(api: Api, home: Home) -> None:
    made = await make(api, home)
    await finish(api, made["deploymentId"])
    await deploy(api, made, "web:2")
    await restart(api, made)  # revision 3, the same as 2
    await restart(api, made)
    assert await rolled_back_to(api, made) == 1
    await restart(api, made)  # revision 5, the same as 1: what comes before it is nothing, not 2
    await api.call("container.rollback", 412, containerId=made["id"])


async def test_only_a_deploy_brings_declared_replicas_into_force(api: Api, home: Home) -> None:
    made = await make(api, home, replicas=2)
    await finish(api, made["deploymentId"])
    await deploy(api, made, "web:2")
    await api.call("container.update", method="PATCH", containerId=made["id"], replicas=5)
    await restart(api, made)
    await rolled_back_to(api, made)
    one = await api.call("container.one", method="GET", containerId=made["id"])
    (row,) = await api.call("container.all", method="GET", projectId=home.project_id)
    assert (one["replicas"], row["replicas"]) == (5, 2)
    assert "replicas" in one["pendingChanges"]
    await api.call("container.deploy", containerId=made["id"])
    (row,) = await api.call("container.all", method="GET", projectId=home.project_id)
    assert row["replicas"] == 5


async def test_the_audit_names_the_procedure(api: Api, home: Home) -> None:
    made = await make(api, home)
    node_id = await enrolled(api, home, "n1")
    names = ["container.stop", "container.start"]
    for name in names:
        await api.call(name, containerId=made["id"])
    moves = ["cluster.cordonNode", "cluster.uncordonNode", "cluster.drainNode"]
    for name in moves:
        await api.call(name, clusterId=home.cluster_id, nodeId=node_id)
    async with api.store.read() as conn:
        rows = await audit.of_organization(conn, home.organization_id)
    assert [row.action for row in reversed(rows)] == ["container.create", *names, *moves]


async def test_readings_are_found_whatever_the_nodes_clock_says(api: Api, home: Home) -> None:
    made = await make(api, home)
    node_id = await enrolled(api, home, "n1")
    instance_id = await running_instance(api, home, made, node_id)
    for at in (1000.0, 1100.0, 1110.0):  # long before the coordinator's now
        host = HostSample(at=at, cpu=0.0, memory_used=0, memory_total=0, disk_free=0)
        sample = InstanceSample(instance_id=instance_id, at=at, cpu=0.5, memory=1)
        api.services.samples.add(node_id, host, [sample], now=at)
    (series,) = await api.call("container.stats", method="GET", containerId=made["id"], range=60)
    assert len(series["samples"]) == 2


async def test_waiting_for_a_status_answers_when_it_comes_and_not_before(api: Api, home: Home) -> None:
    made = await make(api, home)
    waiting = asyncio.create_task(api.call("container.one", containerId=made["id"], waitFor="deleting", timeout=60))
    await asyncio.sleep(0)
    assert not waiting.done()
    await api.call("container.remove", 204, method="DELETE", containerId=made["id"])
    assert (await waiting)["status"] == "deleting"


async def test_waiting_in_vain_tells_what_is(api: Api, home: Home) -> None:
    made = await make(api, home)
    answer = await api.call("container.one", containerId=made["id"], waitFor="running", timeout=1)
    assert answer["status"] == "creating"
    error = await api.call("container.one", 400, containerId=made["id"], waitFor="flying")
    assert error["message"].startswith("waitFor:")
