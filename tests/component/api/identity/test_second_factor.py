"""The second factor: a code opens something once, and nothing but a code does."""

from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest

from coordinator.procedures.second_factor import STEP_SECONDS
from tests.component.api.caller import Api
from tests.component.api.identity.browser import PASSWORD, Browser
from tests.fakes.clock import FakeClock


class Authenticator:
    """What a phone would show."""

    def __init__(self, uri: str, clock: FakeClock) -> None:
        (self.secret,) = parse_qs(urlsplit(uri).query)["secret"]
        self._clock = clock

    def code(self, steps: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(int(self._clock.wall()) + steps * STEP_SECONDS)


@pytest.fixture
async def enabled(admin: Browser, clock: FakeClock) -> tuple[Authenticator, list[str]]:
    made = await admin.call("user.enableTotp")
    phone = Authenticator(made["otpauthUri"], clock)
    await admin.call("user.confirmTotp", code=phone.code())
    clock.advance(10 * STEP_SECONDS)
    return phone, made["recoveryCodes"]


Enabled = tuple[Authenticator, list[str]]


async def test_it_does_not_count_before_a_code_was_shown(api: Api, admin: Browser, clock: FakeClock) -> None:
    made = await admin.call("user.enableTotp")
    phone = Authenticator(made["otpauthUri"], clock)
    assert made["otpauthUri"].startswith("otpauth://totp/")
    assert len(made["recoveryCodes"]) == 10
    assert (await admin.sign_in())["codeRequired"] is False
    wrong = "000000" if phone.code() != "000000" else "111111"
    await admin.call("user.confirmTotp", 403, code=wrong)
    await admin.call("user.disableTotp", 412, code=phone.code())
    await admin.call("user.confirmTotp", code=phone.code())
    await admin.call("user.confirmTotp", 412, code=phone.code(1))
    await admin.call("user.enableTotp", 409)
    async with api.store.read() as conn:
        stored = str((await conn.exec_driver_sql("SELECT * FROM account")).all())
    assert phone.secret not in stored
    assert made["recoveryCodes"][0].replace("-", "") not in stored


async def test_signing_in_takes_a_code(admin: Browser, enabled: Enabled) -> None:
    phone, _ = enabled
    admin.forget()
    answer = await admin.sign_in()
    assert answer == {"codeRequired": True, "csrfToken": None, "expiresAt": None, "user": None}
    assert not admin.client.cookies
    assert (await admin.sign_in(401, code=phone.code(5)))["message"].startswith("the code is wrong")
    assert not admin.client.cookies
    assert (await admin.sign_in(code=phone.code()))["user"]["name"] == "Ann"
    await admin.call("user.me", method="GET")


async def test_a_code_is_no_password(admin: Browser, enabled: Enabled) -> None:
    phone, _ = enabled
    assert "password" in (await admin.sign_in(401, password="another password", code=phone.code()))["message"]


async def test_a_code_opens_once_and_so_does_none_before_it(admin: Browser, clock: FakeClock, enabled: Enabled) -> None:
    phone, _ = enabled
    late, now, early = phone.code(-1), phone.code(), phone.code(1)
    await admin.sign_in(code=now)
    await admin.sign_in(401, code=now)
    await admin.sign_in(401, code=late)
    await admin.sign_in(code=early)
    clock.advance(STEP_SECONDS)
    await admin.sign_in(401, code=early)
    await admin.sign_in(401, code=phone.code(2))
    await admin.sign_in(code=phone.code(1))


async def test_a_recovery_code_opens_once(admin: Browser, enabled: Enabled) -> None:
    _, (first, second, *_) = enabled
    await admin.sign_in(code=first.upper().replace("-", " "))
    await admin.sign_in(401, code=first)
    await admin.call("user.disableTotp", 403, code=first)
    await admin.call("user.disableTotp", code=second)
    assert (await admin.sign_in())["codeRequired"] is False
    await admin.call("user.disableTotp", 412, code="123456")


async def test_confirming_it_ends_the_other_sessions(admin: Browser, clock: FakeClock) -> None:
    other = admin.kept()
    admin.forget()
    await admin.sign_in()
    phone = Authenticator((await admin.call("user.enableTotp"))["otpauthUri"], clock)
    await admin.call("user.confirmTotp", code=phone.code())
    await admin.call("user.me", method="GET")
    admin.take_back(other)
    await admin.call("user.me", 401, method="GET")


async def test_tokens_have_no_say_in_it(api: Api) -> None:
    for name, data in (("user.enableTotp", {}), ("user.confirmTotp", {"code": "123456"})):
        await api.call(name, 403, **data)


async def test_a_session_open_at_somebody_elses_desk_is_no_way_to_try_all_codes(
    admin: Browser, enabled: Enabled, clock: FakeClock
) -> None:
    phone, _ = enabled
    for _ in range(6):
        await admin.call("user.disableTotp", 403, code=phone.code(7))
    error = await admin.call("user.disableTotp", 429, code=phone.code())
    assert error["code"] == "TOO_MANY_REQUESTS"
    await admin.call("user.update", 429, method="PATCH", password="x" * 8 + "yz12", currentPassword=PASSWORD)
    clock.advance(2)
    await admin.call("user.disableTotp", code=phone.code())
