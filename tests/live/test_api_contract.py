"""What the API promises whoever calls it: statuses, envelopes, and for every bad input a 400 that names the field and the rule."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.hosts import images
from tests.hosts.api import Api
from tests.hosts.stack import Stack
from tests.live import waiting
from tests.live.declared import plain

pytestmark = pytest.mark.live

# What is wrong with an otherwise good container.create; what the message must say of it.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "x"}, "name"),
    ({"name": "UPPER"}, "name"),
    ({"name": "web\n"}, "name"),
    ({"name": "a" * 65}, "name"),
    ({"name": 7}, "name"),
    ({"replicas": -1}, "replicas"),
    ({"replicas": 101}, "replicas"),
    ({"replicas": "3"}, "replicas"),
    ({"replicas": 1.5}, "replicas"),
    ({"replicas": None}, "replicas"),
    ({"image": ""}, "image"),
    ({"image": "has space"}, "image"),
    ({"port": 0}, "port"),
    ({"port": 65536}, "port"),
    ({"unknown": 1}, "unknown: unknown field"),
    ({"healthCheck": {"path": "/h", "intervall": 3}}, "healthCheck.intervall: unknown field"),
    ({"healthCheck": {"path": "health"}}, "healthCheck.path"),
    ({"healthCheck": {"path": "/"}}, "healthCheck.port"),
    ({"healthCheck": {"type": "exec"}}, "healthCheck.command"),
    ({"healthCheck": {"type": "ping"}}, "healthCheck.type"),
    ({"port": 80, "healthCheck": {"interval": 0}}, "healthCheck.interval"),
    ({"env": [{"key": "1X", "value": ""}]}, "env[0].key"),
    ({"env": [{"key": "A", "value": "1"}, {"key": "A", "value": "2"}]}, "env: 'A' is declared twice"),
    ({"env": [{"key": "A", "value": "***", "secret": True}]}, "env.A"),
    ({"env": {"A": "1"}}, "env"),
    ({"env": [{"key": "A", "value": "x" * 40_000}]}, "env"),
    ({"resources": {"cpuLimit": "lots"}}, "resources.cpuLimit"),
    ({"resources": {"memoryLimit": "1Mi"}}, "resources.memoryLimit"),
    ({"resources": {"memoryLimit": "512 MB"}}, "resources.memoryLimit"),
    ({"resources": {"cpuLimit": "500m", "cpuRequest": "1"}}, "resources.cpuRequest"),
    ({"ports": [{"port": 80, "hostPort": 70_000}]}, "ports[0].hostPort"),
    ({"ports": [{"port": 80}, {"port": 80}]}, "ports"),
    ({"volumes": [{"name": "data", "mountPath": "relative"}]}, "volumes[0].mountPath"),
    ({"placement": {"constraints": ["host=h1"]}}, "placement.constraints[0]"),
    ({"strategy": {"type": "rolling", "maxSurge": 0, "maxUnavailable": 0}}, "strategy.maxSurge"),
    ({"strategy": {"type": "bluegreen"}}, "strategy.type"),
    ({"restartPolicy": "sometimes"}, "restartPolicy"),
    ({"labels": {"argosy.node": "mine"}}, "labels.argosy.node"),
    ({"type": "cronjob"}, "type"),
    ({"clusterId": "cluster_none"}, "clusterId"),
    ({"environmentId": "env_none"}, "environmentId"),
    ({"env": [{"key": "A", "value": "\0"}]}, "NUL"),
]


@pytest.fixture
def good(stack: Stack) -> dict[str, Any]:
    return {
        "projectId": stack.api.project()["id"],
        "clusterId": stack.api.cluster()["id"],
        "name": "good",
        "image": images.BUSYBOX,
    }


def test_every_bad_field_is_named_with_its_rule(stack: Stack, good: dict[str, Any]) -> None:
    wrong = []
    for bad, expected in BAD:
        error = waiting.refusal(lambda bad=bad: stack.api.call("container.create", **{**good, **bad}))  # type: ignore[misc]
        if (error.status, error.code) != (400, "BAD_REQUEST") or expected not in error.message:
            wrong.append(f"{bad}: {error}; expected {expected!r}")
    assert wrong == []
    assert stack.api.containers() == []


def test_a_missing_field_is_named(stack: Stack, good: dict[str, Any]) -> None:
    for field in ("projectId", "name"):
        error = waiting.refusal(
            lambda field=field: stack.api.call(  # type: ignore[misc]
                "container.create", **{key: value for key, value in good.items() if key != field}
            )
        )
        assert (error.status, error.message) == (400, f"{field}: is required")
    del good["image"]
    assert "image" in waiting.refusal(lambda: stack.api.call("container.create", **good)).message


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"{", "JSON"), (b"[]", "object"), (b'"x"', "object"), (b"\xff\xfe", "JSON"), (b"[" * 100_000, "")],
    ids=["cut", "list", "text", "bytes", "deep"],
)
def test_a_body_that_is_no_object(stack: Stack, body: bytes, expected: str) -> None:
    answer = stack.api.http.post("/api/container.create", content=body)
    assert answer.status_code == 400
    assert expected in answer.json()["error"]["message"]


def test_a_body_that_is_too_large(stack: Stack) -> None:
    answer = stack.api.http.post("/api/container.create", content=b'{"name":"' + b"x" * 3_000_000 + b'"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "201"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": "'; DROP TABLE x"}, "cursor"),
        ({"colour": "red"}, "colour: unknown field"),
    ],
)
def test_a_query_is_checked_as_a_body_is(stack: Stack, fields: dict[str, str], expected: str) -> None:
    project = stack.api.project()["id"]
    error = waiting.refusal(lambda: stack.api.get("container.all", projectId=project, **fields))
    assert error.status == 400
    assert expected in error.message


def test_every_procedure_needs_a_token_but_the_public_ones(stack: Stack) -> None:
    procedures = stack.api.get("system.procedures")
    assert len(procedures) > 40
    for header in ({}, {"Authorization": "Bearer argosy_wrong"}, {"Authorization": "Basic abc"}):
        with httpx.Client(base_url=stack.api.url, headers=header, trust_env=False) as stranger:
            for one in procedures:
                if one["access"] == "public":
                    continue
                answer = stranger.post(f"/api/{one['name']}", json={})
                # Without a token, the input is checked first or the caller is: either way nothing is done.
                assert answer.status_code in (400, 401), f"{one['name']}: {answer.status_code}"
            assert stranger.get("/api/system.whoami").status_code == 401
            assert stranger.get("/api/system.health").status_code == 200


def test_what_does_not_exist_is_not_found(stack: Stack) -> None:
    for procedure, field in (
        ("container.one", "containerId"),
        ("cluster.one", "clusterId"),
        ("project.one", "projectId"),
        ("container.deployment", "deploymentId"),
        ("organization.one", "organizationId"),
    ):
        prefix = {"containerId": "ctr", "clusterId": "cluster", "projectId": "proj", "deploymentId": "dep"}
        unknown = f"{prefix.get(field, 'org')}_unknown"
        error = waiting.refusal(lambda: stack.api.get(procedure, **{field: unknown}))  # noqa: B023
        assert (error.status, error.code) == (404, "NOT_FOUND"), procedure
    assert waiting.refusal(lambda: stack.api.get("container.none")).status == 404
    assert stack.api.http.get("/nothing/here").status_code == 404


def test_statuses_methods_and_envelopes(stack: Stack, good: dict[str, Any]) -> None:
    http = stack.api.http
    made = http.post("/api/container.create", json=good)
    assert made.status_code == 201
    container_id = made.json()["result"]["data"]["id"]
    assert container_id.startswith("ctr_")
    by_get = http.get("/api/container.one", params={"containerId": container_id})
    by_post = http.post("/api/container.one", json={"containerId": container_id})
    assert by_get.status_code == by_post.status_code == 200
    assert by_get.json()["result"]["data"]["id"] == by_post.json()["result"]["data"]["id"] == container_id
    assert http.patch("/api/container.one", json={"containerId": container_id}).status_code in (400, 405)
    assert http.post("/api/container.create", json=good).status_code == 409
    gone = http.request("DELETE", "/api/container.remove", json={"containerId": container_id})
    assert (gone.status_code, gone.content) == (204, b"")


def test_lists_go_on_from_the_cursor(stack: Stack) -> None:
    made = {stack.api.create(f"c{number}", images.BUSYBOX, 0, **plain()).id for number in range(5)}
    project, cursor, seen = stack.api.project()["id"], None, []
    while True:
        params = {"projectId": project, "limit": 2, **({"cursor": cursor} if cursor else {})}
        answer = stack.api.http.get("/api/container.all", params=params)
        seen += [one["id"] for one in answer.json()["result"]["data"]]
        cursor = answer.headers.get("x-next-cursor")
        if cursor is None:
            break
    assert len(seen) == 5
    assert set(seen) == made


def test_two_users_at_once_make_one_container_of_a_name(stack: Stack, good: dict[str, Any]) -> None:
    with Api(stack.api.url, stack.coordinator.token) as other:
        first = stack.api.http.build_request("POST", "/api/container.create", json=good)
        answers = [stack.api.http.send(first), other.http.post("/api/container.create", json=good)]
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert "good" in answers[1].json()["error"]["message"]


def test_stats_and_usage_come_from_the_nodes(stack: Stack) -> None:
    busy = ["sh", "-c", "trap 'exit 0' TERM; while :; do :; done"]
    container = stack.api.create("busy", images.BUSYBOX, 2, **plain(command=busy, resources={"cpuLimit": "200m"}))
    waiting.running(stack, container.id, 2)
    series = waiting.until(
        lambda: stack.api.get("container.stats", containerId=container.id),
        lambda found: len(found) == 2 and all(one["samples"] and one["samples"][-1]["cpu"] > 0.1 for one in found),
        within=30,
        saying="processor use of both instances is measured",
    )
    for one in series:
        assert one["samples"][-1]["memory"] > 0
        assert one["samples"][-1]["cpu"] < 0.5, "the limit is 0.2 of a processor"
    for node in stack.api.nodes():
        assert node.usage is not None
        assert node.usage["memoryUsed"] > 0
        assert node.last_seen_at is not None
