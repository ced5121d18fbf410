"""Tokens: made in a session only, shown once, good for no more than they were made for and no longer."""

from typing import Any

import pytest

from coordinator.control.uses import EVERY_SECONDS
from coordinator.doors.callers import KEPT_SECONDS
from coordinator.procedures import user_tokens
from coordinator.store import users
from shared.kit.clock import iso
from tests.component.api.caller import Api, Home, make
from tests.component.api.identity.browser import Browser
from tests.fakes.clock import FakeClock


def holder(api: Api, made: dict[str, Any]) -> Api:
    return Api(api.client, api.services, made["token"])


async def test_a_token_is_shown_once_and_recognised_by_its_mark(api: Api, admin: Browser) -> None:
    made = await admin.call("user.createToken", 201, name="ci")
    assert made["token"].startswith("argosy_pat_")
    assert made["token"].startswith(made["prefix"])
    assert len(made["prefix"]) < 20
    listed = await admin.call("user.tokens", method="GET")
    assert {one["name"] for one in listed} == {"ci", "first start"}
    assert all("token" not in one for one in listed)
    async with api.store.read() as conn:
        for table in ("api_token", "audit"):
            assert made["token"] not in str((await conn.exec_driver_sql(f"SELECT * FROM {table}")).all())
    assert (await holder(api, made).call("user.me", method="GET"))["name"] == "Ann"


async def test_no_token_makes_another(api: Api) -> None:
    error = await api.call("user.createToken", 403, name="ci")
    assert "session" in error["message"]


@pytest.mark.parametrize(
    ("scopes", "reads", "deploys", "administers"),
    [
        (["read"], 200, 403, 403),
        (["deploy"], 200, 201, 403),
        (["read", "deploy"], 200, 201, 403),
        (["admin"], 200, 201, 201),
    ],
)
async def test_a_token_can_do_no_more_than_its_scope(
    api: Api, home: Home, admin: Browser, scopes: list[str], reads: int, deploys: int, administers: int
) -> None:
    for owner in ({}, {"organizationId": home.organization_id}):
        made = await admin.call("user.createToken", 201, name="ci", scopes=scopes, **owner)
        token = holder(api, made)
        await token.call("container.all", reads, method="GET", projectId=home.project_id)
        await make(token, home, name=f"web-{len(owner)}", expect=deploys)
        name = f"project-{len(owner)}"
        await token.call("project.create", administers, organizationId=home.organization_id, name=name)


async def test_a_read_token_changes_nothing_of_its_owner(api: Api, admin: Browser) -> None:
    token = holder(api, await admin.call("user.createToken", 201, name="ci", scopes=["read"]))
    await token.call("user.update", 403, method="PATCH", name="Eve")
    await token.call("user.revokeToken", 403, method="DELETE", tokenId="tok_any")


async def test_a_token_ends_when_it_was_said_to(api: Api, admin: Browser, clock: FakeClock) -> None:
    made = await admin.call("user.createToken", 201, name="ci", expiresAt=iso(clock.wall() + 5))
    token = holder(api, made)
    await token.call("user.me", method="GET")
    clock.advance(5)
    await token.call("user.me", 401, method="GET")
    for late in (iso(clock.wall()), "yesterday", "9" * 40):
        await admin.call("user.createToken", 400, name="ci", expiresAt=late)


async def test_a_revoked_token_opens_nothing_from_then_on(api: Api, home: Home, admin: Browser) -> None:
    for owner in ({}, {"organizationId": home.organization_id}):
        made = await admin.call("user.createToken", 201, name="ci", **owner)
        token = holder(api, made)
        await token.call("organization.one", method="GET", organizationId=home.organization_id)
        await admin.call("user.revokeToken", 204, method="DELETE", tokenId=made["id"])
        await token.call("organization.one", 401, method="GET", organizationId=home.organization_id)
        await admin.call("user.revokeToken", 404, method="DELETE", tokenId=made["id"])


async def test_a_service_token_is_the_organisations_and_nobodys(api: Api, home: Home, admin: Browser) -> None:
    made = await admin.call("user.createToken", 201, name="ci", organizationId=home.organization_id)
    assert made["token"].startswith("argosy_svc_")
    service = holder(api, made)
    await service.call("organization.one", method="GET", organizationId=home.organization_id)
    for name, method, data in (
        ("user.me", "GET", {}),
        ("user.update", "PATCH", {"name": "Eve"}),
        ("user.tokens", "GET", {}),
        ("session.all", "GET", {}),
        ("session.start", "POST", {}),
        ("organization.create", "POST", {"name": "mine"}),
    ):
        assert (await service.call(name, 403, method=method, **data))["code"] == "FORBIDDEN", name
    await service.call("organization.remove", 403, method="DELETE", organizationId=home.organization_id)
    listed = await admin.call("user.tokens", method="GET", organizationId=home.organization_id)
    assert [one["id"] for one in listed] == [made["id"]]
    own = await admin.call("user.tokens", method="GET")
    assert made["id"] not in {one["id"] for one in own}


async def test_service_tokens_are_for_admins_of_the_organisation(api: Api, home: Home, admin: Browser) -> None:
    made = await admin.call("user.createToken", 201, name="ci", organizationId=home.organization_id)
    developer = await api.as_user("dev@example.test", "developer", home.organization_id)
    stranger = await api.as_user("stranger@example.test")
    for caller, status in ((developer, 403), (stranger, 404)):
        await caller.call("user.tokens", status, method="GET", organizationId=home.organization_id)
        await caller.call("user.revokeToken", 404, method="DELETE", tokenId=made["id"])
    await admin.call("user.createToken", 404, name="ci", organizationId="org_none")


async def test_when_a_token_was_used_is_written_beside_the_requests(api: Api, admin: Browser, clock: FakeClock) -> None:
    made = await admin.call("user.createToken", 201, name="ci")

    async def last_used() -> float | None:
        await api.services.proofs.uses.flush()
        async with api.store.read() as conn:
            record = await users.token(conn, made["id"])
        assert record is not None
        return record.last_used_at

    assert await last_used() is None
    await holder(api, made).call("user.me", method="GET")
    first = await last_used()
    assert first == clock.wall()
    clock.advance(KEPT_SECONDS)
    await holder(api, made).call("user.me", method="GET")
    assert await last_used() == first
    clock.advance(EVERY_SECONDS)
    await holder(api, made).call("user.me", method="GET")
    assert await last_used() == clock.wall()


async def test_tokens_are_listed_page_by_page_and_not_without_end(
    admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_tokens, "MAX_TOKENS", 4)
    for index in range(3):
        await admin.call("user.createToken", 201, name=f"ci-{index}")
    await admin.call("user.createToken", 412, name="one too many")
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        response = await admin.send("user.tokens", method="GET", limit=2, **cursor)
        seen += [one["name"] for one in response.json()["result"]["data"]]
        if "X-Next-Cursor" not in response.headers:
            break
        cursor = {"cursor": response.headers["X-Next-Cursor"]}
    assert sorted(seen) == ["ci-0", "ci-1", "ci-2", "first start"]


async def test_what_somebody_may_do_changes_with_the_next_request(api: Api, home: Home) -> None:
    member = await api.as_user("member@example.test", "admin", home.organization_id)
    me = await member.call("user.me", method="GET")
    await member.call("organization.one", method="GET", organizationId=home.organization_id)
    await api.call("orgTeam.remove", 204, method="DELETE", organizationId=home.organization_id, userId=me["id"])
    await member.call("organization.one", 404, method="GET", organizationId=home.organization_id)
