"""Browsers' sessions: how they begin, what protects them, and how they end."""

from typing import Any

import httpx
import pytest

from coordinator.doors.callers import KEPT_SECONDS
from coordinator.store import audit
from coordinator.store.audit import SYSTEM
from coordinator.store.sessions import IDLE_SECONDS, KEPT, LONGEST_SECONDS
from tests.component.api.caller import Api, Home
from tests.component.api.identity.browser import EMAIL, PASSWORD, Browser
from tests.fakes.clock import FakeClock


async def actions(api: Api) -> list[str]:
    async with api.store.read() as conn:
        return [record.action for record in await audit.of_organization(conn, SYSTEM)]


async def test_the_first_administrator_gets_an_address_and_a_password_once(api: Api, browser: Browser) -> None:
    answer = await browser.sign_up(api.token)
    assert answer["user"]["email"] == EMAIL
    assert [one["role"] for one in answer["user"]["memberships"]] == ["owner"]
    assert (await browser.call("user.me", method="GET"))["name"] == "Ann"
    assert (await api.call("user.me", method="GET"))["email"] == EMAIL
    again = await browser.call("session.signUp", 403, token=api.token, email="x@y.test", password=PASSWORD, name="X")
    assert "signed in to already" in again["message"]


async def test_a_token_starts_a_session_only_where_there_is_no_other_way_in(api: Api, browser: Browser) -> None:
    browser.client.headers["Authorization"] = f"Bearer {api.token}"
    started = await browser.call("session.start")
    del browser.client.headers["Authorization"]
    assert started["csrfToken"] == browser.csrf
    assert (await browser.call("user.me", method="GET"))["email"] == "admin@localhost"
    await browser.call("user.update", method="PATCH", password=PASSWORD)
    error = await api.call("session.start", 403)
    assert "password" in error["message"]
    assert (await browser.call("session.start", 403))["code"] == "FORBIDDEN"


async def test_signing_in_is_by_address_and_password(admin: Browser) -> None:
    admin.forget()
    answer = await admin.sign_in(email=" ANN@Example.Test ")
    assert answer["codeRequired"] is False
    assert answer["user"]["email"] == EMAIL
    assert (await admin.call("user.me", method="GET"))["email"] == EMAIL
    for email, password in ((EMAIL, "another password"), ("bob@example.test", PASSWORD)):
        admin.forget()
        error = await admin.sign_in(401, email=email, password=password)
        assert error["message"] == "the e-mail address or the password is wrong"
        assert not admin.client.cookies


async def test_cookies_are_kept_from_scripts_and_other_sites(api: Api, browser: Browser) -> None:
    response = await browser.send("session.signUp", token=api.token, email=EMAIL, password=PASSWORD, name="Ann")
    session, csrf = response.headers.get_list("set-cookie")
    assert session.startswith("argosy_session=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(session.split("; "))
    assert csrf.startswith("argosy_csrf=")
    assert "HttpOnly" not in csrf
    secret = browser.client.cookies["argosy_session"]
    async with api.store.read() as conn:
        assert secret not in str((await conn.exec_driver_sql("SELECT * FROM web_session")).all())
    assert secret not in response.text


class TestOverHttps:
    @pytest.fixture
    def url(self) -> str:
        return "https://coordinator.test"

    async def test_cookies_are_the_hosts_own(self, admin: Browser) -> None:
        admin.forget()
        response = await admin.send("session.signIn", email=EMAIL, password=PASSWORD)
        session, csrf = response.headers.get_list("set-cookie")
        assert session.startswith("__Host-argosy_session=")
        assert "Secure" in session.split("; ")
        assert "Secure" in csrf.split("; ")
        await admin.call("session.signOut", 204)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, "Origin"),
        ({"Origin": "http://coordinator.test"}, "X-CSRF-Token"),
        ({"Origin": "http://coordinator.test", "X-CSRF-Token": "0" * 64}, "X-CSRF-Token"),
        ({"Origin": "https://evil.test", "X-CSRF-Token": "right"}, "Origin"),
        ({"Origin": "null", "X-CSRF-Token": "right"}, "Origin"),
        ({"Sec-Fetch-Site": "cross-site", "X-CSRF-Token": "right"}, "Sec-Fetch-Site"),
        ({"Sec-Fetch-Site": "same-site", "X-CSRF-Token": "right"}, "Sec-Fetch-Site"),
    ],
)
async def test_what_another_page_makes_a_browser_send_changes_nothing(
    admin: Browser, headers: dict[str, str], named: str
) -> None:
    sent = {name: admin.csrf if value == "right" else value for name, value in headers.items()}
    response = await admin.send("user.update", method="PATCH", headers=sent, name="Eve")
    assert response.status_code == 403
    assert response.json()["error"]["message"].startswith(named)
    assert (await admin.call("user.me", method="GET"))["name"] == "Ann"


