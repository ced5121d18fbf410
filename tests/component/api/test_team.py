"""Organisations and their teams: who may change whom, the last owner, grants, and that a change of rights holds at once."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from coordinator.control.collector import Collector
from coordinator.doors import callers, watching
from coordinator.store import clusters, instances, nodes, organizations, removals
from coordinator.store.database import Tx
from coordinator.store.tables import api_token
from shared.kit.clock import SystemClock
from shared.spec.instance import Phase
from shared.spec.reason import Reason
from tests.component.api.caller import Api, Home, enrolled, make, running_instance
from tests.fakes.seeds import running, until


async def user_id(api: Api) -> str:
    return str((await api.call("user.me", method="GET"))["id"])


async def member(api: Api, home: Home, name: str, role: str) -> tuple[Api, str]:
    made = await api.as_user(f"{name}@example.test", role, home.organization_id)
    return made, await user_id(made)


async def roles(api: Api, home: Home) -> dict[str, str]:
    found = await api.call("orgTeam.all", method="GET", organizationId=home.organization_id)
    return {one["email"]: one["role"] for one in found}


async def test_the_team_is_listed_page_by_page(api: Api, home: Home) -> None:
    await member(api, home, "dev", "developer")
    listed = await api.call("orgTeam.all", method="GET", organizationId=home.organization_id)
    assert {tuple(one) for one in listed} == {("userId", "email", "name", "role", "joinedAt")}
    first = await api.call("orgTeam.all", method="GET", organizationId=home.organization_id, limit=1)
    rest = await api.call(
        "orgTeam.all", method="GET", organizationId=home.organization_id, limit=1, cursor=first[0]["userId"]
    )
    assert [*first, *rest] == listed


async def test_only_owners_touch_admins_and_owners(api: Api, home: Home) -> None:
    admin, admin_id = await member(api, home, "admin", "admin")
    _, dev_id = await member(api, home, "dev", "developer")
    owner_id = await user_id(api)
    change = partial(admin.call, "orgTeam.update", method="PATCH", organizationId=home.organization_id)
    assert (await change(userId=dev_id, role="viewer"))["role"] == "viewer"
    for target, role in ((dev_id, "admin"), (dev_id, "owner"), (owner_id, "viewer"), (admin_id, "developer")):
        error = await change(403, userId=target, role=role)
        assert "only owners" in error["message"]
    remove = partial(admin.call, "orgTeam.remove", method="DELETE", organizationId=home.organization_id)
    await remove(403, userId=owner_id)
    await remove(204, userId=dev_id)
    await remove(404, userId=dev_id)
    assert await roles(api, home) == {"admin@localhost": "owner", "admin@example.test": "admin"}


async def test_a_changed_role_holds_for_the_next_call(api: Api, home: Home) -> None:
    dev, dev_id = await member(api, home, "dev", "developer")
    await make(dev, home)
    change = partial(api.call, "orgTeam.update", method="PATCH", organizationId=home.organization_id, userId=dev_id)
    await change(role="viewer")
    await make(dev, home, name="second", expect=403)
    await change(role="billing")
    await dev.call("project.all", 403, method="GET", organizationId=home.organization_id)
    await api.call("orgTeam.remove", 204, method="DELETE", organizationId=home.organization_id, userId=dev_id)
    await dev.call("project.all", 404, method="GET", organizationId=home.organization_id)


async def test_the_last_owner_stays(api: Api, home: Home) -> None:
    owner_id = await user_id(api)
    error = await api.call(
        "orgTeam.update", 412, method="PATCH", organizationId=home.organization_id, userId=owner_id, role="admin"
    )
    assert "last owner" in error["message"]
    await api.call("orgTeam.remove", 412, method="DELETE", organizationId=home.organization_id, userId=owner_id)
    _, other = await member(api, home, "second", "owner")
    await api.call("orgTeam.update", method="PATCH", organizationId=home.organization_id, userId=owner_id, role="admin")
    error = await api.call("orgTeam.remove", 403, method="DELETE", organizationId=home.organization_id, userId=other)
    assert "only owners" in error["message"]


async def test_owners_who_remove_each_other_at_once_leave_one(api: Api, home: Home) -> None:
    owners = [(api, await user_id(api))]
    owners += [await member(api, home, f"owner{number}", "owner") for number in range(4)]
    removals = [
        mine.client.request(
            "DELETE",
            "/api/orgTeam.remove",
            json={"organizationId": home.organization_id, "userId": theirs},
            headers={"Authorization": f"Bearer {mine.token}"},
        )
        for mine, own in owners
        for _, theirs in owners
        if own != theirs
    ]
    answers = await asyncio.gather(*removals)
    assert {one.status_code for one in answers} <= {204, 404, 412}
    async with api.store.read() as conn:
        left = await organizations.roles_of(conn, home.organization_id)
    assert "owner" in left.values()


async def test_who_leaves_loses_grants_and_reviews(api: Api, home: Home) -> None:
    dev, dev_id = await member(api, home, "dev", "developer")
    (environment,) = await api.call("environment.all", method="GET", projectId=home.project_id)
    await api.call("environment.update", method="PATCH", environmentId=environment["id"], reviewers=[dev_id])
    await api.call("cluster.grantAccess", clusterId=home.cluster_id, userId=dev_id, permission="manage")
    await api.call("orgTeam.remove", 204, method="DELETE", organizationId=home.organization_id, userId=dev_id)
    assert (await api.call("environment.one", method="GET", environmentId=environment["id"]))["reviewers"] == []
    assert await api.call("cluster.listAccess", method="GET", clusterId=home.cluster_id) == []
    await dev.call("cluster.one", 404, method="GET", clusterId=home.cluster_id)


async def test_a_grant_overrides_the_default_in_either_direction_and_at_once(api: Api, home: Home) -> None:
    dev, dev_id = await member(api, home, "dev", "developer")
    viewer, viewer_id = await member(api, home, "viewer", "viewer")
    grant = partial(api.call, "cluster.grantAccess", clusterId=home.cluster_id)
    made = await make(dev, home)
    assert (await grant(userId=dev_id, permission="view"))["permission"] == "view"
    await dev.call("container.deploy", 403, containerId=made["id"])
    await viewer.call("container.deploy", 403, containerId=made["id"])
    await grant(userId=viewer_id, permission="manage")
    await viewer.call("container.deploy", containerId=made["id"])
    await viewer.call("cluster.joinToken", clusterId=home.cluster_id)
    listed = await viewer.call("cluster.listAccess", method="GET", clusterId=home.cluster_id)
    assert {one["email"]: one["permission"] for one in listed} == {
        "dev@example.test": "view",
        "viewer@example.test": "manage",
    }
    await api.call("cluster.revokeAccess", 204, method="DELETE", clusterId=home.cluster_id, userId=viewer_id)
    await viewer.call("container.deploy", 403, containerId=made["id"])
    await api.call("cluster.revokeAccess", 404, method="DELETE", clusterId=home.cluster_id, userId=viewer_id)


async def test_who_manages_one_cluster_does_not_take_it_from_admins_nor_gives_it_to_strangers(
    api: Api, home: Home
) -> None:
    dev, dev_id = await member(api, home, "dev", "developer")
    _, admin_id = await member(api, home, "boss", "admin")
    stranger = await api.as_user("stranger@example.test")
    await api.call("cluster.grantAccess", clusterId=home.cluster_id, userId=dev_id, permission="manage")
    grant = partial(dev.call, "cluster.grantAccess", clusterId=home.cluster_id, permission="view")
    await grant(403, userId=admin_id)
    error = await grant(404, userId=await user_id(stranger))
    assert error == await grant(404, userId="user_doesnotexist")


async def test_a_follower_is_cut_off_when_it_is_removed_from_the_team(api: Api, home: Home) -> None:
    dev, dev_id = await member(api, home, "dev", "developer")
    other, _ = await member(api, home, "other", "developer")
    made = await make(api, home)
    api.services.broker.attach(_Nowhere())
    ended: dict[str, float] = {}

    async def follow(name: str, caller: Api) -> None:
        params = {"containerId": made["id"], "follow": "true"}
        response = await caller.client.get(
            "/api/container.logs", params=params, headers={"Authorization": f"Bearer {caller.token}"}
        )
        assert response.status_code == 200
        ended[name] = time.monotonic()

    followers = [asyncio.create_task(follow("dev", dev)), asyncio.create_task(follow("other", other))]
    await until(partial(_open_streams, api, 2))
    began = time.monotonic()
    await api.call("orgTeam.remove", 204, method="DELETE", organizationId=home.organization_id, userId=dev_id)
    async with asyncio.timeout(5):
        await followers[0]
    assert ended["dev"] - began < 1.0
    assert not followers[1].done()
    await until(partial(_open_streams, api, 1))
    api.services.broker.close()
    await followers[1]


async def test_a_follower_is_cut_off_when_its_token_is_no_longer_good(
    api: Api, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token expires without anybody changing anything: it is looked at again now and then."""
    monkeypatch.setattr(watching, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(callers, "KEPT_SECONDS", 0.05)
    dev, dev_id = await member(api, home, "dev", "developer")
    made = await make(api, home)
    api.services.broker.attach(_Nowhere())

    async def follow() -> int:
        params = {"containerId": made["id"], "follow": "true"}
        headers = {"Authorization": f"Bearer {dev.token}"}
        return (await dev.client.get("/api/container.logs", params=params, headers=headers)).status_code

    following = asyncio.create_task(follow())
    await until(partial(_open_streams, api, 1))

    async def expire(tx: Tx) -> None:
        await tx.conn.execute(update(api_token).where(api_token.c.user_id == dev_id).values(expires_at=tx.now))

    await api.store.write(expire)
    async with asyncio.timeout(5):
        assert await following == 200
    await until(partial(_open_streams, api, 0))


async def _open_streams(api: Api, count: int) -> bool:
    return len(api.services.broker._subscriptions) == count


class _Nowhere:
    def send(self, node_id: str, frame: Any) -> bool:
        return True


async def test_an_organisation_is_renamed_by_its_admins(api: Api, home: Home) -> None:
    admin, _ = await member(api, home, "boss", "admin")
    changed = await admin.call(
        "organization.update", method="PATCH", organizationId=home.organization_id, name="Acme", description="d"
    )
    assert (changed["name"], changed["description"]) == ("Acme", "d")
    await admin.call("organization.remove", 403, method="DELETE", organizationId=home.organization_id)


async def test_a_removed_organisation_is_nobodys_at_once_and_gone_with_its_last_container(api: Api, home: Home) -> None:
    dev, _ = await member(api, home, "dev", "developer")
    made = await make(api, home, env=[{"key": "TOKEN", "value": "s3cret", "secret": True}])
    node_id = await enrolled(api, home, "n1")
    instance_id = await running_instance(api, home, made, node_id)
    await api.call("organization.remove", 204, method="DELETE", organizationId=home.organization_id)
    for caller in (api, dev):
        assert await caller.call("organization.all", method="GET") == []
        await caller.call("organization.one", 404, method="GET", organizationId=home.organization_id)
        await caller.call("container.one", 404, method="GET", containerId=made["id"])
    async with api.store.read() as conn:
        assert await clusters.get(conn, home.cluster_id) is not None
        (held,) = await instances.of_container(conn, made["id"])
    assert held.id == instance_id  # the node still has it, and nothing claims otherwise
    async with running(Collector(api.store, SystemClock()).run()):
        torn_down = partial(instances.end, instance_ids=[instance_id], phase=Phase.REMOVED, reason=Reason("gone", ""))
        await api.store.write(torn_down)
        await until(partial(_is_gone, api, home))
    async with api.store.read() as conn:
        record = await organizations.get(conn, home.organization_id)
        node = await nodes.get(conn, node_id)
        for table in ("project", "environment", "cluster", "membership", "container", "release", "deployment"):
            assert (await conn.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar() == 0
    assert record is not None
    assert record.sealed_key == b""
    assert node is not None
    assert node.revoked_at is not None


async def _is_gone(api: Api, home: Home) -> bool:
    async with api.store.read() as conn:
        return await clusters.get(conn, home.cluster_id) is None


async def test_an_organisation_without_containers_is_gone_at_once(api: Api, home: Home) -> None:
    node_id = await enrolled(api, home, "n1")
    await api.call("organization.remove", 204, method="DELETE", organizationId=home.organization_id)
    assert await _is_gone(api, home)
    async with api.store.read() as conn:
        node = await nodes.get(conn, node_id)
    assert node is not None
    assert node.revoked_at is not None


async def test_an_organisation_with_work_on_a_lost_node_is_not_removed_behind_its_back(api: Api, home: Home) -> None:
    made = await make(api, home)
    node_id = await enrolled(api, home, "n1")
    await running_instance(api, home, made, node_id)
    await api.store.write(partial(nodes.set_lost, node_ids=[node_id], lost=True))
    error = await api.call("organization.remove", 412, method="DELETE", organizationId=home.organization_id)
    assert "n1" in error["message"]
    assert len(await api.call("organization.all", method="GET")) == 1


async def test_a_node_lost_for_good_while_its_organisation_goes_is_given_up(api: Api, home: Home) -> None:
    made = await make(api, home)
    node_id = await enrolled(api, home, "n1")
    await running_instance(api, home, made, node_id)
    await api.call("organization.remove", 204, method="DELETE", organizationId=home.organization_id)
    await api.store.write(partial(nodes.set_lost, node_ids=[node_id], lost=True))
    assert await api.store.write(removals.give_up_lost) == 0

    async def long_ago(tx: Tx) -> None:
        await nodes.change(tx, node_id, lost_at=tx.now - removals.LOST_PATIENCE_SECONDS - 1)

    await api.store.write(long_ago)
    assert await api.store.write(removals.give_up_lost) == 1
    async with running(Collector(api.store, SystemClock()).run()):
        await until(partial(_is_gone, api, home))


@pytest.mark.parametrize("role", ["admin", "developer", "viewer", "billing"])
async def test_a_role_given_to_oneself_needs_an_owner(api: Api, home: Home, role: str) -> None:
    caller, own = await member(api, home, "ambitious", role)
    await caller.call(
        "orgTeam.update", 403, method="PATCH", organizationId=home.organization_id, userId=own, role="owner"
    )
