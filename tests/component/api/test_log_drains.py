"""log.drains and its changes: what is stored, what is shown, who may, and what a test of one says."""

import asyncio
import json
import socket
from typing import Any

import pytest
from sqlalchemy import select

from coordinator.logs.drains.shipper import LogShipper
from coordinator.store.tables import log_drain
from tests.component.api.caller import Api, Home, make
from tests.fakes.receiver import Receiver
from tests.fakes.seeds import until

LOKI = {"name": "loki", "type": "loki", "url": "https://loki.example:3100"}


async def create(api: Api, home: Home, expect: int = 201, **fields: Any) -> Any:
    return await api.call("log.createDrain", expect, organizationId=home.organization_id, **{**LOKI, **fields})


async def listed(api: Api, home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await api.call("log.drains", method="GET", organizationId=home.organization_id)
    return found


async def test_a_drain_is_made_listed_changed_and_removed(api: Api, home: Home) -> None:
    auth = {"type": "basic", "username": "me", "password": "hunter22"}
    made = await create(api, home, auth=auth, headers={"X-Scope-OrgID": "tenant-1"}, labels={"tier": "gold"})
    assert made["auth"] == {"type": "basic", "username": "me", "password": "***"}
    assert made["headers"] == {"X-Scope-OrgID": "***"}
    assert made["status"] == {
        "state": "delivering",
        "delivered": 0,
        "dropped": 0,
        "buffered": 0,
        "lastError": None,
        "lastErrorAt": None,
        "lastDeliveredAt": None,
    }
    assert await listed(api, home) == [made]
    changed = await api.call("log.updateDrain", method="PATCH", drainId=made["id"], name="other", enabled=False)
    assert (changed["name"], changed["enabled"], changed["status"]["state"]) == ("other", False, "disabled")
    assert changed["auth"] == made["auth"]
    await api.call("log.removeDrain", 204, method="DELETE", drainId=made["id"])
    assert await listed(api, home) == []
    await api.call("log.removeDrain", 404, method="DELETE", drainId=made["id"])


async def test_secrets_rest_concealed_and_survive_being_sent_back(api: Api, home: Home) -> None:
    made = await create(api, home, auth={"type": "bearer", "token": "tok-hunter22"}, headers={"X-Key": "key-hunter22"})
    changed = await api.call(
        "log.updateDrain", method="PATCH", drainId=made["id"], auth=made["auth"], headers=made["headers"], gzip=False
    )
    assert changed["gzip"] is False
    async with api.store.read() as conn:
        row = (await conn.execute(select(log_drain))).one()
    assert "hunter22" not in json.dumps([str(value) for value in row])
    assert "hunter22" not in json.dumps([made, changed, await listed(api, home)])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://me:pw@x"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "https://x:99999"}, "url"),
        ({"type": "syslog", "url": "https://x"}, "url"),
        ({"type": "syslog", "url": "tcp://x"}, "url"),
        ({"type": "syslog", "url": "tcp://x:514", "auth": {"type": "bearer", "token": "t"}}, "auth"),
        ({"type": "kafka"}, "type"),
        ({"name": "x"}, "name"),
        ({"auth": {"type": "bearer"}}, "auth.token"),
        ({"auth": {"type": "bearer", "token": "***"}}, "auth"),
        ({"auth": {"type": "basic", "password": "p"}}, "auth.username"),
        ({"headers": {"Authorization": "x"}}, "headers.Authorization"),
        ({"headers": {"X-A": "***"}}, "headers.X-A"),
        ({"headers": {"X-A": "a\r\nX-B: c"}}, "headers"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers"),
        ({"labels": {"not a label": "x"}}, "labels"),
        ({"facility": 24}, "facility"),
        ({"caCertificate": "nonsense"}, "caCertificate"),
    ],
)
async def test_bad_input_names_the_field(api: Api, home: Home, fields: dict[str, Any], named: str) -> None:
    error = await create(api, home, 400, **fields)
    assert error["message"].startswith(named) or error["message"].endswith(f"$.{named}"), error["message"]


async def test_names_are_taken_and_there_is_a_most(api: Api, home: Home) -> None:
    await create(api, home)
    await create(api, home, 409)
    for number in range(19):
        await create(api, home, name=f"drain-{number}")
    await create(api, home, 412, name="one-too-many")


