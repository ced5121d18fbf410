"""Clusters and their nodes over the API."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, cast

import httpx
import pytest

from coordinator.core.permissions import ClusterPermission
from coordinator.doors.application import make_app
from coordinator.doors.auth import Authenticator
from coordinator.doors.cookies import Connection
from coordinator.procedures.context import Caller
from coordinator.store import nodes
from shared.spec.reason import Reason
from tests.component.api.caller import Api, Home, enrolled, make, running_instance


async def test_every_answer_about_a_node_says_what_is_free_on_it(api: Api, home: Home) -> None:
    node_id = await enrolled(api, home, "n1")
    await running_instance(api, home, await make(api, home), node_id)
    where: dict[str, Any] = {"clusterId": home.cluster_id, "nodeId": node_id}
    for name in ("cluster.cordonNode", "cluster.uncordonNode", "cluster.drainNode"):
        node = await api.call(name, **where)
        assert (node["allocatable"]["cpuMillis"], node["allocatable"]["memoryBytes"]) == (3500, 7 * 2**30)


async def test_a_node_that_was_on_its_way_out_starts_afresh_in_another_cluster(api: Api, home: Home) -> None:
    gone = await api.call(
        "cluster.create", 201, organizationId=home.organization_id, name="old", provider="byo", orchestrator="docker"
    )
    blocked = Reason("drain_blocked", "no room")
    state: dict[str, Any] = {"availability": "draining", "removing": True, "drain_reason": blocked}
    node_id = await enrolled(api, home, "n1", cluster_id=gone["id"], **state)
    with closing(api.store.changes.subscribe("node")) as changes:
        await api.call("cluster.remove", 204, clusterId=gone["id"])
        assert ("node", node_id) in await changes.take(timeout=5)
    await api.store.write(partial(nodes.change, node_id=node_id, **state))
    added = await api.call("cluster.addNode", clusterId=home.cluster_id, nodeId=node_id)
    assert added["availability"] == "active"
    async with api.store.read() as conn:
        record = await nodes.get(conn, node_id)
    assert record is not None
    assert (record.removing, record.drain_reason, record.cluster_id) == (False, None, home.cluster_id)


async def test_a_cluster_none_of_whose_nodes_works_is_in_error(api: Api, home: Home) -> None:
    await enrolled(api, home, "n1")
    cluster = await api.call("cluster.one", clusterId=home.cluster_id)
    assert (cluster["status"], cluster["reason"]["message"]) == ("error", "of 1 nodes 1 disconnected")


async def test_without_an_address_to_join_at_no_token_is_made(api: Api, home: Home) -> None:
    transport = httpx.ASGITransport(cast("Any", make_app(replace(api.services, url=""))))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        error = await replace(api, client=client).call("cluster.joinToken", 412, clusterId=home.cluster_id)
    assert error["message"].startswith("set ARGOSY_URL")


@pytest.mark.parametrize(("there", "elsewhere"), [("deploy", "view"), ("view", "deploy")])
async def test_a_grant_counts_on_its_own_cluster_only(
    api: Api, home: Home, monkeypatch: pytest.MonkeyPatch, there: ClusterPermission, elsewhere: ClusterPermission
) -> None:
    """The container would use the cluster named, whatever the project's environment has."""
    other = await api.call(
        "cluster.create", 201, organizationId=home.organization_id, name="other", provider="byo", orchestrator="docker"
    )
    grants: dict[str, ClusterPermission] = {home.cluster_id: there, other["id"]: elsewhere}
    known = Authenticator.caller

    async def with_grants(self: Authenticator, connection: Connection) -> Caller:
        return replace(await known(self, connection), grants=grants)

    monkeypatch.setattr(Authenticator, "caller", with_grants)
    for cluster_id, name in ((home.cluster_id, "a1"), (other["id"], "a2")):
        allowed = grants[cluster_id] == "deploy"
        fields = {"projectId": home.project_id, "image": "web:1", "clusterId": cluster_id, "name": name}
        await api.call("container.create", 201 if allowed else 403, **fields)
