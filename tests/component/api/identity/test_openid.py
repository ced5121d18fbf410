"""Signing in at a real OpenID provider: the whole way there and back, whose account it is, and what is refused on the way."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pyotp
import pytest

from coordinator.control.uses import Uses
from coordinator.procedures.fetching import Fetcher
from coordinator.procedures.openid import CALLBACK_PATH, OpenId, OpenIdSettings
from coordinator.procedures.passwords import Passwords
from coordinator.procedures.proofs import Proofs
from coordinator.procedures.session_openid import AWAY_SECONDS, START_PATH
from coordinator.store.database import Store
from tests.component.api.caller import Api, Home
from tests.component.api.identity.browser import EMAIL, PASSWORD, URL, Browser
from tests.component.api.identity.conftest import CHEAP
from tests.component.api.identity.invited import invite, token_of
from tests.component.api.identity.provider import CLIENT_ID, CLIENT_SECRET, Provider, visit
from tests.fakes.clock import FakeClock


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    running = Provider(URL + CALLBACK_PATH)
    yield running
    running.close()


@pytest.fixture
def clock() -> FakeClock:
    """The provider's own clock is the real one."""
    return FakeClock(wall=time.time())


@pytest.fixture
def settings(provider: Provider) -> OpenIdSettings:
    return OpenIdSettings(provider.issuer, CLIENT_ID, CLIENT_SECRET)


@pytest.fixture
def proofs(store: Store, clock: FakeClock, settings: OpenIdSettings) -> Proofs:
    return Proofs(Uses(store), Passwords(CHEAP), openid=OpenId(settings, URL, Fetcher(), clock))


async def leave(browser: Browser, **query: str) -> str:
    response = await browser.client.get(START_PATH, params=query)
    assert response.status_code == 303, response.text
    return str(response.headers["location"])


async def come_back(browser: Browser, subject: str, expect: int = 303, **query: str) -> httpx.Response:
    """The whole way, as that person."""
    away = await leave(browser, **query)
    async with httpx.AsyncClient() as client:
        target = await visit(client, away, subject)
    assert target.startswith(URL + CALLBACK_PATH)
    response = await browser.client.get(target)
    assert response.status_code == expect, response.text
    return response


async def test_a_person_is_known_by_a_verified_address_and_then_by_subject(admin: Browser, provider: Provider) -> None:
    provider.put("s-ann", email="Ann@Example.test", email_verified=True, name="Ann at the provider")
    admin.forget()
    response = await come_back(admin, "s-ann", returnTo="/projects?all=1")
    assert response.headers["location"] == "/projects?all=1"
    assert (await admin.call("user.me", method="GET"))["email"] == EMAIL
    await admin.call("user.update", method="PATCH", name="Bo")  # the cookie's token came along
    await admin.call("session.signOut", 204)
    provider.put("s-ann", email="renamed@example.test", email_verified=False)
    await come_back(admin, "s-ann")
    assert (await admin.call("user.me", method="GET"))["email"] == EMAIL


