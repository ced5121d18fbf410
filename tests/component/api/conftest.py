"""The API over a real store. No loop and no agent runs here: what is declared stays `pending`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from coordinator.control.leases import LeaseBook
from coordinator.control.samples import Samples
from coordinator.doors.application import make_app
from coordinator.logs.broker import LogBroker
from coordinator.procedures.bootstrap import first_start
from coordinator.procedures.context import Services
from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.vault import Vault
from shared.kit.clock import SystemClock
from shared.kit.seal import SigningKey
from tests.component.api.caller import Api, Home


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Api]:
    clock = SystemClock()
    vault = Vault(b"k" * 32)
    signing = SigningKey.generate()
    services = Services(
        store=store,
        vault=vault,
        notary=Notary(signing),
        clock=clock,
        leases=LeaseBook(),
        samples=Samples(),
        broker=LogBroker(clock),
        url="http://coordinator.test",
        hub_key=signing.public,
    )
    token = await first_start(store, vault, tmp_path)
    assert token is not None
    transport = httpx.ASGITransport(cast("Any", make_app(services)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        yield Api(client, services, token)


@pytest.fixture
async def home(api: Api) -> Home:
    (organization,) = await api.call("organization.all", method="GET")
    (project,) = await api.call("project.all", method="GET", organizationId=organization["id"])
    (cluster,) = await api.call("cluster.all", method="GET", organizationId=organization["id"])
    return Home(organization["id"], project["id"], cluster["id"])
