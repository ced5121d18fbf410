"""Every curl example of the documentation, against the product.

The table below holds the facts: what is sent, which status it has, which keys of which types the answer has. It is checked
everywhere. Where the documents themselves are at hand, the same is done with their own lines, and the table is compared with them.
What an answer has beyond the documentation is listed, so that nothing creeps in; so is the little that cannot be answered as
documented yet, with the reason, and what is answered instead.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.component.api.caller import Api, Home, enrolled, finish, make
from tests.component.api.documented import Difference, Example, differences, read, shape
from tests.fakes.log_nodes import LogNodes

SEEDS = Path(__file__).parents[4] / "shared" / "seeds"
SOURCES = ("000", "001", "002")
NODES = [{"role": "manager", "plan": "medium", "count": 1}, {"role": "worker", "plan": "small", "count": 2}]
IMAGE = "ghcr.io/myorg/web:v1.2.3"
RESOURCES = {"cpuLimit": "500m", "memoryLimit": "512Mi"}
HEALTH = {"path": "/health", "port": 3000, "interval": 30}
CLUSTER = dict.fromkeys(("id", "name", "provider", "region", "orchestrator", "status", "createdAt"), "") | {
    "nodeCount": 3
}
ROW = dict.fromkeys(("id", "name", "image", "status", "clusterId", "createdAt"), "") | {"replicas": 3, "port": 3000}
WEB = {"containerId": "ctr_abc123"}

EXAMPLES = (
    Example("000", "GET", "organization.all"),
    Example(
        "000",
        "POST",
        "cluster.create",
        body={"name": "production", "provider": "digitalocean", "region": "sfo3"},
        answer={"id": "", "name": "", "status": ""},
    ),
    Example("001", "GET", "cluster.all", {"organizationId": "org_abc123"}, answer=[CLUSTER]),
    Example(
        "001",
        "GET",
        "cluster.one",
        {"clusterId": "cluster_abc123"},
        answer={**CLUSTER, "nodes": [{"id": "", "role": "", "plan": "", "ip": "", "status": ""}]},
    ),
    Example(
        "001",
        "POST",
        "cluster.create",
        body={
            "organizationId": "org_abc123",
            "name": "production",
            "provider": "digitalocean",
            "region": "sfo3",
            "orchestrator": "kubernetes",
            "nodes": NODES,
        },
        status=201,
    ),
    Example("001", "PATCH", "cluster.update", body={"clusterId": "cluster_abc123", "name": "production-us-east"}),
    Example("001", "POST", "cluster.addNode", body={"clusterId": "cluster_abc123", "role": "worker", "plan": "small"}),
    Example(
        "001",
        "DELETE",
        "cluster.removeNode",
        body={"clusterId": "cluster_abc123", "nodeId": "node_002"},
        status=204,
    ),
    Example("001", "DELETE", "cluster.remove", body={"clusterId": "cluster_abc123"}, status=204),
    Example(
        "002",
        "GET",
        "container.all",
        {"projectId": "proj_abc123"},
        answer=[ROW, {**ROW, "port": None}],
    ),
    Example(
        "002",
        "GET",
        "container.one",
        WEB,
        answer={
            **ROW,
            "env": [{"key": "", "value": ""}],
            "resources": RESOURCES,
            "domains": [""],
            "healthCheck": HEALTH,
            "lastDeployedAt": "",
        },
    ),
    Example(
        "002",
        "POST",
        "container.create",
        body={
            "projectId": "proj_abc123",
            "clusterId": "cluster_abc123",
            "name": "web",
            "image": IMAGE,
            "port": 3000,
            "replicas": 3,
            "env": [{"key": "NODE_ENV", "value": "production"}],
            "resources": RESOURCES,
            "healthCheck": HEALTH,
        },
        status=201,
    ),
    Example(
        "002",
        "PATCH",
        "container.update",
        body={
            **WEB,
            "replicas": 5,
            "env": [{"key": "NODE_ENV", "value": "production"}, {"key": "LOG_LEVEL", "value": "info"}],
        },
    ),
    Example(
        "002",
        "POST",
        "container.deploy",
        body={**WEB, "image": "ghcr.io/myorg/web:v1.3.0"},
        answer={"deploymentId": "", "status": "", "previousImage": "", "newImage": "", "triggeredAt": ""},
    ),
    Example("002", "POST", "container.restart", body=WEB),
    Example("002", "POST", "container.stop", body=WEB),
    Example("002", "POST", "container.start", body=WEB),
    Example("002", "GET", "container.logs", {**WEB, "tail": "100"}),
    Example("002", "DELETE", "container.remove", body=WEB, status=204),
)

EXTRA: dict[tuple[str, str], set[str]] = {
    ("000", "cluster.create"): {
        *(
            "provider",
            "region",
            "orchestrator",
            "reason",
            "nodeCount",
            "createdAt",
            "organizationId",
            "labels",
            "nodes",
        ),
    },
    ("001", "cluster.all"): {"[].reason"},
    ("001", "cluster.one"): {"reason", "organizationId", "labels"},
    ("002", "container.one"): {
        *("projectId", "environmentId", "type", "reason", "ports", "command", "volumes", "placement", "strategy"),
        *(
            "restartPolicy",
            "stopGracePeriod",
            "labels",
            "security",
            "credentials",
            "registryId",
            "generation",
            "release",
        ),
        *("pendingChanges", "deploymentId", "instances", "env[].secret"),
    },
}
"""What our answers have beyond the documented ones."""

NULL = {("001", "cluster.one"): {"nodes[].plan"}}
"""A machine of one's own has no plan: plans are what cloud providers sell."""


