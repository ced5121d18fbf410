"""Protected environments: what waits, what is refused, who decides, and that what waits touches nothing that runs."""

import asyncio
from functools import partial
from typing import Any

import pytest

from coordinator.control.orchestrator import Orchestrator
from coordinator.control.rollouts import Rollouts
from coordinator.store import containers, deployments, instances
from shared.kit.clock import SystemClock
from tests.component.api.caller import Api, Home, finish, make
from tests.fakes.seeds import running, until


class Team:
    """A developer, a developer who reviews, an admin, and the owner, around one environment."""

    def __init__(self, api: Api, home: Home, environment_id: str) -> None:
        self.owner, self.home, self.environment_id = api, home, environment_id

    async def gather(self) -> "Team":
        join = partial(self.owner.as_user, organization_id=self.home.organization_id)
        self.dev = await join("dev@example.test", "developer")
        self.reviewer = await join("reviewer@example.test", "developer")
        self.admin = await join("boss@example.test", "admin")
        me = await self.reviewer.call("user.me", method="GET")
        self.reviewer_id = me["id"]
        return self

    async def protect(self, protection: str) -> Any:
        return await self.owner.call(
            "environment.update",
            method="PATCH",
            environmentId=self.environment_id,
            protection=protection,
            reviewers=[self.reviewer_id],
        )

    async def approvals(self, **wanted: Any) -> list[dict[str, Any]]:
        listed = await self.dev.call("environment.approvals", method="GET", environmentId=self.environment_id, **wanted)
        assert isinstance(listed, list)
        return listed


@pytest.fixture
async def team(api: Api, home: Home) -> Team:
    (environment,) = await api.call("environment.all", method="GET", projectId=home.project_id)
    assert (environment["protection"], environment["reviewers"]) == ("none", [])
    return await Team(api, home, environment["id"]).gather()


async def test_protection_and_reviewers_are_shown_and_checked(team: Team) -> None:
    shown = await team.protect("restricted")
    assert (shown["protection"], shown["reviewers"]) == ("restricted", [team.reviewer_id])
    stranger = await team.owner.as_user("stranger@example.test")
    stranger_id = (await stranger.call("user.me", method="GET"))["id"]
    clerk = await team.owner.as_user("clerk@example.test", "billing", team.home.organization_id)
    clerk_id = (await clerk.call("user.me", method="GET"))["id"]
    change = partial(team.owner.call, "environment.update", 400, method="PATCH", environmentId=team.environment_id)
    for reviewers in ([stranger_id], [clerk_id], [team.reviewer_id, team.reviewer_id]):
        assert (await change(reviewers=reviewers))["message"].startswith("reviewers:")
    assert (await change(protection="strict"))["message"].startswith("protection:")


async def test_a_developers_first_deployment_waits_and_says_so(team: Team) -> None:
    await team.protect("restricted")
    made = await make(team.dev, team.home)
    assert (made["status"], made["release"], made["deploymentId"]) == ("creating", None, None)
    assert "waits for approval" in made["reason"]["message"]
    (waiting,) = await team.dev.call("container.deployments", method="GET", containerId=made["id"])
    assert waiting["status"] == "pending"
    (asked,) = await team.approvals(status="pending")
    assert asked["deploymentId"] == waiting["id"]
    assert waiting["approvals"] == [asked]
    approved = await team.reviewer.call("environment.approveDeployment", deploymentId=waiting["id"], comment="fine")
    assert approved["status"] == "in_progress"
    assert (approved["approvals"][0]["status"], approved["approvals"][0]["comment"]) == ("approved", "fine")
    assert approved["approvals"][0]["decidedBy"] == team.reviewer_id
    after = await team.dev.call("container.one", method="GET", containerId=made["id"])
    assert after["deploymentId"] == waiting["id"]
    assert after["release"]["revision"] == 1


async def test_owners_and_admins_pass_at_once(team: Team) -> None:
    await team.protect("restricted")
    for number, caller in enumerate((team.owner, team.admin)):
        made = await make(caller, team.home, name=f"c{number}")
        assert made["deploymentId"] is not None
    assert await team.approvals() == []


