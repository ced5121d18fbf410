"""Guessing passwords and codes: slower with every failure, whoever is guessed at, and no answer tells more than another."""

import asyncio
import statistics
import time
from collections import Counter

import httpx
import pytest
from argon2 import PasswordHasher

from coordinator.procedures.passwords import Passwords
from coordinator.procedures.throttle import ACCOUNT, ADDRESS, wait
from coordinator.store.attempts import AttemptsRecord
from shared.kit.network import neighbourhood
from tests.component.api.caller import Api
from tests.component.api.identity.browser import EMAIL, PASSWORD, Browser
from tests.fakes.clock import FakeClock

WRONG = "not the password"


async def fail(browser: Browser, times: int, email: str = EMAIL) -> None:
    for _ in range(times):
        await browser.sign_in(401, email=email, password=WRONG)


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.test"])
async def test_each_failure_costs_twice_the_time_of_the_one_before(
    admin: Browser, clock: FakeClock, email: str
) -> None:
    await fail(admin, ACCOUNT.free, email)
    expected = ACCOUNT.first
    for _ in range(4):
        await fail(admin, 1, email)
        response = await admin.send("session.signIn", email=email, password=WRONG)
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) == int(expected)
        assert response.json()["error"]["code"] == "TOO_MANY_REQUESTS"
        clock.advance(expected)
        expected *= 2


async def test_not_even_the_right_password_gets_in_too_early(admin: Browser, clock: FakeClock) -> None:
    await fail(admin, ACCOUNT.free + 1)
    admin.forget()
    await admin.sign_in(429)
    assert not admin.client.cookies
    clock.advance(ACCOUNT.first)
    await admin.sign_in()
    await fail(admin, ACCOUNT.free)  # and starts afresh
    await admin.sign_in()


async def test_guesses_at_the_same_moment_are_counted_one_by_one(admin: Browser) -> None:
    answers = await asyncio.gather(
        *(admin.send("session.signIn", email=EMAIL, password=WRONG) for _ in range(ACCOUNT.free + 10))
    )
    assert Counter(one.status_code for one in answers) == {401: ACCOUNT.free + 1, 429: 9}


async def test_one_address_does_not_guess_at_many_accounts(admin: Browser, clock: FakeClock) -> None:
    for index in range(ADDRESS.free + 1):
        await fail(admin, 1, f"somebody-{index}@example.test")
    await admin.sign_in(429, email="another@example.test")
    clock.advance(ADDRESS.first)
    await admin.sign_in()  # one's own account does not buy new guesses at others
    await fail(admin, 1, "another@example.test")
    await admin.sign_in(429, email="yet-another@example.test")


async def test_another_address_is_not_held_up_by_it(admin: Browser) -> None:
    for index in range(ADDRESS.free + 1):
        await fail(admin, 1, f"somebody-{index}@example.test")
    transport = httpx.ASGITransport(admin.client._transport.app, client=("2001:db8::1", 1))  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url=admin.client.base_url) as client:
        await Browser(client).sign_in()


async def test_guessing_at_invitations_is_guessing_too(browser: Browser) -> None:
    for _ in range(ADDRESS.free + 1):
        await browser.call("session.signUp", 403, token="argosy_inv_" + "x" * 32, password=PASSWORD, name="Eve")
    await browser.call("session.signUp", 429, token="argosy_inv_" + "x" * 32, password=PASSWORD, name="Eve")


async def test_failures_are_forgotten_after_a_day(admin: Browser, clock: FakeClock) -> None:
    await fail(admin, ACCOUNT.free + 1)
    clock.advance(86_400)
    await fail(admin, ACCOUNT.free)
    await admin.sign_in()


def test_a_wait_is_bounded_whatever_the_clock_does() -> None:
    record = AttemptsRecord(key="k", failures=10_000, last_at=1_000.0)
    assert wait(ACCOUNT, record, 1_000.0) == ACCOUNT.longest
    assert wait(ACCOUNT, record, 0.0) == ACCOUNT.longest
    assert wait(ACCOUNT, record, 1_000.0 + ACCOUNT.longest) == 0
    assert wait(ACCOUNT, None, 0.0) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_network_of_ipv6_is_one_neighbour(one: str, other: str, same: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) is same


async def test_an_unknown_account_takes_as_long_as_a_known_one() -> None:
    passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=16 * 1024, parallelism=1))
    known = await passwords.hash(PASSWORD)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(15):
        for exists in (True, False):
            began = time.perf_counter()
            assert not await passwords.matches(known if exists else None, WRONG)
            times[exists].append(time.perf_counter() - began)
    passwords.close()
    fastest = {exists: min(values) for exists, values in times.items()}
    assert 0.6 < fastest[True] / fastest[False] < 1.6
    assert statistics.median(times[False]) > 0.001


async def test_a_flood_of_sign_ins_waits_or_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.procedures.passwords.MOST_WAITING", 3)
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    done = await asyncio.gather(*(passwords.hash(PASSWORD) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, Exception) for one in done) == 2
    assert await passwords.hash(PASSWORD)
    passwords.close()


async def test_hashes_are_renewed_when_the_parameters_change(
    api: Api, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stored() -> str:
        async with api.store.read() as conn:
            row = await conn.exec_driver_sql(f"SELECT password_hash FROM account WHERE email = '{EMAIL}'")
            return str(row.scalar())

    before = await stored()
    assert "$argon2id$" in before
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    monkeypatch.setattr(api.services.proofs.passwords, "_hasher", stronger)
    await admin.sign_in()
    after = await stored()
    assert "t=2" in after
    await admin.sign_in()
    assert await stored() == after
