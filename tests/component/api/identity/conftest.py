"""People and browsers: the API with a clock that tests move, hashes that cost little, and no limits but those under test."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from argon2 import PasswordHasher

from coordinator.control.uses import Uses
from coordinator.doors.application import make_app
from coordinator.procedures.bootstrap import first_start
from coordinator.procedures.context import Services
from coordinator.procedures.passwords import Passwords
from coordinator.procedures.proofs import Proofs
from coordinator.procedures.remembered import Remembered
from coordinator.store.database import Store
from tests.component.api.caller import Api
from tests.component.api.conftest import PLENTY, services_on
from tests.component.api.identity.browser import URL, Browser
from tests.fakes.clock import FakeClock

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(database_url: str, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await Store.open(database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
def proofs(store: Store) -> Proofs:
    return Proofs(Uses(store), Passwords(CHEAP))


@pytest.fixture
def url() -> str:
    """Where browsers reach it."""
    return URL


@pytest.fixture
def services(store: Store, clock: FakeClock, proofs: Proofs, url: str) -> Services:
    remembered = Remembered(store.changes, clock)
    return replace(services_on(store), clock=clock, proofs=proofs, url=url, remembered=remembered)


@pytest.fixture
async def api(services: Services, proofs: Proofs, tmp_path: Path) -> AsyncIterator[Api]:
    token = await first_start(services.store, services.vault, tmp_path)
    assert token is not None
    transport = httpx.ASGITransport(cast("Any", make_app(services, limits=PLENTY)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=services.url) as client:
        yield Api(client, services, token)
    await proofs.close()


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    """One that nobody has signed in with."""
    async with httpx.AsyncClient(transport=api.client._transport, base_url=api.services.url) as client:
        yield Browser(client)


@pytest.fixture
async def admin(api: Api, browser: Browser) -> Browser:
    """A browser of the administrator, who has a password by now."""
    await browser.sign_up(api.token)
    return browser