async def test_what_waits_touches_nothing_that_runs_and_no_loop_acts_on_it(team: Team) -> None:
    made = await make(team.owner, team.home)
    await finish(team.owner, made["deploymentId"])
    await team.protect("restricted")
    before = await team.owner.call("container.one", method="GET", containerId=made["id"])
    await team.dev.call("container.deploy", containerId=made["id"], image="web:2")
    await team.dev.call("container.restart", containerId=made["id"])
    store, clock = team.owner.store, SystemClock()
    async with running(Orchestrator(store, clock).run(), Rollouts(store, clock).run()):
        await until(partial(_has_instances, team.owner, made["id"]))
        async with store.read() as conn:
            found = await instances.of_container(conn, made["id"])
            record = await containers.get(conn, made["id"])
    assert {one.release_id for one in found} == {before["release"]["id"]}
    assert record is not None
    assert record.target_release_id == before["release"]["id"]
    after = await team.owner.call("container.one", method="GET", containerId=made["id"])
    assert (after["release"], after["deploymentId"]) == (before["release"], None)


async def _has_instances(api: Api, container_id: str) -> bool:
    async with api.store.read() as conn:
        return bool(await instances.of_container(conn, container_id))


async def test_approving_supersedes_what_is_under_way_and_brings_what_was_asked_for(team: Team) -> None:
    made = await make(team.owner, team.home)
    await team.protect("restricted")
    asked = await team.dev.call("container.deploy", containerId=made["id"], image="web:2")
    assert asked["status"] == "pending"
    update = partial(team.dev.call, "container.update", method="PATCH", containerId=made["id"])
    await update(image="web:evil", replicas=90)
    await team.reviewer.call("environment.approveDeployment", deploymentId=asked["deploymentId"])
    after = await team.owner.call("container.one", method="GET", containerId=made["id"])
    assert after["release"]["image"] == "web:2"
    async with team.owner.store.read() as conn:
        record = await containers.get(conn, made["id"])
        first = await deployments.get(conn, made["deploymentId"])
    assert record is not None
    assert record.replicas == 1
    assert first is not None
    assert (first.status, first.active) == ("cancelled", False)


async def test_a_rejected_deployment_ends_with_the_reason_and_shows_no_failure(team: Team) -> None:
    await team.protect("restricted")
    made = await make(team.dev, team.home)
    (waiting,) = await team.approvals()
    refused = await team.reviewer.call(
        "environment.rejectDeployment", deploymentId=waiting["deploymentId"], comment="not on a Friday"
    )
    assert refused["status"] == "cancelled"
    assert refused["error"] == "rejected by reviewer@example.test: not on a Friday"
    assert refused["approvals"][0]["status"] == "rejected"
    after = await team.dev.call("container.one", method="GET", containerId=made["id"])
    assert after["reason"]["message"] == "not deployed yet"
    again = partial(team.reviewer.call, deploymentId=waiting["deploymentId"])
    for procedure in ("approveDeployment", "rejectDeployment", "requestApproval"):
        await again(f"environment.{procedure}", 412)


async def test_nobody_decides_on_their_own_request_but_admins(team: Team) -> None:
    await team.protect("restricted")
    await make(team.reviewer, team.home)
    (asked,) = await team.approvals()
    decide = partial(team.reviewer.call, deploymentId=asked["deploymentId"])
    for procedure in ("approveDeployment", "rejectDeployment"):
        assert "your own" in (await decide(f"environment.{procedure}", 403))["message"]
    assert (
        "reviewer"
        in (await team.dev.call("environment.approveDeployment", 403, deploymentId=asked["deploymentId"]))["message"]
    )
    await team.admin.call("environment.approveDeployment", deploymentId=asked["deploymentId"])


