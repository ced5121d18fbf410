"""Following logs: what appears is joined, whenever it appears, and the stream ends with its container."""

import asyncio
from functools import partial
from typing import Any

import pytest

from coordinator.procedures import container_logs
from coordinator.store import containers, instances
from coordinator.store.errors import StoreError
from shared.wire.frames import LogSubscribe
from tests.component.api.caller import Api, Home, enrolled, make, running_instance
from tests.fakes.seeds import until


class Nodes:
    """Takes every frame, as connected nodes do."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def send(self, node_id: str, frame: Any) -> bool:
        if isinstance(frame, LogSubscribe):
            self.asked.append(frame.instance_id)
        return True


@pytest.fixture
def fleet(api: Api) -> Nodes:
    nodes = Nodes()
    api.services.broker.attach(nodes)
    return nodes


async def gone(api: Api, container_id: str) -> None:
    await api.call("container.remove", 204, containerId=container_id)
    async with api.store.read() as conn:
        held = [one.id for one in await instances.of_container(conn, container_id)]
    assert held
    await api.store.write(partial(_purged, container_id=container_id))


async def _purged(tx: Any, container_id: str) -> None:
    await tx.conn.exec_driver_sql(f"UPDATE instance SET phase = 512 WHERE container_id = '{container_id}'")
    assert await containers.purge(tx, container_id)


async def test_a_follower_joins_what_came_between_looking_and_listening_and_survives_the_database(
    api: Api, home: Home, fleet: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(api, home)
    node_id = await enrolled(api, home, "n1")
    look = container_logs._readable
    looks = 0

    async def unlucky(*given: Any) -> list[tuple[str, str]]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise StoreError("away for a moment")
        found = await look(*given)
        if looks == 1:  # appears after the first look, with nobody listening yet
            await running_instance(api, home, made, node_id)
        return found

    monkeypatch.setattr(container_logs, "_readable", unlucky)
    monkeypatch.setattr(container_logs, "RETRY_SECONDS", 0.01)
    headers = {"Authorization": f"Bearer {api.token}"}
    params = {"containerId": made["id"], "follow": "true"}
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = group.create_task(api.client.get("/api/container.logs", params=params, headers=headers))

        async def asked() -> bool:
            return len(fleet.asked) == 1

        await until(asked, "the node was asked for lines")
        await running_instance(api, home, made, node_id, slot=1)

        async def asked_again() -> bool:
            return len(fleet.asked) == 2

        await until(asked_again, "the second instance was joined")
        await gone(api, made["id"])
        assert (await reading).status_code == 200