@pytest.mark.parametrize("place", [{"Origin": "http://coordinator.test"}, {"Sec-Fetch-Site": "same-origin"}])
async def test_our_own_pages_may_change_things(admin: Browser, place: dict[str, str]) -> None:
    headers = {**place, "X-CSRF-Token": admin.csrf}
    assert (await admin.send("user.update", method="PATCH", headers=headers, name="Bo")).status_code == 200


async def test_the_csrf_token_is_bound_to_its_session(admin: Browser) -> None:
    before = admin.csrf
    await admin.sign_in()
    headers = {"Origin": admin.origin, "X-CSRF-Token": before}
    assert (await admin.send("user.update", method="PATCH", headers=headers, name="Bo")).status_code == 403


async def test_another_page_signs_nobody_in(admin: Browser) -> None:
    headers = {"Origin": "https://evil.test"}
    response = await admin.send("session.signIn", headers=headers, email=EMAIL, password=PASSWORD)
    assert response.status_code == 403


async def test_a_bearer_token_needs_no_csrf_token_and_is_not_helped_by_a_cookie(api: Api, admin: Browser) -> None:
    headers = {"Authorization": f"Bearer {api.token}"}
    assert (await admin.send("user.update", method="PATCH", headers=headers, name="Bo")).status_code == 200
    wrong = {"Authorization": "Bearer argosy_pat_wrong", "X-CSRF-Token": admin.csrf, "Origin": admin.origin}
    assert (await admin.send("user.update", method="PATCH", headers=wrong, name="Eve")).status_code == 401


async def test_a_cookie_opens_nothing_after_signing_out(api: Api, admin: Browser) -> None:
    kept = admin.kept()
    await admin.call("session.signOut", 204)
    assert not admin.client.cookies
    admin.take_back(kept)
    assert (await admin.call("user.me", 401, method="GET"))["code"] == "UNAUTHORIZED"
    assert (await admin.call("session.signOut", 401))["code"] == "UNAUTHORIZED"
    assert (await actions(api))[:1] == ["session.signOut"]


async def test_a_session_ends_a_while_after_its_last_use(api: Api, admin: Browser, clock: FakeClock) -> None:
    for _ in range(3):
        clock.advance(IDLE_SECONDS - 60)
        await admin.call("user.me", method="GET")
        await api.services.proofs.uses.flush()
    clock.advance(IDLE_SECONDS + 1)
    await admin.call("user.me", 401, method="GET")


async def test_a_session_in_use_ends_all_the_same(api: Api, admin: Browser, clock: FakeClock) -> None:
    step = IDLE_SECONDS / 2
    for _ in range(int(LONGEST_SECONDS / step) - 1):
        clock.advance(step)
        await admin.call("user.me", method="GET")
        await api.services.proofs.uses.flush()
    clock.advance(step + 1)
    await admin.call("user.me", 401, method="GET")


