"""The application in a thread with an event loop of its own, for tools that are not asynchronous, with something of everything
in it for them to find."""

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from coordinator.doors.application import make_app
from coordinator.procedures.bootstrap import first_start
from coordinator.store.database import Store
from tests.component.api.caller import Api
from tests.component.api.conftest import PLENTY, services_on

R = TypeVar("R")


@dataclass
class World:
    """`ids`: of things the administrator has, by the names that fields call them. `seed` makes them anew where they have gone,
    which it looks for once something was `touched`."""

    portal: BlockingPortal
    api: Api
    ids: dict[str, str] = field(default_factory=dict)
    touched: bool = True

    def request(self, method: str, url: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            return await self.api.client.request(method, url, **given)

        return self.run(ask)

    def run(self, function: Callable[[], Awaitable[R]]) -> R:
        return self.portal.call(function)

    def seed(self) -> None:
        if self.touched and not (self.ids and self._is_whole()):
            self.ids = self.run(self._make)
        self.touched = False

    def _is_whole(self) -> bool:
        headers = {"Authorization": f"Bearer {self.api.token}"}
        found = self.request("GET", f"/api/containers/{self.ids['containerId']}", headers=headers)
        return found.status_code == 200 and found.json()["result"]["data"]["status"] != "deleting"

    async def _make(self) -> dict[str, str]:
        make = self.api.call
        organization = await make("organization.create", 201, name="fuzzed")
        owned = {"organizationId": organization["id"]}
        cluster = await make("cluster.create", 201, **owned, name="fuzzed", provider="byo", orchestrator="docker")
        project = await make("project.create", 201, **owned, name="fuzzed", clusterId=cluster["id"])
        declared = {"projectId": project["id"], "clusterId": cluster["id"]}
        container = await make("container.create", 201, **declared, name="fuzzed", image="fuzzed:1")
        return {
            **owned,
            **declared,
            "containerId": container["id"],
            "environmentId": container["environmentId"],
            "releaseId": container["release"]["id"],
            "deploymentId": container["deploymentId"],
        }


@contextmanager
def world_on(url: str) -> Iterator[World]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_api_on(url)) as api:
        yield World(portal, api)


@asynccontextmanager
async def _api_on(url: str) -> Any:
    store = await Store.open(url)
    try:
        services = services_on(store)
        with tempfile.TemporaryDirectory() as directory:
            token = await first_start(store, services.vault, Path(directory))
        assert token is not None
        transport = httpx.ASGITransport(cast("Any", make_app(services, limits=PLENTY)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
            yield Api(client, services, token)
    finally:
        await store.close()