async def test_a_newer_deployment_takes_the_place_of_one_that_waits(team: Team) -> None:
    await team.protect("restricted")
    made = await make(team.dev, team.home)
    (first,) = await team.approvals()
    await team.dev.call("container.deploy", containerId=made["id"], image="web:2")
    assert [one["status"] for one in await team.approvals()] == ["pending", "withdrawn"]
    error = await team.reviewer.call("environment.approveDeployment", 412, deploymentId=first["deploymentId"])
    assert "cancelled" in error["message"]
    straight = await team.owner.call("container.deploy", containerId=made["id"], image="web:3")
    assert straight["status"] == "in_progress"
    assert [one["status"] for one in await team.approvals()] == ["withdrawn", "withdrawn"]


async def test_who_asked_may_withdraw(team: Team) -> None:
    await team.protect("restricted")
    await make(team.dev, team.home)
    (asked,) = await team.approvals()
    assert await team.dev.call("environment.requestApproval", deploymentId=asked["deploymentId"]) == asked
    ended = await team.dev.call("container.cancelDeployment", deploymentId=asked["deploymentId"])
    assert (ended["status"], ended["approvals"][0]["status"]) == ("cancelled", "withdrawn")
    await team.dev.call("container.cancelDeployment", 412, deploymentId=asked["deploymentId"])


async def test_two_reviewers_at_once_decide_once(team: Team) -> None:
    await team.protect("restricted")
    await make(team.dev, team.home)
    (asked,) = await team.approvals()

    async def post(caller: Api, verb: str) -> int:
        headers = {"Authorization": f"Bearer {caller.token}"}
        body = {"deploymentId": asked["deploymentId"]}
        return (await caller.client.post(f"/api/environment.{verb}", json=body, headers=headers)).status_code

    answers = await asyncio.gather(
        post(team.reviewer, "approveDeployment"),
        post(team.admin, "rejectDeployment"),
        post(team.owner, "approveDeployment"),
    )
    assert sorted(answers) == [200, 412, 412]


async def test_nothing_that_runs_changes_without_a_deployment_in_a_restricted_environment(team: Team) -> None:
    made = await make(team.owner, team.home)
    await team.protect("restricted")
    moves: list[tuple[str, dict[str, Any]]] = [
        ("container.scale", {"replicas": 0}),
        ("container.stop", {}),
        ("container.start", {}),
        ("container.remove", {}),
    ]
    for procedure, fields in moves:
        error = await team.dev.call(procedure, 403, containerId=made["id"], **fields)
        assert "production" in error["message"]
        assert "approval" in error["message"]
    await team.reviewer.call("container.stop", containerId=made["id"])


async def test_a_locked_environment_is_for_owners_and_admins(team: Team) -> None:
    made = await make(team.owner, team.home)
    await team.protect("restricted")
    asked = await team.dev.call("container.deploy", containerId=made["id"])
    await team.protect("locked")
    for caller in (team.dev, team.reviewer):
        calls: list[tuple[str, dict[str, Any]]] = [
            ("container.deploy", {}),
            ("container.restart", {}),
            ("container.rollback", {}),
            ("container.scale", {"replicas": 2}),
            ("container.stop", {}),
            ("container.update", {"replicas": 2}),
            ("container.remove", {}),
        ]
        for procedure, fields in calls:
            error = await caller.call(procedure, 403, containerId=made["id"], **fields)
            assert "'production' is locked" in error["message"]
        await make(caller, team.home, name="other", expect=403)
    await team.reviewer.call("environment.approveDeployment", 403, deploymentId=asked["deploymentId"])
    await team.admin.call("environment.approveDeployment", deploymentId=asked["deploymentId"])
    await make(team.admin, team.home, name="other")


async def test_what_waits_cannot_begin_in_what_is_being_removed(team: Team) -> None:
    await team.protect("restricted")
    made = await make(team.dev, team.home)
    (asked,) = await team.approvals()
    await team.owner.call("container.remove", 204, containerId=made["id"])
    await team.reviewer.call("environment.approveDeployment", 412, deploymentId=asked["deploymentId"])
    assert await team.owner.store.write(partial(containers.purge, container_id=made["id"]))
    assert await team.approvals() == []
