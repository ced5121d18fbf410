"""Rate limits as a caller meets them: headers on every answer, refusals that say when to come back, one budget for all doors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from coordinator.doors.application import make_app
from coordinator.doors.limits import Limits
from tests.component.api.asgi import opened
from tests.component.api.caller import Api, Home, make
from tests.component.api.conftest import PLENTY

NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@asynccontextmanager
async def limited(api: Api, **limits: int) -> AsyncIterator[Api]:
    """The same installation behind a door of its own, with these limits."""
    transport = httpx.ASGITransport(cast("Any", make_app(api.services, limits=Limits(**limits))))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator.test") as client:
        yield Api(client, api.services, api.token)


def told(response: httpx.Response) -> tuple[int, int]:
    """(limit, remaining)"""
    limit, remaining, reset = (int(response.headers[name]) for name in NAMES)
    assert reset % 60 == 0
    return limit, remaining


def bearer(api: Api) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.token}"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/organization.all", 200),
        ("GET", "/api/system.health", 200),
        ("POST", "/api/organization.create", 400),
        ("GET", "/api/container.one?containerId=ctr_none", 404),
        ("GET", "/api/no.such", 404),
        ("GET", "/nowhere/at/all", 404),
        ("DELETE", "/api/organization.all", 405),
        ("PUT", "/metrics", 405),
        ("GET", "/metrics", 200),
        ("OPTIONS", "/api/organization.all", 204),
    ],
)
async def test_every_answer_tells_what_is_left(api: Api, method: str, path: str, status: int) -> None:
    response = await api.client.request(method, path, headers=bearer(api))
    assert response.status_code == status, response.text
    assert set(NAMES) <= {name.title().replace("Ratelimit", "RateLimit") for name in response.headers}
    limit, remaining = told(response)
    assert remaining <= limit


async def test_an_answer_to_a_stranger_tells_too(api: Api) -> None:
    response = await api.client.get("/api/organization.all")
    assert response.status_code == 401
    told(response)


async def test_a_body_that_is_too_large_is_told_too(api: Api) -> None:
    response = await api.client.post(
        "/api/organization.create",
        content=b" " * 2_000_000,
        headers={**bearer(api), "Content-Type": "application/json"},
    )
    assert response.status_code == 413
    told(response)


async def test_reads_and_writes_are_counted_apart_and_refused_with_a_time(api: Api) -> None:
    async with limited(api, reads=3, writes=1) as caller:
        for left in (2, 1, 0):
            response = await caller.client.get("/api/organization.all", headers=bearer(api))
            assert told(response) == (3, left)
        refused = await caller.client.get("/api/organization.all", headers=bearer(api))
        assert refused.status_code == 429
        assert told(refused) == (3, 0)
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        error = refused.json()["error"]
        assert (error["code"], error["httpStatus"]) == ("TOO_MANY_REQUESTS", 429)
        written = await caller.client.post("/api/organization.create", json={"name": "Another"}, headers=bearer(api))
        assert (written.status_code, told(written)) == (201, (1, 0))
        again = await caller.client.post("/api/organization.create", json={"name": "A third"}, headers=bearer(api))
        assert again.status_code == 429
        assert [one["name"] for one in await api.call("organization.all", method="GET")].count("A third") == 0


async def test_one_budget_for_every_door(api: Api) -> None:
    async with limited(api, reads=3) as caller:
        for path in ("/api/organization.all", "/api/organizations", "/api/trpc/organization.all"):
            assert (await caller.client.get(path, headers=bearer(api))).status_code == 200
        for path in ("/api/organization.all", "/api/organizations", "/api/trpc/organization.all", "/metrics"):
            refused = await caller.client.get(path, headers=bearer(api))
            assert refused.status_code == 429, path
            assert "Retry-After" in refused.headers


async def test_a_batch_pays_for_each_of_its_calls(api: Api) -> None:
    async with limited(api, reads=10) as caller:
        response = await caller.client.get(
            "/api/trpc/system.whoami,system.whoami,system.whoami?batch=1&input={}", headers=bearer(api)
        )
        assert told(response) == (10, 7)


async def test_credentials_are_counted_apart(api: Api) -> None:
    other = await api.as_user("other@example.test")
    async with limited(api, reads=1) as caller:
        assert (await caller.client.get("/api/system.whoami", headers=bearer(api))).status_code == 200
        assert (await caller.client.get("/api/system.whoami", headers=bearer(api))).status_code == 429
        assert (await caller.client.get("/api/system.whoami", headers=bearer(other))).status_code == 200


async def test_strangers_are_refused_and_do_not_use_up_what_others_have(api: Api) -> None:
    async with limited(api, reads=2) as caller:
        guesses = [
            (await caller.client.get("/api/system.whoami", headers={"Authorization": f"Bearer argosy_{index}"}))
            for index in range(4)
        ]
        assert [one.status_code for one in guesses] == [401, 401, 429, 429]
        assert (await caller.client.get("/api/system.health")).status_code == 429
        assert (await caller.client.get("/api/system.whoami", headers=bearer(api))).status_code == 200


class Nobody:
    """No node is connected."""

    def send(self, node_id: str, frame: object) -> bool:
        return False


async def test_streams_are_counted_while_they_are_open(api: Api, home: Home) -> None:
    api.services.broker.attach(Nobody())
    made = await make(api, home)
    path = f"/api/container.logs?containerId={made['id']}&follow=true"
    app = make_app(api.services, limits=replace(PLENTY, streams=1))
    first = await opened(app, path, api.token)
    assert first.status == 200
    second = await opened(app, path, api.token)
    assert second.status == 429
    assert second.headers["retry-after"] == "5"
    await second.leave()
    await first.leave()

    async def has_room() -> bool:
        """The server notices in its own time that a reader has left."""
        third = await opened(app, path, api.token)
        await third.leave()
        return third.status == 200

    async with asyncio.timeout(10):
        while not await has_room():
            pass


async def test_no_limit_is_told_by_no_header(api: Api) -> None:
    async with limited(api, reads=0, writes=0, streams=0) as caller:
        response = await caller.client.get("/api/organization.all", headers=bearer(api))
        assert response.status_code == 200
        assert not set(NAMES) & set(response.headers)