@dataclass(frozen=True)
class Departure:
    """An example that cannot be answered as documented: `status` and `field` of the refusal, and why. `instead` and `without`: how
    a body differs that is answered as documented, and so shows that the rest of the example holds."""

    status: int
    field: str
    why: str
    instead: dict[str, Any]
    without: frozenset[str] = frozenset()


BYO = {"provider": "byo", "orchestrator": "docker", "organizationId": "org_abc123", "nodes": []}
DEPARTURES = {
    ("000", "cluster.create"): Departure(
        400,
        "provider",
        "there are no cloud providers yet; the page on clusters itself requires the organisation and the orchestrator",
        BYO,
    ),
    ("001", "cluster.create"): Departure(
        400, "provider", "there are no cloud providers and no Kubernetes clusters yet, only machines of one's own", BYO
    ),
    ("001", "cluster.addNode"): Departure(
        400,
        "plan",
        "no provider makes machines of a plan yet: a node that has enrolled is named instead",
        {"nodeId": "node_free"},
        frozenset({"plan"}),
    ),
}


@dataclass
class World:
    """`ids`: documented id → one that is there."""

    api: Api
    ids: dict[str, str]

    async def send(self, example: Example) -> httpx.Response:
        answer = await self.api.client.request(
            example.method,
            f"/api/{example.name}",
            params=self._real(example.query) or None,
            json=self._real(example.body),
            headers={"Authorization": f"Bearer {self.api.token}"},
        )
        limits = [answer.headers.get(f"X-RateLimit-{name}", "") for name in ("Limit", "Remaining", "Reset")]
        assert all(one.isdecimal() for one in limits), f"{example.name}: {limits}"
        return answer

    def _real(self, value: Any) -> Any:
        match value:
            case dict():
                return {key: self._real(each) for key, each in value.items()}
            case list():
                return [self._real(each) for each in value]
            case str():
                return self.ids.get(value, value)
            case _:
                return value


