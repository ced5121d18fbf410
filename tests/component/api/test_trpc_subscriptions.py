"""Subscriptions over tRPC's wire: the events of Server-Sent Events as `httpSubscriptionLink` reads them, errors and resumption."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from coordinator.doors.trpc.subscribing import INACTIVITY_MS
from tests.component.api.caller import Api, Home, make
from tests.component.api.staged import Stage
from tests.component.api.test_following import Nodes
from tests.fakes.seeds import until

Event = dict[str, Any]
CONNECTED: Event = {"event": "connected", "data": {"reconnectAfterInactivityMs": INACTIVITY_MS}}
RETURN: Event = {"event": "return", "data": ""}


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage().declared() as stage:
        yield stage


async def subscribe(
    api: Api, path: str, given: Any = None, *, params: dict[str, str] | None = None, **headers: str
) -> httpx.Response:
    params = {**({} if given is None else {"input": json.dumps(given)}), **(params or {})}
    headers = {"authorization": f"Bearer {api.token}", "accept": "text/event-stream", **headers}
    async with asyncio.timeout(20):
        return await api.client.get(f"/api/trpc/{path}", params=params, headers=headers)


def events(response: httpx.Response) -> list[Event]:
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    found = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        event: Event = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append({**event, "data": json.loads(event["data"]) if event["data"] else ""})
    return found


def tick(number: int) -> Event:
    return {"id": str(number), "data": {"number": number, "cursor": str(number)}}


def refusal(response: httpx.Response) -> tuple[str, int]:
    connected, refused = events(response)
    assert connected == CONNECTED
    assert refused["event"] == "serialized-error"
    return refused["data"]["data"]["code"], refused["data"]["code"]


async def test_events_carry_their_cursor_as_id_and_the_end_is_told(api: Api, stage: Stage) -> None:
    response = await subscribe(api, "test.ticks", {"count": 2})
    assert events(response) == [CONNECTED, tick(1), tick(2), RETURN]


@pytest.mark.parametrize(
    "came_back",
    [
        {"last-event-id": "2"},
        {"params": {"lastEventId": "2"}},
        {"params": {"Last-Event-Id": "2"}},
        {"given": {"count": 4, "lastEventId": "2"}},
        {"given": {"count": 4, "cursor": "1"}, "last-event-id": "2"},
        {"given": {"count": 4, "lastEventId": "1"}, "last-event-id": "2"},
    ],
)
async def test_a_client_that_comes_back_goes_on_behind_its_last_event(
    api: Api, stage: Stage, came_back: dict[str, Any]
) -> None:
    response = await subscribe(api, "test.ticks", **{"given": {"count": 4}, **came_back})
    assert events(response) == [CONNECTED, tick(3), tick(4), RETURN]


@pytest.mark.parametrize("came_back", [{"last-event-id": "-"}, {"given": {"count": 1, "lastEventId": "-"}}])
async def test_an_event_without_a_place_leads_back_to_the_start(
    api: Api, stage: Stage, came_back: dict[str, Any]
) -> None:
    response = await subscribe(api, "test.ticks", **{"given": {"count": 1}, **came_back})
    assert events(response) == [CONNECTED, tick(1), RETURN]


async def test_it_is_recognised_without_the_accept_header_where_it_can_be_nothing_else(api: Api, stage: Stage) -> None:
    response = await subscribe(api, "test.ticks", {"count": 1}, accept="*/*")
    assert events(response) == [CONNECTED, tick(1), RETURN]


async def test_an_error_is_an_event_before_and_after_the_first(api: Api, stage: Stage) -> None:
    assert refusal(await subscribe(api, "test.ticks", {"count": "x"})) == ("BAD_REQUEST", -32600)
    assert refusal(await subscribe(api, "test.fly")) == ("NOT_FOUND", -32004)
    assert refusal(await subscribe(api, "test.ticks", {"count": 1}, authorization="x")) == ("UNAUTHORIZED", -32001)
    last = events(await subscribe(api, "test.ticks", {"count": 1, "fail": True}))[-1]
    assert last["event"] == "serialized-error"
    assert last["data"] == {
        "message": "as asked",
        "code": -32012,
        "data": {"code": "PRECONDITION_FAILED", "httpStatus": 412, "path": "test.ticks"},
    }
    assert stage.closed == 1


async def test_what_has_no_events_and_what_ends_cannot_be_subscribed_to(api: Api, home: Home, stage: Stage) -> None:
    api.services.broker.attach(Nodes())
    assert refusal(await subscribe(api, "system.version"))[0] == "BAD_REQUEST"
    made = await make(api, home)
    assert refusal(await subscribe(api, "container.logs", {"containerId": made["id"]}))[0] == "BAD_REQUEST"


async def test_a_query_that_goes_on_is_subscribed_to_and_not_asked(api: Api, home: Home) -> None:
    api.services.broker.attach(Nodes())
    made = await make(api, home)
    following = {"containerId": made["id"], "follow": True}
    asked = await subscribe(api, "container.logs", following, accept="*/*")
    assert asked.status_code == 400
    assert "subscribe" in asked.json()["error"]["message"]
    batched = await subscribe(api, "container.logs", {"0": following}, params={"batch": "1"})
    assert "subscribe" in batched.json()[0]["error"]["message"]
    await api.call("container.remove", 204, containerId=made["id"])


async def test_subscriptions_are_not_batched(api: Api, stage: Stage) -> None:
    response = await subscribe(api, "test.ticks", {"0": {"count": 1}}, params={"batch": "1"})
    (one,) = response.json()
    assert (response.status_code, one["error"]["data"]["code"]) == (400, "BAD_REQUEST")


async def test_a_client_is_to_come_back_after_the_coordinator_stops(api: Api, stage: Stage) -> None:
    api.services.broker.close()
    assert events(await subscribe(api, "test.ticks", {"count": 1})) == [CONNECTED, tick(1)]


async def test_a_quiet_stream_is_kept_open(api: Api, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.doors.streams.KEEPALIVE_SECONDS", 0.01)
    stage.allow(0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = group.create_task(subscribe(api, "test.ticks", {"count": 1}))
        await until(stage.is_quiet_for(3), "nothing happens for some keepalives")
        stage.allow(1)
        first, *middle, last_but_one, last = events(await reading)
    assert (first, last_but_one, last) == (CONNECTED, tick(1), RETURN)
    assert middle
    assert all(one == {"event": "ping", "data": ""} for one in middle)


async def test_a_browser_brings_its_token_in_the_connections_parameters(api: Api, stage: Stage) -> None:
    async def connect(params: str, **headers: str) -> httpx.Response:
        given = {"connectionParams": params}
        headers = {"accept": "text/event-stream", **headers}
        query = {"input": '{"count":1}', **given}
        return await api.client.get("/api/trpc/test.ticks", params=query, headers=headers)

    good = json.dumps({"token": api.token})
    assert events(await connect(good)) == [CONNECTED, tick(1), RETURN]
    assert refusal(await connect('{"token":"argosy_wrong"}'))[0] == "UNAUTHORIZED"
    assert refusal(await connect("null"))[0] == "UNAUTHORIZED"
    assert refusal(await connect(good, authorization="Bearer argosy_wrong"))[0] == "UNAUTHORIZED"
    for wrong in ("{", "[]", '{"token":7}', '{"token":"a\\nb"}', "[" * 10_000, '{"token":"' + "x" * 20_000 + '"}'):
        assert refusal(await connect(wrong))[0] == "BAD_REQUEST", wrong[:20]