@pytest.mark.parametrize("claims", [{"email": EMAIL}, {"email": EMAIL, "email_verified": False}, {}])
async def test_an_address_that_nobody_verified_is_nobodys(
    admin: Browser, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.put("s-eve", **claims)
    admin.forget()
    response = await come_back(admin, "s-eve", 403)
    assert "verified" in response.json()["error"]["message"]
    await admin.call("user.me", 401, method="GET")


async def test_who_was_not_invited_gets_no_account(api: Api, browser: Browser, provider: Provider) -> None:
    provider.put("s-bob", email="bob@example.test", email_verified=True)
    assert "invitation" in (await come_back(browser, "s-bob", 403)).text
    async with api.store.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM account")).scalar() == 1


async def test_an_invitation_makes_an_account_for_its_address_alone(
    home: Home, admin: Browser, provider: Provider
) -> None:
    made = await invite(admin, home, "bob@example.test")
    admin.forget()
    provider.put("s-eve", email="eve@example.test", email_verified=True)
    await come_back(admin, "s-eve", 403, invitation=token_of(made))
    provider.put("s-bob", email="bob@example.test", email_verified=True, name="Bob")
    await come_back(admin, "s-bob", invitation=token_of(made))
    me = await admin.call("user.me", method="GET")
    assert (me["email"], me["name"]) == ("bob@example.test", "Bob")
    assert me["memberships"] == [{"organizationId": home.organization_id, "role": "developer"}]
    await admin.call("session.start", 403)  # there is a way to sign in, so no token is needed to


class TestOpenToAll:
    @pytest.fixture
    def settings(self, provider: Provider) -> OpenIdSettings:
        return OpenIdSettings(provider.issuer, CLIENT_ID, CLIENT_SECRET, sign_up=True)

    async def test_everybody_whom_the_provider_knows_gets_an_account(
        self, browser: Browser, provider: Provider
    ) -> None:
        provider.put("s-carl", email="carl@example.test", email_verified=True)
        await come_back(browser, "s-carl")
        me = await browser.call("user.me", method="GET")
        assert (me["email"], me["name"], me["memberships"]) == ("carl@example.test", "carl", [])


async def test_the_second_factor_is_asked_for_after_the_provider(
    admin: Browser, provider: Provider, clock: FakeClock
) -> None:
    uri = (await admin.call("user.enableTotp"))["otpauthUri"]
    totp = pyotp.parse_uri(uri)
    assert isinstance(totp, pyotp.TOTP)
    await admin.call("user.confirmTotp", code=totp.at(int(clock.wall())))
    clock.advance(60)
    admin.forget()
    provider.put("s-ann", email=EMAIL, email_verified=True)
    await come_back(admin, "s-ann")
    assert "session.verify" in (await admin.call("user.me", 401, method="GET"))["message"]
    await admin.call("session.verify", 401, code="000000" if totp.at(int(clock.wall())) != "000000" else "111111")
    answer = await admin.call("session.verify", code=totp.at(int(clock.wall())))
    assert answer["user"]["email"] == EMAIL
    assert answer["csrfToken"] == admin.csrf
    await admin.call("user.me", method="GET")
    await admin.call("session.verify", 401, code=totp.at(int(clock.wall()) + 30))


async def test_what_comes_back_counts_once_in_its_own_browser_and_for_a_while(
    api: Api, admin: Browser, provider: Provider, clock: FakeClock
) -> None:
    provider.put("s-ann", email=EMAIL, email_verified=True)
    admin.forget()
    async with httpx.AsyncClient() as client:
        target = await visit(client, await leave(admin), "s-ann")
    async with httpx.AsyncClient(transport=admin.client._transport, base_url=URL) as victim:
        assert (await victim.get(target)).status_code == 401  # prepared by somebody else
    kept = admin.kept()
    assert (await admin.client.get(target)).status_code == 303
    admin.client.cookies.set("argosy_oidc", kept["argosy_oidc"])
    assert (await admin.client.get(target)).status_code == 401  # replayed
    admin.forget()
    async with httpx.AsyncClient() as client:
        target = await visit(client, await leave(admin), "s-ann")
    clock.advance(AWAY_SECONDS)
    assert (await admin.client.get(target)).status_code == 401
    await admin.call("user.me", 401, method="GET")


async def test_a_wrong_code_or_a_refusal_signs_nobody_in(browser: Browser) -> None:
    for answer in ({"code": "made-up"}, {"error": "access_denied"}, {}):
        away = await leave(browser)
        (state,) = parse_qs(urlsplit(away).query)["state"]
        response = await browser.client.get(CALLBACK_PATH, params={"state": state, **answer})
        assert response.status_code in (401, 503)
        assert "argosy_session" not in response.headers.get("set-cookie", "")


async def test_the_request_carries_what_binds_the_answer_to_it(browser: Browser) -> None:
    query = parse_qs(urlsplit(await leave(browser)).query)
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge"} <= set(query)
    assert query["redirect_uri"] == [URL + CALLBACK_PATH]


@pytest.mark.parametrize("elsewhere", ["https://evil.test", "//evil.test", "/\\evil.test", "evil", "/a\nb", ""])
async def test_nobody_is_sent_elsewhere_afterwards(admin: Browser, provider: Provider, elsewhere: str) -> None:
    provider.put("s-ann", email=EMAIL, email_verified=True)
    assert (await come_back(admin, "s-ann", returnTo=elsewhere)).headers["location"] == "/"


async def test_the_ways_to_sign_in_are_told(browser: Browser) -> None:
    assert await browser.call("session.methods", method="GET") == {"password": True, "openid": START_PATH}


class TestWhenTheProviderIsAway:
    @pytest.fixture
    def settings(self) -> OpenIdSettings:
        return OpenIdSettings("http://127.0.0.1:9", CLIENT_ID, CLIENT_SECRET)

    async def test_it_is_said_so_and_passwords_go_on(self, admin: Browser) -> None:
        response = await admin.client.get(START_PATH)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        await admin.sign_in(password=PASSWORD)


class TestWithoutAProvider:
    @pytest.fixture
    def proofs(self, store: Store) -> Proofs:
        return Proofs(Uses(store), Passwords(CHEAP))

    async def test_there_is_nowhere_to_go(self, browser: Browser) -> None:
        assert (await browser.client.get(START_PATH)).status_code == 404
        assert await browser.call("session.methods", method="GET") == {"password": True, "openid": None}