async def test_filters_name_things_of_the_organization(api: Api, home: Home) -> None:
    made = await make(api, home)
    shown = await create(api, home, filter={"containerId": made["id"], "search": "error"})
    assert shown["filter"]["containerId"] == made["id"]
    stranger = await api.as_user("stranger@example.com")
    own = await stranger.call("organization.create", 201, name="Elsewhere")
    fields = {**LOKI, "organizationId": own["id"], "filter": {"containerId": made["id"]}}
    await stranger.call("log.createDrain", 404, **fields)


async def test_a_new_address_does_not_get_the_old_secrets(api: Api, home: Home) -> None:
    made = await create(api, home, auth={"type": "bearer", "token": "tok-hunter22"})
    elsewhere = {"drainId": made["id"], "url": "https://evil.example"}
    for fields in ({}, {"auth": {"type": "bearer", "token": "***"}}):
        await api.call("log.updateDrain", 400, method="PATCH", **elsewhere, **fields)
    await api.call("log.updateDrain", method="PATCH", drainId=made["id"], url=LOKI["url"] + "/other/path")
    await api.call("log.updateDrain", method="PATCH", **elsewhere, auth={"type": "bearer", "token": "new"})


async def test_who_may(api: Api, home: Home) -> None:
    made = await create(api, home)
    viewer = await api.as_user("viewer@example.com", "viewer", home.organization_id)
    developer = await api.as_user("dev@example.com", "developer", home.organization_id)
    stranger = await api.as_user("stranger@example.com")
    assert len(await listed(viewer, home)) == 1
    for caller, status in ((viewer, 403), (developer, 403), (stranger, 404)):
        await create(caller, home, status, name="mine")
        for name, method in (("updateDrain", "PATCH"), ("removeDrain", "DELETE"), ("testDrain", "POST")):
            await caller.call(f"log.{name}", status, method=method, drainId=made["id"])


async def test_a_test_says_exactly_what_failed(api: Api, home: Home) -> None:
    async with Receiver().running() as receiver:
        made = await create(api, home, type="http", url=receiver.url)
        tested = await api.call("log.testDrain", drainId=made["id"])
        assert (tested["ok"], tested["error"]) == (True, None)
        assert "a test of the drain loki" in receiver.notices()[0]["line"]
        receiver.answers.append((403, {}, "no such tenant"))
        tested = await api.call("log.testDrain", drainId=made["id"])
        assert tested["ok"] is False
        assert tested["error"].endswith("answered 403: no such tenant")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    await api.call("log.updateDrain", method="PATCH", drainId=made["id"], url=f"http://127.0.0.1:{port}")
    tested = await api.call("log.testDrain", drainId=made["id"])
    assert tested["ok"] is False
    assert f"127.0.0.1:{port}" in tested["error"]


async def test_status_and_metrics_come_from_the_shipper(api: Api, home: Home, tmp_path: Any) -> None:
    services = api.services
    shipper = LogShipper(services.store, services.vault, services.broker, services.clock, tmp_path / "drains", 1 << 20)
    services.drains.couriers = shipper.board.couriers
    running = asyncio.create_task(shipper.run())
    made = await create(api, home, auth={"type": "bearer", "token": "tok"})

    async def seen() -> bool:
        return services.drains.status(made["id"]) is not None

    await until(seen)
    courier = services.drains.couriers[made["id"]]
    courier.fail("on fire")
    (shown,) = await listed(api, home)
    assert (shown["status"]["state"], shown["status"]["lastError"]) == ("failing", "on fire")
    response = await api.client.get("/metrics", headers={"Authorization": f"Bearer {api.token}"})
    labels = f'organization="{home.organization_id}",type="loki"'
    assert f"argosy_log_drains_failing{{{labels}}} 1.0" in response.text
    assert f"argosy_log_drain_buffered_lines{{{labels}}} 0.0" in response.text
    assert f'argosy_log_drain_lines_total{{fate="delivered",{labels}}} 0.0' in response.text
    services.broker.close()
    running.cancel()
    await asyncio.wait({running})
