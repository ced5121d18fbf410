"""`/account/api-tokens`: a person's own tokens, for signed-in sessions and nobody else."""

from typing import Any

import httpx

from tests.component.api.caller import Api
from tests.component.api.identity.browser import Browser

PATH = "/account/api-tokens"
TOKEN = {"id", "name", "prefix", "scopes", "createdAt", "expiresAt", "lastUsedAt"}


async def ask(browser: Browser, method: str, path: str = PATH, **sent: Any) -> httpx.Response:
    headers = {"Origin": browser.origin, "X-CSRF-Token": browser.csrf}
    return await browser.client.request(method, path, headers=headers, **sent)


async def test_a_person_makes_lists_and_ends_tokens(api: Api, admin: Browser) -> None:
    made = await ask(admin, "POST", json={"name": "ci", "scopes": ["deploy"]})
    assert made.status_code == 201
    token = made.json()
    assert set(token) == TOKEN | {"token"}
    assert token["token"].startswith(token["prefix"])
    me = await api.client.get("/auth/me", headers={"Authorization": f"Bearer {token['token']}"})
    assert me.json()["memberships"][0]["role"] == "owner"
    listed = (await ask(admin, "GET")).json()
    assert {frozenset(one) for one in listed} == {frozenset(TOKEN)}
    assert token["id"] in {one["id"] for one in listed}
    assert (await ask(admin, "DELETE", f"{PATH}/{token['id']}")).status_code == 204
    again = await ask(admin, "DELETE", f"{PATH}/{token['id']}")
    assert (again.status_code, again.json()["message"]) == (404, "token not found")
    gone = await api.client.get("/auth/me", headers={"Authorization": f"Bearer {token['token']}"})
    assert gone.status_code == 401


async def test_no_token_may(api: Api, admin: Browser) -> None:
    token = (await ask(admin, "POST", json={"name": "ci"})).json()
    headers = {"Authorization": f"Bearer {token['token']}"}
    for method, path in (("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/{token['id']}")):
        body = {"name": "more"} if method == "POST" else None
        async with httpx.AsyncClient(transport=api.client._transport, base_url=api.services.url) as client:
            answer = await client.request(method, path, headers=headers, json=body)
        assert answer.status_code == 403, method
        assert answer.json()["error"] == "Forbidden"
    listed = (await ask(admin, "GET")).json()
    assert token["id"] in {one["id"] for one in listed}


async def test_another_sites_page_may_not(admin: Browser) -> None:
    for headers in ({}, {"Origin": admin.origin}, {"Origin": "https://evil.example", "X-CSRF-Token": admin.csrf}):
        answer = await admin.client.post(PATH, json={"name": "ci"}, headers=headers)
        assert (answer.status_code, answer.json()["statusCode"]) == (403, 403)


async def test_fields_of_other_doors_are_not_taken(admin: Browser) -> None:
    answer = await ask(admin, "POST", json={"name": "ci", "organizationId": "org_1"})
    assert (answer.status_code, answer.json()["message"]) == (400, "organizationId: unknown field")