@pytest.fixture
async def world(api: Api, home: Home) -> World:
    """A cluster with two nodes, two containers, and a node that is free."""
    LogNodes(api.services.broker)
    for name in ("manager", "second"):
        node_id = await enrolled(api, home, name)
    free = await enrolled(api, home, "free", cluster_id=None)
    declared: dict[str, Any] = {
        "image": IMAGE,
        "port": 3000,
        "env": [{"key": "NODE_ENV", "value": "production"}, {"key": "DATABASE_URL", "value": "x", "secret": True}],
        "resources": RESOURCES,
        "healthCheck": HEALTH,
    }
    made = await make(api, home, name="prepared", **declared)
    await finish(api, made["deploymentId"])
    await make(api, home, name="worker", image="ghcr.io/myorg/worker:v1.2.3")
    return World(
        api,
        {
            "org_abc123": home.organization_id,
            "proj_abc123": home.project_id,
            "cluster_abc123": home.cluster_id,
            "ctr_abc123": made["id"],
            "node_002": node_id,
            "node_free": free,
        },
    )


async def check(world: World, example: Example) -> None:
    if example.name == "cluster.remove":  # of a cluster without containers
        await world.api.call("container.remove", 204, containerId=world.ids["ctr_abc123"])
        empty = {
            "organizationId": world.ids["org_abc123"],
            "name": "empty",
            "provider": "byo",
            "orchestrator": "docker",
        }
        world.ids["cluster_abc123"] = (await world.api.call("cluster.create", 201, **empty))["id"]
    departure = DEPARTURES.get(example.key)
    if departure is not None:
        refused = await world.send(example)
        assert refused.status_code == departure.status, refused.text
        assert refused.json()["error"]["message"].startswith(f"{departure.field}: "), refused.text
        kept = {key: value for key, value in (example.body or {}).items() if key not in departure.without}
        example = replace(example, body=kept | departure.instead)
        status = 201 if example.name == "cluster.create" else example.status  # the general page shows none
        example = replace(example, status=status)
    answer = await world.send(example)
    assert answer.status_code == example.status, answer.text
    if example.status == 204:
        assert answer.content == b""
        return
    body = answer.json()
    assert set(body) == {"result"}
    assert set(body["result"]) == {"data"}
    if example.answer is not None:
        found = differences(shape(example.answer), body["result"]["data"])
        wanted = Difference(extra=EXTRA.get(example.key, set()), null=NULL.get(example.key, set()))
        assert found == wanted


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: "-".join(one.key))
async def test_an_example_is_answered_as_documented(world: World, example: Example) -> None:
    await check(world, example)


async def test_errors_are_as_documented(world: World) -> None:
    unknown = Example("000", "GET", "cluster.one", {"clusterId": "cluster_nobodys"})
    answer = await world.send(unknown)
    assert answer.json() == {"error": {"message": "cluster not found", "code": "NOT_FOUND", "httpStatus": 404}}
    assert answer.status_code == 404
    stranger = await world.api.client.get("/api/organization.all")
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert "X-RateLimit-Limit" in stranger.headers


def test_every_departure_is_of_an_example() -> None:
    known = {example.key for example in EXAMPLES}
    assert len(known) == len(EXAMPLES)
    assert DEPARTURES.keys() | EXTRA.keys() | NULL.keys() <= known


# --- the documents themselves

DOCUMENTED = [example for source in SOURCES for path in sorted(SEEDS.glob(f"{source}_*.txt")) for example in read(path)]


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the documents are not at hand")
def test_the_table_says_what_the_documents_say() -> None:
    assert [facts(one) for one in EXAMPLES] == [facts(one) for one in DOCUMENTED]


def facts(example: Example) -> Any:
    answer = None if example.answer is None else shape(example.answer)
    return example.key, example.method, example.query, example.body, example.status, answer


@pytest.mark.parametrize("example", DOCUMENTED, ids=lambda one: "-".join(one.key))
async def test_a_line_of_a_document_is_answered_as_it_says(world: World, example: Example) -> None:
    await check(world, example)
