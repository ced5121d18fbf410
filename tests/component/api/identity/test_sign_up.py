"""Making an account with an invitation."""

import pytest

from coordinator.store.invitations import LIFETIME_SECONDS
from tests.component.api.caller import Api, Home
from tests.component.api.identity.browser import EMAIL, PASSWORD, Browser
from tests.component.api.identity.invited import invite, token_of
from tests.fakes.clock import FakeClock

BOB = "bob@example.test"


async def sign_up(browser: Browser, token: str, expect: int = 201, **fields: str) -> dict[str, object]:
    data = {"token": token, "name": "Bob", "password": PASSWORD, **fields}
    answer: dict[str, object] = await browser.call("session.signUp", expect, **data)
    return answer


async def test_whoever_is_invited_makes_an_account_and_is_a_member(home: Home, admin: Browser) -> None:
    token = token_of(await invite(admin, home, "Bob@Example.test"))
    admin.forget()
    answer = await sign_up(admin, token)
    assert answer["codeRequired"] is False
    me = await admin.call("user.me", method="GET")
    assert (me["email"], me["name"]) == (BOB, "Bob")
    assert me["memberships"] == [{"organizationId": home.organization_id, "role": "developer"}]
    admin.forget()
    await sign_up(admin, token, 409)
    await admin.sign_in(email=BOB)


async def test_an_invitation_is_for_its_address_its_time_and_once(home: Home, admin: Browser, clock: FakeClock) -> None:
    token = token_of(await invite(admin, home, BOB))
    await sign_up(admin, token, 403, email="eve@example.test")
    await sign_up(admin, token[:-1] + "_", 403)
    clock.advance(LIFETIME_SECONDS)
    assert "expired" in str((await sign_up(admin, token, 403))["message"])


@pytest.mark.parametrize("password", ["short", "bob@example.test", "password123", "x" * 257])
async def test_a_poor_password_makes_no_account(api: Api, home: Home, admin: Browser, password: str) -> None:
    token = token_of(await invite(admin, home, BOB))
    assert str((await sign_up(admin, token, 400, password=password))["message"]).startswith("password: ")
    async with api.store.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM account")).scalar() == 1
    await sign_up(admin, token)


async def test_the_first_administrators_address_is_needed_and_one(api: Api, browser: Browser) -> None:
    assert str((await sign_up(browser, api.token, 400))["message"]).startswith("email: ")
    assert str((await sign_up(browser, api.token, 400, email="nobody"))["message"]).startswith("email: ")
    other = await api.as_user(EMAIL)
    assert other.token
    await sign_up(browser, api.token, 409, email=EMAIL)
    await sign_up(browser, api.token, email=BOB)


async def test_a_token_that_can_do_less_gives_no_account_away(api: Api, home: Home, admin: Browser) -> None:
    for owner in ({}, {"organizationId": home.organization_id}):
        made = await admin.call("user.createToken", 201, name="ci", scopes=["read"], **owner)
        await sign_up(admin, made["token"], 403, email=BOB)
