"""The API over a real store. No loop and no agent runs here: what is declared stays `pending`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from coordinator.control.leases import LeaseBook
from coordinator.control.samples import Samples
from coordinator.control.uses import Uses
from coordinator.doors.application import make_app
from coordinator.doors.limits import Limits
from coordinator.logs.broker import LogBroker
from coordinator.procedures.bootstrap import first_start
from coordinator.procedures.context import Services
from coordinator.procedures.proofs import Proofs
from coordinator.procedures.remembered import Remembered
from coordinator.store.audit import Notary
from coordinator.store.database import Store
from coordinator.store.vault import Vault
from shared.kit.clock import SystemClock
from shared.kit.seal import SigningKey
from tests.component.api.caller import Api, Home
from tests.fakes.registries import logins

PLENTY = Limits(reads=1_000_000, writes=1_000_000, streams=1_000)
"""Tests call far more often than anybody may by default."""


class NoNodes:
    """Where frames to nodes go while none is connected."""

    def send(self, node_id: str, frame: Any) -> bool:
        return False


def services_on(store: Store) -> Services:
    clock = SystemClock()
    signing = SigningKey.generate()
    broker = LogBroker(clock)
    broker.attach(NoNodes())
    return Services(
        store=store,
        vault=Vault(b"k" * 32),
        notary=Notary(signing),
        clock=clock,
        leases=LeaseBook(),
        samples=Samples(),
        broker=broker,
        url="http://coordinator.test",
        hub_key=signing.public,
        remembered=Remembered(store.changes, clock),
        proofs=Proofs(Uses(store)),
        logins=logins(),
    )


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Api]:
    services = services_on(store)
    token = await first_start(store, services.vault, tmp_path)
    assert token is not None
    transport = httpx.ASGITransport(cast("Any", make_app(services, limits=PLENTY)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        yield Api(client, services, token)


@pytest.fixture
async def home(api: Api) -> Home:
    (organization,) = await api.call("organization.all", method="GET")
    (project,) = await api.call("project.all", method="GET", organizationId=organization["id"])
    (cluster,) = await api.call("cluster.all", method="GET", organizationId=organization["id"])
    return Home(organization["id"], project["id"], cluster["id"])