async def test_one_sees_ones_sessions_and_ends_them(api: Api, admin: Browser, clock: FakeClock) -> None:
    first = admin.kept()
    clock.advance(1)
    admin.forget()
    await admin.sign_in()
    listed = await admin.call("session.all", method="GET")
    (other,) = [one for one in listed if not one["current"]]
    assert len(listed) == 2
    await admin.call("session.revoke", 204, method="DELETE", sessionId=other["id"])
    await admin.call("session.revoke", 404, method="DELETE", sessionId=other["id"])
    stranger = await api.as_user("stranger@example.test")
    current = (await admin.call("session.all", method="GET"))[0]["id"]
    await stranger.call("session.revoke", 404, method="DELETE", sessionId=current)
    admin.take_back(first)
    await admin.call("user.me", 401, method="GET")


async def test_a_new_password_ends_the_other_sessions(api: Api, admin: Browser) -> None:
    elsewhere = httpx.AsyncClient(transport=admin.client._transport, base_url=admin.client.base_url)
    async with elsewhere as client:
        other = Browser(client)
        await other.sign_in()
        fields: list[tuple[dict[str, Any], int]] = [
            ({"password": "another long password"}, 400),
            ({"password": "another long password", "currentPassword": "wrong"}, 403),
            ({"password": "short", "currentPassword": PASSWORD}, 400),
            ({"password": EMAIL, "currentPassword": PASSWORD}, 400),
            ({"password": "password123", "currentPassword": PASSWORD}, 400),
            ({"password": "ababababababab", "currentPassword": PASSWORD}, 400),
            ({"currentPassword": PASSWORD}, 400),
        ]
        for data, status in fields:
            await admin.call("user.update", status, method="PATCH", **data)
        await api.call("user.update", 403, method="PATCH", password="another long password", currentPassword=PASSWORD)
        await admin.call("user.update", method="PATCH", password="another long password", currentPassword=PASSWORD)
        await admin.call("user.me", method="GET")
        await other.call("user.me", 401, method="GET")
        await other.sign_in(401)
        await other.sign_in(password="another long password")


async def test_only_so_many_sessions_are_kept(admin: Browser) -> None:
    for _ in range(KEPT + 2):
        admin.forget()
        await admin.sign_in()
    assert len(await admin.call("session.all", method="GET")) == KEPT


async def test_a_profile_is_its_owners_to_change(api: Api, home: Home, admin: Browser) -> None:
    changed = await admin.call("user.update", method="PATCH", name="Bo", pictureUrl="https://example.test/bo.png")
    assert (changed["name"], changed["pictureUrl"]) == ("Bo", "https://example.test/bo.png")
    assert (await admin.call("user.update", method="PATCH", pictureUrl=None))["pictureUrl"] is None
    await admin.call("user.update", 400, method="PATCH", pictureUrl="javascript:alert(1)")
    assert "user.update" in await actions(api)


async def test_a_known_caller_is_looked_up_without_the_database(
    api: Api, admin: Browser, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = api.store.read

    def counted() -> Any:
        nonlocal reads
        reads += 1
        return read()

    monkeypatch.setattr(api.services.store, "read", counted)
    await admin.call("user.me", method="GET")
    reads = 0
    await admin.call("user.me", method="GET")
    assert reads == 1  # that of the procedure itself
    clock.advance(KEPT_SECONDS)
    await admin.call("user.me", method="GET")
    assert reads == 3


async def test_the_ledger_tells_of_every_way_in_and_of_those_refused(api: Api, admin: Browser) -> None:
    made = await admin.call("user.createToken", 201, name="ci")
    await admin.call("user.revokeToken", 204, method="DELETE", tokenId=made["id"])
    await admin.sign_in(401, password="another password")
    await admin.sign_in(401, email="my-password-in-the-wrong-field@x.test")
    async with api.store.read() as conn:
        entries = await audit.of_organization(conn, SYSTEM)
    told = [(entry.action, entry.detail) for entry in reversed(entries)]
    assert [action for action, _ in told if not action.startswith("user.")] == [
        "session.signIn",
        "token.create",
        "token.revoke",
        "session.refused",
        "session.refused",
    ]
    user_id = (await admin.call("user.me", method="GET"))["id"]
    assert [entry.actor for entry in entries[:2]] == ["anonymous", user_id]
    assert "wrong-field" not in str(told)
    assert PASSWORD not in str(told)
